"""What networks, cameras and generators do to a picture, so that the gauge reads through it.

In: RGB and matte float32 [B, 4, s, s] in [0, 255]. Out: RGB [B, 3, s, s] in about [-1, 1]: another background, moved
and scaled a little, softened, quantised in blocks as video codecs do, another exposure, noise.
Remembers: nothing; every draw comes from torch's seeded generator.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFT: Final = 0.05
ZOOM: Final = 0.06
BLOCK: Final = 4


def disturb(pictures: Tensor, place: Tensor | None = None) -> Tensor:
    """See the card. The pictures of a batch are drawn at random, so that fixed parts of it may suffer fixed things.

    `place` [B, 2, 3]: where each picture is moved to, for those who must know it (see `places`); drawn when None.
    """
    rgb = pictures[:, :3] / 127.5 - 1
    third = len(rgb) // 3
    rgb[:third] = _elsewhere(rgb[:third], pictures[:third, 3:] / 255)
    rgb = _move(rgb, places(len(rgb)) if place is None else place)
    rgb[1::2] = _softened(rgb[1::2])
    rgb[2::4] = _coarse(rgb[2::4])
    rgb[len(rgb) // 2 :] = _coded(rgb[len(rgb) // 2 :])
    return _noise(_exposure(rgb))


def _uniform(count: int, low: float, high: float) -> Tensor:
    """[count, 1, 1, 1]."""
    return torch.empty(count, 1, 1, 1).uniform_(low, high)


def _elsewhere(rgb: Tensor, alpha: Tensor) -> Tensor:
    """A plain background with a gradient instead of the studio's."""
    count, _, side, _ = rgb.shape
    slope = torch.linspace(-1, 1, side)
    plain = torch.empty(count, 3, 1, 1).uniform_(-1, 1)
    plain = plain + 0.3 * torch.randn(count, 1, 1, 1) * slope[:, None] + 0.3 * torch.randn(count, 1, 1, 1) * slope
    return rgb + (1 - alpha) * (plain - rgb)


def places(count: int, zoom: float = ZOOM, shift: float = SHIFT, turn_deg: float = 0.0) -> Tensor:
    """[B, 2, 3]: for each place p in the moved picture (-1 and 1 are its edges) the place A p + b that is shown there.

    Zoomed by up to `zoom` either way, moved by up to `shift` of the side, turned by up to `turn_deg`.
    """
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.empty(count).uniform_(1 - zoom, 1 + zoom)
    theta[:, :, 2] = torch.empty(count, 2).uniform_(-2 * shift, 2 * shift)
    if turn_deg:
        angle = torch.empty(count).uniform_(-1, 1) * math.radians(turn_deg)
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).reshape(count, 2, 2)
        theta[:, :, :2] = theta[:, :, :2] @ turn
    return theta


def moved(points: Tensor, place: Tensor) -> Tensor:
    """Where points [B, N, 2] (-1 and 1 are the edges) come to lie in pictures moved by `place` [B, 2, 3]."""
    out: Tensor = torch.linalg.solve(place[:, None, :, :2], (points - place[:, None, :, 2])[..., None])[..., 0]
    return out


def _move(rgb: Tensor, place: Tensor) -> Tensor:
    grid = F.affine_grid(place, list(rgb.shape), align_corners=False)
    return F.grid_sample(rgb, grid, padding_mode="border", align_corners=False)


def _softened(rgb: Tensor) -> Tensor:
    """A random share of the finest detail lost, as a decoder loses it."""
    mean = F.avg_pool2d(rgb, 3, 1, 1, count_include_pad=False)
    return rgb + _uniform(len(rgb), 0.0, 1.0) * (mean - rgb)


def _coarse(rgb: Tensor) -> Tensor:
    """A random share of what half the resolution cannot show lost, as a low bit rate loses it."""
    half = F.interpolate(F.avg_pool2d(rgb, 2), scale_factor=2.0, mode="bilinear")
    return rgb + _uniform(len(rgb), 0.0, 0.9) * (half - rgb)


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """Orthonormal two-dimensional DCT-II as filters [BLOCK^2, 1, BLOCK, BLOCK]."""
    k, n = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)[None]
    basis = torch.cos(math.pi * (n + 0.5) * k / BLOCK) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return torch.einsum("ai,bj->abij", basis, basis).reshape(BLOCK**2, 1, BLOCK, BLOCK)


def _coded(rgb: Tensor) -> Tensor:
    """Each block's cosine coefficients rounded, the finer the coarser."""
    count, planes, side, _ = rgb.shape
    order = torch.arange(BLOCK)[:, None] + torch.arange(BLOCK)[None]
    step = _uniform(count, 0.01, 0.12) * (1 + order.reshape(1, -1, 1, 1))
    step = step.repeat_interleave(planes, dim=0)
    spectrum = F.conv2d(rgb.reshape(count * planes, 1, side, side), _cosines(), stride=BLOCK)
    back = F.conv_transpose2d((spectrum / step).round() * step, _cosines(), stride=BLOCK)
    return back.reshape(rgb.shape)


def _exposure(rgb: Tensor) -> Tensor:
    count = len(rgb)
    tint = torch.empty(count, 3, 1, 1).uniform_(-0.06, 0.06)
    bent = rgb + _uniform(count, -0.25, 0.25) * (1 - rgb.square())
    return bent * _uniform(count, 0.8, 1.2) + tint + _uniform(count, -0.12, 0.12)


def _noise(rgb: Tensor) -> Tensor:
    return rgb + _uniform(len(rgb), 0.0, 0.04) * torch.randn_like(rgb)
