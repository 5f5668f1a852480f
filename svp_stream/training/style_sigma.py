"""Sigma, fitted: after the means are learned, what a clip tells of its own error is read off by maximum likelihood.

In: an encoder whose means stand, training takes and styles. Out: the weights of its last linear layer, `spread`, in
place. Remembers: nothing. The centre of a style is the mean over clear, whole clips of it; other clips, cut short and
spoiled by chance, lie off it by an error whose variance in every dimension log_var must foretell:
least mean of error^2 / sigma^2 + log sigma^2 (heteroscedastic regression: Nix and Weigend 1994; Kendall and Gal 2017).
The joint training moves sigma too, but slowly, while the means still move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from svp_stream.style.prior import StyleEncoder
from svp_stream.synthetic.styles import SpeakingStyle
from svp_stream.training.coefficients import Take
from svp_stream.training.style_clips import Clip, spoil, stack, two_cuts

CLEAR: Final = 6
"""Whole clips that the centre of a style is known from."""
UNCLEAR: Final = 14
"""Clips of each style that sigma is fitted on."""
SHORTEST: Final = 2
WHOLE_SHARE: Final = 0.3
CLEAN_SHARE: Final = 0.5
STEPS: Final = 600


def fit_sigma(
    encoder: StyleEncoder, styles: Sequence[SpeakingStyle], takes: Sequence[Take], frames: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Fit `encoder.spread`; returns the mean negative log likelihood in nats a dimension, before and after."""
    told, error2 = _errors(encoder, styles, takes, frames, rng)
    before = float(_likelihood(encoder, told, error2).detach())
    parameters = list(encoder.spread.parameters())
    optimiser = torch.optim.Adam(parameters, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            loss = _likelihood(encoder, told, error2)
            optimiser.zero_grad()
            # Weights alone, not the bias, are held down: a feature that tells nothing should say nothing.
            held = 1e-4 * encoder.spread.weight.square().sum() / len(encoder.spread.weight)
            (loss + held).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    encoder.zero_grad(set_to_none=True)
    return before, float(_likelihood(encoder, told, error2).detach())


def _likelihood(encoder: StyleEncoder, told: Tensor, error2: Tensor) -> Tensor:
    log_var = encoder.log_var(told)
    return 0.5 * (error2 * (-log_var).exp() + log_var).mean()


@torch.no_grad()
def _errors(
    encoder: StyleEncoder, styles: Sequence[SpeakingStyle], takes: Sequence[Take], frames: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """What the encoder is told of each unclear clip [N, d + 2], and how far its mean is off, squared, [N, D]."""
    told, error2 = [], []
    for style in styles:
        chosen = [takes[i] for i in rng.integers(len(takes), size=CLEAR + UNCLEAR)]
        clips = [two_cuts(take, style, frames, rng)[0] for take in chosen]
        clear = stack(clips[:CLEAR])
        centre = encoder(clear["expression"], clear["audio"], clear["mask"])[0].mean(0)
        unclear = stack([_unclear(clip, rng) for clip in clips[CLEAR:]])
        raw, features = encoder.summary(unclear["expression"], unclear["audio"], unclear["mask"])
        told.append(features)
        error2.append((encoder.mu[1](raw) - centre).square())
    return torch.cat(told), torch.cat(error2)


def _unclear(clip: Clip, rng: np.random.Generator) -> Clip:
    """The clip at a length drawn evenly in its logarithm, or whole; clean, or spoiled at some severity."""
    whole, clean = rng.random() < WHOLE_SHARE, rng.random() < CLEAN_SHARE
    length = float(np.exp(rng.uniform(np.log(SHORTEST), np.log(clip.length)))) if clip.length > SHORTEST else 1.0
    expression = clip.expression if clean else spoil(clip.expression, float(rng.uniform(0.05, 1)), rng)
    return Clip(expression, clip.audio, clip.length if whole else max(round(length), 1))
