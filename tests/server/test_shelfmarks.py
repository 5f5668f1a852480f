"""What the list of styles says of families: those that can be used count, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from server.shelfmarks import style_marks
from svp_stream.style.preset import StylePreset, StyleShelf, save_preset
from tests.fakes.engines import fake_studio


def test_a_style_says_its_family_and_intensity(tmp_path: Path) -> None:
    for name in ("warm", "warm-soft", "warm-strong", "sad", "own voice"):
        save_preset(tmp_path / f"{name}.npz", StylePreset(name, np.ones(4, np.float32), np.zeros(4, np.float32), "p"))
    (tmp_path / "warm-strong.npz").write_bytes(b"broken")
    (tmp_path / "sad-soft.npz").write_bytes(b"broken")
    marks = style_marks(replace(fake_studio(), shelf=StyleShelf(tmp_path)))
    assert [(mark["name"], mark["family"], mark["intensity"]) for mark in marks] == [
        ("own voice", "own voice", None), ("sad", "sad", None),
        ("warm", "warm", "medium"), ("warm-soft", "warm", "soft"),
    ]  # fmt: skip
