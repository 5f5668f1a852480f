"""Speech that comes as PCM16 in pieces of any size and is taken in pieces of any size, at 48 kHz.

In: int16 [N] mono at 16, 24 or 48 kHz. Out: float32 [M] at 48 kHz, so that a sample is a tick.
Remembers: what has not been taken, as it came; a resampler. Latency: none; the resampler's 1 ms is taken from ahead.

What comes out does not depend on how it was cut, going in or out, and is exactly as long as what went in.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from svp_stream.audio.resample import Resampler
from svp_stream.clock import WIRE_RATE_HZ, ms_to_ticks, ticks_per_sample
from svp_stream.packets import AudioChunk, Float32

Int16 = NDArray[np.int16]
FADE_TICKS = ms_to_ticks(5)
"""Long enough that a cut does not click, too short to be heard as a fade."""
_SLICE_MS = 40


class PcmLine:
    """One piece of speech: `feed`, `end`, and `take` at any time."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.ended = False
        self._step = ticks_per_sample(rate_hz)
        self._slice = rate_hz * _SLICE_MS // 1000
        self._resampler = Resampler(rate_hz, WIRE_RATE_HZ)
        self._raw: deque[Int16] = deque()
        self._ready: Float32 = np.zeros(0, np.float32)
        self._pushed = 0
        self._fed = 0
        self._taken = 0

    @property
    def fed(self) -> int:
        """Ticks of all that came."""
        return self._fed

    @property
    def taken(self) -> int:
        """Ticks of all that was taken."""
        return self._taken

    @property
    def held(self) -> int:
        """Ticks that came and have not been taken."""
        return self._fed - self._taken

    @property
    def ready(self) -> int:
        """Ticks that `take` can give now: a resampler keeps its last millisecond until the end."""
        return self.held if self.ended else max(0, self.held - self._resampler.latency)

    def feed(self, samples: Int16) -> None:
        """More of it; raises ValueError after `end`."""
        if self.ended:
            raise ValueError("the speech has ended; begin another")
        if not len(samples):
            return
        self._fed += len(samples) * self._step
        if self._raw and len(self._raw[-1]) + len(samples) <= self._slice:
            samples = np.concatenate([self._raw.pop(), samples])  # so that single samples do not fill the memory
        self._raw.append(samples)

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True

    def take(self, ticks: int) -> Float32:
        """float32 [at most `ticks`], as much as is ready."""
        ticks = min(ticks, self.ready)
        parts = [self._ready]
        have = len(self._ready)
        while have < ticks:
            more = self._convert()
            parts.append(more)
            have += len(more)
        line = np.concatenate(parts) if len(parts) > 1 else self._ready
        self._ready = line[ticks:]
        self._taken += ticks
        return line[:ticks]

    def _convert(self) -> Float32:
        """The next slice through the resampler; with nothing left, what the resampler holds and then silence."""
        if self._raw:
            samples = self._raw.popleft()
            if len(samples) > self._slice:
                self._raw.appendleft(samples[self._slice :])
                samples = samples[: self._slice]
            chunk = AudioChunk(self._pushed, samples.astype(np.float32) / np.float32(32768), self.rate_hz)
            self._pushed = chunk.end
            chunks = self._resampler.push(chunk)
        else:
            chunks = self._resampler.flush()
            self._resampler.reset()
            if not chunks:
                return np.zeros(self._fed - self._taken, np.float32)
        return np.concatenate([c.samples for c in chunks]) if chunks else np.zeros(0, np.float32)


def fade_out(samples: Float32, ticks: int = FADE_TICKS) -> Float32:
    """float32 [N] at 48 kHz whose last `ticks` samples sink to silence."""
    length = min(ticks, len(samples))
    out = samples.copy()
    out[len(out) - length :] *= np.linspace(1.0, 0.0, length, endpoint=True, dtype=np.float32)
    return out


def fade_in(samples: Float32, ticks: int = FADE_TICKS) -> Float32:
    """float32 [N] at 48 kHz whose first `ticks` samples rise from silence."""
    length = min(ticks, len(samples))
    out = samples.copy()
    out[:length] *= np.linspace(0.0, 1.0, length, endpoint=True, dtype=np.float32)
    return out
