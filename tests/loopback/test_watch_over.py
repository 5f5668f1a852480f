"""What is kept an eye on while calls run: secrets in the logs, admission, draining, the gauges."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from server.admission import Cost
from server.house import House
from server.logs import MASK
from server.security import Guard
from svp_stream.config import Server
from svp_stream.pipeline.budget import Ladder
from tests.fakes.engines import FakeStages, Faults, fake_studio
from tests.fakes.peers import Caller, until
from tests.fakes.processes import server_process
from tests.loopback.conftest import LIMITS, client, open_house

TOKEN = "a-very-secret-token-of-this-test"


@asynccontextmanager
async def weighing_house(stages: FakeStages) -> AsyncIterator[House]:
    """A house that admits by measured budget."""
    settings = Server(capacity=8, budget="auto")
    studio = replace(fake_studio(stages), ladder=Ladder(worst=0))
    house = House(studio, Guard(None, local=True), capacity=8, limits=LIMITS, settings=settings)
    async with house.lifespan(house.app):
        await until(lambda: house.readiness.warm, "warm engine")
        yield house


async def test_nothing_that_lets_anybody_in_is_ever_logged() -> None:
    """A whole call at debug level: the call, orders, wrong requests, a socket that is refused, the end."""
    with server_process("--token", TOKEN, "--log-format", "json", level="debug") as running:
        await asyncio.to_thread(_wait_ready, running.url)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=running.url, headers=headers) as http:
            caller = Caller(http)
            await caller.call("?style=warm")
            await caller.see(5)
            caller.send("style", name="sad")
            await caller.event("style")
            await http.put(f"/v1/sessions/{caller.session}/style", json={"name": "warm"})
            await http.get(f"/v1/sessions/{caller.session}/nothing")
            await http.patch(caller.location, content="nonsense", headers={"If-Match": caller.etag})
            await http.post(f"/v1/whep/{caller.session}", content="nonsense")
            await http.get("/v1/styles", headers={"Authorization": f"Bearer {TOKEN}x"})
            await asyncio.to_thread(_knock, running.url, caller.session)
            sdps = caller.answer + str(caller.connection.localDescription.sdp)
            await caller.hang_up()
        running.end()
        text = "".join(running.lines)
    secrets = {TOKEN, caller.session, caller.location.rsplit("/", 1)[1], caller.etag.strip('"')}
    secrets |= set(re.findall(r"a=ice-pwd:(\S+)", sdps))
    assert all(len(secret) >= 16 for secret in secrets) and len(secrets) >= 5
    assert len(running.lines) > 10 and "DEBUG" in text.upper(), "debug level says much"
    for secret in secrets:
        assert secret not in text, next(line for line in running.lines if secret in line).replace(secret, MASK)
    told = [json.loads(line) for line in running.lines]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in told)
    keys = {line["session"] for line in told if "session" in line}
    assert len(keys) == 1 and re.fullmatch(r"[0-9a-f]{8}", keys.pop()), "lines of the session carry its key"


def _wait_ready(url: str) -> None:
    ends = time.monotonic() + 60
    while httpx.get(f"{url}/readyz").status_code != 200:
        assert time.monotonic() < ends
        time.sleep(0.1)


def _knock(url: str, session: str) -> None:
    """A WebSocket handshake with the token in its query."""
    handshake = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    try:
        httpx.get(f"{url}/v1/sessions/{session}/nowhere?token={TOKEN}", headers=handshake, timeout=5)
    except httpx.HTTPError:
        pass  # refused or upgraded: what counts is what the server writes about it


async def test_who_does_not_fit_into_the_budget_gets_503_and_words() -> None:
    stages = FakeStages([Faults(frame_takes_s=0.022)])
    async with weighing_house(stages) as house, client(house) as http:
        first, second = Caller(http), Caller(http)
        await first.call()
        seat = house.signaling.registry.holders()[0].seat
        await until(lambda: len(seat.costs) >= 10, "known costs")
        refused = await second.post()
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 5
        assert "too busy" in refused.json()["error"]
        assert house.admission.full_ms is not None and house.admission.full_ms >= 22
        seat.costs = (Cost(0, 4.0),) * 25
        house.admission.full_ms = 4.0
        await first.hang_up()
        await second.hang_up()
        alone = Caller(http)
        assert (await alone.post()).status_code == 201, "the first one is always let in"
        await alone.hang_up()


async def test_gauges_show_a_call_and_forget_it() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await caller.see(25)
        await caller.event("stats")
        text = (await http.get("/metrics")).text
        for line in ('svp_sessions{kind="call"} 1.0', "svp_viewers 1.0", 'svp_ice_connections{state="completed"} 1.0',
                     "svp_calls 1.0", "svp_connect_seconds_count 1.0"):  # fmt: skip
            assert line in text, line
        for metric in ("svp_encoded_pictures_total", "svp_encode_seconds_total", "svp_frames_total", "svp_tasks"):
            value = next(line for line in text.splitlines() if line.startswith(f"{metric} ")).split()[1]
            assert float(value) > 0, metric
        assert 'svp_stage_seconds_count{stage="fake"}' in text
        assert caller.session not in text
        await caller.hang_up()
        after = (await http.get("/metrics")).text
        assert 'svp_sessions{kind="call"} 0.0' in after and "svp_viewers 0.0" in after
        assert 'svp_ice_connections{state="completed"} 0.0' in after


async def test_draining_takes_nobody_tells_everybody_and_waits() -> None:
    async with open_house() as house, client(house) as http:
        caller, late = Caller(http), Caller(http)
        await caller.call()
        draining = asyncio.create_task(house.drain(20.0))
        told = await caller.event("draining")
        assert told["seconds"] == 20.0
        ready = await http.get("/readyz")
        assert ready.status_code == 503 and "draining" in ready.json()["status"]
        refused = await late.post()
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 10
        seen = len(caller.pictures)
        await until(lambda: len(caller.pictures) > seen + 5, "further pictures")
        assert not draining.done()
        await caller.hang_up()
        async with asyncio.timeout(5.0):
            await draining
        await late.hang_up()


async def test_draining_has_an_end() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        async with asyncio.timeout(10.0):
            await house.drain(0.3)
        assert len(house.signaling.registry) == 1, "the end of the server ends it"
    await caller.hang_up(delete=False)


async def test_sigterm_lets_a_call_end_and_then_the_server_ends() -> None:
    with server_process("--capacity", "2") as running:
        await asyncio.to_thread(_wait_ready, running.url)
        async with httpx.AsyncClient(base_url=running.url) as http:
            caller = Caller(http)
            await caller.call()
            running.process.send_signal(signal.SIGTERM)
            await caller.event("draining")
            assert (await http.get("/readyz")).status_code == 503
            assert (await http.get("/healthz")).status_code == 200
            assert running.process.poll() is None
            await caller.hang_up()
        assert await asyncio.to_thread(running.process.wait, 30) == 0
    assert not any("Traceback" in line for line in running.lines)


async def test_a_second_sigterm_does_not_wait() -> None:
    with server_process() as running:
        await asyncio.to_thread(_wait_ready, running.url)
        async with httpx.AsyncClient(base_url=running.url) as http:
            caller = Caller(http)
            await caller.call()
            running.process.send_signal(signal.SIGTERM)
            await caller.event("draining")
            running.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(running.process.wait, 15)
            await caller.hang_up(delete=False)
