"""Ridge regression in closed form, for the linear maps that are fitted and not trained.

In: float64 [N, D] and [N, M]. Out: weight [M, D] and bias [M]. Remembers: nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Closed-form ridge regression x [N, D] to y [N, M]: weight [M, D] and bias [M]; the bias is not penalised."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, centred.T @ (y - mean_y)).T
    return weight, mean_y - weight @ mean_x
