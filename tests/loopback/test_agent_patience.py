"""How long an agent's socket waits: for a message, for a reader; and what an ended handler leaves behind: nothing."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from starlette.types import Message
from starlette.websockets import WebSocket

from server.live import Live
from server.pcm_socket import EVENTS, Agent, Counts, Patience
from server.playout import Bounds
from server.signaling import Wish
from tests.fakes.agents import speech
from tests.fakes.peers import until
from tests.loopback.conftest import open_house


class Wire:
    """An accepted WebSocket whose far end is the test; `stuck` lets nothing leave."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.code: int | None = None
        self.stuck = False

    async def open(self) -> WebSocket:
        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
        socket = WebSocket(scope, self.incoming.get, self._send)
        self.incoming.put_nowait({"type": "websocket.connect"})
        await socket.accept()
        return socket

    def say(self, data: str | bytes) -> None:
        kind = "text" if isinstance(data, str) else "bytes"
        self.incoming.put_nowait({"type": "websocket.receive", kind: data})

    def order(self, kind: str, **fields: Any) -> None:
        self.say(json.dumps({"type": kind, "v": 1, **fields}))

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.sent if event["type"] == kind]

    async def _send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            if self.stuck:
                await asyncio.Event().wait()
            self.sent.append(json.loads(message["text"]))
        elif message["type"] == "websocket.close":
            self.code = message["code"]


async def agent_at(live: Live, wire: Wire, **patience: float) -> asyncio.Task[None]:
    agent = Agent(await wire.open(), live, Counts(CollectorRegistry()), patience=Patience(**patience))  # type: ignore[arg-type]
    return asyncio.create_task(agent.run())


async def test_an_agent_that_says_nothing_is_let_go_and_one_that_pings_is_not() -> None:
    async with open_house() as house:
        live = await house.signaling.stage(Wish())
        wire = Wire()
        task = await agent_at(live, wire, idle_s=0.3)
        for n in range(10):
            await asyncio.sleep(0.1)
            wire.order("ping", t=n)
        assert not task.done() and len(wire.told("pong")) >= 9
        await asyncio.wait_for(task, 3.0)
        assert wire.code == 4408 and "ping" in wire.sent[-1]["message"] and live.source is None


async def test_an_agent_that_does_not_read_is_let_go() -> None:
    async with open_house() as house:
        live = await house.signaling.stage(Wish())
        wire = Wire()
        task = await agent_at(live, wire, write_s=0.2)
        await until(lambda: bool(wire.told("welcome")), "welcome")
        wire.stuck = True
        wire.order("ping")
        await asyncio.wait_for(task, 4.0)
        assert live.source is None and live.connections == 0


async def test_one_that_asks_for_more_than_it_reads_is_let_go() -> None:
    async with open_house() as house:
        live = await house.signaling.stage(Wish())
        wire = Wire()
        task = await agent_at(live, wire)
        await until(lambda: bool(wire.told("welcome")), "welcome")
        wire.stuck = True
        for _ in range(EVENTS + 10):
            wire.order("ping")
        await asyncio.wait_for(task, 4.0)
        assert live.source is None


@pytest.mark.parametrize("way", ["cancelled", "hung up"])
async def test_however_the_handler_ends_the_session_is_free_and_silent(way: str) -> None:
    async with open_house() as house:
        live = await house.signaling.stage(Wish())
        wire = Wire()
        task = await agent_at(live, wire)
        wire.order("start", rate_hz=16_000)
        wire.say(speech(5))
        await until(lambda: bool(wire.told("playback_started")), "speech")
        if way == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            wire.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
            await asyncio.wait_for(task, 3.0)
        assert live.source is None and live.connections == 0
        await until(lambda: not live.desk.speaking, "silence")
        live.take_source("another").release()


async def test_a_session_that_ends_waits_for_no_agent() -> None:
    async with open_house() as house:
        live = await house.signaling.stage(Wish())
        wire = Wire()
        task = await agent_at(live, wire)
        await until(lambda: bool(wire.told("welcome")), "welcome")
        wire.stuck = True
        async with asyncio.timeout(1.0):
            await live.close("enough")
        await asyncio.wait_for(task, 4.0)


@pytest.mark.parametrize("seed", range(12))
async def test_a_hostile_agent_breaks_nothing_and_every_start_still_ends_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    async with open_house() as house:
        live, wire, registry = await house.signaling.stage(Wish()), Wire(), CollectorRegistry()
        agent = Agent(await wire.open(), live, Counts(registry), Bounds(2.0, 1.0, 0.5), Patience(malformed=10_000))
        task = asyncio.create_task(agent.run())
        starts = 0
        for _ in range(250):
            match int(rng.integers(0, 9)):
                case 0 | 1:
                    wire.order("start", rate_hz=int(rng.choice([16_000, 24_000, 48_000])), segment=str(starts))
                    starts += 1
                case 2:
                    wire.order("end")
                case 3:
                    wire.order("interrupt", id=int(rng.integers(9)))
                case 4 | 5 | 6:
                    wire.say(rng.bytes(int(rng.integers(0, 5000))))
                case 7:
                    wire.say(bytes(int(rng.integers(1 << 20, 2 << 20))))
                case _:
                    wire.order("start", rate_hz=int(rng.integers(0, 99_999)), segment="x" * int(rng.integers(1, 300)))
            if rng.random() < 0.05:
                await asyncio.sleep(float(rng.uniform(0, 0.05)))
            if rng.random() < 0.002:
                wire.say(rng.bytes(60).decode("latin-1"))
        await until(wire.incoming.empty, "read messages")
        wire.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await asyncio.wait_for(task, 3.0)
        assert wire.code is None and live.source is None
        ends = re.findall(rb"svp_playback_finished_total{.*} ([0-9.]+)", generate_latest(registry))
        assert sum(map(float, ends)) == starts
