"""Poses read as events: where the eyes rest, when they jump, when the lids shut, and how the lids hang otherwise.

What it is: saccades by a velocity threshold that follows the noise of the track (Engbert and Kliegl, Vision Research
2003), after the head's own turn has been taken out; blinks as excursions of the lids over their running median.

In: poses float32 [T, 9] of rigs or of tracked video. Out: `Reading`. Remembers: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.motion.learned import LONG_FRAMES, LONG_S, ONSET_S, history
from svp_stream.motion.network import BLINK_FRAMES, BOOK, DOUBLE_FRAMES
from svp_stream.packets import Float32

SACCADE_DEG: Final = 0.3
"""Least change of gaze in a frame that counts as a saccade."""
NOISE: Final = 6.0
"""Median deviations of the speed of gaze that a saccade must exceed."""
BLINK: Final = 0.35
"""Closure, beyond how the lids hang, that makes a blink; it began a frame before."""
_LID_MEDIAN: Final = 41
_Float64 = NDArray[np.float64]
_Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reading:
    """All [T]: `saccade` and `blink` where one begins, `look` [T, 2] where the eyes rest in the world from then on
    (degrees), `jump` the size of a saccade, `shut` [T, 2] closure beyond `lid`, `calm` where no blink is near."""

    saccade: _Bool
    look: Float32
    jump: Float32
    blink: _Bool
    lid: Float32
    shut: Float32
    calm: _Bool
    gaze_y: Float32

    def past(self, speaking: _Bool) -> Float32:
        """`learned.history` before each frame, [T, HISTORY]."""
        n = len(self.saccade)
        before = np.concatenate([self.look[:1], self.look[:-1]])
        saccade_s = _since(self.saccade) / FRAME_RATE_HZ + ONSET_S
        fell = np.zeros(n, np.bool_)
        fell[1:] = speaking[:-1] & ~speaking[1:]
        # The end of a phrase is known in its own frame, the eyes' deeds only in the next.
        phrase_s = np.where(fell, 0.0, _since(fell)) / FRAME_RATE_HZ
        out = history(np.minimum(saccade_s, LONG_S), _since(self.blink), np.minimum(phrase_s, LONG_S),
                      before.astype(np.float64))
        return out.astype(np.float32)

    def free(self) -> _Bool:
        """Where a blink may begin."""
        allowed: _Bool = _since(self.blink) >= DOUBLE_FRAMES[0]
        return allowed


def _since(event: _Bool) -> _Float64:
    """Frames since the last event strictly before each frame, at most `LONG_FRAMES`."""
    at = np.arange(len(event))
    last = np.maximum.accumulate(np.where(event, at, -LONG_FRAMES))
    since: _Float64 = np.minimum(at - np.concatenate([[-LONG_FRAMES], last[:-1]]), LONG_FRAMES).astype(np.float64)
    return since


def fit_reflex(poses: Sequence[Float32]) -> float:
    """How much of the head's turn the eyes take back, by least squares over frames without a saccade."""
    turns = np.concatenate([np.diff(p[:, :2], axis=0).astype(np.float64) for p in poses])
    looks = np.concatenate([np.diff(p[:, 7:9], axis=0).astype(np.float64) for p in poses])
    reflex = 0.9
    for _ in range(4):
        kept = np.abs(looks + reflex * turns) < SACCADE_DEG
        power = float((turns[kept] ** 2).sum())
        if power < 1e-9:
            return reflex
        reflex = float(np.clip(-(turns[kept] * looks[kept]).sum() / power, 0.0, 1.2))
    return reflex


def read(pose: Float32, reflex: float) -> Reading:
    """Events of one run of frames, poses [T, 9]."""
    world = (pose[:, 7:9] + reflex * pose[:, :2]).astype(np.float64)
    speed = np.concatenate([[0.0], np.hypot(*np.diff(world, axis=0).T)])
    fast = speed > max(SACCADE_DEG, NOISE * float(np.median(speed)))
    saccade = fast & ~np.concatenate([[False], fast[:-1]])
    look = _fixations(world, saccade)
    jump = np.zeros(len(pose), np.float32)
    moved = np.flatnonzero(saccade[1:]) + 1
    jump[moved] = np.hypot(*(look[moved] - look[moved - 1]).T)
    lids = pose[:, 5:7].astype(np.float64)
    hang = median_filter(lids, size=(min(_LID_MEDIAN, len(lids)), 1), mode="nearest")
    shut = np.clip((lids - hang) / np.maximum(1 - hang, 0.2), 0, 1)
    both = shut.mean(axis=1)
    over = both > BLINK
    crossed = over & ~np.concatenate([over[:1], over[:-1]])
    blink = np.concatenate([crossed[1:], [False]])
    near = np.convolve(over, np.ones(9), mode="same") > 0
    return Reading(saccade, look, jump, blink, lids.mean(axis=1).astype(np.float32), shut.astype(np.float32), ~near,
                   pose[:, 8])


def _fixations(world: _Float64, saccade: _Bool) -> Float32:
    """Where the eyes rest from each saccade to the next: medians of the frames after its first."""
    look = np.zeros(world.shape, np.float32)
    edges = [0, *np.flatnonzero(saccade), len(world)]
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        if b > a:
            look[a:b] = np.median(world[min(a + 1, b - 1) : b], axis=0)
    return look


def blink_book(readings: Sequence[Reading], rng: np.random.Generator) -> Float32:
    """`BOOK` blinks as they were seen, [BOOK, 2, BLINK_FRAMES], of those that stand alone and shut the eyes; all zero
    where there is none."""
    pages = []
    for r in readings:
        starts = np.flatnonzero(r.blink)
        for i, at in enumerate(starts):
            following = starts[i + 1] if i + 1 < len(starts) else len(r.blink)
            page = r.shut[at : at + BLINK_FRAMES].T
            if following - at > BLINK_FRAMES and page.shape[1] == BLINK_FRAMES and page.max() > 0.8:
                pages.append(page)
    if not pages:
        return np.zeros((BOOK, 2, BLINK_FRAMES), np.float32)
    chosen = rng.choice(len(pages), size=BOOK, replace=len(pages) < BOOK)
    book = np.stack([pages[i] for i in chosen])
    # A page ends with open lids, so that the frame after it is no jump.
    book[..., -1] = 0.0
    return np.asarray(book, np.float32)
