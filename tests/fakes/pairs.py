"""Two aiortc peers on loopback, one with a microphone, the other with ears: aiortc's own or ours.

In: a `ClickMic`. Out: latencies of its clicks. Remembers: nothing afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import av
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server import hearing, ice, seams
from server.mailbox import Packet
from server.mic import Mic, MonoVoice
from svp_stream.packets import Floats
from tests.fakes.clicks import ClickEar, ClickMic
from tests.fakes.relay import Relay, Weather


async def _stock(track: MediaStreamTrack, ear: ClickEar) -> None:
    """What a server does that reads the receiver's track."""
    voice = MonoVoice()
    with suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            assert isinstance(frame, av.AudioFrame)
            ear.hear(voice.convert(frame)[1])


async def mic_latencies(seconds: float, *, ours: bool, weather: Weather | None = None, seed: int = 0) -> Floats:
    """Seconds from each click's leaving of the sender's track to its hearing; the first second is left out."""
    mic, ear, relay = ClickMic(), ClickEar(), Relay(seed)
    one, two = RTCPeerConnection(ice.configuration()), RTCPeerConnection(ice.configuration())
    one.addTrack(mic)
    tasks: list[asyncio.Task[None]] = []

    def hear(track: MediaStreamTrack) -> None:
        if ours:
            microphone = Mic(track, _deliver(ear))
            hearing.hear(two, track, microphone.hear)
            tasks.append(asyncio.ensure_future(microphone.run()))
        else:
            tasks.append(asyncio.ensure_future(_stock(track, ear)))

    two.on("track", hear)
    await one.setLocalDescription(await one.createOffer())
    offer = one.localDescription.sdp if weather is None else relay.offer(one.localDescription.sdp)
    await two.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await two.setLocalDescription(await two.createAnswer())
    answer = two.localDescription.sdp if weather is None else relay.answer(two.localDescription.sdp)
    await one.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    relay.up = weather or Weather()
    await asyncio.sleep(seconds + 1)
    await seams.close(one)
    await seams.close(two)
    await asyncio.gather(*tasks, return_exceptions=True)
    relay.close()
    return ear.latencies_s(mic)[5:]


def _deliver(ear: ClickEar) -> Callable[[Packet], None]:
    return lambda packet: ear.hear(packet.samples)
