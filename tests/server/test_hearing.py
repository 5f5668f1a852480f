"""Pins the private names of aiortc that `server.hearing` reaches into, and the microphone behind it.

When one of these fails after an update of aiortc, look at `server/hearing.py` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aioice.ice
import av
import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.jitterbuffer import JitterBuffer
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

from server import hearing, ice, seams
from server.hearing import Heard
from server.mailbox import Packet
from server.mic import Mic
from server.voice_track import OpusVoice
from tests.fakes.peers import ToneMic, until

OPUS = RTCRtpCodecParameters("audio/opus", 48_000, 2, 96)
PCMU = RTCRtpCodecParameters("audio/PCMU", 8_000, 1, 0)
TONE = (0.4 * np.sin(np.arange(960) * 2 * np.pi * 300 / 48_000)).astype(np.float32)


class Quiet(MediaStreamTrack):  # type: ignore[misc]
    """A track that gives nothing until it is stopped, as the receiver's is."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._over = asyncio.Event()

    async def recv(self) -> av.AudioFrame:
        await self._over.wait()
        raise MediaStreamError

    def stop(self) -> None:
        super().stop()
        self._over.set()


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RTCPeerConnection, RTCPeerConnection]]:
    """A caller with a tone and one who has heard the offer."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    one, two = RTCPeerConnection(ice.configuration()), RTCPeerConnection(ice.configuration())
    one.addTrack(ToneMic())
    await one.setLocalDescription(await one.createOffer())
    await two.setRemoteDescription(RTCSessionDescription(one.localDescription.sdp, "offer"))
    yield one, two
    await seams.close(one)
    await seams.close(two)


def ear_of(connection: RTCPeerConnection) -> Any:
    (receiver,) = [r for r in connection.getReceivers() if r.track is not None and r.track.kind == "audio"]
    return receiver


async def test_aiortcs_buffer_is_where_we_think_and_holds_80_ms(
    pair: tuple[RTCPeerConnection, RTCPeerConnection],
) -> None:
    receiver = ear_of(pair[1])
    stock = receiver._RTCRtpReceiver__jitter_buffer
    assert isinstance(stock, JitterBuffer) and isinstance(receiver._RTCRtpReceiver__codecs, dict)
    out = []
    for number in range(8):
        packet = RtpPacket(payload_type=96, sequence_number=number, timestamp=number * 960)
        packet._data = b"x"
        out.append(stock.add(packet)[1] is not None)
    assert out.index(True) == 4, "if aiortc holds less now, this seam may go"


async def test_packets_come_to_us_and_nothing_piles_up_in_aiortc(
    pair: tuple[RTCPeerConnection, RTCPeerConnection],
) -> None:
    one, two = pair
    receiver, heard, packets = ear_of(two), list[Heard](), list[Packet]()
    mic = Mic(receiver.track, packets.append)

    def take(packet: Heard) -> None:
        heard.append(packet)
        mic.hear(packet)

    hearing.hear(two, receiver.track, take)
    task = asyncio.ensure_future(mic.run())
    await two.setLocalDescription(await two.createAnswer())
    await one.setRemoteDescription(RTCSessionDescription(two.localDescription.sdp, "answer"))
    await until(lambda: len(packets) >= 30, "packets of sound")
    assert {p.codec.name for p in heard} == {"opus"} and len({p.ssrc for p in heard}) == 1
    assert max(float(np.abs(p.samples).max()) for p in packets) > 0.3
    assert all(len(p.samples) == 960 for p in packets)
    assert np.diff([p.mic_pts for p in packets]).tolist() == [960] * (len(packets) - 1)
    assert receiver._RTCRtpReceiver__decoder_queue.qsize() == 0 and receiver.track._queue.qsize() == 0
    assert not task.done(), "the track of the receiver lives"
    await one.close()
    await two.close()
    async with asyncio.timeout(5):
        await task


async def test_a_seam_that_is_gone_says_so(pair: tuple[RTCPeerConnection, RTCPeerConnection]) -> None:
    _, two = pair
    with pytest.raises(seams.SeamError, match="no receiver of this track"):
        hearing.hear(two, Quiet(), lambda packet: None)
    receiver = ear_of(two)
    del receiver._RTCRtpReceiver__jitter_buffer
    with pytest.raises(seams.SeamError, match="jitter_buffer"):
        hearing.hear(two, receiver.track, lambda packet: None)


class Room:
    """A microphone without a network, in time of its own: `say` lets 20 ms pass."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.track = Quiet()
        self.now_s = 100.0
        self.mic = Mic(self.track, self.packets.append, lambda: self.now_s)
        self._voice = OpusVoice()

    def say(self, number: int, ssrc: int = 1, timestamp: int | None = None) -> None:
        stamp = number * 960 if timestamp is None else timestamp
        self.hear(Heard(OPUS, ssrc, number % (1 << 16), stamp % (1 << 32), self._voice.encode(TONE)))

    def hear(self, packet: Heard) -> None:
        self.now_s += 0.02
        self.mic.hear(packet)


async def test_a_lost_packet_is_concealed() -> None:
    room = Room()
    for number in range(20):
        if number == 10:
            room.now_s += 0.02
        else:
            room.say(number)
    assert [p.mic_pts for p in room.packets] == [i * 960 for i in range(20)]
    assert float(np.abs(room.packets[10].samples).max()) > 0.2
    assert room.mic.tally.concealed == 1 and room.mic.tally.lost == 1


async def test_the_timer_lets_go_what_waits_for_a_missing_packet() -> None:
    room = Room()
    room.say(0)
    room.now_s += 0.02
    room.say(2)
    assert len(room.packets) == 1 and room.mic.depth == 1
    room.now_s += 0.02
    await until(lambda: len(room.packets) == 3, "what was held")
    assert room.mic.depth == 0


async def test_a_new_stream_begins_where_the_last_ended() -> None:
    room = Room()
    for number in range(5):
        room.say(number)
    for number in range(5):
        room.say(40_000 + number, ssrc=2, timestamp=77 + number * 960)
    assert [p.mic_pts for p in room.packets] == [i * 960 for i in range(10)]


async def test_g711_is_heard_too_and_rubbish_is_not() -> None:
    room = Room()
    for number in range(10):
        room.hear(Heard(PCMU, 9, number, number * 160, b"\x10" * 160))
    room.hear(Heard(OPUS, 1, 0, 0, b"\xfb"))
    assert room.mic.refused == 1
    room.hear(Heard(OPUS, 1, 1, 0, b"\x03\x01\xff"))
    assert len(room.packets) >= 9 and sum(len(p.samples) for p in room.packets[:10]) > 8 * 960


async def test_whatever_is_in_a_packet_the_microphone_lives() -> None:
    room, rng = Room(), np.random.default_rng(0)
    for number in range(300):
        payload = rng.bytes(int(rng.integers(1, 200)))
        room.hear(Heard(OPUS if number % 3 else PCMU, number // 50, number, number * 960, payload))
    room.say(400, ssrc=99)
    assert len(room.packets[-1].samples) == 960
    assert all(np.isfinite(p.samples).all() for p in room.packets)


async def test_after_its_end_a_microphone_hears_nothing() -> None:
    room = Room()
    task = asyncio.ensure_future(room.mic.run())
    room.say(0)
    await asyncio.sleep(0)
    room.track.stop()
    await task
    room.say(1)
    assert len(room.packets) == 1
