"""Noise tables, frozen: x_t = alpha_t x0 + sigma_t eps with alpha^2 + sigma^2 = 1.

Stable Diffusion's scaled-linear betas, rescaled to zero terminal signal (arXiv 2305.08891, algorithm 1), so that
sampling from pure noise is what training saw. The tests hold the table against diffusers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIMESTEPS = 1000


@dataclass(frozen=True)
class Schedule:
    """`alpha`, `sigma` float64 [1000], read-only; index 999 is pure noise; `cold`, `warm`: the sampler's timesteps."""

    alpha: NDArray[np.float64]
    sigma: NDArray[np.float64]
    cold: int
    warm: int

    def noise_share(self, t: int) -> float:
        """sigma / (alpha + sigma): the timestep in flow time, 0 clean to 1 noise."""
        return float(self.sigma[t] / (self.alpha[t] + self.sigma[t]))


def zero_terminal(warm_share: float = 0.5, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
    """The table; `warm` is the timestep whose noise share is nearest to `warm_share` (flow time, in (0, 1))."""
    if not 0 < warm_share < 1:
        raise ValueError(f"warm_share must lie in (0, 1), got {warm_share}")
    betas = np.linspace(beta_start**0.5, beta_end**0.5, TIMESTEPS) ** 2
    root = np.sqrt(np.cumprod(1 - betas))
    alpha = (root - root[-1]) * root[0] / (root[0] - root[-1])
    sigma = np.sqrt(1 - alpha**2)
    share = sigma / (alpha + sigma)
    alpha.setflags(write=False)
    sigma.setflags(write=False)
    return Schedule(alpha, sigma, TIMESTEPS - 1, int(np.argmin(np.abs(share - warm_share))))


SCHEDULE = zero_terminal()
