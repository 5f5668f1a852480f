"""The denoiser: a lean UNet over 32x32 latents with decoupled audio and style cross attention and a HEAD-Kps guider.

It estimates the clean latent x0 as the avatar's reference latent plus a learned correction, so an untrained network
already shows the reference. Conditions:

    x_t        noisy latent                            channels of the input
    previous   clean latent of the frame before        channels of the input; zero on a cold start
    reference  the avatar's appearance at this pose    channels of the input and base of the estimate
    kps        HEAD-Kps raster (eyes and nose only)    guider, last convolution zero-initialised, added after conv-in
    audio      tokens of the frame conditioner         cross attention at 16^2 and below; token 0 modulates every block
    style      tokens of the style projection          its own keys and values, weighted by `strength` (the decoupled
                                                       attention of IP-Adapter, arXiv 2308.06721 section 3.2)

Self-attention stands at 8^2 and below only, and there is no GEGLU: on a CPU those, not the convolutions, eat the frame.
`deep` is what the outermost level receives from below. A call with last frame's `deep` computes the outermost level
only (DeepCache, arXiv 2312.00858, across frames instead of steps).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.weights_file import load_into, read_weights, save_module

KIND = "denoiser"


@dataclass(frozen=True, slots=True)
class DenoiserConfig:
    """`widths` are channels at 32, 16, 8 and 4 cells; `token` is the width of audio and style tokens."""

    latent: int = 4
    kps: int = 11
    token: int = 128
    embedding: int = 256
    widths: tuple[int, int, int, int] = (64, 96, 192, 256)
    head: int = 32
    groups: int = 8


class Conditions(NamedTuple):
    """What steers one denoising call; B frames.

    `previous`, `reference` [B, 4, h, w]; `kps` [B, K, h, w]; `audio` [B, N, 128]; `style` [B, M, 128]; `strength` [B]
    weight of the style attention; `history` [B] noise level given to `previous` (negative: there is none).
    """

    previous: Tensor
    reference: Tensor
    kps: Tensor
    audio: Tensor
    style: Tensor
    strength: Tensor
    history: Tensor


def fourier(x: Tensor, width: int) -> Tensor:
    """Scalars [B] in [0, 1] to sines and cosines [B, width], frequencies 1 to 1000."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=x.device) * (math.log(1000.0) / (half - 1)))
    angle = x[:, None].float() * frequencies[None]
    return torch.cat([angle.sin(), angle.cos()], 1)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3, norm, SiLU, modulation by the embedding, zero-initialised 3x3, beside the identity."""

    def __init__(self, width_in: int, width: int, config: DenoiserConfig) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(config.groups, width_in)
        self.inner = nn.Conv2d(width_in, width, 3, padding=1)
        self.modulation = nn.Linear(config.embedding, 2 * width)
        self.norm_out = nn.GroupNorm(config.groups, width)
        self.outer = zero(nn.Conv2d(width, width, 3, padding=1))
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [B, C, H, W], embedding [B, E]."""
        h = self.inner(F.silu(self.norm_in(x)))
        gain, offset = self.modulation(embedding)[..., None, None].chunk(2, 1)
        h = F.silu(self.norm_out(h)) * (1 + gain) + offset  # right behind the norm, OpenVINO 2026.4 crashes on it
        out: Tensor = self.skip(x) + self.outer(h)
        return out


class Attention(nn.Module):
    """Decoupled cross attention: audio, style with its own keys and values, and self-attention where asked."""

    def __init__(self, width: int, config: DenoiserConfig, *, with_self: bool) -> None:
        super().__init__()
        self.heads = max(1, width // config.head)
        self.norm = nn.GroupNorm(config.groups, width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv_audio = nn.Linear(config.token, 2 * width, bias=False)
        self.to_kv_style = nn.Linear(config.token, 2 * width, bias=False)
        self.to_kv_self = nn.Linear(width, 2 * width, bias=False) if with_self else None
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def _split(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        return x.view(b, n, self.heads, c // self.heads).transpose(1, 2)

    def _attend(self, q: Tensor, kv: Tensor) -> Tensor:
        # Written out: for a handful of keys the fused kernel's backward takes a third of a CPU training step.
        k, v = kv.chunk(2, -1)
        weights = torch.softmax(q @ self._split(k).transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
        return (weights.to(v.dtype) @ self._split(v)).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, c: Conditions) -> Tensor:
        """x [B, C, H, W] to the same shape."""
        b, width, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q = self._split(self.to_q(tokens))
        mixed = self._attend(q, self.to_kv_audio(c.audio))
        mixed = mixed + c.strength[:, None, None].to(mixed.dtype) * self._attend(q, self.to_kv_style(c.style))
        if self.to_kv_self is not None:
            mixed = mixed + self._attend(q, self.to_kv_self(tokens))
        change: Tensor = self.out(mixed).transpose(1, 2).reshape(b, width, h, w)
        return x + change


def zero(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with zero weights: a branch that starts silent."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class Level(nn.Module):
    """A residual block and, below the outermost level, attention."""

    def __init__(self, width_in: int, width: int, config: DenoiserConfig, *, attend: bool, with_self: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(width_in, width, config)
        self.attention = Attention(width, config, with_self=with_self) if attend else None

    def forward(self, x: Tensor, embedding: Tensor, c: Conditions) -> Tensor:
        """x [B, C_in, H, W] to [B, C, H, W]."""
        x = self.block(x, embedding)
        return x if self.attention is None else self.attention(x, c)


class Denoiser(nn.Module):
    """x0 estimate from a noisy latent and the conditions; see the card of this file."""

    def __init__(self, config: DenoiserConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or DenoiserConfig()
        w = c.widths
        self.conv_in = nn.Conv2d(3 * c.latent, w[0], 3, padding=1)
        self.guider = nn.Sequential(
            nn.Conv2d(c.kps, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 32, 3, padding=1), nn.SiLU(),
            zero(nn.Conv2d(32, w[0], 3, padding=1)),
        )
        wide = c.embedding
        self.embed = nn.Sequential(nn.Linear(128 + c.token, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.down = nn.ModuleList(Level(w[i], w[i], c, attend=i > 0, with_self=i > 1) for i in range(4))
        self.reduce = nn.ModuleList(nn.Conv2d(w[i], w[i + 1], 3, stride=2, padding=1) for i in range(3))
        self.up = nn.ModuleList(Level(2 * w[i], w[i], c, attend=i > 0, with_self=i > 1) for i in range(4))
        self.expand = nn.ModuleList(nn.Conv2d(w[i + 1], w[i], 1) for i in range(3))
        self.norm_out = nn.GroupNorm(c.groups, w[0])
        self.conv_out = zero(nn.Conv2d(w[0], c.latent, 3, padding=1))

    def embedding(self, t: Tensor, c: Conditions) -> Tensor:
        """Timestep `t` [B] in [0, 1], history level and the expression token to the modulation vector [B, E]."""
        times = fourier(t, 64)
        history = fourier(c.history.clamp(min=0), 64) * (c.history >= 0).float()[:, None]
        out: Tensor = F.silu(self.embed(torch.cat([times, history, c.audio[:, 0].float()], 1)))
        return out

    def forward(self, x_t: Tensor, t: Tensor, c: Conditions, deep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(x0 [B, 4, h, w], deep [B, w0, h, w]); with `deep` given only the outermost level is computed."""
        embedding = self.embedding(t, c)
        x = self.conv_in(torch.cat([x_t, c.previous, c.reference], 1)) + self.guider(c.kps)
        top = self.down[0](x, embedding, c)
        if deep is None:
            deep = self._below(top, embedding, c)
        x = self.up[0](torch.cat([top, deep], 1), embedding, c)
        correction: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return c.reference + correction, deep

    def _below(self, top: Tensor, embedding: Tensor, c: Conditions) -> Tensor:
        """Levels 1 to 3: [B, w0, h, w] to [B, w0, h, w]."""
        skips = []
        x = top
        for i in range(1, 4):
            x = self.down[i](self.reduce[i - 1](x), embedding, c)
            skips.append(x)
        for i in range(3, 0, -1):
            x = self.up[i](torch.cat([x, skips[i - 1]], 1), embedding, c)
            x = F.interpolate(self.expand[i - 1](x), scale_factor=2.0, mode="nearest")
        return x


def save_denoiser(path: Path, model: Denoiser) -> str:
    """Write as fp16 safetensors; returns the hash."""
    return save_module(path, KIND, asdict(model.config), model)


def load_denoiser(path: Path) -> Denoiser:
    """Read-only model in eval mode. Raises WeightsError."""
    config, tensors = read_weights(path, KIND)
    config["widths"] = tuple(config["widths"])
    model = Denoiser(DenoiserConfig(**config))
    load_into(model, tensors, path)
    return model
