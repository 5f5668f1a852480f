"""The microphone: an incoming aiortc track becomes 48 kHz mono packets in the worker's mailbox.

In: `av.AudioFrame`s of any rate and layout. Out: `mailbox.Packet`s with the sender's own `pts` in ticks.
Remembers: a resampler. Latency: none at 48 kHz (format change only), 1 ms otherwise.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.mailbox import Packet
from svp_stream.clock import TICKS_PER_SECOND, WIRE_RATE_HZ
from svp_stream.packets import Float32

logger = logging.getLogger(__name__)

QUIET_DB = -100.0


def level_db(mean_square: float) -> float:
    """Decibels relative to full scale, floored at -100."""
    return max(QUIET_DB, 10 * math.log10(mean_square)) if mean_square > 0 else QUIET_DB


class LevelMeter:
    """Mean loudness between two looks."""

    def __init__(self) -> None:
        self._square = 0.0
        self._samples = 0

    def hear(self, samples: Float32) -> None:
        """float32 [N] went by."""
        self._square += float(np.dot(samples, samples))
        self._samples += len(samples)

    def take_db(self) -> float:
        """Mean loudness since the last call."""
        mean = self._square / self._samples if self._samples else 0.0
        self._square, self._samples = 0.0, 0
        return level_db(mean)


class MonoVoice:
    """Any `av.AudioFrame` to float32 mono at 48 kHz; a change of rate or layout in mid-stream makes a new resampler."""

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._shape: tuple[int, str, str] | None = None

    def convert(self, frame: av.AudioFrame) -> tuple[int, Float32]:
        """(pts in ticks, samples float32 [N]); raises ValueError for a frame without rate."""
        if frame.sample_rate <= 0:
            raise ValueError(f"a frame of {frame.sample_rate} Hz")
        shape = (frame.sample_rate, frame.format.name, frame.layout.name)
        if self._resampler is None or shape != self._shape:
            # channels are kept here and averaged below: the library's own downmix of equal channels is 3 dB louder
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            self._resampler, self._shape = av.AudioResampler("fltp", layout, WIRE_RATE_HZ), shape
        base = frame.time_base
        pts = 0 if frame.pts is None or base is None else round(
            frame.pts * TICKS_PER_SECOND * base.numerator / base.denominator
        )
        parts = [f.to_ndarray().mean(axis=0, dtype=np.float32) for f in self._resampler.resample(frame)]
        return pts, np.concatenate(parts) if parts else np.zeros(0, np.float32)


class Mic:
    """Reads one track until it ends."""

    def __init__(self, track: MediaStreamTrack, deliver: Callable[[Packet], None]) -> None:
        self._track = track
        self._deliver = deliver
        self._voice = MonoVoice()

    async def run(self) -> None:
        """Until the track ends (returns) or the task is cancelled."""
        while True:
            try:
                frame = await self._track.recv()
            except MediaStreamError:
                logger.info("the microphone has ended")
                return
            pts, samples = self._voice.convert(frame)
            self._deliver(Packet(time.monotonic(), pts, samples))
