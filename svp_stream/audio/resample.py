"""From the wire's rate to the model's.

In: AudioChunk at `in_hz`. Out: AudioChunk at `out_hz`, at most a few for each push. Remembers: FFmpeg's polyphase
filter (32 taps of the lower rate), the time line. Latency: 18 samples of the lower rate (1.125 ms at 16 kHz).

The filter is linear-phase and centred, so output stamped `pts` is the sound at `pts`. FFmpeg's filter gives the same
bits however its input is cut; resampling chunk by chunk without state loses over 20 dB at 1 kHz.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from svp_stream.audio.timeline import FILL_TICKS, Placed, Timeline
from svp_stream.clock import MODEL_RATE_HZ, ticks_per_sample
from svp_stream.packets import AudioChunk, Float32

_HALF_TAPS = 16
"""libswresample's default filter reaches this many samples of the lower rate to each side."""


class Resampler:
    """A `Stage[AudioChunk, AudioChunk]` from `in_hz` to `out_hz`, both divisors of 48 kHz."""

    def __init__(self, in_hz: int, out_hz: int = MODEL_RATE_HZ, fill_ticks: int = FILL_TICKS) -> None:
        self._in_hz, self._out_hz = in_hz, out_hz
        self._in_step, self._out_step = ticks_per_sample(in_hz), ticks_per_sample(out_hz)
        self._slow = max(self._in_step, self._out_step)
        self._timeline = Timeline(in_hz, fill_ticks)
        self._filter: _Filter | None = None
        self._next = 0

    @property
    def latency(self) -> int:
        """Half the filter and the rounding of two samples; the sample itself when the rates are equal."""
        return self._slow if self._in_hz == self._out_hz else (_HALF_TAPS + 2) * self._slow

    def push(self, x: AudioChunk) -> list[AudioChunk]:
        """Feed sound; raises StreamError as `Timeline.place` does."""
        placed = self._timeline.place(x)
        out = self._begin(placed) if placed.restart else []
        assert self._filter is not None
        if placed.silence:
            out += self._stamp(self._filter.feed(np.zeros(placed.silence, np.float32)))
        return out + self._stamp(self._filter.feed(placed.samples))

    def flush(self) -> list[AudioChunk]:
        """The last millisecond."""
        self._timeline.close()
        rest = [] if self._filter is None else self._stamp(self._filter.drain())
        self._filter = None
        return rest

    def reset(self) -> None:
        """Drop what the filter holds."""
        self._filter = None
        self._timeline.reset()

    def _begin(self, placed: Placed) -> list[AudioChunk]:
        rest = [] if self._filter is None else self._stamp(self._filter.drain())
        self._filter = _Filter(self._in_hz, self._out_hz)
        self._next = placed.pts
        return rest

    def _stamp(self, y: Float32) -> list[AudioChunk]:
        if not len(y):
            return []
        chunk = AudioChunk(self._next, y, self._out_hz)
        self._next = chunk.end
        return [chunk]


class _Filter:
    """libswresample after silence: a lead-in of zeros replaces its mirrored start, which would double the latency of
    the first samples, and is taken off its output."""

    def __init__(self, in_hz: int, out_hz: int) -> None:
        self._in_hz, self._same = in_hz, in_hz == out_hz
        self._swr = av.AudioResampler(format="flt", layout="mono", rate=out_hz)
        self._time_base = Fraction(1, in_hz)
        self._fed = 0
        self._skip = 0
        if not self._same:
            lead_ticks = 2 * _HALF_TAPS * max(ticks_per_sample(in_hz), ticks_per_sample(out_hz))
            self._skip = lead_ticks // ticks_per_sample(out_hz)
            self.feed(np.zeros(lead_ticks // ticks_per_sample(in_hz), np.float32))

    def feed(self, x: Float32) -> Float32:
        """float32 [N] in, float32 [M] ready."""
        if self._same or not len(x):
            return x
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x)[None], format="flt", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = self._in_hz, self._time_base, self._fed
        self._fed += len(x)
        return self._collect(frame)

    def drain(self) -> Float32:
        """What is left; the filter cannot be fed after."""
        return np.zeros(0, np.float32) if self._same else self._collect(None)

    def _collect(self, frame: av.AudioFrame | None) -> Float32:
        ready = [np.asarray(f.to_ndarray()[0], dtype=np.float32) for f in self._swr.resample(frame)]
        y = np.concatenate(ready) if ready else np.zeros(0, np.float32)
        skipped = min(self._skip, len(y))
        self._skip -= skipped
        return y[skipped:]
