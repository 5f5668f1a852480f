"""A voice agent for the tests: a real WebSocket to a house on a real port, and what it was told.

In: the events of a server. Out: orders and sound. Remembers: every event with its time, for the test to look at.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.house import House
from server.pcm_wire import MAX_AUDIO_BYTES
from tests.fakes.peers import until


@asynccontextmanager
async def open_port(house: House) -> AsyncIterator[int]:
    """The house at a free port of 127.0.0.1; it must be up already (`open_house`)."""
    config = uvicorn.Config(
        house.app, host="127.0.0.1", port=0, lifespan="off", log_config=None, access_log=False,
        ws_max_size=2 * MAX_AUDIO_BYTES, ws_per_message_deflate=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(), name="port")
    await until(lambda: server.started, "listening port")
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


def speech(seconds: float, rate_hz: int = 16_000, loud: float = 0.5) -> bytes:
    """A tone, PCM16."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.rint(loud * 32_767 * np.sin(2 * np.pi * 220 * t)).astype("<i2").tobytes()


class AgentClient:
    """One agent."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self._reading = asyncio.create_task(self._read(), name="agent's ears")

    @classmethod
    async def open(
        cls, port: int, session: str, query: str = "", name: str = "127.0.0.1", **how: Any
    ) -> AgentClient:
        """Connect to a server under `name`; raises what `websockets` raises."""
        url = f"ws://{name}:{port}/v1/sessions/{session}/audio{query}"
        return cls(await connect(url, max_size=None, proxy=None, **how))

    async def send(self, kind: str, **fields: Any) -> None:
        """An order."""
        await self.socket.send(json.dumps({"type": kind, "v": 1, **fields}))

    async def say(self, sound: bytes, segment: str, rate_hz: int = 16_000, end: bool = True) -> None:
        """A whole segment, as fast as it goes."""
        await self.send("start", rate_hz=rate_hz, segment=segment)
        for at in range(0, len(sound), 64_000):
            await self.socket.send(sound[at : at + 64_000])
        if end:
            await self.send("end")

    def told(self, kind: str, **like: Any) -> list[dict[str, Any]]:
        """All events of that kind with those fields so far."""
        return [e for e in self.events if e["type"] == kind and like.items() <= e.items()]

    async def event(self, kind: str, timeout_s: float = 10.0, **like: Any) -> dict[str, Any]:
        """The first event of that kind with those fields, waiting for it."""
        await until(lambda: bool(self.told(kind, **like)), f"event {kind} {like}; there are {self.events}", timeout_s)
        return self.told(kind, **like)[0]

    async def closed(self, timeout_s: float = 10.0) -> tuple[int | None, str]:
        """Wait for the end: close code and reason."""
        await asyncio.wait_for(self._reading, timeout_s)
        return self.socket.close_code, self.socket.close_reason or ""

    async def hang_up(self, rudely: bool = False) -> None:
        """Close, or drop the connection without a word."""
        if rudely:
            self.socket.transport.abort()
        await self.socket.close()
        await self._reading

    async def _read(self) -> None:
        try:
            async for message in self.socket:
                self.events.append(json.loads(message))
                self.times.append(time.monotonic())
        except ConnectionClosed:
            return
