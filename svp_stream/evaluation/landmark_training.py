"""Stage `landmarks`: the landmark gauge learns where the renderer projects the 38 landmarks, through bad weather.

In: the packed pictures of a corpus with their landmarks. Out: `landmarks.safetensors`. It sees training clips of true
pictures only and judges what others make: nothing that is trained may see it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from svp_stream.errors import MediaError
from svp_stream.evaluation.face_reader import key_points
from svp_stream.evaluation.landmark_gauge import WEIGHTS, LandmarkConfig, LandmarkGauge, save_landmark_gauge
from svp_stream.evaluation.measure import shrink
from svp_stream.evaluation.picture_metrics import MOUTH, landmark_distances
from svp_stream.evaluation.weather import disturb, moved, places
from svp_stream.packets import Bytes, Float32
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.sheets import tile, write_png

logger = logging.getLogger(__name__)
BEND: Final = 0.02
"""Distances between the eyes below which an error counts by its square."""
MOUTH_WEIGHT: Final = 2.0


class LandmarkTrainConfig(BaseModel):
    """Profile `configs/train/landmarks.yaml`."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig.model_validate({"steps": 1600, "batch": 16, "lr": 3e-3, "warmup": 50, "ema": 0.99,
                                                  "weight_decay": 0.01, "precision": "fp32", "threads": 1,
                                                  "sheet_every_s": 3600.0})
    every: int = Field(2, ge=1, description="take every n-th picture; neighbours are nearly the same")
    side: int = Field(128, ge=32, multiple_of=16)
    widths: tuple[int, int, int, int] = (12, 24, 48, 64)
    zoom: float = Field(0.15, ge=0, lt=0.5)
    shift: float = Field(0.08, ge=0, lt=0.5)
    turn_deg: float = Field(10.0, ge=0, le=90)


class LandmarkStage:
    """See the card. `pictures` uint8 [F, side, side, 4] (RGB and matte), `landmarks` [F, 38, 2] in shares of the side,
    `split` and `avatar` [F]."""

    def __init__(self, config: LandmarkTrainConfig, pictures: Bytes, landmarks: Float32, split: NDArray[np.str_],
                 avatar: NDArray[np.str_]) -> None:
        self.config, self.pictures, self.landmarks = config, pictures, landmarks
        self.held_out = np.flatnonzero(split != "train")
        train = np.flatnonzero(split == "train")
        if not len(train) or not len(self.held_out):
            raise MediaError("the landmark gauge needs pictures of both splits, 'train' and 'heldout'")
        self.people = [train[avatar[train] == name] for name in np.unique(avatar[train])]
        torch.manual_seed(config.loop.seed)
        self._model = LandmarkGauge(LandmarkConfig(config.side, config.widths))
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._weight = torch.ones(landmarks.shape[1])
        self._weight[MOUTH] = MOUTH_WEIGHT

    @property
    def model(self) -> nn.Module:
        """See TrainingStage."""
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Pictures [B, 4, s, s] and places [B, 38, 2] from -1 to 1; every person equally often."""
        whose = rng.integers(len(self.people), size=size)
        at = np.array([rng.choice(self.people[i]) for i in whose])
        return {"pictures": torch.from_numpy(self.pictures[at]).permute(0, 3, 1, 2).float(),
                "target": torch.from_numpy(self.landmarks[at]) * 2 - 1}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Distance in units of that between the eyes, smooth near 0; the mouth counts double."""
        with torch.autocast("cpu", enabled=False):
            c = self.config
            place = places(len(batch["target"]), c.zoom, c.shift, c.turn_deg)
            seen = disturb(batch["pictures"], place).contiguous(memory_format=torch.channels_last)
            target = moved(batch["target"], place)
            found = model(seen)
            off = (found - target).square().sum(-1)
            far = (off / _eyes(target)[:, None].square() + BEND**2).sqrt() - BEND
        shown = {"percent": 100 * float(off.detach().sqrt().div(_eyes(target)[:, None]).mean())}
        return (far * self._weight).sum(1).mean() / self._weight.sum(), shown

    def validate(self, model: nn.Module) -> dict[str, float]:
        """M-LMD and F-LMD on held-out pictures, and of the mean face laid there: what a guess gives."""
        assert isinstance(model, LandmarkGauge)
        true = self.landmarks[self.held_out] * self.config.side
        found = model.find(self.pictures[self.held_out, ..., :3])
        mouth, face = landmark_distances(found, true)
        mean = np.broadcast_to(true.mean(0), true.shape)
        return {"m_lmd": mouth, "f_lmd": face, "m_lmd_mean_face": landmark_distances(mean, true)[0]}

    def sheet(self, model: nn.Module, path: Path) -> None:
        """Held-out pictures, with what was found (green) over what is true (red)."""
        assert isinstance(model, LandmarkGauge)
        at = self.held_out[np.linspace(0, len(self.held_out) - 1, 8).astype(int)]
        shown = self.pictures[at, ..., :3].copy()
        pairs = ((self.landmarks[at] * self.config.side, (255, 0, 0)), (model.find(shown), (0, 255, 0)))
        for marks, colour in pairs:
            x, y = np.clip(marks, 0, self.config.side - 1).astype(int).transpose(2, 0, 1)
            shown[np.arange(len(at))[:, None], y, x] = colour
        write_png(path, tile([torch.from_numpy(shown).permute(0, 3, 1, 2) / 127.5 - 1]))

    def export(self, model: nn.Module, out: Path) -> None:
        """Write `landmarks.safetensors`."""
        assert isinstance(model, LandmarkGauge)
        logger.info("landmark gauge: %s", ", ".join(f"{k} {v:.3f}" for k, v in self.validate(model).items()))
        save_landmark_gauge(out / WEIGHTS, model)


def _eyes(places: Tensor) -> Tensor:
    """Distance between the eyes [B] of landmarks [B, 38, 2]."""
    kps = torch.from_numpy(key_points(places.numpy()))
    apart: Tensor = torch.linalg.vector_norm(kps[:, 0] - kps[:, 1], dim=-1)
    return apart.clamp(min=1e-3)


def make_landmark_stage(config: LandmarkTrainConfig, frames: Path) -> LandmarkStage:
    """The stage over the packed pictures in `frames`. Raises MediaError when they are missing."""
    index = frames / "index.npz"
    if not index.is_file() or not (frames / "frames.npy").is_file():
        raise MediaError(f"{frames} holds no packed pictures; `svp train` packs them from a corpus with pictures")
    with np.load(index, allow_pickle=False) as z:
        known: dict[str, Any] = {k: z[k][:: config.every] for k in ("landmarks", "split", "avatar")}
    stored = np.load(frames / "frames.npy", mmap_mode="r")[:: config.every]
    small = [shrink(torch.from_numpy(np.array(stored[i : i + 64])), config.side).round().byte()
             for i in range(0, len(stored), 64)]
    pictures = torch.cat(small).permute(0, 2, 3, 1).contiguous().numpy()
    return LandmarkStage(config, pictures, known["landmarks"] / np.float32(stored.shape[1]), known["split"],
                         known["avatar"])
