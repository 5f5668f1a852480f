"""Ten minutes with the trained engine and a real peer: latency stays flat, whatever the machine can do.

Speech with pauses goes in; once a second the server says how late its pictures are and on which rung of the ladder they
were made. On a machine too slow for 25 fps the ladder must take the load, never the latency. `SVP_SOAK_MINUTES` changes
the length; the figures are printed as one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import numpy as np
import pytest

from server.house import House
from server.live import Limits
from server.security import Guard
from server.studio import build_studio
from svp_stream.config import load_config
from svp_stream.packets import Float32
from svp_stream.synthetic import sentences
from svp_stream.synthetic.speech import HELD_OUT_VOICES, VOICES, synthesise
from tests.fakes.peers import Caller, ToneMic, until
from tests.loopback.conftest import client

WARM_UP_S = 20


def talk(count: int) -> Float32:
    """Held-out sentences in the held-out voice with pauses, 48 kHz mono."""
    texts = [s for s in sentences.load() if sentences.split(s) == "heldout"][:count]
    parts: list[Float32] = []
    for text in texts:
        parts += [synthesise(text, VOICES[HELD_OUT_VOICES[0]]).samples, np.zeros(16_000, np.float32)]
    return np.repeat(np.concatenate(parts), 3)


class TalkingMic(ToneMic):
    """Plays `sound` over and over, in packets of 20 ms."""

    def __init__(self, sound: Float32) -> None:
        super().__init__()
        self.sound = sound

    def samples(self, packet: int) -> Float32:
        at = (packet * 960 + np.arange(960)) % len(self.sound)
        return self.sound[at]


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_latency_stays_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    minutes = float(os.environ.get("SVP_SOAK_MINUTES", "10"))
    house = House(build_studio(load_config(None)), Guard(None, local=True), capacity=1, limits=Limits())
    async with house.lifespan(house.app):
        await until(lambda: house.readiness.warm, "warm engine", 240)
        async with client(house) as http:
            caller = Caller(http, TalkingMic(talk(12)))
            await caller.call()
            await asyncio.sleep(60 * minutes)
            stats = [e for e in caller.events if e["type"] == "stats"]
            await caller.hang_up()
    late = np.array([s["latency_ms"] for s in stats[WARM_UP_S:] if s["latency_ms"] is not None])
    quarter = len(late) // 4
    first, last = float(np.median(late[:quarter])), float(np.median(late[-quarter:]))
    fps = np.array([s["fps"] for s in stats[WARM_UP_S:]])
    levels = [s["level"] for s in stats[WARM_UP_S:]]
    figures = {
        "minutes": minutes, "latency_ms_first_quarter": first, "latency_ms_last_quarter": last,
        "latency_ms_p50": float(np.median(late)), "latency_ms_p95": float(np.percentile(late, 95)),
        "fps_p50": float(np.median(fps)), "fps_p5": float(np.percentile(fps, 5)),
        "seconds_on_rung": {str(r): levels.count(r) for r in sorted(set(levels))}, "drops": stats[-1]["drops"],
    }  # fmt: skip
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
    assert len(late) > 0.8 * (60 * minutes - WARM_UP_S)
    assert last < 1.3 * first + 40
