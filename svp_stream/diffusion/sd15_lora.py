"""Low-rank changes of the base UNet (LoRA, arXiv 2106.09685): trained by peft, kept apart, and folded in to serve.

In: a grafted `Sd15`. Out: the same with peft's layers in it, which begin as no change; a safetensors file with
diffusers' names (`unet.<layer>.lora_A.weight`); for serving, base weights with the change added once, so that a frame
costs what it did and peft need not be there.

    W' = W + alpha / rank B A
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from svp_stream.diffusion.sd15 import Sd15
from svp_stream.errors import ConfigError, WeightsError
from svp_stream.weights_file import read_weights, save_weights

KIND: Final = "sd15-lora"
PREFIX: Final = "unet."
ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Rank 64 is LCM-LoRA's [V]; the layers (ends of their names: linear or convolution) are ours [R]."""

    rank: int = 64
    alpha: float = 64.0
    targets: tuple[str, ...] = ATTENTION

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not self.targets:
            raise ValueError(f"a LoRA has a rank, an alpha and targets, got {self}")


def attach(model: Sd15, config: LoraConfig) -> None:
    """Put low-rank layers into the UNet; they change nothing until trained. Raises ConfigError without peft, or where
    no layer has such a name."""
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as e:
        raise ConfigError("LoRA needs peft, which is not installed: pip install 'svp-stream[train]'") from e
    told = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets))
    try:
        inject_adapter_in_model(told, model.unet)
    except ValueError as e:
        raise ConfigError(f"lora.targets {list(config.targets)}: the UNet has no layer of such a name ({e})") from e


def lora_parameters(model: Sd15) -> dict[str, nn.Parameter]:
    """By diffusers' names, what `attach` put in; empty without."""
    return {
        PREFIX + name.replace(".default.", "."): p for name, p in model.unet.named_parameters() if ".lora_" in name
    }


def save_lora(path: Path, model: Sd15, config: LoraConfig, base: str, *, half: bool = True) -> str:
    """Write the low-rank layers and the fingerprint `base` of what they change; returns the file's hash."""
    tensors: Mapping[str, Tensor] = lora_parameters(model)
    return save_weights(path, KIND, {"lora": asdict(config), "base": base}, tensors, half=half)


def read_lora(path: Path) -> tuple[LoraConfig, str, dict[str, Tensor]]:
    """(config, fingerprint of the base, tensors). Raises WeightsError."""
    values, tensors = read_weights(path, KIND)
    try:
        told: dict[str, Any] = dict(values["lora"])
        return LoraConfig(**told | {"targets": tuple(told["targets"])}), str(values["base"]), tensors
    except (KeyError, TypeError, ValueError) as e:
        raise WeightsError(f"LoRA {path} carries a configuration that this version does not know: {e}") from e


def restore_lora(path: Path, model: Sd15) -> LoraConfig:
    """`attach`, with the values of a file, to go on training. Raises WeightsError where it does not fit."""
    config, _, tensors = read_lora(path)
    attach(model, config)
    own = lora_parameters(model)
    if differing := sorted(own.keys() ^ tensors.keys()):
        raise WeightsError(f"LoRA {path} does not fit this UNet: {differing[0]} and the like")
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(tensors[name])
    return config


@torch.no_grad()
def fuse_lora(path: Path, model: Sd15, base: str) -> None:
    """Add the change to the base weights, without peft. Raises WeightsError where it was trained on another base."""
    config, found, tensors = read_lora(path)
    if found != base:
        raise WeightsError(f"LoRA {path} was trained on another UNet (fingerprint {found[:12]}, not {base[:12]})")
    for name in (n.removesuffix(".lora_A.weight") for n in tensors if n.endswith(".lora_A.weight")):
        try:
            weight = model.unet.get_parameter(f"{name.removeprefix(PREFIX)}.weight")
            down, up = (tensors[f"{name}.lora_{x}.weight"].float().flatten(1) for x in "AB")
            weight += (config.alpha / config.rank * (up @ down)).view_as(weight).to(weight)
        except (AttributeError, KeyError, RuntimeError) as e:
            raise WeightsError(f"LoRA {path} does not fit this UNet at {name}: {e}") from e
