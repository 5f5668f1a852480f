"""Opus, received: how long a packet lasts, its sound, and what stands in for one that is lost.

In: payloads of RTP packets (RFC 7587 section 4.2). Out: float32 mono at 48 kHz. Remembers: libopus' decoder, the last
table-of-contents byte. Latency: none.

A packet that is only its table-of-contents byte has one frame of no bytes, "not transmitted" (RFC 6716 section 3.2.1):
libopus then conceals the loss itself, out of its own state, with a fade. FFmpeg passes it on, whereas it takes an empty
packet for the end of the stream.
"""

from __future__ import annotations

from typing import Final

import av
import numpy as np

from svp_stream.clock import WIRE_RATE_HZ, ms_to_ticks
from svp_stream.packets import Float32

MOST_TICKS: Final = ms_to_ticks(120)
"""RFC 6716 section 3.2.5: a packet lasts 120 ms at most."""
_SILK_MS: Final = (10.0, 20.0, 40.0, 60.0)
_HYBRID_MS: Final = (10.0, 20.0)
_CELT_MS: Final = (2.5, 5.0, 10.0, 20.0)


def frame_ticks(toc: int) -> int:
    """Length of the frames of a packet that begins with `toc` (RFC 6716 section 3.1, table 2)."""
    config = toc >> 3
    if config < 12:
        return ms_to_ticks(_SILK_MS[config % 4])
    if config < 16:
        return ms_to_ticks(_HYBRID_MS[config % 2])
    return ms_to_ticks(_CELT_MS[config % 4])


def packet_ticks(payload: bytes) -> int:
    """How long a packet lasts, at most 120 ms; raises ValueError for one that is no Opus."""
    if not payload:
        raise ValueError("an Opus packet without its first byte")
    code = payload[0] & 3
    if code == 3 and len(payload) < 2:
        raise ValueError("an Opus packet of code 3 without its frame count")
    frames = (1, 2, 2)[code] if code < 3 else payload[1] & 0x3F
    ticks = frames * frame_ticks(payload[0])
    if not 0 < ticks <= MOST_TICKS:
        raise ValueError(f"an Opus packet of {frames} frames, {ticks} ticks; it lasts up to {MOST_TICKS}")
    return ticks


class OpusEar:
    """Decodes one stream; one that has two channels is heard as their mean."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "r")
        assert isinstance(codec, av.AudioCodecContext)
        codec.format = av.AudioFormat("s16")
        codec.layout = av.AudioLayout("mono")
        codec.sample_rate = WIRE_RATE_HZ
        self._codec = codec
        self._toc: int | None = None

    def decode(self, payload: bytes) -> Float32:
        """float32 [N] of one packet; raises `av.FFmpegError` when it is broken."""
        frames = self._codec.decode(av.Packet(payload))
        self._toc = payload[0] & 0xFC  # the same mode and length, one frame
        if not frames:
            return np.zeros(0, np.float32)
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32) / np.float32(32768)

    def conceal(self, ticks: int) -> Float32:
        """float32 [ticks] for what is lost: what was heard goes on, fading with each call; zeros at the start."""
        out = np.zeros(ticks, np.float32)
        if self._toc is None:
            return out
        frame = frame_ticks(self._toc)
        for at in range(0, ticks, frame):
            sound = self.decode(bytes([self._toc]))[: ticks - at]
            out[at : at + len(sound)] = sound
        return out
