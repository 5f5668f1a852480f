"""What `svp person` is asked for: who, of which videos, into which folder, and the knobs of `configs/person.yaml`.

In: arguments, YAML. Out: a frozen `Order`, which also knows where everything lies. Errors name the key and what would
be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field, field_validator

from svp_stream.config import MINI_WEIGHTS, Section, load_yaml
from svp_stream.errors import ConfigError
from svp_stream.evaluation.face_reader import FaceReader
from svp_stream.preparing.config import AVATAR, PrepareConfig
from svp_stream.preparing.prepare import Advance, Matte
from svp_stream.training.autoencoder import AutoencoderTrainConfig
from svp_stream.training.loop import LoopConfig
from svp_stream.training.video import VideoTrainConfig

HELD_OUT: Final = {"heldout_share": 0.2}
"""A fifth of a short film, so that two minutes leave clips enough to measure on."""


class PersonConfig(Section):
    """Knobs of a person's run; seconds are of film, minutes are the command's."""

    least_s: float = Field(default=20.0, gt=0)
    most_steps: int = Field(default=100_000, ge=1)
    keep_encoder: bool = True
    autoencoder_share: float = Field(default=0.35, gt=0, lt=1)
    autoencoder_lr: float = Field(default=5e-4, gt=0)
    autoencoder_batch: int = Field(default=16, ge=1)
    denoiser_lr: float = Field(default=2e-4, gt=0)
    denoiser_batch: int = Field(default=16, ge=1)
    warmup: int = Field(default=20, ge=0)
    threads: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    prepare: PrepareConfig = PrepareConfig.model_validate(HELD_OUT)

    @field_validator("prepare", mode="before")
    @classmethod
    def _held_out(cls, given: Any) -> Any:
        return HELD_OUT | given if isinstance(given, dict) else given

    @classmethod
    def load(cls, path: Path | None) -> PersonConfig:
        """Read YAML; the defaults for None. Raises ConfigError."""
        return cls() if path is None else load_yaml(path, cls)


@dataclass(frozen=True)
class Order:
    """See the card. `reader` is called only where a picture has to be read; `minutes` are those of both trainings
    together; `start` is the weights folder to go on from; `syncnet` and `judge` (a reader that can read made pictures)
    give the table more columns."""

    name: str
    videos: list[Path]
    out: Path
    config: PersonConfig
    minutes: float
    reader: Callable[[], FaceReader]
    start: Path = MINI_WEIGHTS
    matte: Matte | None = None
    syncnet: Path | None = None
    judge: Callable[[], FaceReader] | None = None
    advance: Advance = lambda what, frames: None

    def __post_init__(self) -> None:
        if re.fullmatch(AVATAR, self.name) is None:
            raise ConfigError(f"'{self.name}' is no name for a person: give --name with letters, digits, '-' and '_', "
                              "40 at most")
        if self.minutes <= 0:
            raise ConfigError(f"--minutes is {self.minutes:g}; training needs more than none")

    @property
    def clips(self) -> Path:
        """What `svp prepare` makes."""
        return self.out / "clips"

    @property
    def runs(self) -> Path:
        """What `svp train` makes."""
        return self.out / "runs"

    @property
    def before(self) -> Path:
        """The weights to start from, with the new person's reference: what there is without any training."""
        return self.out / "before"

    @property
    def weights(self) -> Path:
        """What is served."""
        return self.out / "weights"

    @property
    def profile(self) -> Path:
        """How it is served."""
        return self.out / f"{self.name}.yaml"

    @property
    def preparation(self) -> PrepareConfig:
        """How the videos are cut: all show one person."""
        return self.config.prepare.model_copy(update={"avatar": self.name})

    def autoencoder(self) -> AutoencoderTrainConfig:
        """The profile of the first training."""
        c = self.config
        return AutoencoderTrainConfig(start=self.start / "autoencoder.safetensors", keep_encoder=c.keep_encoder,
                                      loop=self._loop(c.autoencoder_lr, c.autoencoder_batch, 0.999))

    def denoiser(self) -> VideoTrainConfig:
        """The profile of the second training: the stage `video`, which holds single frames (cold starts) too."""
        c = self.config
        return VideoTrainConfig(start=self.start / "denoiser.safetensors",
                                loop=self._loop(c.denoiser_lr, c.denoiser_batch, 0.998))

    def _loop(self, lr: float, batch: int, ema: float) -> LoopConfig:
        c = self.config  # no sheets but the last, they cost minutes
        return LoopConfig(steps=c.most_steps, batch=batch, lr=lr, warmup=c.warmup, ema=ema, threads=c.threads,
                          seed=c.seed, sheet_every_s=1e9)
