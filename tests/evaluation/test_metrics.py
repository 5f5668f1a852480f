"""Figures with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.evaluation import metrics
from svp_stream.packets import Floats


def bumps(frames: int = 200, seed: int = 0) -> Floats:
    """A smooth random track [frames]."""
    noise = np.random.default_rng(seed).standard_normal(frames + 8)
    return np.convolve(noise, np.hanning(9), mode="valid")


def test_pearson_of_a_line_and_its_opposite() -> None:
    x = bumps()
    assert metrics.pearson(x, 3 * x + 2) == pytest.approx(1)
    assert metrics.pearson(x, -x) == pytest.approx(-1)
    assert metrics.pearson(x, x + 5 * bumps(seed=1)) < 0.5


def test_pearson_agrees_with_numpy() -> None:
    x, y = bumps(seed=2), bumps(seed=3)
    assert metrics.pearson(x, y) == pytest.approx(float(np.corrcoef(x, y)[0, 1]))


def test_pearson_of_a_still_track_is_not_defined() -> None:
    assert np.isnan(metrics.pearson(np.zeros(9), np.arange(9.0)))


def test_pearson_refuses_different_lengths() -> None:
    with pytest.raises(ValueError, match="same length"):
        metrics.pearson(np.zeros(3), np.zeros(4))


@pytest.mark.parametrize("frames", [-3, 0, 2])
def test_lag_counts_frames(frames: int) -> None:
    x = bumps(400)
    assert metrics.lag_ms(np.roll(x, frames), x) == pytest.approx(40 * frames, abs=2)


def test_lag_is_finer_than_a_frame() -> None:
    t = np.arange(0, 300, 1.0)
    rates = np.array([0.021, 0.034, 0.055])
    true = np.sin(2 * np.pi * rates[:, None] * t).sum(0)
    late = np.sin(2 * np.pi * rates[:, None] * (t - 0.5)).sum(0)
    assert metrics.lag_ms(late, true) == pytest.approx(20, abs=5)


def test_lag_of_nothing_is_not_defined() -> None:
    assert np.isnan(metrics.lag_ms(np.zeros(100), bumps(100)))
    assert np.isnan(metrics.lag_ms(bumps(10), bumps(10)))


def test_shuffled_control_forgets_the_words() -> None:
    x = bumps(600)
    assert abs(metrics.shuffled(x, x, np.random.default_rng(0))) < 0.2


def test_psnr_of_a_known_error() -> None:
    true = np.full((2, 8, 8, 3), 100, np.uint8)
    assert metrics.psnr(true, true) == float("inf")
    assert metrics.psnr(true + np.uint8(5), true) == pytest.approx(10 * np.log10(255**2 / 25))


def test_psnr_inside_boxes_sees_nothing_else() -> None:
    true = np.zeros((1, 8, 8, 3), np.uint8)
    made = true.copy()
    made[0, :4] = 200
    lower = np.array([[0, 4, 8, 8]], np.float32)
    assert metrics.psnr(made, true, lower) == float("inf")
    assert metrics.psnr(made, true) < 10


def test_flicker_tells_trembling_from_drifting() -> None:
    still = np.full((40, 4, 4, 3), 100, np.uint8)
    drift = (still + np.arange(40)[:, None, None, None]).astype(np.uint8)
    tremble = still + (np.arange(40) % 2 * 6).astype(np.uint8)[:, None, None, None]
    mask = metrics.still(still)
    assert mask.all()
    assert metrics.flicker(still, mask) == 0
    assert metrics.flicker(drift, mask) == pytest.approx(0, abs=0.2)
    assert metrics.flicker(tremble, mask) == pytest.approx(6, abs=0.5)


def test_mask_leaves_out_what_moves() -> None:
    pictures = np.zeros((10, 4, 4, 3), np.uint8)
    pictures[::2, 0] = 255
    mask = metrics.still(pictures)
    assert not mask[0].any() and mask[1:].all()
    assert np.isnan(metrics.flicker(pictures, np.zeros_like(mask)))


def test_silence_ratio() -> None:
    speaking = np.repeat([True, False], 50)
    track = np.where(speaking, np.arange(100) % 2 * 1.0, np.arange(100) % 2 * 0.1)
    assert metrics.silence_ratio(track, speaking) == pytest.approx(0.1, rel=0.05)
    assert np.isnan(metrics.silence_ratio(track, np.ones(100, np.bool_)))
    assert metrics.silent_speed(0.5 * track, speaking) == pytest.approx(0.5 * metrics.silent_speed(track, speaking))
    assert np.isnan(metrics.silent_speed(track, np.ones(100, np.bool_)))


def test_blinks_are_counted_once_each() -> None:
    lids = np.full(100, 0.3)
    lids[20:23] = 0.02
    lids[70:72] = 0.05
    assert metrics.blinks(lids) == 2
    assert metrics.blinks(np.full(50, 0.3)) == 0


def test_bootstrap_holds_the_mean() -> None:
    rng = np.random.default_rng(0)
    interval = metrics.bootstrap([0.0, 1.0] * 50 + [float("nan")], rng)
    assert interval.mean == 0.5 and interval.n == 100
    assert interval.low == pytest.approx(0.4, abs=0.03) and interval.high == pytest.approx(0.6, abs=0.03)
    assert metrics.bootstrap([], rng).n == 0


def test_diversity_of_equal_tracks_is_nothing() -> None:
    track = np.random.default_rng(0).standard_normal((1, 20, 3))
    assert metrics.diversity(np.repeat(track, 5, axis=0), np.ones(3)) == 0
    apart = np.concatenate([track, track + np.array([1.0, 2.0, 3.0])])
    assert metrics.diversity(apart, np.array([1.0, 2.0, 3.0])) == pytest.approx(1)
