"""Contact sheets and moving pictures come from real sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svp_stream.packets import Bytes
from svp_stream.pipeline import sheet
from svp_stream.pipeline.build import style_request
from svp_stream.pipeline.noop import DrawnShelf, NoopEngine


def test_moments_are_the_same_in_every_row() -> None:
    films: list[list[Bytes]] = [[np.full((2, 2, 3), 10 * r + n, np.uint8) for n in range(9 + r)] for r in range(2)]
    made = sheet.contact_sheet(films, 3)
    assert made.shape == (4, 6, 3)
    assert (made[2:] - made[:2] == 10).all()


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_written_pictures_show_styles_and_time(tmp_path: Path, suffix: str) -> None:
    engine, shelf = NoopEngine(), DrawnShelf()
    styles = [style_request(shelf, name, 1.0, 0.0) for name in ("warm", "sad")]
    speech = (0.3 * np.sin(np.arange(48_000) * 0.03) * (np.arange(48_000) > 24_000)).astype(np.float32)
    out = tmp_path / f"picture{suffix}"
    if suffix == ".png":
        sheet.write_sheet(out, engine, styles, speech, columns=4)
        picture = np.asarray(Image.open(out)).astype(int)
        assert picture.shape == (2 * engine.size, 4 * engine.size, 3)
        assert np.abs(picture[:, : engine.size] - picture[:, -engine.size :]).max() > 50
    else:
        sheet.write_moving(out, engine, styles, speech)
        with Image.open(out) as film:
            assert getattr(film, "n_frames", 0) == 25
