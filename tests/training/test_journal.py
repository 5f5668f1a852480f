"""The journal: TensorBoard reads back what the log says; off leaves nothing; a resumed run hides what it undoes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from svp_stream.errors import ConfigError
from svp_stream.synthetic.video import read_pictures
from svp_stream.training import journal
from svp_stream.training.films import write_film
from svp_stream.training.loop import run_stage
from tests.training.test_loop import Line, config

SHEET = (np.arange(8 * 12 * 3).reshape(8, 12, 3) % 251).astype(np.uint8)


class Drawn(Line):
    """A line whose sheet is a picture, and whose film is a file."""

    def sheet(self, model: nn.Module, path: Path) -> None:
        Image.fromarray(SHEET).save(path)

    def film(self, model: nn.Module, path: Path) -> None:
        assert not model.training
        write_film(path, np.stack([SHEET] * 3), np.zeros(3 * 640, np.int16))


def events(out: Path) -> EventAccumulator:
    told = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    told.Reload()
    return told


def rows(out: Path, kind: str) -> list[dict[str, Any]]:
    return [r for r in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if kind in r]


def test_tensorboard_holds_the_log_and_the_sheets(tmp_path: Path) -> None:
    run_stage(Drawn(), config(tensorboard=True), tmp_path)
    told = events(tmp_path)
    for key in ("loss", "norm", "square", "progress"):
        read = [(e.step, e.value) for e in told.Scalars(f"train/{key}")]
        assert read == [(r["step"], pytest.approx(r[key], rel=1e-6)) for r in rows(tmp_path, "loss")]
    assert [(e.step, e.value) for e in told.Scalars("validation/held_out")] == [(6, 1.0)]
    (image,) = told.Images("sheet")
    assert (image.step, image.width, image.height) == (6, 12, 8)
    (tmp_path / "read.png").write_bytes(image.encoded_image_string)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "read.png")), SHEET)


def test_a_resumed_run_hides_the_steps_it_makes_again(tmp_path: Path) -> None:
    run = config(tensorboard=True, checkpoint_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        run_stage(Drawn(stop_at=5), run, tmp_path)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    run_stage(Drawn(), run, tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(kept)
    run_stage(Drawn(), run, tmp_path)
    assert [e.step for e in events(tmp_path).Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_off_leaves_no_trace(tmp_path: Path) -> None:
    run_stage(Drawn(), config(tensorboard=False), tmp_path)
    assert not (tmp_path / "tensorboard").exists() and (tmp_path / "log.jsonl").is_file()


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"loop.tensorboard is true.*set it to false.*svp-stream\[train\]"):
        run_stage(Drawn(), config(tensorboard=True), tmp_path)


def test_films_lie_beside_the_sheets(tmp_path: Path) -> None:
    run_stage(Drawn(), config(sheet_every_s=0.0), tmp_path)
    names = sorted(p.stem for p in (tmp_path / "sheets").iterdir())
    assert names == [f"{n:07d}" for n in range(1, 7)]
    assert sorted(p.name for p in (tmp_path / "films").iterdir()) == [f"{n}.mp4" for n in names]
    assert read_pictures(tmp_path / "films" / "0000006.mp4", None).shape == (3, 8, 12, 3)
