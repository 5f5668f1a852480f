"""The outgoing voice: the session's, in step with the lips, encoded once for all; silence for who shall not hear it.

In: a `VoiceLine` by media time. Out: ready-made Opus packets of 20 ms (RFC 6716), stamped by the session's media clock.
Remembers: the next packet, an encoder while somebody hears. Latency: the street's, plus `MARGIN_TICKS`.

Silence costs nothing: it is one constant packet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.mailbox import VoiceLine
from server.pacing import PACKET_TICKS, MediaClock, Playhead
from svp_stream.clock import TICKS_PER_SECOND, WIRE_RATE_HZ, ms_to_ticks
from svp_stream.packets import Float32

logger = logging.getLogger(__name__)

MARGIN_TICKS: Final = ms_to_ticks(40)
"""Room for the making and sending of the picture that belongs to the sound, and for jitter of the microphone."""
SILENCE: Final = b"\xf8\xff\xfe"
"""One 20 ms frame of silence, CELT fullband mono (RFC 6716 section 3.1): what libopus' own DTX tests call so."""
BIT_RATE: Final = 48_000
QUEUE_PACKETS: Final = 10
_TIME_BASE: Final = Fraction(1, TICKS_PER_SECOND)


class OpusVoice:
    """float32 [960] mono at 48 kHz to one Opus packet each."""

    def __init__(self, bit_rate: int = BIT_RATE) -> None:
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, av.AudioCodecContext)
        codec.bit_rate = bit_rate
        codec.sample_rate = WIRE_RATE_HZ
        codec.format = av.AudioFormat("s16")
        codec.layout = av.AudioLayout("mono")
        codec.time_base = _TIME_BASE
        codec.options = {"application": "voip", "frame_duration": "20"}
        self._codec = codec
        self._pts = 0

    def encode(self, samples: Float32) -> bytes:
        """One packet; empty while the encoder holds the sound back."""
        pcm = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = WIRE_RATE_HZ, _TIME_BASE, self._pts
        self._pts += len(samples)
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


@dataclass(frozen=True, slots=True)
class VoicePacket:
    """20 ms of Opus that begin at `pts`."""

    pts: int
    data: bytes

    @property
    def payloads(self) -> list[bytes]:
        """RTP payloads (RFC 7587: the packet itself)."""
        return [self.data]

    @property
    def timestamp(self) -> int:
        """RTP time in 1/48000 s."""
        return self.pts


class Hearing:
    """One listener. Loop thread only."""

    def __init__(self, feed: VoiceFeed, audible: Callable[[], bool]) -> None:
        self.audible = audible
        self.dropped = 0
        self._feed = feed
        self._queue: deque[VoicePacket] = deque()
        self._ready = asyncio.Event()

    async def recv(self) -> VoicePacket:
        """The next packet."""
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()

    def put(self, packet: VoicePacket) -> None:
        """From the feed; a listener that takes nothing keeps the newest 200 ms."""
        if len(self._queue) >= QUEUE_PACKETS:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(packet)
        self._ready.set()

    def close(self) -> None:
        """Hear no more; idempotent."""
        self._feed.leave(self)


class VoiceFeed:
    """The voice of one live session. Loop thread only; its task runs while somebody listens."""

    def __init__(self, clock: MediaClock, line: VoiceLine, latency: int, bit_rate: int = BIT_RATE) -> None:
        self.encoded = 0
        self._line = line
        self._bit_rate = bit_rate
        self._playhead = Playhead(clock, latency + MARGIN_TICKS)
        self._hearings: tuple[Hearing, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._opus: OpusVoice | None = None

    @property
    def skipped(self) -> int:
        """Packets left out after stalls."""
        return self._playhead.skipped

    def listen(self, audible: Callable[[], bool] = lambda: True) -> Hearing:
        """One more listener, who gets silence while `audible` says no."""
        hearing = Hearing(self, audible)
        self._hearings = (*self._hearings, hearing)
        if self._task is None:
            self._playhead.begin(time.monotonic())
            self._task = asyncio.get_running_loop().create_task(self._run(), name="voice")
        return hearing

    def leave(self, hearing: Hearing) -> None:
        """From a listener who has gone; the last one stops the voice."""
        self._hearings = tuple(h for h in self._hearings if h is not hearing)
        if not self._hearings:
            self.close()

    def close(self) -> None:
        """Stop; idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task, self._opus = None, None

    async def _run(self) -> None:
        while True:
            pts, wait_s = self._playhead.step(time.monotonic())
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            hearers = [h for h in self._hearings if h.audible()]
            voice = VoicePacket(pts, self._voice(pts)) if hearers else None
            silence = VoicePacket(pts, SILENCE)
            for hearing in self._hearings:
                hearing.put(voice if voice is not None and hearing in hearers else silence)
            if not hearers:
                self._opus = None

    def _voice(self, pts: int) -> bytes:
        if self._opus is None:
            self._opus = OpusVoice(self._bit_rate)
        try:
            data = self._opus.encode(self._line.read(pts, PACKET_TICKS))
        except av.FFmpegError:
            logger.exception("a packet of voice could not be encoded; silence takes its place")
            self._opus, data = None, b""
        self.encoded += 1
        return data or SILENCE


class VoiceTrack(MediaStreamTrack):  # type: ignore[misc]
    """One listener as a track; what it gives is for `seams.send_packed`, not for a decoder."""

    kind = "audio"

    def __init__(self, feed: VoiceFeed, audible: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self._feed = feed
        self._audible = audible
        self._hearing: Hearing | None = None

    async def recv(self) -> VoicePacket:
        """The next 20 ms; listens from the first call on. Raises `MediaStreamError` after `stop`."""
        if self.readyState != "live":
            raise MediaStreamError
        if self._hearing is None:
            self._hearing = self._feed.listen(self._audible)
        return await self._hearing.recv()

    def stop(self) -> None:
        """End, also for the feed."""
        super().stop()
        if self._hearing is not None:
            self._hearing.close()
