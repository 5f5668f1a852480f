"""The viewer's figures on made-up calls whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.clock import WIRE_RATE_HZ
from tests.browser.watching import began, blinks, changes, correlation, likeness, steady

RNG = np.random.default_rng(3)
FRAMES = np.arange(0.0, 30.0, 0.04)


def mouth(times: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A track that never repeats, about as fast as speech."""
    rates, phases = np.random.default_rng(0).uniform(0.8, 4.5, 24), np.random.default_rng(1).uniform(0, 6.28, 24)
    return np.asarray(np.sin(2 * np.pi * times[:, None] * rates + phases).mean(axis=1))


def test_lips_that_follow_late_are_found_and_controls_are_not() -> None:
    lips = mouth(FRAMES - 0.3) + 0.1 * RNG.standard_normal(len(FRAMES))
    found = likeness(FRAMES, lips, mouth, lambda t: t > 2.0)
    assert found.r > 0.75
    assert found.lag_s == pytest.approx(0.3, abs=0.03)
    assert found.controls.max() < 0.4


def test_lips_of_other_words_are_no_better_than_controls() -> None:
    found = likeness(FRAMES, mouth(FRAMES + 100.0), mouth, lambda t: t > 2.0)
    assert found.r < found.controls.max() + 0.1


@pytest.mark.parametrize("late_s", [0.0, 4.2])
def test_where_the_sound_began_is_found_on_the_page_clock(late_s: float) -> None:
    seconds = 12
    loudness = np.repeat(RNG.uniform(0, 0.3, seconds * 10), WIRE_RATE_HZ // 10)
    played = (loudness * np.sign(RNG.standard_normal(len(loudness)))).astype(np.float32)
    capture = np.arange(500.0, 500.0 + (seconds + late_s) * 1000, 10.0)
    heard = np.interp((capture - 500.0) / 1000 - late_s, (np.arange(len(loudness)) / WIRE_RATE_HZ)[::480],
                      loudness[::480], left=0.0)  # fmt: skip
    page = capture + 7000.0 + RNG.exponential(8.0, len(capture))
    assert began(np.stack([page, capture, heard], axis=1), played) == pytest.approx(7.5 + late_s, abs=0.03)


def test_jitter_goes_and_a_clock_that_stood_still_is_kept() -> None:
    media = FRAMES.copy()
    true = media + 5.0 + np.where(media > 15.0, 0.6, 0.0)
    late = steady(true + RNG.exponential(0.02, len(true)), media)
    away = np.abs(late - true)
    assert np.median(away) < 0.03
    assert np.quantile(away, 0.98) < 0.06


def test_blinks_are_dips_that_come_back() -> None:
    eyes = np.full(400, 1.0) + 0.05 * RNG.standard_normal(400)
    for start in (60, 200, 330):
        eyes[start : start + 4] = 0.2
    assert blinks(eyes) == 3
    assert blinks(np.linspace(1.0, 0.6, 400)) == 0, "a slow squint is no blink"


def test_changes_are_in_grey_levels_and_correlation_of_nothing_is_nothing() -> None:
    pictures = np.zeros((3, 8, 8, 3), np.uint8)
    pictures[2] = 200
    assert changes(pictures).tolist() == [0.0, 200.0]
    assert correlation(np.zeros(9), np.arange(9.0)) == 0.0
