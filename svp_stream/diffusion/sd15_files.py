"""Base weights and adapters on disk: what diffusers ships, and beside it only what is ours.

In: a local folder in diffusers' layout (`unet/`, `vae/`) or a hub id. Out: UNet, autoencoder, and a grafted `Sd15` with
its adapters. A safetensors file of adapters carries its configuration and the fingerprint of the base that it was
trained on; put on another base it would make noise, so that is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from svp_stream.diffusion.sd15 import Sd15, Sd15Config
from svp_stream.diffusion.sd15_audio import AudioProjectionConfig
from svp_stream.diffusion.sd15_lora import fuse_lora
from svp_stream.errors import WeightsError
from svp_stream.weights_file import read_weights, save_weights

KIND: Final = "sd15-adapters"
SAMPLED: Final = 256
LAYOUT: Final = "a local folder in diffusers' layout (unet/, vae/), or a hub id that can be reached from here"


def load_unet(where: str) -> Any:
    """diffusers' `UNet2DConditionModel` in fp32, from a folder that holds it or a `unet/`, or by hub id.

    Raises WeightsError.
    """
    from diffusers import UNet2DConditionModel

    unet = _from_pretrained(UNet2DConditionModel, where, "unet")
    if unet.config.class_embed_type is not None or unet.config.encoder_hid_dim_type is not None:
        raise WeightsError(f"the UNet of {where} is no plain Stable Diffusion 1.x UNet: it has other embeddings")
    if not isinstance(unet.config.cross_attention_dim, int):
        raise WeightsError(f"the UNet of {where} has several widths of cross attention; Stable Diffusion 1.x has one")
    return unet


def load_vae(where: str) -> Any:
    """`AutoencoderKL` or `AutoencoderTiny`, whichever the folder's config.json names. Raises WeightsError."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    folder = Path(where)
    named = next((f for f in (folder / "vae" / "config.json", folder / "config.json") if f.is_file()), None)
    kind = json.loads(named.read_text(encoding="utf-8")).get("_class_name") if named else None
    known = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
    if kind is not None and kind not in known:
        raise WeightsError(f"{named} is a {kind}; AutoencoderKL or AutoencoderTiny is needed")
    chosen = known[kind] if kind else AutoencoderTiny if "taesd" in where.lower() else AutoencoderKL
    return _from_pretrained(chosen, where, "vae")


def _from_pretrained(kind: Any, where: str, part: str) -> Any:
    folder = Path(where)
    local = folder.is_dir()
    whole = local and (folder / "config.json").is_file()
    if not local and (folder.is_absolute() or where.startswith((".", "~")) or where.count("/") != 1):
        raise WeightsError(f"there is no folder {where}; name {LAYOUT}")
    if local and not whole and not (folder / part / "config.json").is_file():
        raise WeightsError(f"{folder} holds no {part}/config.json; name {LAYOUT}")
    inside = {} if whole or (not local and "taesd" in where.lower()) else {"subfolder": part}
    try:
        model = kind.from_pretrained(where, torch_dtype=torch.float32, **inside)
    except (OSError, ValueError, RuntimeError, KeyError) as e:
        reason = " ".join(str(e).split())[:300]
        raise WeightsError(f"the {part} of {where} cannot be loaded ({reason}); name {LAYOUT}") from e
    return model.eval()


def fingerprint(unet: Any) -> str:
    """What tells one base from another: names, shapes and a sample of every tensor, rounded to fp16, so that a copy of
    the same weights in half precision counts as the same. To be taken before grafting."""
    digest = hashlib.sha256()
    for name, value in sorted(unet.state_dict().items()):
        flat = value.detach().flatten()
        some = flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED].to("cpu", torch.float16)
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()


def save_adapters(path: Path, model: Sd15, base: str, *, half: bool = True) -> str:
    """Write what is ours and the fingerprint `base` of what it stands on; returns the file's hash."""
    config: dict[str, Any] = {"sd15": asdict(model.config), "base": base}
    tensors: Mapping[str, Tensor] = model.parameters_to_train()
    return save_weights(path, KIND, config, tensors, half=half)


def load_sd15(adapters: Path, base: str, lora: Path | None = None) -> Sd15:
    """Base and adapters, frozen, in eval mode; a LoRA is folded into the base.

    Raises WeightsError: missing, damaged, or made for another base.
    """
    values, tensors = read_weights(adapters, KIND)
    unet = load_unet(base)
    found = fingerprint(unet)
    if values.get("base") != found:
        raise WeightsError(
            f"adapters {adapters} were trained on another UNet (fingerprint {str(values.get('base'))[:12]}) than "
            f"{base} (fingerprint {found[:12]}); name the base they belong to, or train adapters for this one"
        )
    model = Sd15(unet, read_config(values, adapters))
    wanted = model.parameters_to_train()
    if differing := sorted(wanted.keys() ^ tensors.keys()):
        raise WeightsError(f"adapters {adapters} do not fit this version of the model: {differing[0]} and the like")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if parameter.shape != tensors[name].shape:
                raise WeightsError(f"adapters {adapters}: {name} has shape {list(tensors[name].shape)}, expected "
                                   f"{list(parameter.shape)}")
            parameter.copy_(tensors[name])
    if lora is not None:
        fuse_lora(lora, model, found)
    return model.eval().requires_grad_(False)


def read_config(values: Mapping[str, Any], path: Path) -> Sd15Config:
    """Of a file's metadata; raises WeightsError."""
    try:
        told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["sd15"].items()}
        told["audio"] = AudioProjectionConfig(**told["audio"])
        return Sd15Config(**told)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise WeightsError(f"adapters {path} carry a configuration that this version does not know: {e}") from e
