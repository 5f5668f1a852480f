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
from svp_stream.style.prior import load_prior
from svp_stream.training.checkpoint import read_checkpoint
from svp_stream.training.coefficients import CoefficientBank
from svp_stream.training.loop import run_stage
from svp_stream.training.style_prior import WEIGHTS, PriorModel, StylePriorStage, StylePriorTrainConfig

PLAIN: Final = "uncalibrated"
COLUMNS: Final = (
    "r1", "r1_held_out_styles", "centroid", "centroid_held_out_styles", "r1_crowd_12", "r1_crowd_{whole}", "sigma_3",
    "error_3", "sigma_{whole}", "error_{whole}", "sigma_short_to_long", "sigma_spoiled_to_clean",
    "sigma_plain_to_strong", "sigma_error_r", "rebuilt",
)
CONTROLS: Final = ("r1_shuffled", "centroid_shuffled", "chance", "sigma_error_r_shuffled")


def ablate(
    bank: CoefficientBank, profile: StylePriorTrainConfig, distances: Sequence[DistanceName], steps: int, out: Path
) -> dict[str, dict[str, float]]:
    """Train `steps` steps under each distance into `out/<name>`; name of the row to its figures."""
    loop = profile.loop.model_copy(update={"steps": steps, "warmup": min(profile.loop.warmup, steps // 4),
                                           "ema": min(profile.loop.ema, 0.98), "sheet_every_s": 1e9})
    short = profile.model_copy(update={"loop": loop, "preset_clips": 1})
    rows: dict[str, dict[str, float]] = {}
    for name, distance in (*((str(d), d) for d in distances), (f"{distances[0]}, {PLAIN}", distances[0])):
        change = {"calibration": 0.0, "resolution": 0.0} if PLAIN in name else {}
        stage = StylePriorStage(short.model_copy(update={"distance": distance} | change), bank)
        folder = out / name.replace(", ", "-")
        run_stage(stage, loop, folder)
        rows[name] = _figures(stage, folder, fitted=PLAIN not in name)
    return rows


@torch.no_grad()
def _figures(stage: StylePriorStage, folder: Path, *, fitted: bool) -> dict[str, float]:
    """Of the averaged weights in `folder`, with sigma as exported, or as it was before its fit."""
    model = stage.model
    assert isinstance(model, PriorModel)
    model.load_state_dict(read_checkpoint(folder / "checkpoint.pt").average)
    if fitted:
        model.prior = load_prior(folder / WEIGHTS)
    return stage.validate(model.eval())


def table(rows: dict[str, dict[str, float]], whole: int) -> str:
    """Markdown, a column for each run; controls below. `whole` is the length of a clip in frames."""
    names = list(rows)
    lines = ["| figure | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for key in (*(c.format(whole=whole) for c in COLUMNS), *CONTROLS):
        label = f"*control:* {key}" if key in CONTROLS else key
        lines.append(f"| {label} | " + " | ".join(f"{rows[n][key]:.3f}" for n in names) + " |")
    return "\n".join(lines)
