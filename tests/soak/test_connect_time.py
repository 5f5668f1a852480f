"""How long a call takes from POST to connected and to the first picture, directly and through TURN on loopback.

Run with `pytest -m soak -s tests/soak/test_connect_time.py` for the figures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import aioice.ice
import httpx
import numpy as np
import pytest
from aiortc import RTCIceTransportPolicy, RTCSessionDescription

from server import turn
from tests.fakes.browser import server
from tests.fakes.coturn import SECRET, coturn
from tests.fakes.peers import SDP, until
from tests.network.calling import Abroad

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
CALLS = 30


async def one(http: httpx.AsyncClient) -> tuple[float, float, float]:
    """ms from POST to the answer, to connected, to the first picture."""
    caller = Abroad(http)
    offer = await caller.offer()
    began = time.perf_counter()
    response = await http.post("/v1/call", content=offer, headers=SDP)
    assert response.status_code == 201, response.text
    answered = time.perf_counter()
    caller.location = response.headers["location"]
    await caller.connection.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
    await until(lambda: caller.connection.connectionState == "connected", "connection", 20)
    connected = time.perf_counter()
    await until(lambda: bool(caller.pictures), "picture", 20)
    seen = time.perf_counter()
    await caller.hang_up()
    return (answered - began) * 1000, (connected - began) * 1000, (seen - began) * 1000


@pytest.mark.parametrize("path", ["direct", "caller by turn udp", "caller by turn tcp", "both by turn udp"])
async def test_connect_time(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    with coturn(tmp_path) as port:
        transport = "tcp" if "tcp" in path else "udp"
        ice = f'turn: ["turn:127.0.0.1:{port}?transport={transport}"], secret: {SECRET}'
        ice += ", policy: relay" if path.startswith("both") else ""
        profile = tmp_path / "p.yaml"
        profile.write_text("model: {engine: noop}\n" + ("" if path == "direct" else f"ice: {{{ice}}}\n"))
        with server("--config", str(profile)) as url:
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                asked = await http.options("/v1/call")
                Abroad.servers = tuple(turn.parse_links(", ".join(asked.headers.get_list("link"))))
                Abroad.policy = RTCIceTransportPolicy("all" if path == "direct" else "relay")
                for _ in range(300):
                    if (await http.get("/readyz")).status_code == 200:
                        break
                    await asyncio.sleep(0.1)
                await one(http)
                taken = np.array([await one(http) for _ in range(CALLS)])
    figures = {
        name: {"p50": round(float(np.median(ms)), 1), "p95": round(float(np.percentile(ms, 95)), 1)}
        for name, ms in zip(("answer", "connected", "picture"), taken.T, strict=True)
    }
    with capsys.disabled():
        sys.stdout.write(f"\n{path}, {CALLS} calls, ms from POST: {json.dumps(figures)}\n")
    assert np.median(taken[:, 1]) < 3000
