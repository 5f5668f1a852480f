"""Encoded pictures cut into RTP payloads, pure: VP8 (RFC 7741) and H.264 (RFC 6184, packetization-mode 1).

In: one encoded picture. Out: payloads of at most `PAYLOAD_BYTES`. Remembers: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

PAYLOAD_BYTES: Final = 1200
"""With RTP header, extensions, SRTP tag, UDP, IP and a TURN channel it stays under 1280, the smallest IPv6 MTU."""
_FU_A: Final = 28


def vp8_payloads(data: bytes, number: int) -> list[bytes]:
    """One VP8 frame; `number` is its picture id (15 bits, RFC 7741 section 4.2)."""
    tail = bytes((0x80, 0x80 | (number >> 8 & 0x7F), number & 0xFF))
    first, other = bytes((0x90,)) + tail, bytes((0x80,)) + tail
    room = PAYLOAD_BYTES - len(first)
    return [(other if at else first) + data[at : at + room] for at in range(0, len(data), room)]


def nal_units(data: bytes) -> Iterator[bytes]:
    """The NAL units of an Annex B stream, without start codes."""
    at = data.find(b"\0\0\1")
    while at >= 0:
        start = at + 3
        at = data.find(b"\0\0\1", start)
        unit = data[start:] if at < 0 else data[start:at].rstrip(b"\0")
        if unit:
            yield unit


def h264_payloads(data: bytes) -> list[bytes]:
    """One access unit in Annex B form: a NAL unit each, long ones in fragments (FU-A, RFC 6184 section 5.8)."""
    payloads = []
    for unit in nal_units(data):
        if len(unit) <= PAYLOAD_BYTES:
            payloads.append(unit)
            continue
        indicator, kind = unit[0] & 0xE0 | _FU_A, unit[0] & 0x1F
        room = PAYLOAD_BYTES - 2
        for at in range(1, len(unit), room):
            flags = (0x80 if at == 1 else 0) | (0x40 if at + room >= len(unit) else 0)
            payloads.append(bytes((indicator, flags | kind)) + unit[at : at + room])
    return payloads


def payloads_of(codec: str, data: bytes, number: int) -> list[bytes]:
    """Payloads of one picture of `codec` ("vp8" or "h264")."""
    return vp8_payloads(data, number) if codec == "vp8" else h264_payloads(data)
