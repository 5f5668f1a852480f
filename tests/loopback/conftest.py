"""Fixtures of the loopback tests: candidates on 127.0.0.1, a served house, and proof that nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aioice.ice
import httpx
import pytest

from server.house import House
from server.live import Limits
from server.security import Guard
from tests.fakes.engines import FakeStages, fake_studio
from tests.fakes.peers import until

LIMITS = Limits(connect_s=5.0, silence_s=2.0, stats_s=0.5)


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice gathers no loopback address by itself; here it gathers nothing else."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Decoder and inference threads end with their calls."""
    before = set(threading.enumerate())
    yield
    left = [t.name for t in threading.enumerate() if t not in before and not t.name.startswith("asyncio")]
    assert not left


@asynccontextmanager
async def open_house(
    stages: FakeStages | None = None, capacity: int = 4, limits: Limits = LIMITS
) -> AsyncIterator[House]:
    """A house of fakes, up and warm; at the end no task of it may be left."""
    house = House(fake_studio(stages), Guard(None, local=True), capacity=capacity, limits=limits)
    before = asyncio.all_tasks()
    async with house.lifespan(house.app):
        await until(lambda: house.readiness.warm, "warm engine")
        yield house
    await until(lambda: asyncio.all_tasks() <= before, "end of all tasks", 5.0)


@asynccontextmanager
async def client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """HTTP to the house without sockets."""
    transport = httpx.ASGITransport(house.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        yield http
