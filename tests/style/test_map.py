"""The map of styles: a plane that shows how presets differ, ellipses as wide as sigma, a picture that repeats."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from svp_stream.errors import PresetError
from svp_stream.style.map import draw_map, plane
from svp_stream.style.preset import StylePreset

DIM = 12


def _preset(name: str, mu: NDArray[np.float64], sigma: float = 0.2, prior: str = "p" * 64) -> StylePreset:
    return StylePreset(name, mu.astype(np.float32), np.full(len(mu), 2 * np.log(sigma), np.float32), prior)


def _cast(sigma: float = 0.2) -> list[StylePreset]:
    rng = np.random.default_rng(0)
    ways = rng.standard_normal((2, DIM))
    where = {"calm": (0, 0), "glad": (4, 0), "glad-soft": (2, 0), "glad-strong": (6, 0), "mad": (0, 3)}
    return [_preset(n, np.array(c, float) @ ways, sigma) for n, c in where.items()]


def test_the_plane_holds_what_differs() -> None:
    flat = plane(_cast())
    np.testing.assert_allclose(flat.axes.T @ flat.axes, np.eye(2), atol=1e-6)
    assert flat.shares.sum() == pytest.approx(1.0, abs=1e-6) and flat.shares[0] >= flat.shares[1]
    mu = np.stack([p.mu for p in _cast()])
    placed = flat.place(mu)
    apart = np.linalg.norm(mu[:, None] - mu[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(placed[:, None] - placed[None], axis=2), apart, atol=1e-4)


def test_an_ellipse_is_one_sigma_in_the_plane() -> None:
    flat = plane(_cast())
    np.testing.assert_allclose(flat.spread(np.full(DIM, 2 * np.log(0.5), np.float32)), 0.25 * np.eye(2), atol=1e-6)
    narrow = np.full(DIM, 2 * np.log(0.1), np.float32)
    assert np.trace(flat.spread(narrow)) < np.trace(flat.spread(narrow + 1))


def test_the_picture_repeats_and_grows_with_sigma() -> None:
    small, again, large = (draw_map(_cast(s), 240) for s in (0.05, 0.05, 1.0))
    assert small.shape == (240, 240, 3) and small.dtype == np.uint8
    np.testing.assert_array_equal(small, again)
    np.testing.assert_array_equal(draw_map(_cast(0.05)[::-1], 240)[60:180, 60:180], small[60:180, 60:180])
    inked = [(picture.min(axis=2) < 250).mean() for picture in (small, large)]
    assert inked[1] > 1.5 * inked[0]


@pytest.mark.parametrize(("presets", "says"), [
    (_cast()[:2], "three styles or more, got 2"),
    ([*_cast(), _preset("alien", np.ones(DIM), prior="q" * 64)], "different priors"),
    ([*_cast(), _preset("short", np.ones(3))], "different priors"),
])
def test_what_no_map_shows(presets: list[StylePreset], says: str) -> None:
    with pytest.raises(PresetError, match=says):
        plane(presets)
