"""Decoded frames for pixel training: memory-mapped pictures with what is known of each.

Reads what `clips.pack_frames` writes. `Frames` is a view: selecting frames copies indices, never pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svp_stream.errors import MediaError
from svp_stream.packets import Bytes, Float32

Indices = NDArray[np.int64]
FACE_BOX = (-0.95, -0.5, 0.95, 1.75)
"""Left, top, right, bottom of the face box about the middle of the eyes, in inter-ocular distances: eyes to chin."""


@dataclass(frozen=True)
class Frames:
    """F pictures: `pixels` uint8 [F, H, W, 4] (RGB + matte), `expression` [F, 52], `pose` [F, 9] (yaw, pitch, roll, dx,
    dy, lids left and right, gaze x and y), `kps` [F, 3, 2] pixels, `avatar`, `clip`, `style`, `split` strings [F], and
    `number` [F] the frame's place in its clip. Frames of a clip stand together in order."""

    pixels: Any
    expression: Float32
    pose: Float32
    kps: Float32
    avatar: NDArray[np.str_]
    clip: NDArray[np.str_]
    style: NDArray[np.str_]
    split: NDArray[np.str_]
    number: Indices

    def __len__(self) -> int:
        return len(self.number)

    @property
    def size(self) -> int:
        """Side of a picture in pixels."""
        return int(self.pixels.shape[1])

    def select(self, keep: NDArray[np.bool_] | Indices) -> Frames:
        """The frames at `keep` (mask or indices)."""
        chosen = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        pixels = self.pixels if isinstance(self.pixels, _Selected) else _Selected(self.pixels, np.arange(len(self)))
        rest = {k: getattr(self, k)[chosen] for k in self.__dataclass_fields__ if k != "pixels"}
        return Frames(pixels=_Selected(pixels.source, pixels.rows[chosen]), **rest)

    def pairs(self) -> Indices:
        """Indices i whose frame i - 1 is the one before in the same clip."""
        follows = (self.clip[1:] == self.clip[:-1]) & (self.number[1:] == self.number[:-1] + 1)
        return np.flatnonzero(follows) + 1


@dataclass(frozen=True)
class _Selected:
    """Rows of a memory map, read when asked for."""

    source: Any
    rows: Indices

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.source.shape[1:])

    def __getitem__(self, key: Any) -> Bytes:
        first, *rest = key if isinstance(key, tuple) else (key,)
        picked: Bytes = np.asarray(self.source[(self.rows[first], *rest)])
        return picked


def open_frames(folder: Path) -> Frames:
    """Open a packed folder. Raises MediaError naming what is missing."""
    pixels, index = folder / "frames.npy", folder / "index.npz"
    for path in (pixels, index):
        if not path.is_file():
            raise MediaError(f"{path} is missing; pack the corpus first (`svp train` does it when it finds clips)")
    with np.load(index, allow_pickle=False) as z:
        missing = {"expression", "pose", "kps", "avatar", "clip", "style", "split", "number"} - set(z.files)
        if missing:
            raise MediaError(f"{index} lacks {sorted(missing)}; delete {folder} and pack again")
        known = {k: z[k] for k in ("expression", "pose", "kps", "avatar", "clip", "style", "split", "number")}
    return Frames(pixels=np.load(pixels, mmap_mode="r"), **known)


def face_boxes(kps: Float32, size: int) -> Float32:
    """Pixel boxes [F, 4] (left, top, right, bottom) from HEAD-Kps [F, 3, 2], clipped to the picture."""
    middle = kps[:, :2].mean(1)
    unit = np.linalg.norm(kps[:, 1] - kps[:, 0], axis=1, keepdims=True)
    corners = np.concatenate([middle, middle], 1) + unit * np.array(FACE_BOX, np.float32)
    clipped: Float32 = np.clip(np.round(corners), 0, size).astype(np.float32)
    return clipped


def to_tensors(pixels: Bytes | Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [B, H, W, 4] to RGB [B, 3, H, W] and matte [B, 1, H, W], float32 in [-1, 1]."""
    array = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))
    scaled = array.permute(0, 3, 1, 2).float() / 127.5 - 1
    return scaled[:, :3], scaled[:, 3:]
