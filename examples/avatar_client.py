"""What a voice agent needs to speak through an avatar: make a session, open its socket, say things, be told.

Needs `websockets`; the wire is described at the top of `server/pcm_wire.py`. Everything here is plain enough to be
rewritten in any language in an hour.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

RATES_HZ = (16_000, 24_000, 48_000)
PIECE_BYTES = 64 * 1024

Event = dict[str, Any]
Int16 = NDArray[np.int16]


class AvatarError(Exception):
    """The server said no; the words are its own."""


def new_session(server: str, token: str | None = None, **wish: str | None) -> str:
    """`POST /v1/sessions`: the id of a session that nobody has to be connected to. `wish`: avatar, style."""
    body = json.dumps({key: value for key, value in wish.items() if value is not None}).encode()
    return str(_ask("POST", f"{server}/v1/sessions", token, body)["id"])


def end_session(server: str, session: str, token: str | None = None) -> None:
    """`DELETE /v1/sessions/{id}`."""
    _ask("DELETE", f"{server}/v1/sessions/{quote(session)}", token)


def watch_url(server: str, session: str, token: str | None = None) -> str:
    """Where a person (or OBS) sees the avatar."""
    return f"{server}/obs?{urlencode({'session': session})}" + (f"#token={quote(token)}" if token else "")


def _ask(method: str, url: str, token: str | None, body: bytes | None = None) -> Event:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: Event = json.loads(response.read() or b"{}")
            return answer
    except urllib.error.HTTPError as error:
        words = json.loads(error.read() or b"{}").get("error", error.reason)
        raise AvatarError(f"{method} {url.partition('/v1/')[1]}…: {error.code}, {words}") from None
    except urllib.error.URLError as error:
        raise AvatarError(f"no server at {url.partition('/v1/')[0]}: {error.reason}") from None


class Avatar:
    """One open socket. `on_event` is called with every event, as it comes."""

    def __init__(self, socket: ClientConnection, on_event: Callable[[Event], None]) -> None:
        self._socket = socket
        self._on_event = on_event
        self._room = asyncio.Event()
        self._room.set()
        self._endings: dict[str, asyncio.Future[Event]] = {}
        self._count = 0

    async def say(self, sound: Int16, rate_hz: int, segment: str | None = None) -> asyncio.Future[Event]:
        """Send a whole segment, no faster than the server wishes; the future is its `playback_finished`."""
        finished = await self.begin(rate_hz, segment)
        data = sound.astype("<i2").tobytes()
        for at in range(0, len(data), PIECE_BYTES):
            await self._room.wait()
            if finished.done():  # interrupted meanwhile: nobody waits for the rest
                return finished
            await self.send_sound(data[at : at + PIECE_BYTES])
        await self.end()
        return finished

    async def begin(self, rate_hz: int, segment: str | None = None) -> asyncio.Future[Event]:
        """`start`: the sound that follows is one segment."""
        self._count += 1
        name = segment or f"segment {self._count}"
        self._endings[name] = asyncio.get_running_loop().create_future()
        await self._order("start", rate_hz=rate_hz, segment=name)
        return self._endings[name]

    async def send_sound(self, pcm: bytes) -> None:
        """PCM16, little-endian, mono."""
        await self._socket.send(pcm)

    async def end(self) -> None:
        """`end`: the segment is complete."""
        await self._order("end")

    async def interrupt(self) -> None:
        """Cut: the mouth closes, every unfinished segment ends."""
        await self._order("interrupt")

    async def _order(self, kind: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": kind, "v": 1, **fields}))

    async def listen(self) -> None:
        """Read events until the socket closes; then every segment that has not ended counts as cut."""
        try:
            async for message in self._socket:
                event: Event = json.loads(message)
                self._on_event(event)
                if event["type"] == "backpressure":
                    self._room.clear() if event["on"] else self._room.set()
                elif event["type"] == "playback_finished" and event["segment"] in self._endings:
                    self._endings.pop(event["segment"]).set_result(event)
        except ConnectionClosed:
            pass
        finally:
            self._room.set()
            for name, ending in self._endings.items():
                ending.set_result({"type": "playback_finished", "segment": name, "position_ms": 0, "interrupted": True})
            self._endings.clear()


@asynccontextmanager
async def open_avatar(
    server: str, session: str, token: str | None = None, on_event: Callable[[Event], None] = lambda event: None
) -> AsyncIterator[Avatar]:
    """The socket of a session, with its events being read."""
    url = f"ws{server.removeprefix('http')}/v1/sessions/{quote(session)}/audio"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with connect(url, additional_headers=headers, proxy=None, max_queue=256) as socket:
        avatar = Avatar(socket, on_event)
        listening = asyncio.create_task(avatar.listen())
        try:
            yield avatar
        finally:
            await socket.close()
            await listening


def at_a_rate(sound: Int16, rate_hz: int) -> tuple[Int16, int]:
    """A whole recording at a rate that the wire takes: the next higher one, by its spectrum (band-limited)."""
    target = next((rate for rate in RATES_HZ if rate >= rate_hz), RATES_HZ[-1])
    if target == rate_hz or not len(sound):
        return sound, target
    length = round(len(sound) * target / rate_hz)
    spectrum = np.fft.rfft(sound.astype(np.float64))
    wanted = length // 2 + 1
    spectrum = spectrum[:wanted] if wanted <= len(spectrum) else np.pad(spectrum, (0, wanted - len(spectrum)))
    resampled = np.fft.irfft(spectrum, length) * (length / len(sound))
    return np.rint(np.clip(resampled, -32_768, 32_767)).astype(np.int16), target
