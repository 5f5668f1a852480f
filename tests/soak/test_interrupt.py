"""From an agent's `interrupt` to a closed mouth in a real peer's pictures, many times, with the fake and the trained
engine.

An agent speaks a long segment through its WebSocket and cuts it at moments that fall on all phases of a frame. Measured
is the time from its send to the arrival of the first picture from which on the mouth stays at rest for 600 ms, read off
the received pictures: the fake engine's loudness, the evaluator's opening of the lips. The same for the voice. One JSON
line for each engine. `SVP_INTERRUPTS` changes how many.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import svp_stream
from server.house import House
from server.security import Guard
from server.studio import Studio, build_studio
from svp_stream.config import load_config
from svp_stream.evaluation.measure import READING, WEIGHTS, load_evaluator
from svp_stream.packets import Floats
from svp_stream.synthetic.speech import VOICES, synthesise
from tests.fakes.agents import AgentClient, open_port, speech
from tests.fakes.engines import FakeStages, fake_studio, read_loudness
from tests.fakes.peers import Caller, Picture, until

TEXT = (
    "Mama and papa have a large banana farm near the harbour, "
    "and all of the llamas are always far away from the barn. "
)
REST = {"fake": 0.05, "mini": 0.07}
"""What counts as closed: the drawn loudness; the opening of the lips by the distance of the eyes (speaking 0.1-0.3)."""
STAYS_S = 0.6


def openings(engine: str, pictures: list[Picture]) -> Floats:
    if engine == "fake":
        return np.array([read_loudness(p.rgb) for p in pictures])
    gauge = load_evaluator(Path(svp_stream.__file__).parent / "weights" / "mini" / WEIGHTS).gauge
    return np.asarray(gauge.read(np.stack([p.rgb for p in pictures]))[:, READING["lip_open"]])


def rest_ms(times: Floats, values: Floats, limit: float, sent_s: float) -> float:
    """From `sent_s` to the first of the values that are all below the limit up to `STAYS_S` after the send; infinite
    when nothing came in that time."""
    window = np.flatnonzero((times > sent_s) & (times < sent_s + STAYS_S))
    above = window[values[window] >= limit]
    rest = window[window > above[-1]] if len(above) else window
    return float(1000 * (times[rest[0]] - sent_s)) if len(rest) else float("inf")


def voice(engine: str) -> tuple[bytes, int]:
    if engine == "fake":
        return speech(10), 16_000
    spoken = np.tile(synthesise(TEXT, VOICES["slt"]).samples, 2)
    return np.rint(np.clip(spoken, -1, 1) * 32_767).astype("<i2").tobytes(), 16_000


def studio(engine: str) -> Studio:
    return fake_studio(FakeStages(latency_frames=3)) if engine == "fake" else build_studio(load_config(None))


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("engine", ["fake", "mini"])
async def test_interrupt_to_rest(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    count = int(os.environ.get("SVP_INTERRUPTS", "25"))
    house = House(studio(engine), Guard(None, local=True), capacity=1)
    rng = np.random.default_rng(5)
    said: list[float] = []
    sent: list[float] = []
    async with house.lifespan(house.app), open_port(house) as port:
        await until(lambda: house.readiness.warm, "warm engine", 240)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            viewer = Caller(http, mic=None)
            await viewer.call()
            agent = await AgentClient.open(port, viewer.session)
            sound, rate_hz = voice(engine)
            await viewer.see(20)
            for n in range(count):
                said.append(time.monotonic())
                await agent.say(sound, str(n), rate_hz)
                await agent.event("playback_started", segment=str(n))
                await asyncio.sleep(0.5 + rng.uniform(0, 0.8))
                sent.append(time.monotonic())
                await agent.send("interrupt", id=n)
                await agent.event("interrupted", id=n)
                await asyncio.sleep(STAYS_S + 0.2)
            finished = agent.told("playback_finished")
            await agent.hang_up()
            await viewer.hang_up()
    figures = measured(engine, viewer, said, sent)
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
    assert [e["segment"] for e in finished] == [str(n) for n in range(count)]
    assert all(e["interrupted"] for e in finished)
    assert figures["mouth_ms_p95"] < 1000 * STAYS_S


def measured(engine: str, viewer: Caller, said: list[float], sent: list[float]) -> dict[str, Any]:
    seen, values = np.array([p.at_s for p in viewer.pictures]), openings(engine, viewer.pictures)
    heard = np.array([s.at_s for s in viewer.sounds])
    loud = np.array([float(np.abs(s.samples).max()) for s in viewer.sounds])
    mouth = np.array([rest_ms(seen, values, REST[engine], at) for at in sent])
    voices = np.array([rest_ms(heard, loud, 0.03, at) for at in sent])
    was_open = np.array([values[seen <= at][-1] >= REST[engine] for at in sent])
    begins = np.array([seen[(seen > at) & (values >= REST[engine])][:1].min(initial=np.inf) - at for at in said])
    return {
        "engine": engine, "interrupts": len(sent), "load": os.getloadavg()[0],
        "mouth_ms_p50": float(np.median(mouth)), "mouth_ms_p95": float(np.percentile(mouth, 95)),
        "mouth_ms_max": float(mouth.max()), "over_200": int((mouth > 200).sum()),
        "voice_ms_p50": float(np.median(voices)), "voice_ms_p95": float(np.percentile(voices, 95)),
        "caught_open": int(was_open.sum()), "caught_open_ms_p50": float(np.median(mouth[was_open])),
        "caught_open_ms_p95": float(np.percentile(mouth[was_open], 95)),
        "start_to_open_ms_p50": float(1000 * np.median(begins)), "fps": len(seen) / float(seen[-1] - seen[0]),
    }  # fmt: skip
