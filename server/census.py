"""Who is on the server in this moment, counted for the gauges and for `/readyz`.

In: the registries of signalling, what frames cost. Out: a `health.Census`. Remembers: nothing. Loop thread only.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from statistics import median
from typing import Final

from server.admission import Admission
from server.health import Census
from server.live import Live
from server.signaling import Signaling

POOLS: Final = ("asyncio_", "AnyIO worker thread")
"""How the workers of the pools are named that asyncio.to_thread and Starlette's files share."""


def take(signaling: Signaling, admission: Admission) -> Census:
    """Counts everybody."""
    lives = signaling.registry.holders()
    return Census(
        sessions=Counter(str(live.source.kind) if live.source is not None else "none" for live in lives),
        viewers=sum(live.pictures.viewers for live in lives),
        levels=levels(lives),
        fps=[float(live.report.last["fps"]) for live in lives if live.report.last and live.pictures.viewers],
        queues={
            "sound": sum(len(live.seat.inbox) for live in lives),
            "orders": sum(len(live.seat.orders) for live in lives),
            "pictures": sum(live.pictures.waiting for live in lives),
        },
        connections=Counter(peer.ice_state for peer in signaling.lines.holders()),
        tasks=len(asyncio.all_tasks()),
        threads=threading.active_count(),
        pool_threads=sum(thread.name.startswith(POOLS) for thread in threading.enumerate()),
        frame_ms=admission.full_ms,
    )


def levels(lives: list[Live]) -> list[int]:
    """The rung of each session that has made frames in the last second: the middle one, so that a single frame
    repeated while catching up says nothing."""
    return [round(median(cost.level for cost in live.seat.costs)) for live in lives if live.seat.costs]
