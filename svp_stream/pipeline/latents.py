"""How a face's latents come about: sampler, latent cache and the rungs of the ladder, frame by frame.

In: what the next frame is to show (`Asked`). Out: the latent to paint [1, 4, h, w], and the rung that it was made on.
Remembers: a `LatentCache`, which the caller owns. Everything of the past that helps is a switch of `CacheRule`.
The rungs, from `effort`: 1 a cold start takes one step; 2 this frame's outermost level on the last frame's deep
features; 3 the last latent moved by the change of the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from svp_stream.diffusion import sampler
from svp_stream.diffusion.cache import CacheRule, LatentCache
from svp_stream.diffusion.noise import SessionNoise
from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.packets import Float32
from svp_stream.runtime.backend import Program

REFRESH_FRAMES = 0
"""Frames between cold starts; 0 never: training on its own history keeps the warm chain from drifting."""
HISTORY = 0.05
FEWER_STEPS, REUSE_DEEP, REUSE_LATENT = 1, 2, 3
_Denoise = Callable[[Float32, int], Float32]


class Denoising(Protocol):
    """The programs that are used here, see `diffusion.programs`."""

    @property
    def denoise(self) -> Program: ...

    @property
    def shallow(self) -> Program: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What frame `number` of a session is to show: `reference` [1, 4, h, w], `kps` [1, K, h, w], `tokens` of the sound
    [1, N, 128], `style` [1, M, 128], `strength` [1]."""

    number: int
    reference: Float32
    kps: Float32
    tokens: Float32
    style: Float32
    strength: Float32


@dataclass(frozen=True)
class Latents:
    """See the card. Immutable: one for each face, or for all."""

    programs: Denoising
    rule: CacheRule
    noise: SessionNoise

    def make(self, cache: LatentCache, asked: Asked, effort: int) -> tuple[Float32, int]:
        """The next latent to paint and its rung; rolls `cache` on."""
        call = _Call(self, cache, asked)
        rung = min(effort, REUSE_LATENT)
        if call.was_cold:
            rung = min(rung, FEWER_STEPS)
            latent = call.cold(1 if rung else self.rule.cold_steps)
        elif rung == REUSE_LATENT and cache.reference is not None:
            latent = call.previous + (asked.reference - cache.reference)
        elif rung >= REUSE_DEEP and cache.deep is not None:
            rung = REUSE_DEEP
            latent = call.warm(call.shallow)
        elif not self.rule.warm_start:
            latent = call.cold(1 if rung else self.rule.cold_steps)
        else:
            reuse = cache.may_reuse(asked.reference[0], self.rule.deep_reuse)
            latent = call.warm(call.shallow if reuse else call.full)
        cache.keep(latent[0], call.deep, was_cold=call.was_cold, reference=asked.reference[0])
        return latent, rung


class _Call:
    """One frame's denoising calls; `deep` is what they computed of the deep features, if they did."""

    def __init__(self, of: Latents, cache: LatentCache, asked: Asked) -> None:
        self._of, self._cache, self._asked = of, cache, asked
        self.noise = of.noise.frame(asked.number)[None]
        self.was_cold = cache.cold(REFRESH_FRAMES)
        self.previous = np.zeros_like(self.noise) if cache.previous is None or self.was_cold else cache.previous[None]
        told = of.rule.previous_latent and not self.was_cold
        self._condition = self.previous if told else np.zeros_like(self.noise)
        self._history = np.array([HISTORY if told else -1.0], np.float32)
        self.deep: Float32 | None = None

    def cold(self, steps: int) -> Float32:
        """From noise alone."""
        if steps <= 2:
            return sampler.cold(self.full, self.noise, SCHEDULE, steps=steps)
        return sampler.ddim(self.full, self.noise, SCHEDULE, sampler.trailing(steps))

    def warm(self, denoise: _Denoise) -> Float32:
        """From the previous latent."""
        return sampler.warm(denoise, self.previous, self.noise, SCHEDULE)

    def full(self, x_t: Float32, t: int) -> Float32:
        """Every level of the denoiser."""
        a, share = self._asked, np.array([t / TIMESTEPS], np.float32)
        out = self._of.programs.denoise(
            x_t, share, self._condition, a.reference, a.kps, a.tokens, a.style, a.strength, self._history
        )
        self.deep = np.array(out[1][0])
        return np.array(out[0])

    def shallow(self, x_t: Float32, t: int) -> Float32:
        """The outermost level, on the deep features that are there."""
        a, share, deep = self._asked, np.array([t / TIMESTEPS], np.float32), self._cache.deep
        assert deep is not None
        return np.array(self._of.programs.shallow(
            x_t, share, self._condition, a.reference, a.kps, a.tokens, self._history, deep[None]
        )[0])
