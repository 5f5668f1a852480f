"""What a release gathers: every part, motion where it was trained, and words where a part is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from svp_stream.errors import WeightsError
from svp_stream.training.release import DENOISER, PARTS, release


def runs_of(folder: Path, *more: tuple[str, str]) -> Path:
    """A run folder whose weights are a few bytes each."""
    for stage, name in (*PARTS.items(), ("video", DENOISER), ("avatars", "avatar_pat.safetensors"), *more):
        (folder / stage).mkdir(parents=True, exist_ok=True)
        (folder / stage / name).write_bytes(stage.encode())
    return folder


def test_motion_ships_where_it_was_trained(tmp_path: Path) -> None:
    bare = json.loads(release(runs_of(tmp_path / "a"), tmp_path / "bare").read_text())
    whole = json.loads(release(runs_of(tmp_path / "b", ("motion", "motion.safetensors")), tmp_path / "w").read_text())
    assert set(whole["files"]) - set(bare["files"]) == {"motion.safetensors"}
    assert (tmp_path / "w" / "motion.safetensors").read_bytes() == b"motion"
    assert "motion.safetensors" in (tmp_path / "w" / "README.md").read_text()


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    runs = runs_of(tmp_path / "a")
    (runs / "expression" / "conditioner.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"expression/conditioner.safetensors missing"):
        release(runs, tmp_path / "w")
