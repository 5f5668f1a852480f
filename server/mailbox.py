"""The bounded boxes between the event loop and the inference thread; each counts what it drops.

In: microphone packets and orders (loop to thread), a session's voice. Pictures: see `feed`.
Remembers: at most its bound; the oldest is dropped. Latency cannot grow.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from svp_stream.packets import AudioChunk, Float32

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Packet:
    """What the microphone brought: arrival in wall seconds, `mic_pts` in its own ticks, float32 [N] mono at 48 kHz."""

    arrived_s: float
    mic_pts: int
    samples: Float32


class OldestOut(Generic[T]):
    """A queue of `bound` items for one writer and one reader thread; a full one gives up its oldest.

    `weigh` tells how much of something an item is (packets: ticks), so that the reader can account for all that was
    lost without keeping it.
    """

    def __init__(self, bound: int, weigh: Callable[[T], int] = lambda _: 1) -> None:
        if bound < 1:
            raise ValueError(f"a mailbox holds at least one item, not {bound}")
        self._items: deque[T] = deque()
        self._bound = bound
        self._lock = threading.Lock()
        self._weigh = weigh
        self._lost = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Never waits."""
        with self._lock:
            if len(self._items) >= self._bound:
                self._lost += self._weigh(self._items.popleft())
                self.dropped += 1
            self._items.append(item)

    def take(self, most: int) -> list[T]:
        """Up to `most` items, oldest first; never waits."""
        with self._lock:
            return [self._items.popleft() for _ in range(min(most, len(self._items)))]

    def clear(self) -> int:
        """Forget all that waits, not counted as lost; how many items that were."""
        with self._lock:
            count = len(self._items)
            self._items.clear()
            return count

    def take_lost(self) -> int:
        """Weight of all items dropped since the last call."""
        with self._lock:
            lost, self._lost = self._lost, 0
            return lost


class VoiceLine:
    """The last seconds of a caller's sound by media time, written by the inference thread, read by the voice track."""

    def __init__(self, ticks: int) -> None:
        self._ring = np.zeros(ticks, np.float32)
        self._end = 0
        self._lock = threading.Lock()

    def write(self, chunk: AudioChunk) -> None:
        """Chunks come in order and without gaps (see `pacing.Intake`); 48 kHz, so a sample is a tick."""
        size = len(self._ring)
        samples = chunk.samples[-size:]
        start = chunk.end - len(samples)
        with self._lock:
            at = (start + np.arange(len(samples))) % size
            self._ring[at] = samples
            self._end = chunk.end

    def read(self, pts: int, ticks: int) -> Float32:
        """float32 [ticks] from `pts`; silence where the line does not reach (yet, or any more)."""
        out = np.zeros(ticks, np.float32)
        with self._lock:
            first = max(pts, self._end - len(self._ring), 0)
            last = min(pts + ticks, self._end)
            if last > first:
                out[first - pts : last - pts] = self._ring[np.arange(first, last) % len(self._ring)]
        return out
