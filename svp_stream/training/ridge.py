"""Ridge regression in closed form, for the linear maps that are fitted and not trained.

In: float64 [N, D] and [N, M]. Out: weight [M, D] and bias [M]. Remembers: nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def ridge(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Closed-form ridge regression x [N, D] to y [N, M]: weight [M, D] and bias [M]; the bias is not penalised."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, centred.T @ (y - mean_y)).T
    return weight, mean_y - weight @ mean_x


@torch.no_grad()
def fold(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Let `layer` take x where it took `weight` x + `bias` [M, D], [M]: what it computes on those stays the same."""
    layer.bias.add_(layer.weight @ bias.float())
    layer.weight.copy_(layer.weight @ weight.float())
