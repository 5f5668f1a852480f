"""Where a chunk belongs on its stream's time line.

In: AudioChunks as they come. Out: for each, the samples to take and what to do before them.
Remembers: the tick at which the next sample is due. Latency: 0.

A hole of up to `fill_ticks` is a lost packet and is heard as silence; a longer one (a muted or sleeping microphone)
ends the stream and starts another at the new `pts`, so that no stage ever computes minutes of silence in one push. A
chunk that repeats what was already heard loses its head; one that starts before its predecessor is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svp_stream.clock import ms_to_ticks, ticks_per_sample
from svp_stream.errors import StreamError
from svp_stream.packets import AudioChunk, Float32

FILL_TICKS = ms_to_ticks(200)


@dataclass(frozen=True, slots=True)
class Placed:
    """`samples` float32 [N] are due after `silence` samples of nothing; `restart`: a stream begins at `pts`."""

    pts: int
    restart: bool
    silence: int
    samples: Float32


class Timeline:
    """Orders the chunks of one stream at `rate_hz`."""

    def __init__(self, rate_hz: int, fill_ticks: int = FILL_TICKS) -> None:
        if fill_ticks < 0:
            raise ValueError(f"fill_ticks is {fill_ticks}; use 0 or more")
        self._rate_hz = rate_hz
        self._step = ticks_per_sample(rate_hz)
        self._fill = fill_ticks
        self.reset()

    def reset(self) -> None:
        """The next chunk starts a stream wherever it lies."""
        self._due: int | None = None
        self._last = 0
        self._closed = False

    def close(self) -> None:
        """The input has ended: nothing may be placed before `reset`."""
        self._closed = True

    def place(self, chunk: AudioChunk) -> Placed:
        """Check and place one chunk; `pts` of the result is where its silence (or its first sample) lies.

        Raises StreamError for another rate, for samples that are not finite float32 [N], for time that runs back, and
        for sound after `close`.
        """
        if self._closed:
            raise StreamError(f"sound at tick {chunk.pts} comes after the end of the stream; call reset first")
        self._check(chunk)
        if self._due is None:
            return self._start(chunk)
        if chunk.pts < self._last:
            raise StreamError(f"sound at tick {chunk.pts} comes after sound at tick {self._last}; pts must not fall")
        # Rounding towards zero: stamps that jitter by less than a sample do not tear the stream.
        late = int((chunk.pts - self._due) / self._step)
        if late * self._step > self._fill:
            return self._start(chunk)
        due, silence = self._due, max(late, 0)
        samples = chunk.samples[max(-late, 0) :]
        self._due = due + (silence + len(samples)) * self._step
        self._last = chunk.pts
        return Placed(due, False, silence, samples)

    def _start(self, chunk: AudioChunk) -> Placed:
        self._due = chunk.pts + len(chunk.samples) * self._step
        self._last = chunk.pts
        return Placed(chunk.pts, True, 0, chunk.samples)

    def _check(self, chunk: AudioChunk) -> None:
        if chunk.rate_hz != self._rate_hz:
            raise StreamError(f"sound at tick {chunk.pts} has {chunk.rate_hz} Hz; this stage takes {self._rate_hz} Hz")
        x = chunk.samples
        if x.ndim != 1 or x.dtype != np.float32:
            raise StreamError(f"sound at tick {chunk.pts} is {x.dtype} {x.shape}; it must be float32 [N], mono")
        if not np.isfinite(x).all():
            raise StreamError(f"sound at tick {chunk.pts} has samples that are not finite; send values in [-1, 1]")
