"""The temporal latent cache: all that the sampler remembers of one session, in one place, and what of it is used.

Across denoising steps there is nothing to save at one or two steps; across frames there is: the previous clean latent
is the start and a condition of the next frame, the deep features can stand in for a frame, the noise keeps its texture,
what was shown last steadies what is shown next. Each of these is a switch of `CacheRule`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svp_stream.packets import Float32


@dataclass(frozen=True, slots=True)
class CacheRule:
    """What of the past is used. The defaults are those of the section `cache` of a profile.

    `noise_mix` rho of `noise.SessionNoise`; `warm_start` the previous latent, noised, is the start (else every frame is
    a cold one of `cold_steps`); `previous_latent` it is a condition too; `deep_reuse` the deep features stand in on
    every other frame, where the reference latent has moved by less than this root mean square since (0: never);
    `smoothing` levels of a byte that `steady.steadied` may hold a picture back by (0: off)."""

    noise_mix: float = 0.9
    warm_start: bool = True
    previous_latent: bool = True
    deep_reuse: float = 0.0
    smoothing: int = 3
    cold_steps: int = 2


@dataclass(slots=True)
class LatentCache:
    """Born empty; `reset` makes it so again. `previous` [4, h, w] clean latent of the last frame, `reference` [4, h, w]
    the reference that it was made on, `deep` [C, h, w] what the denoiser's outermost level received from below,
    `deep_reference` [4, h, w] the reference that those were made on, `reused` whether the last frame was made on them,
    `age` frames since the last cold start."""

    previous: Float32 | None = None
    reference: Float32 | None = None
    deep: Float32 | None = None
    deep_reference: Float32 | None = None
    reused: bool = False
    age: int = 0

    def reset(self) -> None:
        """Forget the past: the next frame starts cold."""
        self.previous = self.reference = self.deep = self.deep_reference = None
        self.reused, self.age = False, 0

    def cold(self, refresh: int) -> bool:
        """Whether the next frame must start cold: no past, or `refresh` frames since the last cold start (0: never)."""
        return self.previous is None or (refresh > 0 and self.age >= refresh)

    def may_reuse(self, reference: Float32, most: float) -> bool:
        """Whether the deep features may stand in for a frame on `reference` [4, h, w]: never twice running, and only
        where it lies within `most` (root mean square) of the one that they were made on."""
        if self.deep is None or self.deep_reference is None or self.reused or most <= 0:
            return False
        return float(np.sqrt(np.square(reference - self.deep_reference).mean())) <= most

    def keep(
        self, latent: Float32, deep: Float32 | None, *, was_cold: bool, reference: Float32 | None = None
    ) -> None:
        """Remember a finished frame; `deep` where it was computed anew. Latents that are not finite are dropped, so
        that one bad frame cannot stay."""
        if not np.isfinite(latent).all():
            self.reset()
            return
        self.previous, self.reference = latent, reference
        if deep is not None:
            self.deep, self.deep_reference = deep, reference
        self.reused = deep is None
        self.age = 1 if was_cold else self.age + 1
