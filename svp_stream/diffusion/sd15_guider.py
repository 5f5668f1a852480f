"""What enters the UNet before its first block: head pose, the latent of the frame before, and how noisy that one is.

The pose comes as HEAD-Kps fields (`motion.kps`) through a small convolutional guider, 16, 32, 96, 256 channels and a
zero-initialised way out to the width of the first block, added behind `conv_in` (V-Express, DICE-Talk [V]; fields in
place of a drawn picture are ours [R]). The previous latent enters through four more input channels of `conv_in`, zero
at first: a convolution of its own whose result is added is the same sum, and leaves the base weights as they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Guider(nn.Module):
    """HEAD-Kps fields [B, K, s h, s w] to [B, width, h, w]; `scale` s is a power of two up to 8."""

    def __init__(self, fields: int, channels: tuple[int, ...], width: int, scale: int) -> None:
        super().__init__()
        strides = [2 if 2**i < scale else 1 for i in range(len(channels) - 1)]
        layers: list[nn.Module] = [nn.Conv2d(fields, channels[0], 3, padding=1), nn.SiLU()]
        for inputs, outputs, stride in zip(channels, channels[1:], strides, strict=False):
            layers += [nn.Conv2d(inputs, inputs, 3, padding=1), nn.SiLU()]
            layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        # torch's own start loses two thirds of the deviation at each layer, and with seven of them the pose: at the way
        # out, nothing would be left to learn from.
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.leave = nn.Conv2d(channels[-1], width, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, kps: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.leave(self.layers(kps))
        return out


class PreviousLatent(nn.Module):
    """The columns of `conv_in` that read the previous latent: [B, 4, h, w] to [B, width, h, w], zero at first."""

    def __init__(self, conv_in: nn.Conv2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            conv_in.in_channels, conv_in.out_channels, 3, padding=1, bias=False,
        )  # fmt: skip
        nn.init.zeros_(self.conv.weight)

    def forward(self, previous: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.conv(previous)
        return out


class ExtendedInput(nn.Module):
    """Stands for `conv_in`: the base convolution over the noisy latent, plus what rides behind it in the same tensor.

    Takes [B, latent + width, h, w]. The base convolution keeps its weights; nothing here has any of its own.
    """

    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        latent = self.base.in_channels
        out: Tensor = self.base(x[:, :latent]) + x[:, latent:]
        return out


class HistoryEmbedding(nn.Module):
    """Noise level of the previous latent, [B] in [0, 1] or negative for none, to [B, E], zero at first.

    Added to the timestep's embedding, so that the network knows how far to trust the past (METHOD 3, cold and warm).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(64, width)
        self.leave = nn.Linear(width, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, history: Tensor) -> Tensor:
        """See the class."""
        rates = torch.exp(torch.arange(32, device=history.device) * (math.log(1000.0) / 31))
        angle = history.clamp(min=0).float()[:, None] * rates
        told = torch.cat([angle.sin(), angle.cos()], 1) * (history >= 0).float()[:, None]
        out: Tensor = self.leave(F.silu(self.enter(told.to(self.enter.weight.dtype))))
        return out


class Lent(nn.Module):
    """Calls a module that belongs to somebody else: its weights are not counted or saved a second time here."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._lent = (module,)

    def forward(self, x: Tensor) -> Tensor:
        """What the module returns."""
        out: Tensor = self._lent[0](x)
        return out
