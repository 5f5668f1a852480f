"""Callers, microphones and viewers for the loopback tests: real aiortc connections with a voice, eyes and ears.

In: answers of a server. Out: offers; what was received: pictures with their `pts`, voice, events of the data channel.
Remembers: everything received, for the test to look at.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server import seams
from svp_stream.packets import Bytes, Float32, Floats
from tests.fakes.engines import read_loudness

SDP = {"Content-Type": "application/sdp"}
PACKET = 960


class ToneMic(MediaStreamTrack):  # type: ignore[misc]
    """48 kHz mono packets of 20 ms in real time: a tone while `loud`, zeros while not, nothing at all while `gone`."""

    kind = "audio"

    def __init__(self, loud: bool = True) -> None:
        super().__init__()
        self.loud = loud
        self.gone = False
        self.sent: list[tuple[float, bool]] = []
        self._start_s: float | None = None
        self._packets = 0

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if self._start_s is None:
            self._start_s = time.monotonic()
        while True:
            self._packets += 1
            wait_s = self._start_s + self._packets * 0.02 - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if not self.gone:
                break
        tone = self.samples(self._packets) if self.loud else np.zeros(PACKET)
        frame = av.AudioFrame.from_ndarray((tone * 32767).astype(np.int16).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self._packets * PACKET, Fraction(1, 48_000)
        self.sent.append((time.monotonic(), self.loud))
        return frame

    def samples(self, packet: int) -> Floats:
        """Sound [960] of one packet, counted from 1."""
        t = (np.arange(PACKET) + packet * PACKET) / 48_000
        return np.asarray(0.5 * np.sin(2 * np.pi * 440 * t))


@dataclass
class Picture:
    """A received frame."""

    at_s: float
    pts_s: float
    rgb: Bytes


@dataclass
class Sound:
    """A received packet of voice, mono."""

    at_s: float
    pts_s: float
    samples: Float32


@dataclass
class Line:
    """One connection to a server; `hang_up` ends it. Both sides of the wire are real but the HTTP in between."""

    http: httpx.AsyncClient
    pictures: list[Picture] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    location: str = ""
    etag: str = ""
    session: str = ""
    answer: str = ""
    path: str = "/v1/call"

    def __post_init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._watching: list[asyncio.Task[None]] = []
        self.connection.on("track", lambda track: self._watching.append(asyncio.ensure_future(self._watch(track))))
        self.prepare()

    def prepare(self) -> None:
        """Tracks, transceivers, channels."""

    def open_channel(self) -> None:
        """The channel `control`."""
        self.channel = self.connection.createDataChannel("control")
        self.channel.on("message", lambda text: self.events.append(json.loads(text)))

    async def offer(self) -> str:
        """The offer's SDP, all candidates in it."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def post(self, query: str = "", change: Callable[[str], str] = lambda sdp: sdp) -> httpx.Response:
        """Offer, and take the answer when there is one."""
        response = await self.http.post(f"{self.path}{query}", content=change(await self.offer()), headers=SDP)
        if response.status_code == 201:
            self.location, self.etag = response.headers["location"], response.headers["etag"]
            self.session, self.answer = response.headers["x-session"], response.text
            await self.connection.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        return response

    async def connect(self, query: str = "", change: Callable[[str], str] = lambda sdp: sdp) -> None:
        """`post`, and wait until the connection stands."""
        response = await self.post(query, change)
        assert response.status_code == 201, response.text
        await until(lambda: self.connection.connectionState == "connected", "connection")

    def send(self, kind: str, **fields: Any) -> None:
        """An order."""
        self.channel.send(json.dumps({"type": kind, "v": 1, **fields}))

    async def event(self, kind: str, timeout_s: float = 10.0, **like: Any) -> dict[str, Any]:
        """The first event of that kind with those fields, waiting for it."""

        def found() -> dict[str, Any] | None:
            return next((e for e in self.events if e["type"] == kind and like.items() <= e.items()), None)

        await until(lambda: found() is not None, f"event {kind} {like}", timeout_s)
        event = found()
        assert event is not None
        return event

    async def see(self, frames: int, timeout_s: float = 15.0) -> list[Picture]:
        """Wait for that many pictures beyond those seen; returns them."""
        seen = len(self.pictures)
        await until(lambda: len(self.pictures) >= seen + frames, f"{frames} pictures", timeout_s)
        return self.pictures[seen : seen + frames]

    def shows(self) -> float:
        """The loudness in the newest picture of the fake engine, NaN before the first."""
        return read_loudness(self.pictures[-1].rgb) if self.pictures else float("nan")

    def sounds_like(self) -> float:
        """The loudest sample of the newest packet of voice, NaN before the first."""
        return float(np.abs(self.sounds[-1].samples).max()) if self.sounds else float("nan")

    async def hang_up(self, delete: bool = True) -> None:
        """DELETE and close, or just vanish."""
        if delete and self.location:
            await self.http.delete(self.location)
        await seams.close(self.connection)
        for task in self._watching:
            task.cancel()  # the track of a receiver that never began does not end
        await asyncio.gather(*self._watching, return_exceptions=True)

    def die(self) -> None:
        """As when the process dies: the sockets say nothing more."""
        for transport in {t.receiver.transport.transport for t in self.connection.getTransceivers()}:
            for protocol in transport._connection._protocols:
                protocol.transport.abort()

    async def _watch(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            now, pts_s = time.monotonic(), float(frame.pts * frame.time_base)
            if isinstance(frame, av.VideoFrame):
                self.pictures.append(Picture(now, pts_s, frame.to_ndarray(format="rgb24").astype(np.uint8)))
            else:
                pcm = frame.to_ndarray().reshape(-1, 2).astype(np.float32) / 32768
                self.sounds.append(Sound(now, pts_s, pcm.mean(axis=1)))


@dataclass
class Caller(Line):
    """One caller: microphone out; pictures, voice and events in."""

    mic: ToneMic | None = field(default_factory=ToneMic)

    def prepare(self) -> None:
        self.open_channel()
        if self.mic is not None:
            self.connection.addTrack(self.mic)
        else:
            self.connection.addTransceiver("audio", "recvonly")
        self.connection.addTransceiver("video", "recvonly")

    async def call(self, query: str = "", change: Callable[[str], str] = lambda sdp: sdp) -> None:
        """`post`, and wait until the data channel has said welcome."""
        response = await self.post(query, change)
        assert response.status_code == 201, response.text
        await self.event("welcome")


@dataclass
class Publisher(Line):
    """A microphone by WHIP, as OBS sends it: with a picture that nobody wants, if `camera`."""

    path: str = "/v1/whip"
    camera: bool = True
    mic: ToneMic = field(default_factory=ToneMic)

    def prepare(self) -> None:
        self.connection.addTransceiver(self.mic, "sendonly")
        if self.camera:
            self.connection.addTransceiver("video", "sendonly")


@dataclass
class Watcher(Line):
    """A viewer by WHEP of the session `of`."""

    of: str = ""
    codec: str | None = None
    voice: bool = True
    channel_too: bool = False

    def prepare(self) -> None:
        self.path = f"/v1/whep/{self.of}"
        if self.channel_too:
            self.open_channel()
        video = self.connection.addTransceiver("video", "recvonly")
        if self.codec is not None:
            codecs = RTCRtpReceiver.getCapabilities("video").codecs
            video.setCodecPreferences([c for c in codecs if c.mimeType.lower() in (f"video/{self.codec}", "video/rtx")])
        if self.voice:
            self.connection.addTransceiver("audio", "recvonly")


async def until(true: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Waits for a condition; fails with its name."""
    ends = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < ends, f"no {what} within {timeout_s} s; tasks: {asyncio.all_tasks()}"
        await asyncio.sleep(0.01)
