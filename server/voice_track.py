"""The outgoing voice: the caller's own, in step with the lips, or silence (the default).

In: a `VoiceLine` by media time. Out: ready-made Opus packets of 20 ms (RFC 6716), stamped by the call's media clock.
Remembers: the next packet, an encoder while there is something to hear. Latency: the street's, plus `MARGIN_TICKS`.

Silence costs nothing: it is one constant packet. aiortc sends `av.Packet`s as they are.
"""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.mailbox import VoiceLine
from server.pacing import PACKET_TICKS, MediaClock, Playhead
from svp_stream.clock import TICKS_PER_SECOND, WIRE_RATE_HZ, ms_to_ticks
from svp_stream.packets import Float32

MARGIN_TICKS: Final = ms_to_ticks(40)
"""Room for the making and sending of the picture that belongs to the sound, and for jitter of the microphone."""
SILENCE: Final = b"\xf8\xff\xfe"
"""One 20 ms frame of silence, CELT fullband mono (RFC 6716 section 3.1): what libopus' own DTX tests call so."""
BIT_RATE: Final = 48_000
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


class VoiceTrack(MediaStreamTrack):  # type: ignore[misc]
    """A track of packets, paced by the call's clock."""

    kind = "audio"

    def __init__(
        self, clock: MediaClock, line: VoiceLine, latency: int, *, bit_rate: int = BIT_RATE, echo: bool = False
    ) -> None:
        super().__init__()
        self.echo = echo
        self._bit_rate = bit_rate
        self._line = line
        self._playhead = Playhead(clock, latency + MARGIN_TICKS)
        self._opus: OpusVoice | None = None

    @property
    def skipped(self) -> int:
        """Packets left out after stalls."""
        return self._playhead.skipped

    async def recv(self) -> av.Packet[Any]:
        """The next 20 ms; raises `MediaStreamError` after `stop`."""
        if self.readyState != "live":
            raise MediaStreamError
        pts, wait_s = self._playhead.step(time.monotonic())
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        packet = av.Packet(self._payload(pts) or SILENCE)
        packet.pts, packet.time_base = pts, _TIME_BASE
        return packet

    def _payload(self, pts: int) -> bytes:
        if not self.echo:
            self._opus = None
            return b""
        if self._opus is None:
            self._opus = OpusVoice(self._bit_rate)
        return self._opus.encode(self._line.read(pts, PACKET_TICKS))
