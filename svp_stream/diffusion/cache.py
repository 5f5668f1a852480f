"""The temporal latent cache: all that the sampler remembers of one session, in one place.

Across denoising steps there is nothing to save at one or two steps; across frames there is: the previous clean latent
is the start and a condition of the next frame, the deep features can stand in for a frame, the noise keeps its texture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svp_stream.packets import Float32


@dataclass(slots=True)
class LatentCache:
    """Born empty; `reset` makes it so again. `previous` [4, h, w] clean latent of the last frame, `deep` [C, h, w] what
    the denoiser's outermost level received from below, `age` frames since the last cold start."""

    previous: Float32 | None = None
    deep: Float32 | None = None
    age: int = 0

    def reset(self) -> None:
        """Forget the past: the next frame starts cold."""
        self.previous, self.deep, self.age = None, None, 0

    def cold(self, refresh: int) -> bool:
        """Whether the next frame must start cold: no past, or `refresh` frames since the last cold start (0: never)."""
        return self.previous is None or (refresh > 0 and self.age >= refresh)

    def keep(self, latent: Float32, deep: Float32 | None, *, was_cold: bool) -> None:
        """Remember a finished frame. Latents that are not finite are dropped, so that one bad frame cannot stay."""
        if not np.isfinite(latent).all():
            self.reset()
            return
        self.previous = latent
        self.deep = self.deep if deep is None else deep
        self.age = 1 if was_cold else self.age + 1
