"""The folder of an sd15 engine: one card, `sd15.yaml`, that names every part of a trained person.

In: a folder. Out: `Card`, with paths that are there and errors that say which file is missing and who writes it.
Remembers: nothing. Training writes the card last, so that a folder with a card is a whole one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field

from svp_stream.config import Section, load_yaml
from svp_stream.errors import WeightsError

CARD: Final = "sd15.yaml"


class AvatarCard(Section):
    """One person: a picture (`image`, any that Pillow reads, cropped as the training data were) and the 15 numbers of
    their `HeadGeometry`; null is a head in the middle."""

    image: str
    geometry: Annotated[tuple[float, ...], Field(min_length=15, max_length=15)] | None = None


class AudioCard(Section):
    """`model`: a folder or hub id of a wav2vec2 checkpoint, or the .safetensors of the causal copy distilled from one,
    with its `readout` to the checkpoint's width. `norm`: frozen statistics of a checkpoint with a group norm. `window`
    and `look_ahead` of the rolling window, in video frames."""

    model: str = "facebook/wav2vec2-base-960h"
    norm: str | None = None
    readout: str | None = None
    window: Annotated[int, Field(ge=1, le=250)] = 50
    look_ahead: Annotated[int, Field(ge=0, le=25)] = 1


class SamplingCard(Section):
    """`few`: two steps cold and one warm, after consistency tuning. `ddim`: `steps` for every frame, before it."""

    kind: Literal["few", "ddim"] = "few"
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    warm_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    rho: Annotated[float, Field(ge=0, le=1)] = 0.9
    refresh: Annotated[int, Field(ge=0)] = 0


class Card(Section):
    """What `sd15.yaml` holds. Paths are relative to its folder; `base`, `vae`, `decoder` and `audio.model` may be hub
    ids. `lora`: low-rank changes of the base, where a stage was trained so. `style_ears`: the encoder that the style
    prior hears clips with in training (null: the wav2vec2 itself). `vae` encodes the reference (null: the base's) and
    `decoder` draws (null: the same), such as a TAESD."""

    format: Literal[1] = 1
    base: str
    vae: str | None = None
    decoder: str | None = None
    adapters: str = "adapters.safetensors"
    lora: str | None = None
    projection: str = "style_projection.safetensors"
    style_prior: str = "style_prior.safetensors"
    style_ears: str | None = None
    audio: AudioCard = AudioCard()
    sampling: SamplingCard = SamplingCard()
    size: Annotated[int, Field(ge=64, le=1024, multiple_of=64)] = 512
    avatars: Annotated[dict[str, AvatarCard], Field(min_length=1)]


@dataclass(frozen=True)
class Folder:
    """A folder and its card."""

    path: Path
    card: Card

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Raises WeightsError when there is no card, ConfigError when it is wrong."""
        if not path.is_dir():
            raise WeightsError(f"there is no folder {path}; --model names one with {CARD}, as the sd15 training writes")
        if not (path / CARD).is_file():
            raise WeightsError(f"{path} holds no {CARD}; the sd15 training writes it last, see configs/sd15.yaml")
        folder = cls(path, load_yaml(path / CARD, Card))
        for name in (folder.card.adapters, folder.card.projection, folder.card.style_prior):
            folder.file(name)
        folder.optional(folder.card.lora)
        return folder

    def file(self, name: str) -> Path:
        """A part that must be there; raises WeightsError."""
        if not (self.path / name).is_file():
            raise WeightsError(f"{self.path / CARD} names {name}, which is missing; copy it there, or train again")
        return self.path / name

    def optional(self, name: str | None) -> Path | None:
        """A part that may be left out; raises WeightsError where it is named and missing."""
        return None if name is None else self.file(name)

    def place(self, name: str) -> str:
        """A model by folder (relative to the card, or not) or by hub id."""
        return str(self.path / name) if (self.path / name).exists() else name


def write_card(path: Path, card: Card) -> None:
    """As YAML, where the folder is there already."""
    told: dict[str, Any] = card.model_dump(mode="json")
    head = "# A trained sd15 person: what `python -m server --engine sd15 --model` reads. See svp_stream/pipeline.\n"
    (path / CARD).write_text(head + yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
