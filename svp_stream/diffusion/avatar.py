"""An avatar as the street knows it: appearance and head geometry in one weights file, `avatar_<name>.safetensors`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from svp_stream.diffusion.appearance import Appearance
from svp_stream.errors import WeightsError
from svp_stream.packets import Float32
from svp_stream.weights_file import read_weights, save_weights

KIND = "avatar"
PREFIX = "avatar_"


@dataclass(frozen=True)
class Avatar:
    """`geometry` float32 [15] is the vector of `motion.kps.HeadGeometry`."""

    name: str
    appearance: Appearance
    geometry: Float32


def save_avatar(folder: Path, avatar: Avatar) -> str:
    """Write `avatar_<name>.safetensors` as fp16 (geometry and attitudes keep float32's range); returns the hash."""
    a = avatar.appearance
    arrays = {
        "attitudes": a.attitudes, "projection": a.projection, "weights": a.weights, "basis": a.basis,
        "mean": a.mean,
        "geometry": avatar.geometry,
    }
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}
    config = {"name": avatar.name, "width_deg": a.width_deg, "shape": list(a.shape)}
    return save_weights(folder / f"{PREFIX}{avatar.name}.safetensors", KIND, config, tensors, half=True)


def load_avatar(path: Path) -> Avatar:
    """Raises WeightsError when the file is missing, damaged or lacks a part."""
    config, tensors = read_weights(path, KIND)
    try:
        arrays = {k: tensors[k].numpy() for k in ("attitudes", "projection", "weights", "basis", "mean", "geometry")}
        c, h, w = config["shape"]
    except (KeyError, ValueError) as e:
        raise WeightsError(f"avatar {path} lacks {e}; make it again with `svp train image`") from e
    appearance = Appearance(
        arrays["attitudes"], float(config["width_deg"]), arrays["projection"], arrays["weights"], arrays["basis"],
        arrays["mean"], (c, h, w),
    )
    return Avatar(str(config["name"]), appearance, arrays["geometry"])


def avatar_files(folder: Path) -> dict[str, Path]:
    """Name to file of the avatars in a weights folder."""
    return {p.stem.removeprefix(PREFIX): p for p in sorted(folder.glob(f"{PREFIX}*.safetensors"))}
