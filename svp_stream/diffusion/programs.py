"""The models as flat functions of tensors with fixed shapes, batch 1: what a backend compiles.

    Denoise         (x_t, t, previous, reference, kps, audio, style, strength, history) -> x0, deep
    DenoiseShallow  the same and deep -> x0; only the outermost level is computed
    Paint           (latent, shift) -> uint8 RGBA [H, W, 4], the finished picture, shifted
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.diffusion.conditioner import Conditioner
from svp_stream.diffusion.unet import Conditions, Denoiser
from svp_stream.diffusion.vae import FACTOR, Autoencoder


class Denoise(nn.Module):
    """One full denoising call."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x_t: Tensor, t: Tensor, previous: Tensor, reference: Tensor, kps: Tensor, audio: Tensor, style: Tensor,
        strength: Tensor, history: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in `unet.Conditions`; `t` [1] in [0, 1]."""
        x0, deep = self.model(x_t, t, Conditions(previous, reference, kps, audio, style, strength, history))
        return x0, deep


class DenoiseShallow(nn.Module):
    """One denoising call on last frame's deep features."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x_t: Tensor, t: Tensor, previous: Tensor, reference: Tensor, kps: Tensor, audio: Tensor, history: Tensor,
        deep: Tensor,
    ) -> Tensor:
        """The style acts below the outermost level, so it is not asked for."""
        c = Conditions(previous, reference, kps, audio, audio[:, :1], history * 0, history)
        x0, _ = self.model(x_t, t, c, deep)
        return torch.as_tensor(x0)


class Condition(nn.Module):
    """The frame conditioner."""

    def __init__(self, model: Conditioner) -> None:
        super().__init__()
        self.model = model

    def forward(self, audio: Tensor, heard: Tensor, style: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """(tokens [1, N, C], expression [1, 42])."""
        out = self.model(audio, heard, style, strength)
        return out.tokens, out.expression


class Paint(nn.Module):
    """Decode, shift by a fraction of a pixel or more, round to bytes."""

    grid: Tensor

    def __init__(self, model: Autoencoder, cells: int) -> None:
        super().__init__()
        self.model = model
        side = cells * FACTOR
        centres = (torch.arange(side) + 0.5) * 2 / side - 1
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        self.register_buffer("grid", torch.stack([columns, rows], -1)[None], persistent=False)

    def forward(self, latent: Tensor, shift: Tensor) -> Tensor:
        """latent [1, 4, h, w], shift [1, 2] (right, down, fractions of the picture) to uint8 [1, H, W, 4]."""
        picture = self.model.decode(latent)
        grid = self.grid - 2 * shift[:, None, None, :]
        moved = F.grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=False)
        return ((moved.clamp(-1, 1) + 1) * 127.5 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)
