"""Pins the private names of aiortc and aioice that `server.seams` reaches into, and what reaching there is good for.

When one of these fails after an update of aiortc, look at `server/seams.py` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aioice.ice
import aiortc.codecs.h264
import aiortc.codecs.vpx
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.exceptions import InvalidStateError
from aiortc.jitterbuffer import JitterBuffer
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from aiortc.rtp import RtpPacket

from server import ice, seams


def packet(number: int) -> RtpPacket:
    made = RtpPacket(payload_type=96, sequence_number=number % (1 << 16), timestamp=(number * 960) % (1 << 32))
    made._data = str(number).encode()
    return made


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RTCPeerConnection, RTCPeerConnection]]:
    """An offerer with all it needs, and an answerer that has heard the offer."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    one, two = RTCPeerConnection(ice.configuration()), RTCPeerConnection(ice.configuration())
    one.addTrack(AudioStreamTrack())
    one.addTransceiver("video", "recvonly")
    one.createDataChannel("control")
    await one.setLocalDescription(await one.createOffer())
    await two.setRemoteDescription(RTCSessionDescription(one.localDescription.sdp, "offer"))
    two.addTrack(VideoStreamTrack())
    two.addTrack(AudioStreamTrack())
    yield one, two
    await one.close()
    await two.close()


async def test_the_jitter_buffer_is_where_we_think(pair: tuple[RTCPeerConnection, RTCPeerConnection]) -> None:
    _, two = pair
    (receiver,) = [r for r in two.getReceivers() if r.track is not None and r.track.kind == "audio"]
    assert isinstance(receiver._RTCRtpReceiver__jitter_buffer, JitterBuffer)
    seams.hear_at_once(two)
    assert isinstance(receiver._RTCRtpReceiver__jitter_buffer, seams.PassThrough)


def test_aiortcs_own_buffer_holds_80_ms_and_ours_none() -> None:
    stock, ours = JitterBuffer(capacity=16, prefetch=4), seams.PassThrough()
    first_stock = next(i for i in range(20) if stock.add(packet(i))[1] is not None)
    first_ours = next(i for i in range(20) if ours.add(packet(i))[1] is not None)
    assert first_stock == 4 and first_ours == 0, "if aiortc holds less now, this seam can go"


def test_pass_through_keeps_order_over_the_wrap_and_drops_what_is_late() -> None:
    buffer = seams.PassThrough()
    order = [65_534, 65_535, 65_536, 65_538, 65_537, 65_538, 65_539]
    out = [frame.data for _, frame in (buffer.add(packet(n)) for n in order) if frame is not None]
    assert out == [b"65534", b"65535", b"65536", b"65538", b"65539"] and buffer.late == 2


def test_a_seam_that_is_gone_says_so() -> None:
    class Track:
        kind = "audio"

    class Receiver:
        track = Track()

    class Connection:
        def getReceivers(self) -> list[Receiver]:
            return [Receiver()]

    with pytest.raises(seams.SeamError, match="jitter_buffer"):
        seams.hear_at_once(Connection())


def test_a_hang_up_while_connecting_is_no_error_and_anything_else_is(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    seams.expect_hang_ups(loop)
    loop.call_exception_handler({"message": "", "exception": InvalidStateError("RTCIceTransport is closed")})
    assert not [r for r in caplog.records if r.levelname == "ERROR"]
    loop.call_exception_handler({"message": "other", "exception": ValueError("closed")})
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["other"]
    loop.close()


async def test_two_streams_in_the_answer(pair: tuple[RTCPeerConnection, RTCPeerConnection]) -> None:
    _, two = pair
    seams.part_streams(two)
    sdp = (await two.createAnswer()).sdp
    assert len({line.split()[0] for line in sdp.splitlines() if line.startswith("a=msid:")}) == 2


async def test_the_answer_is_passive(pair: tuple[RTCPeerConnection, RTCPeerConnection]) -> None:
    _, two = pair
    seams.answer_passive(two)
    assert {line for line in (await two.createAnswer()).sdp.splitlines() if line.startswith("a=setup")} == {
        "a=setup:passive"
    }
    assert seams.received_packets(two) == 0


def test_the_bit_rate_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for codec in (aiortc.codecs.vpx, aiortc.codecs.h264):
        for name in ("MIN_BITRATE", "DEFAULT_BITRATE", "MAX_BITRATE"):
            monkeypatch.setattr(codec, name, getattr(codec, name))
    seams.bound_bitrate(900_000)
    encoder = Vp8Encoder()
    assert encoder.target_bitrate == 600_000
    encoder.target_bitrate = 5_000_000
    assert encoder.target_bitrate == 900_000


def test_loopback_is_gathered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["10.0.0.5", "127.0.0.1"])
    seams.gather_loopback()
    assert aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True) == ["127.0.0.1", "10.0.0.5"]
    assert aioice.ice.get_host_addresses(use_ipv4=False, use_ipv6=True) == ["10.0.0.5", "127.0.0.1"]
