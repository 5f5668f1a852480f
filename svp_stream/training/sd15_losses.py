"""Losses of the sd15 stages, as functions of tensors: v-prediction under min-SNR, consistency, corrupted history.

Tables are `diffusion.schedule`'s, zero terminal signal. Every x_t, drawn from its own frame or from the one before
(warm), has the target v = (alpha x_t - x0) / sigma: for its own frame that is the v of arXiv 2202.00512.
"""

from __future__ import annotations

import torch
from torch import Tensor

from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS

ALPHA = torch.from_numpy(SCHEDULE.alpha.copy()).float()
SIGMA = torch.from_numpy(SCHEDULE.sigma.copy()).float()
SHARE = SIGMA / (ALPHA + SIGMA)
FLOOR = 0.1
"""Least min-SNR weight: without it pure noise, which every cold start begins with, would weigh nothing [R]."""


def at(table: Tensor, t: Tensor) -> Tensor:
    """Values of a table at timesteps [N], as [N, 1, 1, 1]."""
    return table.to(t.device)[t][:, None, None, None]


def min_snr(t: Tensor, gamma: float) -> Tensor:
    """Weight of a v-prediction error at timesteps [N]: min(SNR, gamma) / (SNR + 1) (arXiv 2303.09556), at least 0.1."""
    alpha, sigma = at(ALPHA, t), at(SIGMA, t)
    snr = (alpha / sigma.clamp(min=1e-6)) ** 2
    return (snr.clamp(max=gamma) / (snr + 1)).clamp(min=FLOOR)


def velocity(x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """The v that leads from x_t [N, 4, h, w] to x0."""
    return (at(ALPHA, t) * x_t - x0) / at(SIGMA, t).clamp(min=1e-4)


def estimate(x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """x0 = alpha x_t - sigma v."""
    return at(ALPHA, t) * x_t - at(SIGMA, t) * v


def noised(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = alpha x + sigma noise."""
    return at(ALPHA, t) * x + at(SIGMA, t) * noise


def pseudo_huber(error: Tensor) -> Tensor:
    """sqrt(e^2 + c^2) - c for each sample [N, ...], c = 0.00054 sqrt(D) (arXiv 2310.14189, section 3.3); [N]."""
    flat = error.flatten(1)
    c = 0.00054 * flat.shape[1] ** 0.5
    out: Tensor = (flat.square().sum(1) + c * c).sqrt() - c
    return out


def earlier(t: Tensor, stage: int) -> Tensor:
    """Timesteps r < t: flow time t (1 - 2^-stage), clean data at stage 0 (ECT, arXiv 2406.14548)."""
    share = SHARE.to(t.device)
    r = torch.searchsorted(share.contiguous(), share[t] * (1 - 2.0**-stage))
    return torch.zeros_like(t) if stage == 0 else torch.minimum(r, t - 1).clamp(min=0)


def inference_times(count: int) -> Tensor:
    """[count] timesteps: half exactly those of the sampler, half by a normal in log sigma / alpha (METHOD 2.3)."""
    u = torch.exp(-0.8 + 1.6 * torch.randn(count))
    drawn = torch.searchsorted(SHARE.contiguous(), u / (1 + u)).clamp(1, TIMESTEPS - 1)
    warm = SCHEDULE.warm + torch.randint(-20, 21, (count,))
    served = torch.where(torch.rand(count) < 0.5, torch.full_like(warm, SCHEDULE.cold), warm)
    return torch.where(torch.rand(count) < 0.5, served, drawn)


def corrupted(previous: Tensor, noise: float, drop: float, none: float) -> tuple[Tensor, Tensor]:
    """A previous latent [N, 4, h, w] as an imperfect one: (latent, noise level told to the network [N]).

    Noise of a level drawn up to `noise`, a share `drop` of patches of 4 x 4 cells away (after Hallo2 [V]), and `none`
    of the rows without any past, level -1.
    """
    n, _, h, w = previous.shape
    device = previous.device
    level = noise * torch.rand(n, device=device)
    keep = (torch.rand(n, 1, -(-h // 4), -(-w // 4), device=device) > drop).float()
    keep = keep.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :, :h, :w]
    gone = torch.rand(n, device=device) < none
    out = (previous + level[:, None, None, None] * torch.randn_like(previous)) * keep
    return out.masked_fill(gone[:, None, None, None], 0.0), torch.where(gone, torch.full_like(level, -1.0), level)
