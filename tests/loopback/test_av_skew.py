"""Picture and voice on one clock, quickly: a beep is seen and heard together at a real receiving peer.

`listen` is shared with `tests/soak/test_av_skew.py`, which goes on for as long as told.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from server.live import Limits
from tests.fakes.engines import FakeStages
from tests.fakes.probe import Probe
from tests.fakes.skew import BeepMic, SkewCaller
from tests.loopback.conftest import client, open_house


async def listen(seconds: float, stages: FakeStages | None = None, pace: float = 1.0) -> dict[str, Any]:
    """The figures of one call."""
    async with open_house(stages, limits=Limits(connect_s=5.0, silence_s=10.0, stats_s=1.0)) as house:
        async with client(house) as http:
            caller = SkewCaller(http, mic=BeepMic(pace=pace))
            await caller.call()
            caller.send("echo", on=True, id=1)
            await caller.event("echo", on=True, id=1)
            await asyncio.sleep(seconds)
            told = [e["skew_ms"] for e in caller.events if e["type"] == "stats" and e["skew_ms"] is not None]
            await caller.hang_up()
    at, skew = caller.skews()
    at, skew_ms = at[1:], skew[1:] * 1000
    if len(skew_ms) < 3:
        return {"seconds": seconds, "beeps": len(skew_ms)}
    first = float(np.median(skew_ms[: max(3, len(skew_ms) // 60)]))
    drift = np.abs(skew_ms - first)
    return {
        "seconds": seconds, "beeps": len(skew_ms), "fps": round(caller.frames / seconds, 1),
        "skew_ms_p50": round(float(np.median(skew_ms)), 1),
        "skew_ms_p95": round(float(np.percentile(np.abs(skew_ms), 95)), 1),
        "drift_ms_p95": round(float(np.percentile(drift, 95)), 1),
        "slope_ms_per_hour": round(float(np.polyfit((at - at[0]) / 3600, skew_ms, 1)[0]), 2),
        "server_says_ms_p50": round(float(np.median(told)), 1), "server_says_ms_last": told[-1],
    }  # fmt: skip


async def test_a_beep_is_seen_and_heard_together() -> None:
    async with Probe() as probe:
        figures = await listen(11.0)
    probe.skip_if_unfair()
    assert figures["beeps"] >= 3, figures
    assert abs(figures["skew_ms_p50"]) < 80, figures
    assert abs(figures["server_says_ms_last"] - figures["skew_ms_p50"]) < 80, figures
