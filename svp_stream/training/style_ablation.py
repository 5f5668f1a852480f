"""The style prior's distances against one another: the same short training under each, one table.

In: a bank of speech, a profile, distances. Out: a row of held-out figures for each (see `style_prior_check`), and one
for the first distance trained without calibration, resolution and fit of sigma. Remembers: each run's folder, so that
a run that was cut off goes on and a finished one is only checked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from svp_stream.style.distance import DistanceName
from svp_stream.training.checkpoint import read_checkpoint
from svp_stream.training.coefficients import CoefficientBank
from svp_stream.training.loop import run_stage
from svp_stream.training.style_prior import PriorModel, StylePriorStage, StylePriorTrainConfig
from svp_stream.training.style_prior_check import check

PLAIN: Final = "uncalibrated"
COLUMNS: Final = (
    "r1", "r1_held_out_styles", "centroid", "r1_crowd_12", "r1_crowd_72", "sigma_3", "sigma_72", "error_72",
    "sigma_short_to_long", "sigma_spoiled_to_clean", "sigma_plain_to_strong", "sigma_error_r", "rebuilt",
)
CONTROLS: Final = ("r1_shuffled", "centroid_shuffled", "chance", "sigma_error_r_shuffled")


def ablate(
    bank: CoefficientBank, profile: StylePriorTrainConfig, distances: Sequence[DistanceName], steps: int, out: Path
) -> dict[str, dict[str, float]]:
    """Train `steps` steps under each distance into `out/<name>`; name of the row to its figures."""
    loop = profile.loop.model_copy(update={"steps": steps, "warmup": min(profile.loop.warmup, steps // 4),
                                           "ema": min(profile.loop.ema, 0.98), "sheet_every_s": 1e9})
    rows: dict[str, dict[str, float]] = {}
    for name, distance in (*((str(d), d) for d in distances), (f"{distances[0]}, {PLAIN}", distances[0])):
        fitted = PLAIN not in name
        change = {"loop": loop, "distance": distance} | ({} if fitted else {"calibration": 0.0, "resolution": 0.0})
        stage, folder = StylePriorStage(profile.model_copy(update=change), bank), out / name.replace(", ", "-")
        run_stage(stage, loop, folder)
        rows[name] = _figures(stage, fitted, folder)
    return rows


def _figures(stage: StylePriorStage, fitted: bool, folder: Path) -> dict[str, float]:
    """Of the averaged weights in `folder`, with sigma as trained or as fitted, and their error of reconstruction."""
    model = stage.model
    assert isinstance(model, PriorModel)
    model.load_state_dict(read_checkpoint(folder / "checkpoint.pt").average)
    model.eval()
    if fitted:
        stage.fit_sigma(model)
    with torch.no_grad():
        figures = check(model.prior.encoder, stage.check_takes, stage.config.frames, stage.config.distance)
        return figures | {"rebuilt": stage.rebuilt(model)}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown, a column for each run; controls below."""
    names = list(rows)
    lines = ["| figure | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for key in (*COLUMNS, *CONTROLS):
        label = f"*control:* {key}" if key in CONTROLS else key
        lines.append(f"| {label} | " + " | ".join(f"{rows[n].get(key, float('nan')):.3f}" for n in names) + " |")
    return "\n".join(lines)
