"""What a session costs beside the model, and what twenty viewers cost: processor time of a real server by thread.

The server runs in a process of its own; callers and viewers in this one. `SVP_OVERHEAD_S` sets the seconds measured.
Figures are printed as JSON; asserted are only ratios.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aioice.ice
import httpx
import pytest

from tests.fakes.peers import Caller, Line, ToneMic, Watcher, until

SECONDS = float(os.environ.get("SVP_OVERHEAD_S", "20"))


class Counting:
    """In the place of a decoder, so that the viewers do not need the machine."""

    def __init__(self, _: Any) -> None:
        pass

    def decode(self, _: Any) -> list[Any]:
        """Nothing."""
        return []


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback candidates, no decoding."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    monkeypatch.setattr("aiortc.rtcrtpreceiver.get_decoder", Counting)


class Server:
    """The process."""

    def __init__(self, codec: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.serving", codec],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{int(self._line())}"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def told(self) -> dict[str, Any]:
        """Seconds so far, by thread, and encodings."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return dict(json.loads(self._line()))

    def end(self) -> None:
        """Close its input, wait."""
        self._process.communicate(timeout=60)


@asynccontextmanager
async def running(codec: str) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    server = Server(codec)
    async with httpx.AsyncClient(base_url=server.url) as http:
        for _ in range(200):
            if (await http.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0.1)
        yield server, http
    await asyncio.to_thread(server.end)


async def shares(server: Server) -> dict[str, float]:
    """Per cent of a core by thread over the next seconds; `rest` is the process less the inference thread."""
    before = server.told()["cpu"]
    await asyncio.sleep(SECONDS)
    after = server.told()["cpu"]
    found = {name: 100 * (after[name] - before.get(name, 0.0)) / SECONDS for name in after}
    found["rest"] = found["all"] - found["inference"]
    return {name: round(share, 2) for name, share in found.items()}


@pytest.mark.soak
@pytest.mark.parametrize("codec", ["vp8", "h264"])
async def test_what_one_call_costs_beside_the_model(codec: str) -> None:
    async with running(codec) as (server, http):
        idle = await shares(server)
        caller = Caller(http, mic=ToneMic())
        await caller.call()
        await asyncio.sleep(3)
        calling = await shares(server)
        (encoding,) = server.told()["encodings"]
        stats = [e for e in caller.events if e["type"] == "stats"]
        await caller.hang_up()
    over = round(calling["rest"] - idle["rest"], 2)
    figures = {"codec": codec, "overhead_percent": over, "idle": idle, "calling": calling, "encoding": encoding,
               "fps": stats[-1]["fps"], "latency_ms": stats[-1]["latency_ms"]}  # fmt: skip
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
    assert over < 60, "with much slack for a busy machine"


@pytest.mark.soak
@pytest.mark.parametrize("codec", ["vp8", "h264"])
async def test_what_twenty_viewers_cost(codec: str) -> None:
    async with running(codec) as (server, http):
        staged = (await http.post("/v1/sessions", json={})).json()["id"]
        figures: dict[str, Any] = {"codec": codec}
        watchers: list[Line] = []
        for count in (1, 20):
            while len(watchers) < count:
                watchers.append(Watcher(http, of=staged, voice=False))
                await watchers[-1].connect()
            await until(lambda: bool(server.told()["encodings"]), "pictures")
            before = server.told()["encodings"][0]
            share = await shares(server)
            after = server.told()["encodings"][0]
            pictures = after["pictures"] - before["pictures"]
            figures[str(count)] = {
                "encoder_ms_a_picture": round(10 * SECONDS * share["encoder"] / pictures, 3), "pictures": pictures,
                "viewers": after["viewers"], "encoder_percent": share["encoder"], "rest_percent": share["rest"],
            }  # fmt: skip
        await asyncio.gather(*(w.hang_up() for w in watchers))
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
    assert figures["20"]["viewers"] == 20
    assert figures["20"]["encoder_ms_a_picture"] < 2 * figures["1"]["encoder_ms_a_picture"]
