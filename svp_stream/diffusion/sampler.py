"""Samplers are functions: noise and conditions in, clean latent out; no state, no schedule object to reset.

`denoise(x_t, t)` returns the x0 estimate for timestep index t; arrays, torch's or numpy's, are [B, 4, h, w]. Cold: two
steps, from pure noise over the warm timestep (multistep consistency sampling, arXiv 2303.01469 algorithm 1). Warm: one
step from the previous clean latent, noised (our reconstruction: a learned bridge, not a solver of the same ODE).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from svp_stream.diffusion.schedule import Schedule
from svp_stream.packets import Float32

Array = TypeVar("Array", Tensor, Float32)
Denoise = Callable[[Array, int], Array]


def noised(x0: Array, noise: Array, t: int, schedule: Schedule) -> Array:
    """x_t = alpha_t x0 + sigma_t noise."""
    out: Array = _mixed(float(schedule.alpha[t]), x0, float(schedule.sigma[t]), noise)
    return out


def cold(denoise: Denoise[Array], noise: Array, schedule: Schedule, *, steps: int = 2) -> Array:
    """x0 from noise alone in one or two steps; the same noise is used again for the second."""
    if steps not in (1, 2):
        raise ValueError(f"a cold start takes 1 or 2 steps, got {steps}")
    x0 = denoise(noise, schedule.cold)
    return x0 if steps == 1 else denoise(noised(x0, noise, schedule.warm, schedule), schedule.warm)


def warm(denoise: Denoise[Array], previous: Array, noise: Array, schedule: Schedule) -> Array:
    """x0 in one step from the previous clean latent."""
    return denoise(noised(previous, noise, schedule.warm, schedule), schedule.warm)


def ddim(denoise: Denoise[Array], noise: Array, schedule: Schedule, timesteps: Sequence[int]) -> Array:
    """Deterministic DDIM (arXiv 2010.02502, eq. 12 with eta 0) over falling `timesteps`, the first being pure noise."""
    x = x0 = noise
    for t, after in zip(timesteps, [*timesteps[1:], -1], strict=True):
        x0 = denoise(x, t)
        if after < 0:
            break
        eps: Array = _mixed(1 / float(schedule.sigma[t]), x, -float(schedule.alpha[t] / schedule.sigma[t]), x0)
        x = noised(x0, eps, after, schedule)
    return x0


def _mixed(a: float, x: Any, b: float, y: Any) -> Any:
    """a x + b y for either kind of array; Python floats keep float32."""
    return a * x + b * y


def trailing(steps: int, timesteps: int = 1000) -> list[int]:
    """Trailing spacing (arXiv 2305.08891, table 2): `steps` falling timesteps, the first is the last of the table."""
    return [int(t) - 1 for t in np.round(np.arange(timesteps, 0, -timesteps / steps))]
