"""The latency benchmark: its reading of what the page wrote down, on made-up calls of known delay."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from svp_stream.clock import WIRE_RATE_HZ
from svp_stream.errors import EngineError
from svp_stream.evaluation.latency import (
    BOX,
    SETTLE_S,
    STEP_S,
    VOWEL_S,
    delays,
    first_change,
    measure_latency,
    onsets,
    vowel_track,
)

PIXELS = BOX["width"] * BOX["height"]


def made_up_call(
    delay_ms: float, *, drift: float = 0.0, noise: float = 0.4, jump: float = 20.0, vowels: int = 12
) -> tuple[list[list[float]], list[tuple[float, list[int]]]]:
    """Sound and pictures of a call whose mouth moves `delay_ms` after each vowel, while the head drifts."""
    rng = np.random.default_rng(0)
    starts = 3000 + 1613 * np.arange(vowels) + 7.0
    end = starts[-1] + 4000
    sound = [[t, 0.1 if any(s <= t < s + 450 for s in starts) else 0.0005] for t in np.arange(0.0, end, 10.0)]
    pictures = []
    mouth = rng.uniform(60, 200, PIXELS)
    for t in np.arange(1000.0, end, 40.0):
        is_open = any(s + delay_ms <= t < s + delay_ms + 450 for s in starts)
        face = mouth + drift * t / 1000 + noise * rng.standard_normal(PIXELS) + (jump if is_open else 0.0)
        pictures.append((float(t), [int(round(v)) for v in face]))
    return sound, pictures


@pytest.mark.parametrize("delay_ms", [60.0, 145.0, 300.0])
@pytest.mark.parametrize("drift", [0.0, 6.0])
def test_known_delay_is_found(delay_ms: float, drift: float) -> None:
    found = delays(*made_up_call(delay_ms, drift=drift), street_ms=80.0)
    assert found.missed == 0
    assert found.count >= 10
    assert delay_ms - 12 <= found.min_ms <= found.p50_ms <= found.p95_ms <= delay_ms + 45
    assert found.p50_ms == pytest.approx(delay_ms + 15, abs=20), "half a frame and half a piece of sound"
    assert found.fps == pytest.approx(25.0)
    assert found.street_ms == 80.0


def test_a_single_wrong_picture_is_no_mouth() -> None:
    times = np.arange(0.0, 2000.0, 40.0)
    pictures = np.zeros((len(times), PIXELS))
    pictures[28] = 90.0
    pictures[35:] = 40.0
    assert first_change(1000.0, times, pictures) == times[35]


def test_no_call_and_no_lips_are_told() -> None:
    with pytest.raises(EngineError, match="saw 0 pictures"):
        delays([[0.0, 0.1]], [], 80.0)
    with pytest.raises(EngineError, match="no mouth moved"):
        delays(*made_up_call(100.0, jump=0.0), street_ms=80.0)


def test_onsets_need_silence_before() -> None:
    times = np.arange(0.0, 3000.0, 10.0)
    loud = ((times >= 700) & (times < 900)) | ((times >= 1000) & (times < 1100)) | (times >= 2000)
    assert onsets(times, np.where(loud, 0.2, 0.0)).tolist() == [700.0, 2000.0]
    assert len(onsets(times, np.zeros(len(times)))) == 0


def test_vowel_track_is_what_the_page_hears() -> None:
    x = vowel_track(3)
    assert np.abs(x).max() == pytest.approx(0.3, abs=0.05)
    times = np.arange(0, len(x) - 480, 480)
    loudness = np.array([np.sqrt(np.mean(x[t : t + 480] ** 2)) for t in times])
    found = onsets(times / 48.0, loudness)
    assert found == pytest.approx([1000 * (SETTLE_S + n * STEP_S) for n in range(3)], abs=15)
    assert VOWEL_S < STEP_S / 2
    assert round(STEP_S * WIRE_RATE_HZ) % 1920 not in (0, 960)


@pytest.mark.soak
@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_through_a_real_browser() -> None:
    figures = measure_latency("noop", vowels=4)
    assert figures.lips.count >= 3
    assert figures.floor.count >= 3
    assert figures.lips.p50_ms > figures.floor.min_ms
    assert figures.lips.street_ms > figures.floor.street_ms > 0
