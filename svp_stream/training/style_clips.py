"""Clips that show a style: pieces of takes with their face and sound, and the Gaussians that an encoder makes of them.

In: takes, styles, a generator. Out: batches [B, T, ...] with masks; `Posterior`. Remembers: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from svp_stream.packets import Float32
from svp_stream.style.prior import StyleEncoder
from svp_stream.synthetic.styles import SpeakingStyle
from svp_stream.training.coefficients import Take
from svp_stream.training.loop import Batch


@dataclass(frozen=True, slots=True)
class Clip:
    """A piece of a take in some style: expression [T, 42] and audio features [T, A], T the same for a whole batch;
    the first `length` frames count."""

    expression: Float32
    audio: Float32
    length: int


@dataclass(frozen=True, slots=True)
class Posterior:
    """Gaussians of several clips, float32 [N, D] each, and the style of each clip."""

    mu: Tensor
    log_var: Tensor
    labels: Tensor


def cut(take: Take, expression: Float32, start: int, frames: int, variant: int) -> Clip:
    """`frames` frames from `start`; the last frame is held where the take is shorter, and does not count."""
    at = np.arange(start, start + frames)
    inside = np.minimum(at, take.frames - 1)
    return Clip(expression[inside], take.features(variant)[inside], int(min(frames, take.frames - start)))


def two_cuts(take: Take, style: SpeakingStyle, frames: int, rng: np.random.Generator) -> list[Clip]:
    """Two clips of one take that do not overlap, when it is long enough; else they may, for the words are the same."""
    expression, variant = take.expression(style, rng), int(rng.integers(take.tokens.shape[0]))
    spare = take.frames - 2 * frames
    if spare < 0:
        starts = [int(rng.integers(max(take.frames - frames, 0) + 1)) for _ in range(2)]
    else:
        first = int(rng.integers(spare + 1))
        starts = [first, first + frames + int(rng.integers(spare - first + 1))]
    return [cut(take, expression, start, frames, variant) for start in starts]


def spoil(expression: Float32, severity: float, rng: np.random.Generator) -> Float32:
    """Expression [T, 42] as a tracker gives it for bad video: white noise, and coefficients that it does not see at
    all; `severity` in [0, 1], 1 leaves a tenth of them, under a deviation of 0.4."""
    jitter = rng.standard_normal(expression.shape) * 0.4 * severity
    unseen = rng.random(expression.shape[1]) < 0.9 * severity
    return np.where(unseen, 0, expression + jitter).astype(np.float32)


def stack(clips: Sequence[Clip]) -> Batch:
    """Clips of equal T to expression [B, T, 42], audio [B, T, A] and mask [B, T]."""
    frames = clips[0].expression.shape[0]
    lengths = torch.tensor([clip.length for clip in clips])
    return {
        "expression": torch.from_numpy(np.stack([clip.expression for clip in clips])),
        "audio": torch.from_numpy(np.stack([clip.audio for clip in clips])),
        "mask": torch.arange(frames)[None] < lengths[:, None],
    }


@torch.no_grad()
def posterior(
    encoder: StyleEncoder, styles: Sequence[SpeakingStyle], takes: Sequence[Take], frames: int, seed: int,
    severity: float = 0.0,
) -> Posterior:
    """Every style in every take, one clip each; `severity` above 0 spoils the expressions."""
    rng = np.random.default_rng([12, seed])
    gaussians, labels = [], []
    for label, style in enumerate(styles):
        clips = [two_cuts(take, style, frames, rng)[0] for take in takes]
        if severity:
            clips = [Clip(spoil(clip.expression, severity, rng), clip.audio, clip.length) for clip in clips]
        b = stack(clips)
        gaussians.append(encoder(b["expression"], b["audio"], b["mask"]))
        labels += [label] * len(clips)
    mu, log_var = (torch.cat(parts) for parts in zip(*gaussians, strict=True))
    return Posterior(mu, log_var, torch.tensor(labels))
