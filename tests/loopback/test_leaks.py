"""Callers come, and go without a word: what the server process holds is as before, again and again.

The server is a process of its own and is counted from outside: sessions, tasks, threads, descriptors, sockets, memory.
"""

from __future__ import annotations

import asyncio
import sys
import time

import httpx
import numpy as np
import pytest

from tests.fakes.peers import Caller
from tests.fakes.processes import Held, ServerProcess, server_process

CALLERS = 3
PATIENCE_S = 20.0
"""What is promised is 5 s; a machine under load is given more, and the figures are printed."""


def more(held: Held, like: Held) -> bool:
    """Whether more is held than before."""
    return held.threads > like.threads or held.fds > like.fds or held.sockets > like.sockets


def vanish(caller: Caller) -> None:
    """Its sockets say nothing more: the process has died, or the laptop was closed."""
    for transport in {t.receiver.transport.transport for t in caller.connection.getTransceivers()}:
        for protocol in transport._connection._protocols:
            protocol.transport.abort()


async def come_and_go(running: ServerProcess) -> float:
    """Some callers at a time, each gone in another way; seconds until nobody is left."""
    async with httpx.AsyncClient(base_url=running.url, headers={"Connection": "close"}) as http:
        callers = [Caller(http) for _ in range(CALLERS)]
        for caller in callers:
            await caller.call()
        for caller in callers:
            await caller.see(3)
        gone_s = time.monotonic()
        vanish(callers[0])
        await callers[1].hang_up(delete=False)
        await callers[2].hang_up()
        while await asyncio.to_thread(running.metric, "svp_calls"):
            assert time.monotonic() - gone_s < PATIENCE_S, "somebody is still there"
            await asyncio.sleep(0.05)
        freed_s = time.monotonic() - gone_s
        await callers[0].hang_up(delete=False)
        return freed_s


async def settle(running: ServerProcess, like: Held, tasks: float) -> None:
    """Until as little is held as at first."""
    ends_s = time.monotonic() + PATIENCE_S
    while more(held := running.held(), like):
        assert time.monotonic() < ends_s, f"more than {like} is held: {held}"
        await asyncio.sleep(0.05)
    assert await asyncio.to_thread(running.metric, "svp_tasks") <= tasks


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(0)])])
async def test_who_has_gone_leaves_nothing_behind(rounds: int) -> None:
    with server_process("--capacity", str(CALLERS)) as running:
        await asyncio.to_thread(running.wait_warm)
        await come_and_go(running)  # what is loaded and pooled at the first call is there to stay
        await asyncio.sleep(1.0)
        held, tasks = running.held(), running.metric("svp_tasks")
        freed, memory = [], []
        for _ in range(rounds):
            freed.append(await come_and_go(running))
            await settle(running, held, tasks)
            memory.append(running.held().rss_mb)
        sys.stdout.write(f"\nfreed after {np.median(freed):.2f} s (median), {max(freed):.2f} s (longest); ")
        sys.stdout.write(f"MB: {held.rss_mb:.0f}, then {' '.join(f'{mb:.0f}' for mb in memory)}\n")
        if rounds > 5:
            assert np.median(freed) <= 5.0
            per_call = np.polyfit(np.arange(rounds), memory, 1)[0] / CALLERS
            assert per_call < 0.5, f"{per_call:.2f} MB are lost with each call"
