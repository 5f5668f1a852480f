"""The noise of a session: one frozen texture, a little fresh noise each frame (PYoCo's mixed noise, arXiv 2305.10474).

eps_n = sqrt(rho) eps_session + sqrt(1 - rho) eps'_n. rho = 1 freezes the texture, rho = 0 flickers. A pure function of
(seed, frame), so any frame can be made again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from svp_stream.packets import Float32


@dataclass(frozen=True)
class SessionNoise:
    """Noise of shape `shape` (without batch) for each frame number."""

    seed: int
    shape: tuple[int, ...]
    rho: float = 0.9
    base: Float32 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho must lie in [0, 1], got {self.rho}")
        drawn = np.random.default_rng([self.seed, 0]).standard_normal(self.shape, dtype=np.float32)
        object.__setattr__(self, "base", drawn)

    def frame(self, number: int) -> Float32:
        """float32 `shape`, unit variance; `number` >= 0."""
        fresh = np.random.default_rng([self.seed, number + 1]).standard_normal(self.shape, dtype=np.float32)
        mixed: Float32 = np.float32(self.rho**0.5) * self.base + np.float32((1 - self.rho) ** 0.5) * fresh
        return mixed
