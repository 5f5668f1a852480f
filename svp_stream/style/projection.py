"""Style projection: a style sample becomes the few tokens that the cross attention of the generator reads.

In: s [B, D], a sample of the style prior. Out: tokens [B, N, C]. Remembers: nothing; the style of a session is constant
between changes, so its tokens are computed once and kept. `MLP(D -> 4D -> N C) -> LayerNorm` (METHOD 1.5 and 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from svp_stream.errors import WeightsError
from svp_stream.weights_file import load_into, read_weights

KIND: Final = "conditioner"
PREFIX: Final = "projection."
"""The projection is trained with the frame conditioner and shares its weights file, under its own prefix."""


@dataclass(frozen=True, slots=True)
class ProjectionConfig:
    """Sizes of the projection; stored with the weights."""

    style_dim: int = 128
    tokens: int = 4
    width: int = 128

    def __post_init__(self) -> None:
        if min(self.style_dim, self.tokens, self.width) < 1:
            raise ValueError(f"sizes of a style projection are positive, got {self}")


class StyleProjection(nn.Module):
    """s [B, D] -> style tokens [B, N, C].

    The null style is the zero tokens of `null`: with bias-free keys and values they add nothing, so that they equal a
    strength of 0 exactly.
    """

    def __init__(self, config: ProjectionConfig) -> None:
        super().__init__()
        self.config = config
        hidden = 4 * config.style_dim
        self.expand = nn.Linear(config.style_dim, hidden)
        self.contract = nn.Linear(hidden, config.tokens * config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, s: Tensor) -> Tensor:
        """Raises ValueError when `s` is not [B, D]."""
        if s.ndim != 2 or s.shape[1] != self.config.style_dim:
            raise ValueError(f"a style sample has shape [B, {self.config.style_dim}], got {tuple(s.shape)}")
        h: Tensor = self.contract(nn.functional.silu(self.expand(s)))
        out: Tensor = self.norm(h.reshape(-1, self.config.tokens, self.config.width))
        return out

    def null(self, batch: int) -> Tensor:
        """Tokens [batch, N, C] of no style at all."""
        like = self.norm.weight
        return torch.zeros(batch, self.config.tokens, self.config.width, device=like.device, dtype=like.dtype)


def load_projection(path: Path) -> StyleProjection:
    """Frozen, in eval mode. Raises WeightsError when the file is missing, damaged or of another architecture."""
    config, tensors = read_weights(path, KIND)
    try:
        model = StyleProjection(ProjectionConfig(**config["projection"]))
    except (KeyError, TypeError, ValueError) as e:
        raise WeightsError(f"weights {path} carry a configuration that this version does not know: {e}") from e
    load_into(model, {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}, path)
    return model
