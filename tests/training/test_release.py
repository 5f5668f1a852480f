"""`svp release`: what is gathered, what may be left out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from svp_stream.config import MINI_WEIGHTS
from svp_stream.errors import WeightsError
from svp_stream.evaluation.landmark_gauge import WEIGHTS, LandmarkConfig, load_landmark_gauge
from svp_stream.evaluation.measure import load_evaluator
from svp_stream.training import release
from svp_stream.weights_file import record_hash


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs whose exports are words; the landmark gauge among them."""
    parts = release.PARTS | release.OPTIONAL | {"video": release.DENOISER}
    for stage, name in parts.items():
        (tmp_path / "runs" / stage).mkdir(parents=True)
        (tmp_path / "runs" / stage / name).write_text(stage)
    (tmp_path / "runs" / "avatars").mkdir()
    (tmp_path / "runs" / "avatars" / "avatar_valid_x.safetensors").write_text("x")
    rows = [{"step": 1, "s": 2.0, "loss": 1.0}, {"step": 9, "s": 60.0}, {"step": 9, "validation": True, "m_lmd": 1.25}]
    (tmp_path / "runs" / "landmarks" / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "runs"


def test_the_landmark_gauge_ships_when_it_was_trained(runs: Path, tmp_path: Path) -> None:
    card = json.loads(release.release(runs, tmp_path / "with").read_text())
    assert card["files"][WEIGHTS] == json.loads((tmp_path / "with" / "hashes.json").read_text())[WEIGHTS]
    assert card["training"] == {"landmarks": {"steps": 9, "seconds": 60.0, "m_lmd": 1.25}}
    assert "| landmarks | 9 | 1 | m_lmd 1.25 |" in (tmp_path / "with" / "README.md").read_text()
    (runs / "landmarks" / WEIGHTS).unlink()
    card = json.loads(release.release(runs, tmp_path / "without").read_text())
    assert WEIGHTS not in card["files"] and not (tmp_path / "without" / WEIGHTS).exists()


def test_a_stage_without_a_log_keeps_its_row(runs: Path, tmp_path: Path) -> None:
    first = json.loads(release.release(runs, tmp_path / "out").read_text())
    (runs / "landmarks" / "log.jsonl").unlink()
    (runs / "audio" / "log.jsonl").write_text('{"step": 3, "s": 6.0, "loss": 1.0}')
    again = json.loads(release.release(runs, tmp_path / "out").read_text())
    assert again["training"] == {"audio": {"steps": 3, "seconds": 6.0}} | first["training"]


def test_the_card_lists_what_is_made_after_it(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    release.list_files(tmp_path)
    assert not (tmp_path / "card.json").exists(), "a folder without a card is left alone"
    release.release(runs, folder)
    (folder / "ranges.json").write_text("{}")
    digest = record_hash(folder / "ranges.json")
    release.list_files(folder)
    assert json.loads((folder / "card.json").read_text())["files"] == json.loads((folder / "hashes.json").read_text())
    assert f"`ranges.json` sha256 `{digest}`" in (folder / "README.md").read_text()


def test_motion_ships_when_it_was_trained(runs: Path, tmp_path: Path) -> None:
    whole = json.loads(release.release(runs, tmp_path / "with").read_text())
    assert (tmp_path / "with" / "motion.safetensors").read_bytes() == b"motion"
    (runs / "motion" / "motion.safetensors").unlink()
    bare = json.loads(release.release(runs, tmp_path / "without").read_text())
    assert set(whole["files"]) - set(bare["files"]) == {"motion.safetensors"}


def test_what_is_missing_or_too_much_is_told(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "LIMIT_BYTES", 10)
    with pytest.raises(WeightsError, match="cannot release .* MB of weights; the limit is"):
        release.release(runs, tmp_path / "out")
    (runs / "evaluator" / "evaluator.safetensors").unlink()
    with pytest.raises(WeightsError, match="evaluator.safetensors missing; train those stages first"):
        release.release(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_ships_stays_readable() -> None:
    assert load_landmark_gauge(MINI_WEIGHTS / WEIGHTS).config == LandmarkConfig()
    assert len(load_evaluator(MINI_WEIGHTS / "evaluator.safetensors").judge.config.styles) > 10
    shipped = sum(p.stat().st_size for p in MINI_WEIGHTS.glob("*.safetensors"))
    assert shipped < release.LIMIT_BYTES
    card = json.loads((MINI_WEIGHTS / "card.json").read_text())
    assert card["files"] == json.loads((MINI_WEIGHTS / "hashes.json").read_text())
