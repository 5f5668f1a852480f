"""What a run tells people: rows in `log.jsonl`, the same in TensorBoard, sheets of pictures, films.

In: rows of numbers, a step, a stage that draws. Out: `log.jsonl`, `sheets/*.png`, `films/*.mp4`, and, where the profile
says so, `tensorboard/` with scalars `train/...` and `validation/...` and the sheets as images. Remembers: the open
event file. Only the first process of a run writes; in the others every call does nothing.
"""

from __future__ import annotations

import json
import logging
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from accelerate import Accelerator
from PIL import Image
from torch import nn

from svp_stream.errors import ConfigError

logger = logging.getLogger(__name__)
TRACKER = "tensorboard"


class DrawingStage(Protocol):
    """What is asked of a stage when people look."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Held-out figures of the averaged model."""
        ...

    def sheet(self, model: nn.Module, path: Path) -> None:
        """A picture of what the averaged model does, for people."""
        ...


@runtime_checkable
class FilmingStage(Protocol):
    """A stage that can also show how things move."""

    def film(self, model: nn.Module, path: Path) -> None:
        """A held-out clip as MP4: the truth, and beside it what the averaged model makes."""
        ...


class Journal:
    """Opened at the step that a run goes on from: what an event file holds of later steps is hidden."""

    def __init__(self, accelerator: Accelerator, out: Path, step: int, *, tensorboard: bool) -> None:
        self._out, self._writes = out, accelerator.is_main_process
        self._tracker: Any = None
        if self._writes:
            (out / "sheets").mkdir(parents=True, exist_ok=True)
        if tensorboard:
            accelerator.init_trackers(TRACKER, init_kwargs={TRACKER: {"purge_step": step + 1}})
            self._tracker = accelerator.get_tracker(TRACKER)

    def row(self, row: dict[str, Any]) -> None:
        """Append to the log; `step` is among the keys, `validation` where it tells held-out figures."""
        if not self._writes:
            return
        with (self._out / "log.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")
        logger.info(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
        if self._tracker is not None:
            kind = "validation" if row.get("validation") else "train"
            told = {f"{kind}/{k}": v for k, v in row.items() if k not in ("step", "validation") and math.isfinite(v)}
            self._tracker.log(told, step=row["step"])

    def look(self, stage: DrawingStage, model: nn.Module, step: int) -> None:
        """Held-out figures, a sheet and, of a stage that makes one, a film."""
        if not self._writes:
            return
        self.row({"step": step, "validation": True} | stage.validate(model))
        sheet = self._out / "sheets" / f"{step:07d}.png"
        stage.sheet(model, sheet)
        if isinstance(stage, FilmingStage):
            (self._out / "films").mkdir(exist_ok=True)
            stage.film(model, self._out / "films" / f"{step:07d}.mp4")
        if self._tracker is not None and sheet.is_file():
            with Image.open(sheet) as picture:
                pixels = np.asarray(picture.convert("RGB"))[None]
            self._tracker.log_images({"sheet": pixels}, step=step, dataformats="NHWC")

    def close(self) -> None:
        """The event file is whole on disk."""
        if self._tracker is not None:
            self._tracker.finish()


def open_accelerator(out: Path, *, tensorboard: bool) -> Accelerator:
    """accelerate's handle of this run. Raises ConfigError where TensorBoard is asked for and not installed."""
    if tensorboard and find_spec("tensorboard") is None:
        raise ConfigError("loop.tensorboard is true, but tensorboard is not installed: set it to false, or "
                          "pip install 'svp-stream[train]'")
    return Accelerator(log_with=TRACKER if tensorboard else None, project_dir=out)
