"""The gauge: a small network that reads a face off one whole picture, and so measures what a viewer would see.

In: pictures uint8 [N, H, W, 3], square, head and shoulders, of any size; no key points, so that pictures received over
a network do. Out: float32 [N, 49] in the order of `READINGS`: opening and width of the lips and opening of the lids in
distances between the eyes, the 42 coefficients of speech, and the head's angles in degrees.
Remembers: nothing. It is trained apart from everything that it judges (see `gauge_training`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.arkit import SPEECH, SPEECH_SLICE
from svp_stream.errors import MediaError
from svp_stream.evaluation.style_judge import JudgeConfig, StyleJudge
from svp_stream.packets import Bytes, Float32
from svp_stream.synthetic.landmarks import LANDMARKS
from svp_stream.weights_file import load_into, read_weights, save_module

KIND: Final = "evaluator"
WEIGHTS: Final = "evaluator.safetensors"
MEASURES: Final = ("lip_open", "lip_width", "eye_open_left", "eye_open_right")
POSE: Final = ("yaw", "pitch", "roll")
READINGS: Final = MEASURES + SPEECH + POSE
READING: Final = {name: i for i, name in enumerate(READINGS)}
SPEECH_READINGS: Final = slice(len(MEASURES), len(MEASURES) + len(SPEECH))
_BATCH = 32
_GAPS: Final = (
    ("inner_lip_top", "inner_lip_bottom"), ("inner_lip_left", "inner_lip_right"),
    ("left_eye_top", "left_eye_bottom"), ("right_eye_top", "right_eye_bottom"),
)  # fmt: skip


def truth(landmarks: Float32, kps: Float32, expression: Float32, pose: Float32) -> Float32:
    """What the gauge should read, float32 [N, 49].

    From the renderer's landmarks [N, 38, 2] and kps [N, 3, 2] in pixels, expression [N, 52] and pose [N, 9].
    """
    unit = np.linalg.norm(kps[:, 0] - kps[:, 1], axis=1)
    gaps = [landmarks[:, LANDMARKS.index(a)] - landmarks[:, LANDMARKS.index(b)] for a, b in _GAPS]
    lengths = np.stack([np.linalg.norm(gap, axis=1) / unit for gap in gaps], axis=1)
    return np.concatenate([lengths, expression[:, SPEECH_SLICE], pose[:, : len(POSE)]], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class GaugeConfig:
    """`side` of the picture that the network sees, a multiple of 16; `widths` of its five levels; `features` of the
    layer before the readings."""

    side: int = 128
    widths: tuple[int, int, int, int, int] = (16, 32, 64, 96, 24)
    features: int = 128


class Gauge(nn.Module):
    """Strided convolutions down to an eighth of an eighth, then two linear layers that know the places."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: GaugeConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c, d, e = config.widths
        cells = (config.side // 16) ** 2
        self.trunk = nn.Sequential(
            nn.Conv2d(3, a, 5, 2, 2), nn.SiLU(),
            nn.Conv2d(a, b, 3, 2, 1), nn.SiLU(), _Residual(b),
            nn.Conv2d(b, c, 3, 2, 1), nn.SiLU(), _Residual(c),
            nn.Conv2d(c, d, 3, 2, 1), nn.SiLU(), _Residual(d),
            nn.Conv2d(d, e, 1), nn.SiLU(), nn.Flatten(),
        )  # fmt: skip
        self.hidden = nn.Linear(cells * e, config.features)
        self.out = nn.Linear(config.features, len(READINGS))
        self.register_buffer("mean", torch.zeros(len(READINGS)))
        self.register_buffer("std", torch.ones(len(READINGS)))

    def look(self, pictures: Tensor) -> Tensor:
        """[B, 3, side, side] in [-1, 1] to features [B, features]."""
        return F.silu(self.hidden(self.trunk(pictures)))

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, 3, side, side] in [-1, 1] to standardised readings [B, 49]."""
        out: Tensor = self.out(self.look(pictures))
        return out

    @torch.inference_mode()
    def read(self, pictures: Bytes) -> Float32:
        """Readings float32 [N, 49] of uint8 [N, H, W, 3]; raises MediaError for another shape or type."""
        if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
            raise MediaError(f"the gauge reads uint8 [N, H, W, 3], got {pictures.dtype} {list(pictures.shape)}")
        rows = []
        for start in range(0, len(pictures), _BATCH):
            seen = shrink(torch.from_numpy(np.ascontiguousarray(pictures[start : start + _BATCH])), self.config.side)
            rows.append(self(seen / 127.5 - 1) * self.std + self.mean)
        return torch.cat(rows).numpy() if rows else np.zeros((0, len(READINGS)), np.float32)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.conv(x))


def shrink(pictures: Tensor, side: int) -> Tensor:
    """uint8 [N, H, W, C] to float32 [N, C, side, side] in [0, 255] by the mean over areas."""
    planes = pictures.permute(0, 3, 1, 2).float()
    if planes.shape[2] < side:
        return F.interpolate(planes, size=(side, side), mode="bilinear", antialias=False)
    return F.interpolate(planes, size=(side, side), mode="area")


class Evaluator(nn.Module):
    """Gauge and judge of one file."""

    def __init__(self, gauge: GaugeConfig, judge: JudgeConfig) -> None:
        super().__init__()
        self.gauge = Gauge(gauge)
        self.judge = StyleJudge(judge)


def save_evaluator(path: Path, evaluator: Evaluator) -> str:
    """Write `evaluator.safetensors` in half precision; returns its hash."""
    config = {"gauge": asdict(evaluator.gauge.config), "judge": asdict(evaluator.judge.config)}
    return save_module(path, KIND, config, evaluator, half=True)


def load_evaluator(path: Path) -> Evaluator:
    """Read `evaluator.safetensors`; raises WeightsError."""
    config, tensors = read_weights(path, KIND)
    gauge: dict[str, Any] = config["gauge"]
    evaluator = Evaluator(
        GaugeConfig(**gauge | {"widths": tuple(gauge["widths"])}),
        JudgeConfig(**config["judge"] | {"styles": tuple(config["judge"]["styles"])}),
    )
    load_into(evaluator, tensors, path)
    return evaluator
