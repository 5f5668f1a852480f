"""Where one shot ends and another begins, from pictures alone.

In: uint8 [H, W, 3], one by one. Out: for each whether it begins a shot; `clips`, shots as lengths of clips.
Remembers: `CutState`, the histogram and thumbnail of the last picture and how much pictures have lately differed.

A picture differs from the last by d = (h + t) / 2 in [0, 1]: h is half the L1 distance of the colour histograms (8 bins
a channel, blind to motion), t the mean absolute difference of 16 x 16 luma thumbnails in units of 64 levels (blind to
noise), at most 1. It is a cut when d >= `least` and d >= `ratio` times the mean of the last 12 differences: a pan or a
flicker raises the mean, a cut does not. Thresholds are ours: the tests hold 0.35 and 4 on composed video with cuts
between like pictures, pans, flashes of exposure and noise. Slow cross-fades are not found; the leap of the face is
(see `judge`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.packets import Bytes, Float32

BINS: Final = 8
THUMB: Final = 16
LUMA_UNIT: Final = 64.0
MEMORY: Final = 12
LEAST_SHOT: Final = 5
"""A shot has this many frames at least: a flash of a frame or two is no shot."""


@dataclass(slots=True)
class CutState:
    """Of the last picture; `since` frames ago a shot began."""

    histogram: Float32 | None = None
    thumb: Float32 | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    since: int = 0


class CutFinder:
    """Push pictures; see the card."""

    def __init__(self, least: float = 0.35, ratio: float = 4.0) -> None:
        self._least, self._ratio = least, ratio
        self._state = CutState()

    def push(self, rgb: Bytes) -> bool:
        """Whether `rgb` begins a shot; the first does."""
        s = self._state
        histogram, thumb = describe(rgb)
        if s.histogram is None or s.thumb is None:
            s.histogram, s.thumb = histogram, thumb
            return True
        d = difference((s.histogram, s.thumb), (histogram, thumb))
        usual = float(np.mean(s.recent)) if s.recent else 0.0
        cut = d >= self._least and d >= self._ratio * usual and s.since + 1 >= LEAST_SHOT
        s.histogram, s.thumb = histogram, thumb
        s.since = 0 if cut else s.since + 1
        if cut:
            s.recent.clear()
        else:
            s.recent.append(d)
        return cut


def describe(rgb: Bytes) -> tuple[Float32, Float32]:
    """Colour histogram [3, 8], each row summing to 1, and luma thumbnail [16, 16] of uint8 [H, W, 3]."""
    step = max(min(rgb.shape[:2]) // 128, 1)
    seen = rgb[::step, ::step]
    bins = (seen.reshape(-1, 3) >> 5).astype(np.int64) + np.arange(3) * BINS
    histogram = np.bincount(bins.ravel(), minlength=3 * BINS).reshape(3, BINS) / (seen.shape[0] * seen.shape[1])
    luma = seen @ np.array([0.299, 0.587, 0.114], np.float32)
    rows = np.array_split(np.arange(luma.shape[0]), THUMB)
    columns = np.array_split(np.arange(luma.shape[1]), THUMB)
    by_row = np.stack([luma[r].mean(0) if len(r) else np.zeros(luma.shape[1]) for r in rows])
    thumb = np.stack([by_row[:, c].mean(1) if len(c) else np.zeros(THUMB) for c in columns], 1)
    return histogram.astype(np.float32), thumb.astype(np.float32)


def difference(a: tuple[Float32, Float32], b: tuple[Float32, Float32]) -> float:
    """d of the card, in [0, 1]."""
    h = float(np.abs(a[0] - b[0]).sum()) / 2 / 3
    t = min(float(np.abs(a[1] - b[1]).mean()) / LUMA_UNIT, 1.0)
    return (h + t) / 2


def clips(starts: list[int], frames: int, clip_s: tuple[float, float]) -> list[tuple[int, int, int]]:
    """(shot, first, last + 1) of each clip: shots cut into equal parts no longer than allowed.

    Shots that are too short are kept as they are, for the report to say so.
    """
    most = round(clip_s[1] * FRAME_RATE_HZ)
    found = []
    for shot, (first, end) in enumerate(zip(starts, [*starts[1:], frames], strict=True)):
        parts = max(-(-(end - first) // most), 1)
        edges = np.linspace(first, end, parts + 1).round().astype(int)
        found += [(shot, int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return found
