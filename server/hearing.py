"""The receiving seam: sound leaves aiortc as RTP packets, before its jitter buffer, decoder thread and queues.

In: a peer connection after `setRemoteDescription`. Out: each packet of sound, on the loop's thread, with its codec.
Remembers: nothing. `tests/server/test_hearing.py` pins the private names, so a new aiortc fails there first.

aiortc's own way holds each packet until five are queued (exactly 80 ms), drops what comes out of order, leaves holes
where packets are lost, and hands sound through two queues that grow without bound while nobody reads. The track of such
a receiver still tells when the microphone ends; it carries no frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiortc import RTCPeerConnection
from aiortc.codecs import get_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

from server.seams import SeamError

_JITTER_BUFFER: Final = "_RTCRtpReceiver__jitter_buffer"
_CODECS: Final = "_RTCRtpReceiver__codecs"


@dataclass(frozen=True, slots=True)
class Heard:
    """One RTP packet of sound: 32-bit `ssrc` and `timestamp` (in units of the codec's clock), 16-bit `number`."""

    codec: RTCRtpCodecParameters
    ssrc: int
    number: int
    timestamp: int
    payload: bytes


class Tap:
    """Stands where aiortc has its jitter buffer, and keeps every packet from it."""

    def __init__(self, codecs: dict[int, RTCRtpCodecParameters], take: Callable[[Heard], None]) -> None:
        self._codecs = codecs
        self._take = take

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Same contract as aiortc's `JitterBuffer.add`: (ask for a key frame, complete frame or None)."""
        codec = self._codecs.get(packet.payload_type)
        if codec is not None and packet.payload:
            self._take(Heard(codec, packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload))
        return False, None


def hear(connection: RTCPeerConnection, track: MediaStreamTrack, take: Callable[[Heard], None]) -> None:
    """From now on `take` gets each packet of `track`; raises `SeamError` when aiortc is built differently."""
    for receiver in connection.getReceivers():
        if receiver.track is track:
            for name in (_JITTER_BUFFER, _CODECS):
                if not hasattr(receiver, name):
                    raise SeamError(f"aiortc's RTCRtpReceiver has no {name}")
            setattr(receiver, _JITTER_BUFFER, Tap(getattr(receiver, _CODECS), take))
            return
    raise SeamError("the connection has no receiver of this track")


def decode_other(codec: RTCRtpCodecParameters) -> Callable[[bytes], list[Any]]:
    """aiortc's own decoder of `codec` (G.711, G.722): a payload to a list of `av.AudioFrame`s."""
    decoder = get_decoder(codec)
    return lambda payload: list(decoder.decode(JitterFrame(payload, 0)))
