"""Eight-bit convolutions: what the activations of a model range over, and the model that computes in steps of that.

In: a module, inputs that are typical of it. Out: `Ranges`, low and high of what enters each convolution; a copy of the
module whose convolutions round their input to 256 steps of its range and their weights to 255 steps for each output
channel. In torch that is the reference ("fake quantisation", Jacob et al. 2018, arXiv 1712.05877); OpenVINO recognises
the same steps and computes in int8, two to three times faster. Remembers: nothing. Ranges ship beside the weights in
`ranges.json`; a folder without that file runs in fp32.

Convolutions that read few channels (latents, key points) or write few (the picture) keep fp32: they cost next to
nothing, and their rounding would show undiluted, as flicker.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.errors import WeightsError
from svp_stream.weights_file import check_hash

FILE: Final = "ranges.json"
LEAST_CHANNELS: Final = 16
"""Read by a convolution that is worth rounding; it writes more than so many."""
STEPS: Final = 255
"""Between the lowest and the highest of 256 values."""
TAIL: Final = 0.05
"""Share of the typical inputs whose extremes may be cut off at either end: one odd frame must not coarsen all."""

Ranges = dict[str, tuple[float, float]]
"""Name of a convolution in its module to (low, high); low <= 0 < high."""


class QuantisedConv(nn.Module):
    """A convolution on rounded input with rounded weights; [B, C, H, W] as `nn.Conv2d`."""

    weight: Tensor
    weight_scale: Tensor
    zeros: Tensor

    def __init__(self, conv: nn.Conv2d, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.scale = (high - low) / STEPS
        self.zero = round(-low / self.scale)
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        weight = conv.weight.detach()
        largest = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-8)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", largest / (STEPS // 2))
        self.register_buffer("zeros", torch.zeros(len(largest), dtype=torch.int32))
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """The rounded convolution."""
        x = torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, STEPS)
        half = STEPS // 2
        weight = torch.fake_quantize_per_channel_affine(self.weight, self.weight_scale, self.zeros, 0, -half, half)
        padding = self.padding if isinstance(self.padding, str) else tuple(self.padding)
        return F.conv2d(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """The range is part of what the module is: compiled graphs are kept by it."""
        return f"{self.low:.6g} to {self.high:.6g}"


def convolutions(module: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    """(name, convolution) of those worth rounding."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d):
            if child.in_channels // child.groups >= LEAST_CHANNELS < child.out_channels:
                yield name, child


def measure(module: nn.Module, inputs: Iterable[Sequence[Tensor]]) -> Ranges:
    """Ranges over typical inputs of `module`; raises ValueError when there are none."""
    lows: dict[str, list[float]] = {}
    highs: dict[str, list[float]] = {}
    number = 0
    with _watched(module, lows, highs), torch.inference_mode():
        for given in inputs:
            module(*given)
            number += 1
    if not number:
        raise ValueError("no input: there is nothing to measure")
    return {name: (min(_tail(lows[name], TAIL), 0.0), max(_tail(highs[name], 1 - TAIL), 1e-3)) for name in lows}


@contextmanager
def _watched(module: nn.Module, lows: dict[str, list[float]], highs: dict[str, list[float]]) -> Iterator[None]:
    def watch(name: str) -> object:
        def see(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            lows.setdefault(name, []).append(float(given[0].min()))
            highs.setdefault(name, []).append(float(given[0].max()))

        return see

    hooks = [conv.register_forward_pre_hook(watch(name)) for name, conv in convolutions(module)]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tail(values: list[float], share: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(share))


def quantised(module: nn.Module, ranges: Ranges) -> nn.Module:
    """A copy of `module` in eval mode with rounded convolutions; those without a range stay as they are.

    Raises WeightsError for a range of a convolution that the module does not have.
    """
    copied = copy.deepcopy(module).eval()
    known = dict(convolutions(copied))
    strangers = sorted(set(ranges) - set(known))
    if strangers:
        raise WeightsError(f"{FILE} names {strangers[0]}, which is no convolution of this model: run `svp ranges`")
    for name, (low, high) in ranges.items():
        parent, _, last = name.rpartition(".")
        setattr(copied.get_submodule(parent), last, QuantisedConv(known[name], low, high))
    return copied


def write_ranges(path: Path, ranges: dict[str, Ranges]) -> None:
    """Ranges of several programs, by program, as JSON."""
    rounded = {p: {n: [round(v, 5) for v in pair] for n, pair in r.items()} for p, r in ranges.items()}
    path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


def read_ranges(path: Path) -> dict[str, Ranges]:
    """What `write_ranges` wrote; empty when there is no such file. Raises WeightsError for a malformed one."""
    if not path.is_file():
        return {}
    check_hash(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        ranges = {str(p): {str(n): (float(low), float(high)) for n, (low, high) in r.items()} for p, r in data.items()}
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise WeightsError(f"{path} holds no ranges ({e}); run `svp ranges` to write it again, or delete it") from e
    for program, named in ranges.items():
        for name, (low, high) in named.items():
            if not (-1e6 < low <= 0 < high < 1e6):
                raise WeightsError(f"{path}: {program}, {name}: expected low <= 0 < high, found {low} and {high}")
    return ranges
