"""Cuts: found between like pictures, not found in pans, flashes, noise and zooms; shots cut into clips."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.packets import Bytes
from svp_stream.preparing.shots import CutFinder, clips, describe, difference


def scene(seed: int, frames: int = 30, pan: int = 0, noise: float = 2.0) -> list[Bytes]:
    """A room of coloured blocks, seen by a camera that pans `pan` pixels a frame."""
    rng = np.random.default_rng(seed)
    room = np.repeat(np.repeat(rng.integers(0, 256, (8, 40, 3)), 15, 0), 15, 1).astype(np.float64)
    seen = []
    for n in range(frames):
        view = room[:, n * pan : n * pan + 160]
        seen.append(np.clip(view + noise * rng.standard_normal(view.shape), 0, 255).astype(np.uint8))
    return seen


def found(pictures: list[Bytes]) -> list[int]:
    finder = CutFinder()
    return [n for n, p in enumerate(pictures) if finder.push(p)]


def test_cuts_between_scenes_are_found() -> None:
    film = scene(1) + scene(2, 20) + scene(3, 25)
    assert found(film) == [0, 30, 50]


def test_cuts_between_like_scenes_are_found() -> None:
    """The same colours, elsewhere: the histogram alone would miss it."""
    one = scene(1)
    assert found(one + [np.ascontiguousarray(p[::-1, ::-1]) for p in one]) == [0, 30]


@pytest.mark.parametrize("pan", [1, 4, 10])
def test_a_pan_is_no_cut(pan: int) -> None:
    assert found(scene(4, 40, pan)) == [0]


def test_noise_and_exposure_are_no_cuts() -> None:
    assert found(scene(5, 40, noise=25.0)) == [0]
    bright = [np.clip(p * (1 + 0.3 * np.sin(n / 3)), 0, 255).astype(np.uint8) for n, p in enumerate(scene(6, 40))]
    assert found(bright) == [0]


def test_a_flash_of_two_frames_is_no_shot() -> None:
    film = scene(7, 40)
    film[20] = film[21] = np.full_like(film[20], 255)
    assert len(found(film)) <= 2, "the way back is too near to be another"


def test_differences_lie_between_0_and_1() -> None:
    black, white = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8)
    assert difference(describe(black), describe(black)) == 0
    assert difference(describe(black), describe(white)) == 1
    assert difference(describe(np.zeros((5, 7, 3), np.uint8)), describe(white)) == 1, "tiny pictures too"


def test_shots_become_clips() -> None:
    made = clips([0, 30, 430], 500, (2.0, 6.0))
    assert made[0] == (0, 0, 30) and made[-1] == (2, 430, 500)
    assert [c[0] for c in made] == [0, 1, 1, 1, 2]
    assert all(a[2] == b[1] for a, b in zip(made, made[1:], strict=False)), "nothing is lost"
    assert max(b - a for _, a, b in made) <= 150
