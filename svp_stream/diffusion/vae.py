"""The tiny autoencoder: RGB picture to 4 latent channels at an eighth of the size, and back to RGB + alpha matte.

A straight linear path (patch PCA, fitted in closed form on the training pictures) carries the picture from the first
step; zero-initialised convolutions learn the rest. No normalisation layers: a decoder of this size is bound by memory
traffic, and plain convolutions quantise well. Latents leave the encoder with zero mean and unit standard deviation per
channel (`shift`, `scale` are measured after training).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.weights_file import load_into, read_weights, save_module

KIND = "autoencoder"
FACTOR = 8


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """`widths` are the channels at 1/8, 1/4 and 1/2 of the picture size; `depths` the residual blocks there."""

    latent: int = 4
    widths: tuple[int, int, int] = (128, 64, 32)
    depths: tuple[int, int, int] = (2, 1, 1)


class Residual(nn.Module):
    """Two 3x3 convolutions, the second zero-initialised, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.outer.weight)
        if self.outer.bias is not None:
            nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        change: Tensor = self.outer(F.silu(self.inner(F.silu(x))))
        return x + change


def _blocks(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(width) for _ in range(depth)))


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class Encoder(nn.Module):
    """RGB [B, 3, H, W] in [-1, 1] to raw latents [B, c, H/8, W/8]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        low, mid, high = config.widths
        self.linear = nn.Conv2d(3 * FACTOR**2, config.latent, 1)
        self.stem = nn.Conv2d(12, high, 3, padding=1)
        self.high = _blocks(high, config.depths[2])
        self.to_mid = nn.Conv2d(4 * high, mid, 3, padding=1)
        self.mid = _blocks(mid, config.depths[1])
        self.to_low = nn.Conv2d(4 * mid, low, 3, padding=1)
        self.low = _blocks(low, config.depths[0])
        self.out = _zero(nn.Conv2d(low, config.latent, 3, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        """Linear path plus learned correction."""
        x = self.high(self.stem(F.pixel_unshuffle(picture, 2)))
        x = self.mid(self.to_mid(F.pixel_unshuffle(x, 2)))
        x = self.low(self.to_low(F.pixel_unshuffle(x, 2)))
        straight: Tensor = self.linear(F.pixel_unshuffle(picture, FACTOR))
        detail: Tensor = self.out(F.silu(x))
        return straight + detail


class Decoder(nn.Module):
    """Raw latents [B, c, h, w] to RGB + alpha [B, 4, 8h, 8w], all in [-1, 1] (not clipped)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        low, mid, high = config.widths
        self.linear = nn.Conv2d(config.latent, 4 * FACTOR**2, 1)
        self.stem = nn.Conv2d(config.latent, low, 3, padding=1)
        self.low = _blocks(low, config.depths[0])
        self.to_mid = nn.Conv2d(low, 4 * mid, 1)
        self.mid = _blocks(mid, config.depths[1])
        self.to_high = nn.Conv2d(mid, 4 * high, 1)
        self.high = _blocks(high, config.depths[2])
        self.out = _zero(nn.Conv2d(high, 4 * 4, 3, padding=1))

    def forward(self, latent: Tensor) -> Tensor:
        """Linear path plus learned correction."""
        x = self.low(self.stem(latent))
        x = self.mid(F.pixel_shuffle(self.to_mid(F.silu(x)), 2))
        x = self.high(F.pixel_shuffle(self.to_high(F.silu(x)), 2))
        detail = F.pixel_shuffle(self.out(F.silu(x)), 2)
        return F.pixel_shuffle(self.linear(latent), FACTOR) + detail


class Autoencoder(nn.Module):
    """Encoder and decoder with the latent scale between them."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or AutoencoderConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.register_buffer("shift", torch.zeros(1, self.config.latent, 1, 1))
        self.register_buffer("scale", torch.ones(1, self.config.latent, 1, 1))

    def encode(self, picture: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in [-1, 1] to unit latents [B, c, H/8, W/8]; ValueError for sides not divisible by 8."""
        if picture.shape[-1] % FACTOR or picture.shape[-2] % FACTOR:
            raise ValueError(f"picture sides must be multiples of {FACTOR}, got {tuple(picture.shape[-2:])}")
        latent: Tensor = (self.encoder(picture) - self.shift) / self.scale
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Unit latents to RGB + alpha [B, 4, H, W] in [-1, 1], not clipped."""
        out: Tensor = self.decoder(latent * self.scale + self.shift)
        return out

    @torch.no_grad()
    def start_from_patches(self, pictures: Tensor, alpha: Tensor) -> None:
        """Fit the linear paths in closed form: PCA of 8x8 patches of `pictures` [N, 3, H, W], and the least-squares map
        from those components to the patches of RGB and `alpha` [N, 1, H, W] (all in [-1, 1])."""
        patches = F.pixel_unshuffle(pictures, FACTOR).movedim(1, -1).reshape(-1, 3 * FACTOR**2).double()
        both = F.pixel_unshuffle(torch.cat([pictures, alpha], 1), FACTOR).movedim(1, -1)
        targets = both.reshape(-1, 4 * FACTOR**2).double()
        mean = patches.mean(0)
        _, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        basis = vectors[:, -self.config.latent :].flip(1)
        z = (patches - mean) @ basis
        spread = z.std(0)
        z = z / spread
        ones = torch.cat([z, torch.ones_like(z[:, :1])], 1)
        back = torch.linalg.lstsq(ones, targets).solution
        enc, dec = self.encoder.linear, self.decoder.linear
        assert enc.bias is not None and dec.bias is not None
        enc.weight.copy_((basis / spread).T[..., None, None].float())
        enc.bias.copy_((-(mean @ basis) / spread).float())
        dec.weight.copy_(back[:-1].T[..., None, None].float())
        dec.bias.copy_(back[-1].float())

    @torch.no_grad()
    def measure_latents(self, pictures: Tensor) -> None:
        """Set `shift` and `scale` so that the latents of `pictures` [N, 3, H, W] have zero mean and unit deviation."""
        raw = self.encoder(pictures)
        self.shift.copy_(raw.mean((0, 2, 3), keepdim=True))
        self.scale.copy_(raw.std((0, 2, 3), keepdim=True))


def save_autoencoder(path: Path, model: Autoencoder) -> str:
    """Write as fp16 safetensors; returns the hash."""
    return save_module(path, KIND, asdict(model.config), model)


def load_autoencoder(path: Path) -> Autoencoder:
    """Read-only model in eval mode. Raises WeightsError."""
    config, tensors = read_weights(path, KIND)
    shaped = AutoencoderConfig(config["latent"], tuple(config["widths"]), tuple(config["depths"]))
    model = Autoencoder(shaped)
    load_into(model, tensors, path)
    return model
