"""A bad network on loopback: a UDP relay between two real peers that loses, delays, jitters, reorders, chokes and goes
dark, seeded.

In: the SDP of both sides; the relay puts its own ports in place of their candidates, so each takes the relay for the
other's host. Out: the same datagrams, as the `Weather` of their direction lets them through. Remembers: the ports, the
counts. Latency: as told.

    relay = Relay(seed=1)
    caller = StormyCaller(http, relay=relay)
    await caller.call()
    relay.up = Weather(loss=0.05)      # caller to server; `down` is server to caller
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import httpx

from tests.fakes.peers import Caller

Address = tuple[str, int]
_CANDIDATE = re.compile(r"^(a=candidate:\S+ \d+ udp \d+ )(\S+) (\d+)( typ host.*)$", re.MULTILINE | re.IGNORECASE)
LOOPBACK = "127.0.0.1"


@dataclass
class Weather:
    """`loss` and `duplicate` are shares of the datagrams; `jitter_s` is added to `delay_s`, evenly drawn for each, so
    datagrams overtake each other unless `ordered`; `kbps` bounds the rate, with a queue of `queue_s` before drops.
    While `dark` nothing passes; with `keeps` it is queued then and comes at once afterwards."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    ordered: bool = False
    kbps: float | None = None
    queue_s: float = 0.3
    dark: bool = False
    keeps: bool = False


@dataclass
class Way:
    """One direction: decides the fate of each datagram."""

    rng: random.Random
    weather: Weather = field(default_factory=Weather)
    passed: int = 0
    lost: int = 0
    choked: int = 0
    _free_s: float = 0.0
    _last_s: float = 0.0
    _kept: list[Callable[[], None]] = field(default_factory=list)

    def send(self, size: int, deliver: Callable[[], None]) -> None:
        """`deliver` is called when (if ever) a datagram of `size` bytes arrives."""
        loop, weather = asyncio.get_running_loop(), self.weather
        now = loop.time()
        if weather.dark or self.rng.random() < weather.loss:
            if weather.dark and weather.keeps and len(self._kept) < 4096:
                self._kept.append(deliver)
            else:
                self.lost += 1
            return
        kept, self._kept = self._kept, []
        for one in kept:
            one()
        at_s = now + weather.delay_s + self.rng.random() * weather.jitter_s
        if weather.kbps is not None:
            if self._free_s - now > weather.queue_s:
                self.choked += 1
                return
            self._free_s = max(self._free_s, now) + size * 8 / (weather.kbps * 1000)
            at_s += self._free_s - now
        if weather.ordered:
            at_s = self._last_s = max(at_s, self._last_s)
        self.passed += 1
        for _ in range(1 + (self.rng.random() < weather.duplicate)):
            if at_s <= now:
                deliver()
            else:
                loop.call_at(at_s, deliver)


class _Port:
    """One socket of the relay; `real` is the address of the peer it stands for."""

    def __init__(self, relay: Relay, way: Way, real: Address) -> None:
        self._relay = relay
        self._way = way
        self.real = real
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((LOOPBACK, 0))
        self.number: int = self.socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self.socket, self._read)

    def close(self) -> None:
        """Idempotent."""
        if self.socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.socket)
            self.socket.close()

    def _read(self) -> None:
        with suppress(OSError):
            while True:
                data, source = self.socket.recvfrom(65_536)
                self._way.send(len(data), partial(self._relay.forward, self, source, data))


class Relay:
    """Both directions. `close` frees the sockets."""

    def __init__(self, seed: int = 0) -> None:
        self._up, self._down = Way(random.Random(seed)), Way(random.Random(seed + 1))
        self._ports: dict[Address, _Port] = {}

    @property
    def up(self) -> Weather:
        """From the caller to the server."""
        return self._up.weather

    @up.setter
    def up(self, weather: Weather) -> None:
        self._up.weather = weather

    @property
    def down(self) -> Weather:
        """From the server to the caller."""
        return self._down.weather

    @down.setter
    def down(self, weather: Weather) -> None:
        self._down.weather = weather

    @property
    def counts(self) -> dict[str, int]:
        """Datagrams so far."""
        return {f"{name}_{what}": getattr(way, what) for name, way in (("up", self._up), ("down", self._down))
                for what in ("passed", "lost", "choked")}  # fmt: skip

    def offer(self, sdp: str) -> str:
        """The caller's offer, as the server is to see it."""
        return self._rewrite(sdp, self._down)

    def answer(self, sdp: str) -> str:
        """The server's answer, as the caller is to see it."""
        return self._rewrite(sdp, self._up)

    def forward(self, port: _Port, source: Address, data: bytes) -> None:
        """What came in at `port` from `source` leaves from the port that stands for `source`, to whom `port` does."""
        back = self._ports.get(source)
        if back is not None and back.socket.fileno() >= 0:
            with suppress(OSError):  # a peer that has gone: the datagram is lost, as it would be
                back.socket.sendto(data, port.real)

    def close(self) -> None:
        """Ends the relay; later datagrams are lost."""
        for port in self._ports.values():
            port.close()

    def _rewrite(self, sdp: str, way: Way) -> str:
        def stand_in(match: re.Match[str]) -> str:
            real = (match[2], int(match[3]))
            if real not in self._ports:
                self._ports[real] = _Port(self, way, real)
            return f"{match[1]}{LOOPBACK} {self._ports[real].number}{match[4]}"

        return _CANDIDATE.sub(stand_in, sdp)


@dataclass
class StormyCaller(Caller):
    """A caller whose datagrams all go through `relay`, which it closes when it hangs up."""

    relay: Relay = field(default_factory=Relay)

    async def post(self, query: str = "", change: Callable[[str], str] = lambda sdp: sdp) -> httpx.Response:
        """Both sides see the relay as each other's host."""
        return await super().post(query, lambda sdp: self.relay.offer(change(sdp)))

    def heed(self, answer: str) -> str:
        """The answer as the caller is to see it."""
        return self.relay.answer(answer)

    async def hang_up(self, delete: bool = True) -> None:
        """DELETE and close, or just vanish."""
        await super().hang_up(delete)
        self.relay.close()
