"""The peers of a soak: real aiortc connections to a running server, a caller with a microphone or a mere viewer.

In: the URL of a server. Out: counts of received pictures and packets of voice, the events of the data channel.
Remembers: the counts, the last `stats` event. Each peer is closed by `hang_up`, whatever state it is in.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server import control, seams
from svp_stream.clock import TICKS_PER_SECOND, WIRE_RATE_HZ
from svp_stream.errors import SvpError

PACKET: Final = 960
SDP: Final = {"Content-Type": "application/sdp"}
TIMEOUT_S: Final = 30.0


class PeerError(SvpError):
    """A peer of the soak could not do what peers do; the message says what the server answered."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    text: str


def lower(headers: Message[str, str]) -> dict[str, str]:
    """Header lines by name in small letters."""
    return {name.lower(): value for name, value in headers.items()}


async def ask(
    url: str, method: str = "GET", body: str | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """One request, in a thread; raises `PeerError` when nothing answers."""

    def run() -> Reply:
        data = None if body is None else body.encode()
        request = urllib.request.Request(url, data, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return Reply(answer.status, lower(answer.headers), answer.read().decode())
        except urllib.error.HTTPError as error:
            return Reply(error.code, lower(error.headers), error.read().decode(errors="replace"))
        except OSError as error:
            raise PeerError(f"{method} {url}: {error}") from error

    return await asyncio.to_thread(run)


class Syllables(MediaStreamTrack):  # type: ignore[misc]
    """A microphone: a voice of 140 Hz in syllables of a quarter of a second, two seconds on and one off."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._start_s: float | None = None
        self._packets = 0
        t = np.arange(3 * WIRE_RATE_HZ) / WIRE_RATE_HZ
        voice = np.sin(2 * np.pi * 140 * t) + 0.5 * np.sin(2 * np.pi * 700 * t)
        sound = 0.3 * voice * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)) * (t < 2)
        self._pcm = np.rint(sound * 32767).astype(np.int16)

    async def recv(self) -> av.AudioFrame:
        """20 ms, when they are due; raises `MediaStreamError` after `stop`."""
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        if self._start_s is None:
            self._start_s = now
        wait_s = self._start_s + self._packets * PACKET / WIRE_RATE_HZ - now
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        at = self._packets * PACKET % len(self._pcm)
        frame = av.AudioFrame.from_ndarray(self._pcm[at : at + PACKET].reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = WIRE_RATE_HZ, self._packets * PACKET
        frame.time_base = Fraction(1, TICKS_PER_SECOND)
        self._packets += 1
        return frame


@dataclass
class SoakPeer:
    """One peer; `path` is what it POSTs its offer to. `talks`: with a microphone."""

    base: str
    path: str
    talks: bool
    pictures: int = 0
    packets: int = 0
    stats: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    session: str = ""
    connect_s: float = float("nan")
    _location: str = ""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connected = asyncio.Event()
        self._connection.on("track", self._take)
        self._connection.on("connectionstatechange", self._changed)
        if self.talks:
            self._connection.createDataChannel(control.LABEL).on("message", self._hear)
            self._connection.addTrack(Syllables())
        else:
            self._connection.addTransceiver("audio", "recvonly")
        self._connection.addTransceiver("video", "recvonly")

    @property
    def lost(self) -> bool:
        """Whether the connection has ended by itself."""
        return bool(self._connection.connectionState in ("failed", "closed"))

    async def come(self) -> None:
        """Offer, answer, connection; raises `PeerError`."""
        started_s = time.monotonic()
        await self._connection.setLocalDescription(await self._connection.createOffer())
        reply = await ask(self.base + self.path, "POST", str(self._connection.localDescription.sdp), SDP)
        if reply.status != 201:
            raise PeerError(f"POST {self.path.split('?')[0][:9]}: {reply.status} {reply.text[:300]}")
        self._location = reply.headers["location"]
        self.session = reply.headers.get("x-session", "")
        await self._connection.setRemoteDescription(RTCSessionDescription(reply.text, "answer"))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._connected.wait()
        except TimeoutError:
            raise PeerError(f"no connection within {TIMEOUT_S:.0f} s") from None
        self.connect_s = time.monotonic() - started_s

    async def hang_up(self) -> None:
        """DELETE, close, and wait for everything to end."""
        if self._location:
            await ask(self.base + self._location, "DELETE")
        await seams.close(self._connection)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _changed(self) -> None:
        if self._connection.connectionState == "connected":
            self._connected.set()

    def _hear(self, message: str) -> None:
        event = json.loads(message)
        if event["type"] == "stats":
            self.stats = event
        elif event["type"] == "error":
            self.errors.append(event["message"])

    def _take(self, track: MediaStreamTrack) -> None:
        task = asyncio.get_running_loop().create_task(self._watch(track), name=f"watch {track.kind}")
        self._tasks.add(task)

    async def _watch(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                await track.recv()
            except MediaStreamError:
                return
            if track.kind == "video":
                self.pictures += 1
            else:
                self.packets += 1
