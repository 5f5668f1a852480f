"""Voice agents over real WebSockets, watched by a real aiortc peer: what is said is seen, heard, told, and cut."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from server.house import House
from server.live import Limits
from server.security import Guard
from tests.fakes.agents import AgentClient, open_port, speech
from tests.fakes.engines import FakeStages, Faults, fake_studio, read_loudness
from tests.fakes.peers import Caller, until
from tests.loopback.conftest import LIMITS, client, open_house

LOUD, QUIET = 0.15, 0.05


@asynccontextmanager
async def scene(stages: FakeStages | None = None) -> AsyncIterator[tuple[House, Caller, AgentClient, int]]:
    """A house at a port, somebody who watches a session, an agent who speaks there."""
    async with open_house(stages) as house, client(house) as http, open_port(house) as port:
        viewer = Caller(http, mic=None)
        await viewer.call()
        agent = await AgentClient.open(port, viewer.session)
        await agent.event("welcome")
        yield house, viewer, agent, port
        await agent.hang_up()
        await viewer.hang_up()


def loudest(viewer: Caller, since_s: float) -> float:
    return max((float(np.abs(s.samples).max()) for s in viewer.sounds if s.at_s > since_s), default=0.0)


async def test_what_an_agent_says_is_seen_and_heard_and_told() -> None:
    async with scene() as (house, viewer, agent, _):
        welcome = await agent.event("welcome")
        assert welcome["session"] == viewer.session and welcome["street_latency_ms"] == 40.0
        await viewer.see(5)
        began_s = time.monotonic()
        await agent.say(speech(1.5), "hello")
        sent_s = time.monotonic() - began_s
        assert sent_s < 1.0, "faster than it can be spoken"
        await agent.event("playback_started", segment="hello")
        await until(lambda: viewer.shows() > LOUD, "an open mouth")
        await until(lambda: loudest(viewer, began_s) > 0.3, "a voice")
        await agent.event("state", state="speaking")
        finished = await agent.event("playback_finished", segment="hello")
        assert finished == {**finished, "position_ms": 1500.0, "interrupted": False}
        assert 1.4 < time.monotonic() - began_s < 4.0
        await until(lambda: viewer.shows() < QUIET, "a closed mouth")
        await agent.event("state", state="silent")
        assert b'svp_playback_finished_total{how="whole"} 1.0' in house.metrics.exposition()


@pytest.mark.parametrize("rate_hz", [16_000, 24_000, 48_000])
async def test_every_rate(rate_hz: int) -> None:
    async with scene() as (_, _, agent, _):
        for name in ("a", "b"):
            await agent.say(speech(0.3, rate_hz), name, rate_hz)
        await agent.event("playback_finished", segment="b", position_ms=300.0, interrupted=False)
        order = [(e["type"], e["segment"]) for e in agent.events if e["type"].startswith("playback")]
        assert order == [(f"playback_{what}", name) for name in "ab" for what in ("started", "finished")]


async def test_an_interrupt_closes_mouth_and_voice_and_ends_each_segment_once() -> None:
    async with scene(FakeStages(latency_frames=3)) as (_, viewer, agent, _):
        await agent.say(speech(20), "long")
        await agent.say(speech(5), "never")
        await until(lambda: viewer.shows() > LOUD, "an open mouth")
        await asyncio.sleep(0.3)
        await asyncio.gather(agent.send("interrupt", id=1), agent.send("interrupt", id=2))
        cut_s = time.monotonic()
        answer = await agent.event("interrupted", id=1)
        assert answer["segments"] == ["long", "never"] and answer["dropped_ms"] > 23_000
        assert (await agent.event("interrupted", id=2))["segments"] == []
        await until(lambda: viewer.shows() < QUIET, "a closed mouth", 3.0)
        await asyncio.sleep(0.5)
        at_rest = [p for p in viewer.pictures if p.at_s > cut_s and read_loudness(p.rgb) < QUIET]
        assert all(read_loudness(p.rgb) < QUIET for p in viewer.pictures if p.at_s > at_rest[0].at_s), "it stays closed"
        first_quiet = next(
            s for s in viewer.sounds if s.at_s > cut_s and float(np.abs(s.samples).max()) < 0.02
        )  # fmt: skip
        assert abs(first_quiet.pts_s - at_rest[0].pts_s) < 0.15, "voice and mouth fall silent at the same media time"
        assert loudest(viewer, first_quiet.at_s + 0.05) < 0.05
        long = agent.told("playback_finished", segment="long")
        never = agent.told("playback_finished", segment="never")
        assert len(long) == len(never) == 1 and long[0]["interrupted"] and never[0]["interrupted"]
        assert 0 < long[0]["position_ms"] < 5000 and never[0]["position_ms"] == 0
        assert not agent.told("playback_started", segment="never")
        await agent.say(speech(0.3), "again")
        await agent.event("playback_finished", segment="again", interrupted=False)


async def test_interrupt_to_rest_is_quick() -> None:
    """A few interrupts with much slack; the soak test measures more of them."""
    async with scene(FakeStages(latency_frames=3)) as (_, viewer, agent, _):
        figures = []
        for n in range(5):
            figures.append(await interrupt_to_rest(viewer, agent, f"s{n}"))
        assert float(np.median(figures)) < 400, figures


async def interrupt_to_rest(viewer: Caller, agent: AgentClient, segment: str) -> float:
    """Milliseconds from the client's send to the first received picture at rest."""
    await agent.say(speech(10), segment)
    since = len(viewer.pictures)
    await until(lambda: any(read_loudness(p.rgb) > LOUD for p in viewer.pictures[since:]), "an open mouth")
    await asyncio.sleep(0.2 + 0.013 * (len(segment) + since % 7))
    sent_s = time.monotonic()
    await agent.send("interrupt")
    await until(lambda: viewer.pictures[-1].at_s > sent_s and viewer.shows() < QUIET, "a closed mouth", 5.0)
    rest_s = next(p.at_s for p in viewer.pictures if p.at_s > sent_s and read_loudness(p.rgb) < QUIET)
    await agent.event("playback_finished", segment=segment, interrupted=True)
    return 1000 * (rest_s - sent_s)


async def test_a_second_source_is_refused_in_words_until_the_first_goes() -> None:
    async with scene() as (_, viewer, agent, port):
        second = await AgentClient.open(port, viewer.session)
        code, reason = await second.closed()
        assert code == 4409 and "another source" in reason
        assert second.events[-1]["code"] == "closing" and "another source" in second.events[-1]["message"]
        await agent.hang_up()
        third = await AgentClient.open(port, viewer.session)
        await third.event("welcome")
        await third.hang_up()


@pytest.mark.parametrize("rudely", [True, False])
async def test_a_socket_that_dies_frees_everything_and_the_mouth_closes(rudely: bool) -> None:
    async with scene() as (house, viewer, agent, port):
        await agent.say(speech(20), "long")
        await until(lambda: viewer.shows() > LOUD, "an open mouth")
        await agent.hang_up(rudely)
        live = house.signaling.live(viewer.session)
        await until(lambda: live.source is None, "free source", 2.0)
        await until(lambda: viewer.shows() < QUIET, "a closed mouth", 3.0)
        assert b'svp_playback_finished_total{how="interrupted"} 1.0' in house.metrics.exposition()
        assert b"svp_agents 0.0" in house.metrics.exposition()
        await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("agent " )], "end of tasks")
        again = await AgentClient.open(port, viewer.session)
        await again.say(speech(0.2), "again")
        await again.event("playback_finished", segment="again", interrupted=False)
        await again.hang_up()


async def test_a_session_that_ends_tells_its_agent_and_finishes_its_segments() -> None:
    async with open_house() as house, client(house) as http, open_port(house) as port:
        made = (await http.post("/v1/sessions", json={})).json()["id"]
        agent = await AgentClient.open(port, made)
        await agent.say(speech(10), "long")
        await agent.event("playback_started")
        assert (await http.delete(f"/v1/sessions/{made}")).status_code == 200
        code, reason = await agent.closed()
        assert code == 4410 and reason
        (finished,) = agent.told("playback_finished", segment="long")
        assert finished["interrupted"]
        gone = await AgentClient.open(port, made)
        assert (await gone.closed())[0] == 4404 and gone.events[-1]["code"] == "closing"


async def test_a_failing_engine_is_told() -> None:
    stages = FakeStages([Faults(raise_at_s=1.0)])
    async with open_house(stages) as house, client(house) as http, open_port(house) as port:
        made = (await http.post("/v1/sessions", json={})).json()["id"]
        agent = await AgentClient.open(port, made)
        await agent.say(speech(10), "long")
        error = await agent.event("error", code="engine")
        assert "failed" in error["message"]
        assert (await agent.closed())[0] == 4410
        assert len(agent.told("playback_finished", segment="long", interrupted=True)) == 1


async def test_nonsense_is_answered_in_words_and_too_much_of_it_ends_the_socket() -> None:
    async with scene() as (_, viewer, agent, _):
        await agent.socket.send("{")
        assert "not JSON" in (await agent.event("error", code="malformed"))["message"]
        await agent.socket.send(b"abc")
        await until(lambda: len(agent.told("error", code="malformed")) == 2, "a second error")
        await agent.socket.send(bytes((1 << 20) + 2))
        await agent.event("error", code="too_large")
        await agent.socket.send(b"ab")
        await agent.event("error", code="no_segment")
        await agent.socket.send('{"type":"dance","v":4}')
        await agent.send("ping", t=1.5, id="p")
        assert (await agent.event("pong"))["t"] == 1.5
        await agent.say(speech(0.2), "still")
        await agent.event("playback_finished", segment="still")
        for _ in range(100):
            await agent.socket.send("{")
        assert (await agent.closed())[0] == 4400


async def test_a_message_beyond_all_bounds_is_cut_off_by_the_server() -> None:
    async with scene() as (house, viewer, agent, _):
        await agent.socket.send(bytes(3 << 20))
        assert (await agent.closed())[0] == 1009
        live = house.signaling.live(viewer.session)
        await until(lambda: live.source is None, "free source")


async def test_back_pressure_and_overflow_are_told() -> None:
    async with scene() as (house, viewer, agent, _):
        await agent.send("start", rate_hz=16_000, segment="flood")
        for _ in range(70):
            await agent.socket.send(bytes(32_000))
        assert (await agent.event("backpressure", on=True))["buffered_ms"] > 30_000
        overflow = await agent.event("error", code="overflow")
        assert overflow["segment"] == "flood" and "60 s wait" in overflow["message"]
        await agent.send("interrupt")
        await agent.event("backpressure", on=False)
        await until(
            lambda: 8_000 < sum(e["dropped_ms"] for e in agent.told("error", code="overflow")) < 10_500, "all told"
        )  # fmt: skip
        assert b"svp_agent_refused_seconds_total" in house.metrics.exposition()


async def test_tokens_and_foreign_names() -> None:
    token = "a-token-of-enough-letters"
    house = House(fake_studio(), Guard(token, local=True), capacity=2, limits=LIMITS)
    async with house.lifespan(house.app), client(house) as http, open_port(house) as port:
        await until(lambda: house.readiness.warm, "warm engine")
        asked: dict[str, Any] = {"json": {}, "headers": {"Authorization": f"Bearer {token}"}}
        made = (await http.post("/v1/sessions", **asked)).json()["id"]
        for query, headers, name, status in (
            ("", {}, "127.0.0.1", 401), ("?token=wrong", {}, "127.0.0.1", 401),
            ("", {"Authorization": "Bearer wrong"}, "127.0.0.1", 401), (f"?token={token}", {}, "evil.example", 421),
        ):  # fmt: skip
            with pytest.raises(InvalidStatus) as refused:
                await AgentClient.open(port, made, query, name, additional_headers=headers, host="127.0.0.1")
            assert refused.value.response.status_code == status
            assert json.loads(refused.value.response.body or b"{}")["error"]
        for query, headers in ((f"?token={token}", {}), ("", {"Authorization": f"Bearer {token}"})):
            agent = await AgentClient.open(port, made, query, additional_headers=headers)
            await agent.event("welcome")
            await agent.hang_up()
            await until(lambda: house.signaling.live(made).source is None, "free source")


async def test_a_session_without_agent_and_viewer_ends() -> None:
    limits = Limits(connect_s=5, silence_s=2, stats_s=0.1, linger_s=0.3)
    async with open_house(limits=limits) as house, client(house) as http, open_port(house) as port:
        made = (await http.post("/v1/sessions", json={})).json()["id"]
        agent = await AgentClient.open(port, made)
        await agent.event("welcome")
        await asyncio.sleep(0.8)
        assert house.signaling.live(made).source is not None, "an agent keeps its session"
        await agent.hang_up()
        await until(lambda: len(house.signaling.registry) == 0, "end of the session", 3.0)
