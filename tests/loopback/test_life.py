"""How calls begin badly, go wrong and end: capacity, trickle, hostile engines, vanished peers, shutdown."""

from __future__ import annotations

import asyncio
import gc
import re
import time
import weakref

import httpx
import pytest

from server.house import House
from server.live import Limits
from server.peer import Peer
from server.security import Guard
from svp_stream.errors import EngineError, WeightsError
from tests.fakes.engines import FakeEngine, FakeStages, Faults, fake_studio, read_number
from tests.fakes.peers import SDP, Caller, until
from tests.loopback.conftest import client, open_house

FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


def without_candidates(sdp: str) -> str:
    """The offer of a client that trickles."""
    return "".join(
        line for line in sdp.splitlines(keepends=True) if not line.startswith(("a=candidate", "a=end-of-candidates"))
    )


async def test_capacity_is_met_with_503_and_a_place_is_free_again_after_delete() -> None:
    async with open_house(capacity=1) as house, client(house) as http:
        first, second, third = Caller(http), Caller(http), Caller(http)
        await first.call()
        refused = await second.post()
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert "full" in refused.json()["error"]
        await first.hang_up()
        assert (await third.post()).status_code == 201
        await third.hang_up()
        await second.hang_up()


async def test_delete_frees_everything() -> None:
    async with open_house() as house, client(house) as http:
        tasks = len(asyncio.all_tasks())
        for _ in range(3):
            caller = Caller(http)
            await caller.call()
            await caller.see(3)
            peer = weakref.ref(house.signaling.registry.holders()[0])
            await caller.hang_up()
            assert house.worker.seats == 0 and len(house.signaling.registry) == 0
            assert (await http.delete(caller.location)).status_code == 404
            del caller
        await until(lambda: len(asyncio.all_tasks()) <= tasks, "end of the calls' tasks", 5.0)

        def gone() -> bool:
            gc.collect()
            return peer() is None

        await until(gone, "collection of the peer", 5.0)


async def test_a_caller_that_vanishes_is_noticed() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await caller.see(3)
        caller.die()
        started = time.monotonic()
        await until(lambda: len(house.signaling.registry) == 0, "end of the call", 5.0)
        assert time.monotonic() - started < 5.0
        await caller.hang_up(delete=False)


async def test_a_caller_that_closes_without_delete_is_noticed() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await caller.hang_up(delete=False)
        await until(lambda: len(house.signaling.registry) == 0, "end of the call", 5.0)


async def test_a_caller_that_never_connects_loses_the_place() -> None:
    limits = Limits(connect_s=0.5, silence_s=2.0, stats_s=0.2)
    async with open_house(limits=limits) as house, client(house) as http:
        caller = Caller(http)
        response = await http.post("/v1/call", content=without_candidates(await caller.offer()), headers=SDP)
        assert response.status_code == 201 and len(house.signaling.registry) == 1
        await until(lambda: len(house.signaling.registry) == 0, "end of the call", 5.0)
        await caller.hang_up(delete=False)


async def test_trickled_candidates_connect() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        response = await caller.post(change=without_candidates)
        assert response.status_code == 201
        lines = caller.connection.localDescription.sdp.splitlines()
        ufrag = next(line for line in lines if line.startswith("a=ice-ufrag"))
        mid = next(line for line in lines if line.startswith("a=mid"))
        candidates = list(dict.fromkeys(line for line in lines if line.startswith("a=candidate")))
        body = "\r\n".join([ufrag, "m=audio 9 UDP/TLS/RTP/SAVPF 0", mid, *candidates, "a=end-of-candidates", ""])
        patch = await http.patch(caller.location, content=body, headers=FRAGMENT | {"If-Match": caller.etag})
        assert patch.status_code == 204, patch.text
        await caller.see(5)
        wrong = await http.patch(caller.location, content=body, headers=FRAGMENT | {"If-Match": '"other"'})
        assert wrong.status_code == 412
        missing = await http.patch(caller.location, content=body, headers=FRAGMENT)
        assert missing.status_code == 428
        restart = re.sub("a=ice-ufrag:.*", "a=ice-ufrag:other", body)
        again = await http.patch(caller.location, content=restart, headers=FRAGMENT | {"If-Match": "*"})
        assert again.status_code == 400 and "ice-pwd" in again.json()["error"]
        plain = await http.patch(caller.location, content=body, headers={"If-Match": caller.etag})
        assert plain.status_code == 415
        assert (await http.patch("/v1/call/x", content=body, headers=FRAGMENT | {"If-Match": "*"})).status_code == 404
        await caller.see(2)
        await caller.hang_up()


async def test_a_failing_engine_ends_its_own_call_only() -> None:
    stages = FakeStages([Faults(raise_at_s=0.5), Faults()])
    async with open_house(stages) as house, client(house) as http:
        hostile, healthy = Caller(http), Caller(http)
        await hostile.call()
        await healthy.call()
        error = await hostile.event("error", code="engine")
        assert "RuntimeError" in error["message"]
        await until(lambda: len(house.signaling.registry) == 1, "end of the failed call", 5.0)
        numbers = [read_number(p.rgb) for p in await healthy.see(25)]
        assert numbers == sorted(set(numbers))
        assert house.worker.seats == 1
        await hostile.hang_up(delete=False)
        await healthy.hang_up()


@pytest.mark.parametrize(
    ("refusal", "status", "words"),
    [
        (EngineError("the style has 3 numbers"), 422, "3 numbers"),
        (RuntimeError("out of memory"), 500, "RuntimeError"),
    ],
)
async def test_an_engine_that_makes_no_stream(refusal: Exception, status: int, words: str) -> None:
    async with open_house(FakeStages([Faults(refuse_to_start=refusal)])) as house, client(house) as http:
        caller = Caller(http)
        response = await caller.post()
        assert response.status_code == status and words in response.json()["error"]
        assert len(house.signaling.registry) == 0
        await caller.hang_up()


async def test_a_slow_engine_degrades_and_latency_stays_flat() -> None:
    stages = FakeStages([Faults(frame_takes_s=0.06)])
    async with open_house(stages) as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await caller.see(25, timeout_s=20.0)
        caller.events.clear()
        early = await caller.event("stats")
        await asyncio.sleep(3.0)
        caller.events.clear()
        late = await caller.event("stats")
        assert late["latency_ms"] < early["latency_ms"] + 150, "work that cannot be done does not pile up"
        assert stages.made[0].effort > 0 or late["drops"]["repeated"] > 0
        await caller.hang_up()


async def test_after_a_stall_there_is_no_burst() -> None:
    stages = FakeStages([Faults(stall_at_s=0.6, stall_s=1.0)])
    async with open_house(stages) as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        pictures = await caller.see(40)
        at = [p.at_s for p in pictures]
        gap = max(range(len(at) - 1), key=lambda i: at[i + 1] - at[i])
        assert at[gap + 1] - at[gap] > 0.6, "the stall is seen"
        after = [p for p in pictures[gap + 1 :] if p.at_s < at[gap + 1] + 0.4]
        assert len(after) <= 16, "at most twice the pace of 25 a second while it catches up"
        caller.events.clear()
        stats = await caller.event("stats")
        await caller.event("stats", **{"fps": stats["fps"]})
        assert stats["latency_ms"] < 400
        await caller.hang_up()


async def test_shutdown_closes_calls() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
    await until(lambda: caller.connection.connectionState in ("closed", "failed"), "end at the caller", 5.0)
    await caller.hang_up(delete=False)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (lambda sdp: sdp.replace("UDP/TLS/RTP/SAVPF 9", "UDP/TLS/RTP/SAVPF 900"), 400, "cannot be read"),
        (lambda sdp: sdp.replace("v=0", "v=1"), 400, "v=0"),
        (lambda sdp: re.sub("a=ice-pwd:.*\r\n", "", sdp), 400, "ice-pwd"),
        (lambda sdp: re.sub("a=fingerprint:.*\r\n", "", sdp), 400, "fingerprint"),
        (lambda sdp: re.sub(r"a=fingerprint:.*\r\n", "a=fingerprint:x\r\n", sdp), 400, "cannot be read"),
        (lambda sdp: sdp.replace("VP8", "VP9").replace("H264", "H266"), 422, "codec"),
        (lambda sdp: sdp[: sdp.index("m=video")], 422, "no video"),
        (lambda sdp: sdp + "a=x:" + "y" * 70_000 + "\r\n", 413, "at most|longer"),
    ],
)
async def test_offers_that_cannot_be_answered(change: object, status: int, words: str) -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        assert callable(change)
        response = await http.post("/v1/call", content=change(await caller.offer()), headers=SDP)
        assert response.status_code == status, response.text
        assert re.search(words, response.json()["error"])
        assert len(house.signaling.registry) == 0 and house.worker.seats == 0
        await caller.hang_up()


async def test_a_model_that_fails_to_warm_up_is_told_and_no_call_is_taken() -> None:
    broken = FakeEngine(WeightsError("mini/unet.safetensors: hash differs"))
    house = House(fake_studio(engine=broken), Guard(None, True), capacity=1)
    async with house.lifespan(house.app), client(house) as http:
        await until(lambda: house.readiness.failure is not None, "failure")
        ready = await http.get("/readyz")
        assert ready.status_code == 503 and "hash differs" in ready.json()["status"]
        caller = Caller(http)
        assert (await caller.post()).status_code == 503
        await caller.hang_up()


async def test_a_request_cancelled_while_it_is_built_leaves_no_place_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house() as house, client(house) as http:
        reached = asyncio.Event()

        async def slow(self: Peer) -> str:
            reached.set()
            await asyncio.sleep(30)
            return ""

        monkeypatch.setattr(Peer, "answer", slow)
        caller = Caller(http)
        request = asyncio.create_task(caller.post())
        await reached.wait()
        request.cancel()
        with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
            await request
        await until(lambda: len(house.signaling.registry) == 0, "free place")
        await caller.hang_up()
