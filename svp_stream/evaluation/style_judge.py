"""The style judge: which of the named manners of speaking a track of readings shows.

In: speech coefficients float32 [T, 42] over a clip, as the gauge reads them. Out: a probability for each style.
It sees statistics of the track (level, spread, quantiles, speed of every coefficient), never the sound or the words,
and learns from articulated coefficients worsened as the gauge worsens them. It shares nothing with the style prior.
Remembers: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from svp_stream.arkit import SPEECH
from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.packets import Float32

LEAST_FRAMES: Final = 25
QUANTILES: Final = (0.1, 0.5, 0.9)
STATISTICS: Final = 2 + len(QUANTILES) + 2
FEATURES: Final = STATISTICS * len(SPEECH)


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """Names of the classes and width of the hidden layer."""

    styles: tuple[str, ...]
    width: int = 64


class StyleJudge(nn.Module):
    """One hidden layer over standardised statistics."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))
        self.net = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(FEATURES, config.width), nn.GELU(), nn.Dropout(0.2),
            nn.Linear(config.width, len(config.styles)),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Statistics [B, FEATURES] to logits [B, styles]."""
        logits: Tensor = self.net(((features - self.mean) / self.std).clamp(-6, 6))
        return logits

    @torch.inference_mode()
    def probabilities(self, track: Float32) -> Float32:
        """Float32 [styles] for a track [T, 42]; raises ValueError under a second."""
        logits = self(torch.from_numpy(describe(track))[None])
        return np.asarray(torch.softmax(logits, dim=1)[0].numpy(), np.float32)

    def name(self, track: Float32) -> str:
        """The likeliest style of a track [T, 42]."""
        return self.config.styles[int(self.probabilities(track).argmax())]


def describe(track: Float32) -> Float32:
    """Statistics float32 [FEATURES] of a track [T, 42]: mean, deviation, quantiles, mean and top speed per second.

    Raises ValueError for another width, or for less than a second.
    """
    if track.ndim != 2 or track.shape[1] != len(SPEECH) or len(track) < LEAST_FRAMES:
        raise ValueError(f"a style shows in [T >= {LEAST_FRAMES}, {len(SPEECH)}] coefficients, got {list(track.shape)}")
    speed = np.abs(np.diff(track, axis=0)) * (FRAME_RATE_HZ / 10)
    rows = [
        track.mean(0), track.std(0), *np.quantile(track, QUANTILES, axis=0), speed.mean(0),
        np.quantile(speed, 0.9, axis=0),
    ]  # fmt: skip
    return np.concatenate(rows).astype(np.float32)


def fit_judge(
    judge: StyleJudge, tracks: Sequence[Float32], labels: Sequence[int], *, steps: int = 600, batch: int = 64,
    lr: float = 2e-3, seed: int = 0,
) -> None:
    """Train `judge` in place on whole tracks and the indices of their styles."""
    x = torch.from_numpy(np.stack([describe(track) for track in tracks]))
    y = torch.tensor(list(labels))
    judge.mean.copy_(x.mean(0))
    judge.std.copy_(x.std(0).clamp(min=5e-3))
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    judge.requires_grad_(True).train()
    for _ in range(steps):
        chosen = torch.randint(len(x), (batch,))
        loss = nn.functional.cross_entropy(judge(x[chosen]), y[chosen], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    judge.requires_grad_(False).eval()


def accuracy(judge: StyleJudge, tracks: Sequence[Float32], labels: Sequence[int]) -> float:
    """Share of tracks that are named rightly."""
    right = [judge.probabilities(t).argmax() == label for t, label in zip(tracks, labels, strict=True)]
    return float(np.mean(right)) if right else float("nan")
