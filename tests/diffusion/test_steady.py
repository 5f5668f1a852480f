"""Output smoothing: what stands still stays to the byte, what moves is as painted, nothing is ever far off."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.diffusion.steady import STILL, steadied
from svp_stream.packets import Bytes, Float32

SIDE, CELLS = 64, 8
OUT = np.array([[3.4, 3.0], [3.6, 3.0], [3.5, 3.1]], np.float32)
"""A face outside of the picture."""
IN = np.array([[0.4, 0.3], [0.6, 0.3], [0.5, 0.4]], np.float32)


def picture(seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 4)).astype(np.uint8)


def change(size: float) -> Float32:
    return np.full((4, CELLS, CELLS), size, np.float32)


def jitter(base: Bytes, seed: int, most: int) -> Bytes:
    noise = np.random.default_rng(seed).integers(-most, most + 1, base.shape)
    return np.clip(base.astype(int) + noise, 0, 255).astype(np.uint8)


def test_noise_within_the_band_is_gone() -> None:
    shown = picture(0)
    for seed in range(5):
        np.testing.assert_array_equal(steadied(shown, jitter(shown, seed, 2), change(0), OUT, 2), shown)


def test_where_the_face_moves_the_picture_is_as_painted() -> None:
    shown, painted = picture(0), picture(1)
    np.testing.assert_array_equal(steadied(shown, painted, change(2 * STILL), OUT, 2), painted)
    np.testing.assert_array_equal(steadied(shown, painted, change(-2 * STILL), OUT, 2), painted)


def test_one_cell_moves_alone() -> None:
    shown = picture(0)
    painted, moves = jitter(shown, 1, 2), change(0)
    moves[2, 3, 5] = 1.0
    made = steadied(shown, painted, moves, OUT, 2)
    cell = slice(24, 32), slice(40, 48)
    np.testing.assert_array_equal(made[cell], painted[cell])
    made[cell] = shown[cell]
    np.testing.assert_array_equal(made, shown)


@pytest.mark.parametrize("levels", [1, 2, 8])
def test_never_further_than_the_band(levels: int) -> None:
    """Over a walk of pictures, and right at both ends of a byte."""
    shown, painted = picture(0), picture(0)
    for seed in range(12):
        painted = jitter(painted, seed, 9)
        shown = steadied(shown, painted, change(0.05), OUT, levels)
        assert np.abs(shown.astype(int) - painted).max() <= levels
    dark, light = np.zeros((SIDE, SIDE, 4), np.uint8), np.full((SIDE, SIDE, 4), 255, np.uint8)
    assert steadied(dark, light, change(0), OUT, levels).min() == 255 - levels
    assert steadied(light, dark, change(0), OUT, levels).max() == levels


def test_the_band_closes_by_and_by() -> None:
    shown, painted = np.full((SIDE, SIDE, 4), 100, np.uint8), np.full((SIDE, SIDE, 4), 110, np.uint8)
    left = [110 - int(steadied(shown, painted, change(share * STILL), OUT, 4)[0, 0, 0]) for share in (0, 1, 1.5, 2, 9)]
    assert left == [4, 4, 2, 0, 0]


def test_a_slow_change_comes_through() -> None:
    shown = np.full((SIDE, SIDE, 4), 50, np.uint8)
    for level in range(50, 90):
        shown = steadied(shown, np.full_like(shown, level), change(0), OUT, 2)
    assert (shown == 87).all()


def test_mouth_and_eyes_are_always_as_painted() -> None:
    """The eyes lie at 0.4 and 0.6 of the width, 0.3 down; the mouth 0.1 to 0.34 below them."""
    shown = picture(0)
    painted = jitter(shown, 1, 2)
    made = steadied(shown, painted, change(0), IN, 2)
    as_painted = (made == painted).all(-1)
    rows, columns = slice(26, 41), slice(22, 42)
    assert as_painted[rows, columns].all(), "mouth"
    assert as_painted[15:23, 20:44].all(), "eyes"
    np.testing.assert_array_equal(made[:8], shown[:8])
    np.testing.assert_array_equal(made[:, :8], shown[:, :8])
    np.testing.assert_array_equal(made[48:], shown[48:])
