"""The landmark gauge: a small network that finds the 38 landmarks in one whole picture, as `svp paper` needs for M-LMD.

In: pictures uint8 [N, H, W, 3], square, head and shoulders, of any size. Out: landmarks float32 [N, 38, 2] in pixels of
the picture, in the order of `LANDMARKS`. Remembers: nothing; every picture is read afresh.

A map of weights for each landmark, softmax over its cells, and the mean of their places: the coordinate regression of
Nibali et al. 2018 (DSNT) without its regulariser. It is trained on the renderer's projected landmarks, apart from
everything that it judges (see `landmark_training`), and its error on true pictures stands beside every figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.errors import MediaError
from svp_stream.evaluation.face_reader import FaceReader
from svp_stream.evaluation.measure import shrink
from svp_stream.packets import Bytes, Float32
from svp_stream.synthetic.landmarks import LANDMARKS
from svp_stream.weights_file import load_into, read_weights, save_module

KIND: Final = "landmarks"
WEIGHTS: Final = "landmarks.safetensors"
_BATCH: Final = 32
Finder = Callable[[Bytes], Float32]
"""A film uint8 [T, H, W, 3] to landmarks float32 [T, 38, 2] in its pixels, NaN where no face is seen."""


@dataclass(frozen=True, slots=True)
class LandmarkConfig:
    """`side` of the picture that the network sees, a multiple of 16; `widths` of its four levels, of which the first
    has half the side and carries the maps."""

    side: int = 128
    widths: tuple[int, int, int, int] = (12, 24, 48, 64)


class LandmarkGauge(nn.Module):
    """Down by strided convolutions, up again with the finer level added, one map a landmark at half the side."""

    grid: Tensor

    def __init__(self, config: LandmarkConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c, d = config.widths
        self.first = nn.Sequential(nn.Conv2d(3, a, 5, 2, 2), nn.SiLU())
        self.down = nn.ModuleList(_Down(*pair) for pair in ((a, b), (b, c), (c, d)))
        self.up = nn.ModuleList(_Up(*pair) for pair in ((d, c), (c, b), (b, a)))
        self.maps = nn.Conv2d(a, len(LANDMARKS), 1)
        cells = config.side // 2
        self.register_buffer("grid", (torch.arange(cells) + 0.5) * 2 / cells - 1, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, 3, side, side] in [-1, 1] to places [B, 38, 2], x and y, -1 and 1 being the picture's edges."""
        levels = [self.first(pictures)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up in self.up:
            x = up(x, levels.pop())
        weight = self.maps(x).flatten(2).softmax(-1).unflatten(-1, (len(self.grid), len(self.grid)))
        return torch.stack([weight.sum(2) @ self.grid, weight.sum(3) @ self.grid], -1)

    @torch.inference_mode()
    def find(self, pictures: Bytes) -> Float32:
        """Landmarks float32 [N, 38, 2] of uint8 [N, H, H, 3]; raises MediaError for another shape or type."""
        if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
            raise MediaError(f"the landmark gauge reads uint8 [N, H, H, 3], got {pictures.dtype} "
                             f"{list(pictures.shape)}")
        if pictures.shape[1] != pictures.shape[2]:
            raise MediaError(f"the landmark gauge reads square pictures, got {list(pictures.shape[1:3])}")
        rows = [torch.zeros(0, len(LANDMARKS), 2)]
        for start in range(0, len(pictures), _BATCH):
            seen = shrink(torch.from_numpy(np.ascontiguousarray(pictures[start : start + _BATCH])), self.config.side)
            rows.append((self(seen / 127.5 - 1) + 1) * (pictures.shape[1] / 2))
        return torch.cat(rows).numpy()


class _Down(nn.Module):
    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(narrow, wide, 3, 2, 1)
        self.conv = nn.Conv2d(wide, wide, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.halve(x))
        return x + F.silu(self.conv(x))


class _Up(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(wide, narrow, 1)
        self.conv = nn.Conv2d(narrow, narrow, 3, 1, 1)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        x = F.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest") + finer
        return x + F.silu(self.conv(x))


def reader_finder(reader: FaceReader) -> Finder:
    """A `FaceReader` (MediaPipe, a 3DMM) in the gauge's place."""
    none = np.full((len(LANDMARKS), 2), np.nan, np.float32)

    def find(film: Bytes) -> Float32:
        reader.reset()
        read = [reader.read(np.ascontiguousarray(picture)) for picture in film]
        return np.stack([none if r is None else r.landmarks for r in read])

    return find


def save_landmark_gauge(path: Path, gauge: LandmarkGauge) -> str:
    """Write `landmarks.safetensors` in half precision; returns its hash."""
    return save_module(path, KIND, asdict(gauge.config), gauge, half=True)


def load_landmark_gauge(path: Path) -> LandmarkGauge:
    """Read it; raises WeightsError."""
    config, tensors = read_weights(path, KIND)
    gauge = LandmarkGauge(LandmarkConfig(**config | {"widths": tuple(config["widths"])}))
    load_into(gauge, tensors, path)
    return gauge
