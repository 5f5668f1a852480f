"""`svp style study`: every figure of the style space in one table, and the way between presets as a picture.

In: a weights folder, presets, the cache of speech, perhaps rendered clips. Out: figures by name, mean faces on the way
between presets, Markdown, RGB. Remembers: nothing. The figures themselves are those of `style_space` and
`style_prior_check`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from svp_stream.arkit import SPEECH_INDEX
from svp_stream.audio.wav2vec import Wav2VecEncoder, load_encoder
from svp_stream.diffusion.conditioner import Conditioner, load_conditioner
from svp_stream.errors import MediaError
from svp_stream.evaluation.measure import WEIGHTS, load_evaluator
from svp_stream.evaluation.style_space import Space, heads, style_and_voice, told_styles, variety, ways
from svp_stream.packets import Bytes, Float32
from svp_stream.style.preset import StylePreset
from svp_stream.style.prior import load_prior
from svp_stream.style.projection import StyleProjection, load_projection
from svp_stream.training.clips import Clip, Clips
from svp_stream.training.coefficients import CoefficientConfig, encode, load_bank
from svp_stream.training.curves import Panel, draw
from svp_stream.training.style_prior_check import check

PAIRS: Final = (("warm", "angry"), ("sad", "cheerful"), ("mumble", "dramatic"), ("tight", "excited"))
SHOWN: Final = ("mouthSmileLeft", "jawOpen", "browInnerUp", "browDownLeft")


@dataclass(frozen=True)
class _Speaker:
    conditioner: Conditioner
    projection: StyleProjection


def study(
    weights: Path, presets: Sequence[StylePreset], cache: Path, corpus: Path | None = None
) -> tuple[dict[str, float], dict[str, list[Float32]]]:
    """Figures by name, and the faces on the way between `PAIRS`. The probe of heads needs `corpus`.

    Raises WeightsError for missing weights, MediaError for a corpus with rendered clips of fewer than two heads.
    """
    ears = load_encoder(weights / "audio_encoder.safetensors")
    prior = load_prior(weights / "style_prior.safetensors")
    path = weights / "conditioner.safetensors"
    bank = load_bank(CoefficientConfig(), weights / "audio_encoder.safetensors", cache)
    space = Space(prior.encoder, _Speaker(load_conditioner(path), load_projection(path)), bank, tuple(presets))
    takes = [t for t in bank.held_out if not t.silent().all()][:24]
    known = {p.name for p in presets}
    found = check(prior.encoder, takes, 72, "bhatt") | style_and_voice(space) | variety(space)
    more, faces = ways(space, [pair for pair in PAIRS if set(pair) <= known])
    found |= more | told_styles(space)
    if corpus is not None:
        clips = list(Clips.open(corpus).where(has_video=True))
        if len({c.avatar for c in clips}) < 2:
            raise MediaError(f"{corpus}: a probe of heads needs rendered clips of two heads or more")
        found |= heads(space, clips, load_evaluator(weights / WEIGHTS).gauge, lambda clip: hear(ears, clip))
    return found, faces


def hear(ears: Wav2VecEncoder, clip: Clip) -> Float32:
    """Audio features float32 [T, A] of a clip, the mean of the two tokens of each frame."""
    tokens = encode(ears, np.asarray(clip.audio, np.float32) / np.float32(32768)).astype(np.float32)
    return np.asarray(tokens.reshape(clip.frames, 2, -1).mean(1), np.float32)


def draw_ways(faces: Mapping[str, Sequence[Float32]]) -> Bytes:
    """A row for each way: mean coefficients at even steps from one preset to the other."""
    rows = []
    for name, path in faces.items():
        tracks = np.stack(list(path))
        rows.append([Panel(f"{name}: {c}", {"": tracks[:, SPEECH_INDEX[c]]}) for c in SHOWN])
    return draw(rows, width=300, height=120)


def table(figures: Mapping[str, float]) -> str:
    """Markdown; what is a control is marked."""
    marks = ("shuffled", "chance", "off_the", "truth", "way_even", "way_jumping", "diversity_0", "error_")
    lines = ["| figure | value |", "|---|---:|"]
    for key, value in figures.items():
        control = any(m in key if m != "diversity_0" else m == key for m in marks) and key != "sigma_error_r"
        lines.append(f"| {'*control:* ' if control else ''}{key} | {value:.3f} |")
    return "\n".join(lines)
