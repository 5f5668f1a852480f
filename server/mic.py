"""The microphone: RTP packets of sound become 48 kHz mono packets in the worker's mailbox.

In: `Heard` packets on the loop's thread. Out: `mailbox.Packet`s with the sender's own `pts` in ticks, in order, holes
of up to 60 ms concealed. Remembers: a jitter buffer and a decoder for the stream in hand. Latency: what the jitter
buffer holds, nothing on a calm network.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from server.hearing import Heard, decode_other
from server.jitter import JitterBuffer, Slot, Tally
from server.mailbox import Packet
from server.opus import OpusEar, packet_ticks
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


class Ear(Protocol):
    """One stream's decoder: payloads to float32 mono at 48 kHz, and what stands in for a lost one."""

    def decode(self, payload: bytes) -> Float32: ...

    def conceal(self, ticks: int) -> Float32: ...


class PlainEar:
    """G.711 and G.722, which know nothing of loss: a lost packet is silence."""

    def __init__(self, codec: RTCRtpCodecParameters) -> None:
        self._decode = decode_other(codec)
        self._voice = MonoVoice()

    def decode(self, payload: bytes) -> Float32:
        """float32 [N]; raises `av.FFmpegError` for a broken packet."""
        parts = [self._voice.convert(frame)[1] for frame in self._decode(payload)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def conceal(self, ticks: int) -> Float32:
        """Zeros [ticks]."""
        return np.zeros(ticks, np.float32)


class Line:
    """One stream of one codec: its jitter buffer and its decoder."""

    def __init__(self, ssrc: int, codec: RTCRtpCodecParameters, tally: Tally) -> None:
        self.key = (ssrc, codec.name, codec.clockRate)
        self._opus = codec.name.lower() == "opus"
        self._ear: Ear = OpusEar() if self._opus else PlainEar(codec)
        self._tick = TICKS_PER_SECOND // codec.clockRate
        self.jitter = JitterBuffer(codec.clockRate, tally)

    def put(self, now_s: float, packet: Heard) -> None:
        """Raises ValueError for a packet that is not of this codec."""
        # G.711 and G.722 send a byte for each unit of their clock (RFC 3551 section 4.5)
        ticks = packet_ticks(packet.payload) if self._opus else len(packet.payload) * self._tick
        self.jitter.put(now_s, packet.number, packet.timestamp, ticks, packet.payload)

    def render(self, slot: Slot) -> Float32:
        """The sound of a slot, float32 [N]; a broken packet is concealed."""
        if slot.payload is not None:
            try:
                return self._ear.decode(slot.payload)
            except av.FFmpegError as error:
                logger.debug("a packet of sound cannot be decoded: %s", error)
        return self._ear.conceal(slot.ticks)


class Mic:
    """Hears one track: give `hear` to `hearing.hear`, and `run` until the track ends."""

    def __init__(
        self, track: MediaStreamTrack, deliver: Callable[[Packet], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.tally = Tally()
        self.refused = 0
        """Packets that were not of the codec they claimed."""
        self._track = track
        self._deliver = deliver
        self._clock = clock
        self._line: Line | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._origin = 0
        self._end = 0
        self._ended = False
        self._error: Exception | None = None
        self._broken = asyncio.Event()

    @property
    def hold_ms(self) -> float:
        """What the jitter buffer adds at present."""
        return self._line.jitter.hold_s * 1000 if self._line is not None else 0.0

    @property
    def depth(self) -> int:
        """Packets held at present."""
        return self._line.jitter.depth if self._line is not None else 0

    def hear(self, packet: Heard) -> None:
        """One packet has arrived; on the loop's thread. Ignored after the end of `run`."""
        if self._ended:
            return
        now = self._clock()
        line = self._line
        if line is None or line.key != (packet.ssrc, packet.codec.name, packet.codec.clockRate):
            self._origin = self._end
            line = self._line = Line(packet.ssrc, packet.codec, self.tally)
        try:
            line.put(now, packet)
        except ValueError as error:
            self.refused += 1
            logger.debug("a packet of sound is refused: %s", error)
            return
        self._release(line)

    def figures(self) -> dict[str, float]:
        """What the jitter buffer does now, and its counts since the beginning."""
        tally = self.tally
        return {
            "hold_ms": round(self.hold_ms, 1), "held": self.depth, "received": tally.received, "lost": tally.lost,
            "concealed": tally.concealed, "late": tally.late, "reordered": tally.reordered,
            "duplicate": tally.duplicate, "overflown": tally.overflown, "restarts": tally.restarts,
        }  # fmt: skip

    async def run(self) -> None:
        """Until the track ends (returns), the sound cannot be gone on with (raises), or the task is cancelled."""
        waits = [asyncio.ensure_future(self._until_track_ends()), asyncio.ensure_future(self._broken.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended = True
            if self._timer is not None:
                self._timer.cancel()
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if self._error is not None:
            raise self._error

    async def _until_track_ends(self) -> None:
        try:
            while True:
                await self._track.recv()
        except MediaStreamError:
            logger.info("the microphone has ended")

    def _release(self, line: Line) -> None:
        try:
            self._deliver_due(line)
        except Exception as error:  # hostile sound may break a decoder in any way: it ends this connection only
            self._error, self._ended = error, True
            self._broken.set()

    def _deliver_due(self, line: Line) -> None:
        """Delivers what is due, and comes again when the next is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        for slot in line.jitter.take(now):
            samples = line.render(slot)
            self._end = self._origin + slot.pts + slot.ticks
            self._deliver(Packet(now, self._origin + slot.pts, samples))
        due_s = line.jitter.due_s()
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due_s - now), self._release, line)
