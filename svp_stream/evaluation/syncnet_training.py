"""Stage `syncnet`: five mouths and 200 ms of sound into one space, by contrast.

In: clips with pictures (rendered or prepared). Out: `syncnet.safetensors`. It learns from the truth alone and judges
what others make: nothing that is trained may see it.
Negatives of a window are other times of the same clip, at least three frames off, and other clips.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from svp_stream.errors import MediaError
from svp_stream.evaluation.syncnet import (
    MOST_SHIFT,
    WEIGHTS,
    WINDOW,
    SyncConfig,
    SyncNet,
    contrast,
    log_mel,
    mouths,
    save_syncnet,
    shift_distances,
    sync_scores,
)
from svp_stream.packets import Bytes
from svp_stream.synthetic.sidecar import SAMPLES_PER_FRAME
from svp_stream.training.clips import Clip, Clips, read_frames
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.mel import LogMel
from svp_stream.training.sheets import tile, write_png

logger = logging.getLogger(__name__)
LOUD_SHARE = 0.8
"""Share of the windows that are drawn where something is heard; silence fits every silence."""


class SyncTrainConfig(BaseModel):
    """Profile `configs/train/syncnet.yaml`."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig.model_validate({"steps": 3000, "batch": 64, "lr": 1e-3, "warmup": 50, "ema": 0.99,
                                                  "weight_decay": 0.02, "threads": 1, "precision": "fp32",
                                                  "sheet_every_s": 3600.0})
    windows: int = Field(4, ge=2, description="of one clip in a batch")
    widths: tuple[int, int, int, int] = (16, 32, 64, 96)
    dim: int = Field(128, ge=8)
    shift_px: int = Field(3, ge=0, description="the mouth's box is off by up to this, in its own pixels")
    exposure: float = Field(0.25, ge=0, lt=1)


@dataclass(frozen=True)
class Watched:
    """One clip in memory: mouths uint8 [T, 48, 96], log-mel [2T, 40], loudness of the windows [T - 4]."""

    mouths: Bytes
    mel: Tensor
    loud: NDArray[np.bool_]
    audio: NDArray[np.int16]

    @classmethod
    def of(cls, clip: Clip, mel: LogMel) -> Watched:
        """Read a clip."""
        audio = clip.audio
        level = np.abs(audio.astype(np.float32)).reshape(-1, SAMPLES_PER_FRAME).mean(1)
        heard = level > 0.1 * np.percentile(level, 95)
        loud = np.array([heard[n : n + WINDOW].any() for n in range(clip.frames - WINDOW + 1)])
        return cls(mouths(read_frames(clip)[0], clip.kps), log_mel(mel, audio), loud, audio)

    def __len__(self) -> int:
        return len(self.loud)


class SyncStage:
    """See the card and `TrainingStage`."""

    def __init__(self, config: SyncTrainConfig, train: list[Watched], held: list[Watched]) -> None:
        if len(train) < 2 or not held:
            raise MediaError(f"a SyncNet needs two clips of split 'train' and one of 'heldout' with a picture and of "
                             f"{(2 * MOST_SHIFT + WINDOW + 5) / 25:.1f} s or more; found {len(train)} and {len(held)}")
        self.config, self.train, self.held = config, train, held
        torch.manual_seed(config.loop.seed)
        self._model = SyncNet(SyncConfig(config.widths, config.dim))

    @property
    def model(self) -> nn.Module:
        """See TrainingStage."""
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Windows of mouths [B, 5, 48, 96] in [-1, 1] and of sound [B, 10, 40], with their clip and time [B]."""
        clips = rng.integers(len(self.train), size=max(size // self.config.windows, 2))
        rows: list[tuple[int, int]] = []
        for number in clips:
            clip = self.train[number]
            free = np.flatnonzero(clip.loud) if rng.random() < LOUD_SHARE and clip.loud.any() else np.arange(len(clip))
            rows += [(int(number), int(n)) for n in rng.choice(free, self.config.windows)]
        seen = np.stack([self.train[c].mouths[n : n + WINDOW] for c, n in rows])
        heard = torch.stack([self.train[c].mel[2 * n : 2 * (n + WINDOW)] for c, n in rows])
        who, when = (torch.tensor(column) for column in zip(*rows, strict=True))
        return {"mouths": self._worn(seen, rng), "mel": heard, "clip": who, "at": when}

    def _worn(self, seen: Bytes, rng: np.random.Generator) -> Tensor:
        """Each window shifted, mirrored, lit otherwise, all its frames alike."""
        out = np.empty(seen.shape, np.float32)
        most = self.config.shift_px
        for i, window in enumerate(seen):
            padded = np.pad(window, ((0, 0), (most, most), (most, most)), mode="edge")
            y, x = rng.integers(0, 2 * most + 1, 2)
            moved = padded[:, y : y + window.shape[1], x : x + window.shape[2]].astype(np.float32) / 127.5 - 1
            moved = moved[:, :, ::-1] if rng.random() < 0.5 else moved
            gain, lift = 1 + self.config.exposure * rng.uniform(-1, 1, 2)
            out[i] = moved * gain + (lift - 1)
        return torch.from_numpy(out)

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """InfoNCE both ways."""
        assert isinstance(model, SyncNet)
        scale = model.log_scale.clamp(max=float(np.log(100))).exp()
        seen, heard = model.look(batch["mouths"]), model.listen(batch["mel"])
        loss = contrast(seen, heard, batch["clip"], batch["at"], scale)
        return loss, {"scale": float(scale.detach())}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Over held-out clips: accuracy within one frame of single windows (a guess: 3 in 31), Sync-C, offset; and
        with the sound of each clip turned round in time."""
        assert isinstance(model, SyncNet)
        figures: dict[str, list[float]] = {"accuracy": [], "sync_c": [], "offset_ms": [], "accuracy_turned": [],
                                           "sync_c_turned": []}
        for clip in self.held:
            seen, heard = model.seen(clip.mouths), model.heard(clip.audio)
            true = sync_scores(shift_distances(seen, heard))
            turned = sync_scores(shift_distances(seen, np.roll(heard, len(heard) // 2, axis=0)))
            row = (true.accuracy, true.confidence, abs(true.offset_ms), turned.accuracy, turned.confidence)
            for name, value in zip(figures, row, strict=True):
                figures[name].append(value)
        return {name: float(np.mean(values)) for name, values in figures.items()} | {"guess": 3 / (2 * MOST_SHIFT + 1)}

    def sheet(self, model: nn.Module, path: Path) -> None:
        """Mouths of held-out clips."""
        rows = [torch.from_numpy(c.mouths[::5][:8]).float()[:, None].repeat(1, 3, 1, 1) / 127.5 - 1 for c in
                self.held[:4]]
        write_png(path, tile([row for row in rows if len(row) == len(rows[0])]))

    def export(self, model: nn.Module, out: Path) -> None:
        """Write `syncnet.safetensors`."""
        assert isinstance(model, SyncNet)
        logger.info("syncnet: %s", ", ".join(f"{k} {v:.3f}" for k, v in self.validate(model).items()))
        save_syncnet(out / WEIGHTS, model)


def make_sync_stage(config: SyncTrainConfig, corpus: Path) -> SyncStage:
    """The stage over the clips of `corpus` that have a picture. Raises MediaError when there are too few."""
    mel = LogMel()
    least = 2 * MOST_SHIFT + WINDOW + 5
    seen = [c for c in Clips.open(corpus).where(has_video=True) if c.frames >= least]
    groups = [[Watched.of(c, mel) for c in seen if (c.split == "train") == train] for train in (True, False)]
    return SyncStage(config, *groups)
