"""The ablation of distances: a run for each, one without calibration, a table with controls."""

from __future__ import annotations

from pathlib import Path

import pytest

from svp_stream.synthetic.styles import TRAINING_CAST, TRAINING_STYLES
from svp_stream.training import presets, style_prior, style_prior_check
from svp_stream.training.style_ablation import COLUMNS, CONTROLS, ablate, table
from tests.fakes.coefficients import tiny_bank
from tests.training.test_style_sigma import CONFIG


def test_one_row_for_each_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"TRAINING_CAST": TRAINING_CAST[:8], "TRAINING_STYLES": TRAINING_STYLES[:6], "CROWD": 4}
    for name, value in few.items():
        monkeypatch.setattr(style_prior_check, name, value)
    for room in (presets, style_prior):
        monkeypatch.setattr(room, "TRAINING_CAST", TRAINING_CAST[:6])
    config = CONFIG.model_copy(update={"sigma_styles": 12, "manner_styles": 20})
    rows = ablate(tiny_bank(tmp_path), config, ["w2", "bhatt"], 4, tmp_path / "out")
    assert list(rows) == ["w2", "bhatt", "w2, uncalibrated"]
    assert rows["w2"]["rebuilt"] != rows["bhatt"]["rebuilt"]
    assert rows["w2"]["sigma_short_to_long"] > rows["w2, uncalibrated"]["sigma_short_to_long"] + 0.1
    told = table(rows, config.frames).splitlines()
    assert told[0] == "| figure | w2 | bhatt | w2, uncalibrated |"
    assert sum(line.startswith("| *control:*") for line in told) == len(CONTROLS)
    assert len(told) == 2 + len(COLUMNS) + len(CONTROLS)
