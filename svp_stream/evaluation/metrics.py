"""The figures of an evaluation, as pure functions of arrays.

In: tracks (one number a frame), pictures, labels. Out: numbers. Remembers: nothing. Where a figure is not defined (a
track that does not move, no frame in the mask) it is NaN, never a guess. Definitions: METHOD section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.packets import Bytes, Float32, Floats

Mask = NDArray[np.bool_]
FRAME_MS: Final = 1000 / FRAME_RATE_HZ
MAX_LAG: Final = 8
"""Frames either way in which a lag is looked for."""
SHIFT_FRAMES: Final = 2 * FRAME_RATE_HZ
"""A track is shuffled in time by more than this."""
LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
_FLAT: Final = 1e-7


def pearson(a: Floats, b: Floats) -> float:
    """Correlation of two tracks [T]; NaN when one does not move. Raises ValueError for different lengths."""
    if a.shape != b.shape:
        raise ValueError(f"tracks of the same length correlate, got {a.shape} and {b.shape}")
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(x) < 2 or x.std() < _FLAT or y.std() < _FLAT:
        return float("nan")
    return float(np.mean((x - x.mean()) * (y - y.mean())) / (x.std() * y.std()))


def lag_ms(made: Floats, true: Floats, most: int = MAX_LAG) -> float:
    """How late `made` is against `true`, in ms: the peak of the correlation over whole-frame shifts up to `most`, with
    a parabola through its neighbours. Positive: late. NaN when nothing correlates, or the tracks are too short."""
    shifts = np.arange(-most, most + 1)
    if len(made) < 3 * most:
        return float("nan")
    inside = slice(most, len(true) - most)
    scores = np.array([pearson(np.roll(made, -s)[inside], true[inside]) for s in shifts])
    if np.isnan(scores).any():
        return float("nan")
    k = int(scores.argmax())
    if scores[k] <= 0:
        return float("nan")
    offset = 0.0
    if 0 < k < len(shifts) - 1:
        left, middle, right = scores[k - 1 : k + 2]
        bend = left - 2 * middle + right
        offset = 0.5 * float(left - right) / float(bend) if bend < 0 else 0.0
    return float((shifts[k] + offset) * FRAME_MS)


def shuffled(made: Floats, true: Floats, rng: np.random.Generator, draws: int = 20) -> float:
    """Mean correlation with the truth turned round in time by more than 2 s (by a third of it in shorter clips)."""
    least = min(SHIFT_FRAMES + 1, len(true) // 3)
    turns = rng.integers(least, max(len(true) - least, least) + 1, size=draws)
    return float(np.mean([pearson(made, np.roll(true, int(t))) for t in turns]))


def psnr(made: Bytes, true: Bytes, boxes: Float32 | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 [T, H, W, 3] over all frames; inside `boxes` [T, 4] (left, top, right,
    bottom in pixels) when given. Infinite for equal pictures."""
    total, count = 0.0, 0
    for i, (a, b) in enumerate(zip(made, true, strict=True)):
        if boxes is not None:
            x0, y0, x1, y1 = (int(v) for v in boxes[i])
            a, b = a[y0:y1, x0:x1], b[y0:y1, x0:x1]
        square = (a.astype(np.float32) - b.astype(np.float32)) ** 2
        total, count = total + float(square.sum(dtype=np.float64)), count + square.size
    return float("inf") if total == 0 else float(10 * np.log10(255**2 * count / total))


def luma(pictures: Bytes) -> Float32:
    """uint8 [T, H, W, 3] to float32 [T, H, W] in [0, 255]."""
    return np.asarray(pictures @ LUMA, np.float32)


def still(true: Bytes, most: float = 1.0) -> Mask:
    """Where the truth stands still: pixels [H, W] whose luma deviates less than `most` levels over time."""
    return np.asarray(luma(true).std(axis=0) < most, np.bool_)


def flicker(pictures: Bytes, mask: Mask) -> float:
    """Mean over `mask` [H, W] of the deviation over time of the change of luma from frame to frame, in levels.

    The change, not the level: a slow drift is not a flicker. NaN for an empty mask or a single frame.
    """
    if len(pictures) < 3 or not mask.any():
        return float("nan")
    change = np.diff(luma(pictures)[:, mask], axis=0)
    return float(change.std(axis=0).mean())


def silence_ratio(track: Floats, speaking: Mask) -> float:
    """Motion in silence: mean speed of a track [T] where nobody speaks, over that where somebody does."""
    speed = np.abs(np.diff(np.asarray(track, np.float64)))
    both, neither = speaking[1:] & speaking[:-1], ~speaking[1:] & ~speaking[:-1]
    if not both.any() or not neither.any() or speed[both].mean() < _FLAT:
        return float("nan")
    return float(speed[neither].mean() / speed[both].mean())


def silent_speed(track: Floats, speaking: Mask) -> float:
    """Mean change from frame to frame of a track [T] where nobody speaks; NaN where somebody always does."""
    speed = np.abs(np.diff(np.asarray(track, np.float64)))[~speaking[1:] & ~speaking[:-1]]
    return float(speed.mean()) if len(speed) else float("nan")


def blinks(eye_open: Floats, shut: float = 0.5) -> int:
    """How often a lid's opening [T] falls under `shut` of its usual (80th percentile) and comes back."""
    usual = float(np.quantile(eye_open, 0.8)) if len(eye_open) else 0.0
    if usual < _FLAT:
        return 0
    closed = np.asarray(eye_open) < shut * usual
    return int(np.count_nonzero(~closed[1:] & closed[:-1]))


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the interval that holds it in 95 % of redraws; `n` is how many it is over."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap(values: Sequence[float], rng: np.random.Generator, draws: int = 2000) -> Interval:
    """Percentile bootstrap (Efron 1979) of the mean; NaNs are left out."""
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    if not len(x):
        nan = float("nan")
        return Interval(nan, nan, nan, 0)
    means = x[rng.integers(len(x), size=(draws, len(x)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(x.mean()), float(low), float(high), len(x))


def diversity(tracks: NDArray[np.floating[Any]], scale: Floats) -> float:
    """Mean distance between every two of N renderings [N, T, C] of one sound, in deviations `scale` [C] a channel."""
    if len(tracks) < 2:
        return float("nan")
    spread = np.maximum(np.asarray(scale, np.float64), 1e-3)
    pairs = [(i, j) for i in range(len(tracks)) for j in range(i)]
    return float(np.mean([np.mean(np.abs(tracks[i] - tracks[j]) / spread) for i, j in pairs]))
