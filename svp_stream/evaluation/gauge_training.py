"""Stage `evaluator`: the gauge learns to read rendered faces through bad weather; the judge learns styles.

In: the packed pictures of the corpus with the renderer's truth, and its speech. Out: `evaluator.safetensors`.
The gauge sees training clips only. The judge never sees a picture: it learns from the words of speech-only training
clips, articulated in every named training style, worsened by what the gauge was measured to do to coefficients.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.errors import MediaError
from svp_stream.evaluation.judge_training import Mimic, judge_tracks
from svp_stream.evaluation.measure import (
    MEASURES,
    POSE,
    READING,
    READINGS,
    SPEECH_READINGS,
    WEIGHTS,
    Evaluator,
    Gauge,
    GaugeConfig,
    save_evaluator,
    shrink,
    truth,
)
from svp_stream.evaluation.metrics import pearson
from svp_stream.evaluation.style_judge import JudgeConfig, accuracy, fit_judge
from svp_stream.evaluation.weather import disturb
from svp_stream.packets import Bytes, Float32
from svp_stream.synthetic.styles import TRAINING_STYLES
from svp_stream.training.clips import Clips
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.sheets import tile, write_png

logger = logging.getLogger(__name__)
SHARP: Final = {"lip_open": 6.0, "lip_width": 3.0, "eye_open_left": 6.0, "eye_open_right": 6.0, "jawOpen": 2.0}
"""Readings that count more than once in the loss."""
BLINKS: Final = 0.2
"""Share of a batch that is drawn from pictures of closing lids, which are rare and short."""
RIDGE: Final = 1e-3
"""Of the closed form, as a share of the mean variance of a feature."""
STILL: Final = 0.02
"""Deviation in the truth under which a coefficient counts as not moving."""


class EvaluatorTrainConfig(BaseModel):
    """Profile `configs/train/evaluator.yaml`."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig.model_validate({"steps": 2400, "batch": 32, "lr": 2e-3, "warmup": 40, "ema": 0.99,
                                                  "weight_decay": 0.02, "threads": 1, "sheet_every_s": 3600.0})
    every: int = Field(2, ge=1, description="take every n-th picture; neighbours are nearly the same")
    side: int = Field(128, ge=32, multiple_of=16)
    widths: tuple[int, int, int, int, int] = (16, 32, 64, 96, 24)
    features: int = Field(128, ge=8)
    judge_width: int = Field(64, ge=4)
    judge_takes: int = Field(160, ge=2, description="speech-only clips that each style is articulated in")
    judge_steps: int = Field(800, ge=1)


class EvaluatorStage:
    """See the card. `pictures` uint8 [F, side, side, 4] (RGB and matte), `readings` [F, 49], `split` and `clip` [F]."""

    def __init__(self, config: EvaluatorTrainConfig, pictures: Bytes, readings: Float32, split: NDArray[np.str_],
                 clip: NDArray[np.str_], speech: Clips) -> None:
        self.config, self.pictures, self.readings, self.clip = config, pictures, readings, clip
        self.train, self.held_out = np.flatnonzero(split == "train"), np.flatnonzero(split != "train")
        if not len(self.train) or not len(self.held_out):
            raise MediaError("the gauge needs pictures of both splits, 'train' and 'heldout'")
        self.speech = speech
        lids = readings[self.train][:, [READING["eye_open_left"], READING["eye_open_right"]]].min(1)
        self.blinks = self.train[lids < 0.6 * np.median(lids)]
        torch.manual_seed(config.loop.seed)
        self._model = Evaluator(GaugeConfig(config.side, config.widths, config.features),
                                JudgeConfig(TRAINING_STYLES, config.judge_width))
        self._model.judge.requires_grad_(False)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        seen = torch.from_numpy(readings[self.train])
        self._model.gauge.mean.copy_(seen.mean(0))
        self._model.gauge.std.copy_(seen.std(0).clamp(min=STILL))
        self._weight = torch.tensor([SHARP.get(name, 1.0) for name in READINGS])

    @property
    def model(self) -> nn.Module:
        """See TrainingStage."""
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Pictures [B, 4, s, s] and standardised readings [B, 49]."""
        at = rng.choice(self.train, size)
        if len(self.blinks):
            at[: round(size * BLINKS)] = rng.choice(self.blinks, round(size * BLINKS))
        at = rng.permutation(at)
        gauge = self._model.gauge
        target = (torch.from_numpy(self.readings[at]) - gauge.mean) / gauge.std
        return {"pictures": torch.from_numpy(self.pictures[at]).permute(0, 3, 1, 2).float(), "target": target}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Smooth L1 of the standardised readings."""
        assert isinstance(model, Evaluator)
        with torch.autocast("cpu", enabled=False):
            seen = disturb(batch["pictures"]).contiguous(memory_format=torch.channels_last)
        read = model.gauge(seen).float()
        each = F.smooth_l1_loss(read, batch["target"], reduction="none", beta=0.5).mean(0)
        error = (read.detach() - batch["target"]).square().mean(0)
        return (each * self._weight).sum() / self._weight.sum(), {"lip": float(error[READING["lip_open"]])}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Pearson r on held-out clips: each measure and angle, the mean over coefficients that move there; `rough` is
        the same for the lips through bad weather."""
        assert isinstance(model, Evaluator)
        true = self.readings[self.held_out]
        read = model.gauge.read(self.pictures[self.held_out, ..., :3])
        figures = {name: pearson(read[:, READING[name]], true[:, READING[name]]) for name in (*MEASURES, *POSE)}
        moving = [i for i in range(*SPEECH_READINGS.indices(len(READINGS))) if true[:, i].std() > STILL]
        figures["speech"] = float(np.mean([pearson(read[:, i], true[:, i]) for i in moving]))
        rough = self.read_rough(model.gauge, self.held_out)
        figures["lip_open_rough"] = pearson(rough[:, READING["lip_open"]], true[:, READING["lip_open"]])
        return figures

    @torch.inference_mode()
    @torch.no_grad()
    def refit(self, gauge: Gauge, passes: int = 2) -> None:
        """The last layer in closed form: ridge regression of the readings on features of disturbed pictures."""
        at = np.concatenate([self.train, self.blinks, self.blinks, self.blinks])
        looks = torch.cat([self._rough(gauge.look, at, seed) for seed in range(1, passes + 1)]).double()
        target = ((torch.from_numpy(self.readings[at]) - gauge.mean) / gauge.std).double().repeat(passes, 1)
        mean, level = looks.mean(0), target.mean(0)
        centred = looks - mean
        gram = centred.T @ centred / len(looks)
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram, centred.T @ (target - level) / len(looks)).T
        gauge.out.weight.copy_(weight)
        gauge.out.bias.copy_(level - weight @ mean)

    @torch.no_grad()
    def read_rough(self, gauge: Gauge, at: NDArray[np.int64], seed: int = 0) -> Float32:
        """Readings [n, 49] of disturbed pictures."""
        return (self._rough(gauge, at, seed) * gauge.std + gauge.mean).numpy()

    def _rough(self, see: Callable[[Tensor], Tensor], at: NDArray[np.int64], seed: int) -> Tensor:
        """What `see` makes of the pictures `at`, each disturbed."""
        rows = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for start in range(0, len(at), 64):
                planes = torch.from_numpy(self.pictures[at[start : start + 64]]).permute(0, 3, 1, 2).float()
                rows.append(see(disturb(planes)))
        return torch.cat(rows)

    def sheet(self, model: nn.Module, path: Path) -> None:
        """What the gauge sees in training."""
        at = self.held_out[np.linspace(0, len(self.held_out) - 1, 8).astype(int)]
        planes = torch.from_numpy(self.pictures[at]).permute(0, 3, 1, 2).float()
        write_png(path, tile([planes[:, :3] / 127.5 - 1, disturb(planes)]))

    def export(self, model: nn.Module, out: Path) -> None:
        """Teach the judge what the gauge can see, then write `evaluator.safetensors`."""
        assert isinstance(model, Evaluator)
        self.refit(model.gauge)
        logger.info("gauge: %s", ", ".join(f"{k} {v:.3f}" for k, v in self.validate(model).items()))
        mimic = self.mimic(model.gauge)
        train, held = (self.speech.where(split=split, has_video=False) for split in ("train", "heldout"))
        tracks, labels = judge_tracks(train, self.config.judge_takes, mimic, seed=1)
        fit_judge(model.judge, tracks, labels, steps=self.config.judge_steps)
        figures = {"train": accuracy(model.judge, tracks, labels)}
        for name, worse in (("heldout", mimic), ("heldout_true", None)):
            figures[name] = accuracy(model.judge, *judge_tracks(held, 12, worse, seed=2))
        logger.info("judge: %s", ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
        save_evaluator(out / WEIGHTS, model)

    def mimic(self, gauge: Gauge) -> Mimic:
        """How the gauge bends coefficients, measured on disturbed training pictures."""
        read = self.read_rough(gauge, self.train)[:, SPEECH_READINGS]
        return Mimic.measure(read, self.readings[self.train, SPEECH_READINGS], self.clip[self.train])


def make_evaluator_stage(config: EvaluatorTrainConfig, corpus: Path, frames: Path) -> EvaluatorStage:
    """The stage over the packed pictures in `frames` and the speech-only clips of `corpus`.

    Raises MediaError when either is missing or lacks landmarks.
    """
    index = frames / "index.npz"
    if not index.is_file() or not (frames / "frames.npy").is_file():
        raise MediaError(f"{frames} holds no packed pictures; `svp train` packs them from a corpus with pictures")
    keys = ("landmarks", "kps", "expression", "pose", "split", "clip")
    with np.load(index, allow_pickle=False) as z:
        known: dict[str, Any] = {k: z[k][:: config.every] for k in keys}
    readings = truth(known["landmarks"], known["kps"], known["expression"], known["pose"])
    stored = np.load(frames / "frames.npy", mmap_mode="r")[:: config.every]
    small = [shrink(torch.from_numpy(np.array(stored[i : i + 64])), config.side).round().byte()
             for i in range(0, len(stored), 64)]
    pictures = torch.cat(small).permute(0, 2, 3, 1).contiguous().numpy()
    return EvaluatorStage(config, pictures, readings, known["split"], known["clip"], Clips.open(corpus))
