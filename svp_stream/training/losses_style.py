"""What the style prior is trained on: contrast between distributions, honest sigmas, a small pull to N(0, I),
reconstruction.

L = contrastive + calibration + beta_kl * kl + lambda_rec * reconstruction. Supervised InfoNCE (Khosla et al. 2020) over
a distance of Gaussians, with KL as in hedged instance embeddings (Oh et al. 2019). All are means over the batch, in
nats. Contrast and KL alone leave sigma near 1 wherever a dimension tells little, whatever the clip; the calibration
ties it to how far the clips of one style are in fact apart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from svp_stream.style.distance import DISTANCES, DistanceName

TEMPERATURE_LOW, TEMPERATURE_HIGH = 0.03, 0.5


class Temperature(nn.Module):
    """A learnable temperature, kept in [0.03, 0.5]; learned as its logarithm."""

    def __init__(self, start: float = 0.1) -> None:
        super().__init__()
        if not TEMPERATURE_LOW <= start <= TEMPERATURE_HIGH:
            raise ValueError(f"temperature {start}; use {TEMPERATURE_LOW} to {TEMPERATURE_HIGH}")
        self.log_value = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        return self.log_value.clamp(math.log(TEMPERATURE_LOW), math.log(TEMPERATURE_HIGH)).exp()


def contrastive_loss(mu: Tensor, log_var: Tensor, labels: Tensor, distance: DistanceName = "bhatt",
                     temperature: Tensor | float = 0.1, resolution: float = 0.0) -> Tensor:
    """Supervised InfoNCE: mu, log_var [B, D], labels int [B] (equal: same style) to a scalar.

    Logits are -D/(d * temperature), d the dimension, or else they are in the hundreds. Clips without a partner only
    serve as negatives. `resolution` is a sigma that every Gaussian is blurred with: styles must come further apart than
    it, where otherwise ever smaller sigmas would do. Raises ValueError when no two clips share a label.
    """
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    same = (labels.unsqueeze(1) == labels.unsqueeze(0)) & ~own
    partners = same.sum(1)
    if not bool(partners.any()):
        raise ValueError("no two clips of the batch share a style; sample at least two clips of each")
    seen = (log_var.exp() + resolution**2).log()
    logits = -DISTANCES[distance](mu, seen, mu, seen) / (mu.shape[1] * temperature)
    log_share = logits - torch.logsumexp(logits.masked_fill(own, -torch.inf), dim=1, keepdim=True)
    chosen = partners > 0
    per_clip = log_share.masked_fill(~same, 0.0).sum(1)[chosen] / partners[chosen]
    return -per_clip.mean()


def calibration_loss(mu: Tensor, log_var: Tensor, labels: Tensor) -> Tensor:
    """How badly sigma foretells the scatter of mu: [B, D], [B, D], labels int [B] to a scalar, in nats a dimension.

    Two clips of one style estimate one point, so their difference is N(0, sigma_i^2 + sigma_j^2): the negative log
    likelihood of it, which is the expected-likelihood distance of the pair over D. A proper score, least where sigma is
    right. No gradient reaches mu: it would pull the clips of a style together as hard as sigma is small. Raises
    ValueError when no two clips share a label.
    """
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    same = (labels.unsqueeze(1) == labels.unsqueeze(0)) & ~own
    if not bool(same.any()):
        raise ValueError("no two clips of the batch share a style; sample at least two clips of each")
    still = mu.detach()
    return DISTANCES["elk"](still, log_var, still, log_var)[same].mean() / mu.shape[1]


def kl_to_standard(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, I)), summed over the dimensions, averaged over the batch."""
    return ((mu.square() + log_var.exp() - 1 - log_var) / 2).sum(1).mean()


def reconstruction_loss(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute error of standardised expression [B, T, K] over the frames of `mask` bool [B, T]."""
    error = (predicted - target).abs().mean(-1)
    return error.mean() if mask is None else error[mask].mean()
