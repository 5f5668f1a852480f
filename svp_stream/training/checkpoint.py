"""Checkpoints that survive being cut off: written beside, synced, then renamed; a torn file can never be loaded.

Holds step, seconds trained, model, averaged model and optimiser. `torch.load` runs with `weights_only=True`, so a
checkpoint cannot run code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from svp_stream.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of one run at `step`, after `seconds` of training time."""

    step: int
    seconds: float
    model: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimiser: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Atomic: either the old file or the new one is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    state = {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}
    with beside.open("wb") as f:
        torch.save(state, f)
        f.flush()
        os.fsync(f.fileno())
    beside.replace(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises WeightsError when the file is damaged or of another kind."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(**state)
    except Exception as e:  # torch raises a dozen kinds for a damaged file; all mean the same to the user
        raise WeightsError(f"checkpoint {path} cannot be read ({e}); delete it to start this stage again") from e
