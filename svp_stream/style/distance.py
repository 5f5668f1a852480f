"""How far apart two styles are: four distances between diagonal Gaussians, every row against every row.

Each takes means and log variances float [A, D] and [B, D] and gives float [A, B]. With S = s_i^2 + s_j^2 and
d = m_i - m_j, summed over the D dimensions:

    bhatt     d^2/(4S) + 1/2 ln(S / (2 s_i s_j))             Bhattacharyya 1943; 0 for equals, exp(-D) is their overlap
    elk       1/2 (d^2/S + ln(2 pi S))                       -log expected likelihood kernel, Jebara & Kondor 2003
    w2        d^2 + (s_i - s_j)^2                            squared 2-Wasserstein; does not couple variance to overlap
    jeffreys  (s_i^2 + d^2)/(2 s_j^2) + (s_j^2 + d^2)/(2 s_i^2) - 1     KL both ways

Intermediates are [A, B, D]: fine for the batches of a hundred clips of 128 dimensions that these are for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor

DistanceName = Literal["bhatt", "elk", "w2", "jeffreys"]
Distance = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(mu_a [A, D], log_var_a [A, D], mu_b [B, D], log_var_b [B, D]) to [A, B]."""


def bhatt(mu_a: Tensor, log_var_a: Tensor, mu_b: Tensor, log_var_b: Tensor) -> Tensor:
    """Bhattacharyya distance [A, B], at least 0."""
    delta2, total = _pairs(mu_a, log_var_a, mu_b, log_var_b)
    spread = (total / 2).log() - (log_var_a.unsqueeze(1) + log_var_b.unsqueeze(0)) / 2
    return (delta2 / (4 * total) + spread / 2).sum(-1)


def elk(mu_a: Tensor, log_var_a: Tensor, mu_b: Tensor, log_var_b: Tensor) -> Tensor:
    """Minus the log of the expected likelihood kernel, the density that two samples coincide, [A, B]; any sign."""
    delta2, total = _pairs(mu_a, log_var_a, mu_b, log_var_b)
    return (delta2 / total + (2 * math.pi * total).log()).sum(-1) / 2


def w2(mu_a: Tensor, log_var_a: Tensor, mu_b: Tensor, log_var_b: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance [A, B], at least 0."""
    delta = mu_a.unsqueeze(1) - mu_b.unsqueeze(0)
    spread = (log_var_a / 2).exp().unsqueeze(1) - (log_var_b / 2).exp().unsqueeze(0)
    return (delta.square() + spread.square()).sum(-1)


def jeffreys(mu_a: Tensor, log_var_a: Tensor, mu_b: Tensor, log_var_b: Tensor) -> Tensor:
    """Jeffreys divergence, KL(a||b) + KL(b||a), [A, B], at least 0."""
    delta2 = (mu_a.unsqueeze(1) - mu_b.unsqueeze(0)).square()
    ratio = log_var_a.unsqueeze(1) - log_var_b.unsqueeze(0)
    precision = (-log_var_a).exp().unsqueeze(1) + (-log_var_b).exp().unsqueeze(0)
    return (ratio.cosh() - 1 + delta2 * precision / 2).sum(-1)


DISTANCES: dict[DistanceName, Distance] = {"bhatt": bhatt, "elk": elk, "w2": w2, "jeffreys": jeffreys}
"""What a configuration may say after `distance:`."""


def _pairs(mu_a: Tensor, log_var_a: Tensor, mu_b: Tensor, log_var_b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared differences of means and sums of variances, both [A, B, D]."""
    delta2 = (mu_a.unsqueeze(1) - mu_b.unsqueeze(0)).square()
    return delta2, log_var_a.exp().unsqueeze(1) + log_var_b.exp().unsqueeze(0)
