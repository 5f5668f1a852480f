"""One call through bad weather: how late and how often its pictures come before, during and after, and how soon it is
itself again.

In: a `Weather` for both directions. Out: an `Ordeal`. Remembers: nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from server.live import Limits
from tests.fakes.engines import read_loudness
from tests.fakes.relay import Relay, StormyCaller, Weather
from tests.loopback.conftest import client, open_house

LIMITS = Limits(connect_s=5.0, silence_s=8.0, stats_s=0.25)
LOUD = 0.15


@dataclass
class Phase:
    """Milliseconds from sound to picture in the server, the jitter buffer's hold included; pictures seen a second."""

    delay_ms: float
    fps: float


@dataclass
class Ordeal:
    """What happened. `sight_s` and `voice_s`: from the end of the trouble to the first picture that shows the sound
    again, and to the first sound that comes back."""

    before: Phase
    during: Phase
    after: Phase
    sight_s: float
    voice_s: float
    hearing: dict[str, float]
    tasks_more: int
    held: int
    relay: dict[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """For printing."""
        return asdict(self)


async def endure(weather: Weather, *, calm_s: float, trouble_s: float, settle_s: float, seed: int = 0) -> Ordeal:
    """A call with echo: calm, trouble, then `settle_s` to come to itself before `after` is measured for `calm_s`."""
    async with open_house(limits=LIMITS) as house, client(house) as http:
        caller = StormyCaller(http, relay=Relay(seed))
        await caller.call("?echo=1")
        caller.send("echo", on=True, id=1)
        await caller.event("echo", on=True, id=1)
        await caller.see(10)
        tasks = len(asyncio.all_tasks())
        before = await _phase(caller, calm_s)
        caller.relay.up, caller.relay.down = replace(weather), replace(weather)
        during = await _phase(caller, trouble_s)
        caller.relay.up, caller.relay.down = Weather(), Weather()
        ended_s = time.monotonic()
        await asyncio.sleep(settle_s)
        after = await _phase(caller, calm_s)
        stats = [e for e in caller.events if e["type"] == "stats"][-1]
        lit = [p.at_s - ended_s for p in caller.pictures if p.at_s > ended_s and read_loudness(p.rgb) > LOUD]
        heard = [s.at_s - ended_s for s in caller.sounds if s.at_s > ended_s and float(np.abs(s.samples).max()) > LOUD]
        more = len(asyncio.all_tasks()) - tasks
        await caller.hang_up()
    return Ordeal(
        before, during, after, min(lit, default=float("inf")), min(heard, default=float("inf")), stats["jitter"],
        more, stats["jitter"]["held"], caller.relay.counts,
    )  # fmt: skip


async def _phase(caller: StormyCaller, seconds: float) -> Phase:
    told, seen = len(caller.events), len(caller.pictures)
    await asyncio.sleep(seconds)
    stats = [e for e in caller.events[told:] if e["type"] == "stats" and e["latency_ms"] is not None]
    late = [e["latency_ms"] for e in stats]
    return Phase(float(np.median(late)) if late else float("nan"), (len(caller.pictures) - seen) / seconds)
