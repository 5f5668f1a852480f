"""The ablation of distances: a run for each, one without calibration, a table with controls; cut-off runs go on."""

from __future__ import annotations

from pathlib import Path

from svp_stream.training.style_ablation import CONTROLS, ablate, table
from tests.fakes.coefficients import tiny_bank
from tests.training.test_style_sigma import CONFIG


def test_one_row_for_each_distance(tmp_path: Path) -> None:
    bank = tiny_bank(tmp_path)
    rows = ablate(bank, CONFIG, ["bhatt", "w2"], 4, tmp_path / "out")
    assert list(rows) == ["bhatt", "w2", "bhatt, uncalibrated"]
    assert rows["bhatt"]["r1"] != rows["w2"]["r1"] or rows["bhatt"]["rebuilt"] != rows["w2"]["rebuilt"]
    assert rows["bhatt"]["sigma_error_r"] > rows["bhatt, uncalibrated"]["sigma_error_r"]
    told = table(rows).splitlines()
    assert told[0] == "| figure | bhatt | w2 | bhatt, uncalibrated |"
    assert sum(line.startswith("| *control:*") for line in told) == len(CONTROLS)
    assert "nan" not in table(rows)
    weights = tmp_path / "out" / "bhatt" / "style_prior.safetensors"
    made = weights.stat().st_mtime_ns
    again = ablate(bank, CONFIG, ["bhatt"], 4, tmp_path / "out")
    assert again["bhatt"] == rows["bhatt"] and weights.stat().st_mtime_ns > made
