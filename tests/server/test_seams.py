"""Pins the private names of aiortc and aioice that `server.seams` reaches into, and what reaching there is good for.

When one of these fails after an update of aiortc, look at `server/seams.py` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aioice.ice
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtpPacket,
    pack_remb_fci,
)

from server import ice, seams
from server.encoding import EncodedPicture
from server.resend import ResendBudget


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


async def _note(into: list[int], what: int) -> None:
    into.append(what)


async def test_what_is_ready_is_sent_as_it_is_and_feedback_comes_back(
    pair: tuple[RTCPeerConnection, RTCPeerConnection]
) -> None:
    _, two = pair
    (sender,) = [s for s in two.getSenders() if s.kind == "video"]
    estimates: list[int] = []
    keys: list[str] = []
    seams.send_packed(sender, estimates.append, lambda: keys.append("key"))
    encoder = sender._RTCRtpSender__encoder
    assert isinstance(encoder, seams.Packer) and hasattr(encoder, "target_bitrate")
    ready = EncodedPicture("vp8", 1920, b"picture", True)
    assert encoder.pack(ready) == (ready.payloads, 3600)
    remb = pack_remb_fci(300_000, [sender._ssrc])
    await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=remb))
    await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=sender._ssrc))
    assert estimates and abs(estimates[0] - 300_000) < 3000 and keys == ["key"]
    assert encoder.target_bitrate == estimates[0]
    resent: list[int] = []
    encoder.budget = ResendBudget(_left=5)
    lost = RtpPacket(payload_type=96, sequence_number=7, timestamp=7 * 960, payload=b"seven")
    sender._RTCRtpSender__rtp_history[7] = lost
    sender.transport._send_rtp = lambda data: _note(resent, len(data))
    sender._RTCRtpSender__rtx_payload_type = None
    for _ in range(3):
        nack = RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=sender._ssrc, lost=[7])
        await sender._handle_rtcp_packet(nack)
    assert len(resent) == 1, "what the receiver misses is sent again within the budget"
    assert keys == ["key", "key"], "beyond it there is one key frame instead"


def test_loopback_is_gathered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["10.0.0.5", "127.0.0.1"])
    seams.gather_loopback()
    assert aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True) == ["127.0.0.1", "10.0.0.5"]
    assert aioice.ice.get_host_addresses(use_ipv4=False, use_ipv6=True) == ["10.0.0.5", "127.0.0.1"]
