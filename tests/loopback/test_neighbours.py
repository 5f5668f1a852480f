"""What goes wrong with one session stays there: hostile sound, a dead socket, a model that fails, a viewer that chokes.

Beside each of them a healthy call goes on: its pictures come, their numbers rise, nothing of the other is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from server.house import House
from server.jitter import Slot
from server.live import Live
from server.peer import Peer
from svp_stream.packets import Float32
from tests.fakes.engines import FakeStages, Faults, read_number
from tests.fakes.peers import Caller, until
from tests.loopback.conftest import client, open_house

Harm = Callable[[House, Peer, Live], Awaitable[None]]


async def hostile_sound(house: House, peer: Peer, live: Live) -> None:
    """The decoder bursts."""

    def render(slot: Slot) -> Float32:
        raise MemoryError("a frame of 0 Hz")

    assert peer._mic is not None and peer._mic._line is not None
    peer._mic._line.render = render  # type: ignore[method-assign]


async def dead_socket(house: House, peer: Peer, live: Live) -> None:
    """The system takes the connection's sockets away."""
    for transport in {t.receiver.transport.transport for t in peer._connection.getTransceivers()}:
        for protocol in transport._connection._protocols:
            protocol.transport.abort()


async def broken_orders(house: House, peer: Peer, live: Live) -> None:
    """An order blows up on the inference thread."""

    def order(street: object) -> None:
        raise MemoryError("no memory for this style")

    live.seat.orders.put(order)
    house.worker.wake()


async def broken_encoder(house: House, peer: Peer, live: Live) -> None:
    """Every picture of it fails in the encoder thread."""

    def encode(*_: object) -> None:
        raise RuntimeError("the encoder has burst")

    for encoding in live.pictures.encodings:
        encoding._encode = encode  # type: ignore[assignment, method-assign]


async def broken_report(house: House, peer: Peer, live: Live) -> None:
    """The report of the session fails."""

    def take(*_: object) -> None:
        raise ZeroDivisionError("no figures")

    live.report.take = take  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize(
    "harm", [hostile_sound, dead_socket, broken_orders, broken_encoder, broken_report], ids=lambda h: h.__name__
)
async def test_harm_to_one_session_ends_that_one_only(harm: Harm) -> None:
    async with open_house() as house, client(house) as http:
        victim, healthy = Caller(http), Caller(http)
        await victim.call()
        await healthy.call()
        await victim.see(2)
        live = house.signaling.live(victim.session)
        peer = next(p for p in house.signaling.lines.holders() if p.live is live)
        await harm(house, peer, live)
        await until(lambda: len(house.signaling.registry) == 1, "end of the harmed session", 15.0)
        seen = len(healthy.pictures)
        numbers = [read_number(p.rgb) for p in (await healthy.see(15))]
        assert len(healthy.pictures) >= seen + 15 and numbers == sorted(set(numbers))
        assert house.worker.seats == 1 and len(house.signaling.lines) == 1
        again = Caller(http)
        await again.call()
        await again.see(3)
        await asyncio.gather(again.hang_up(), healthy.hang_up(), victim.hang_up(delete=False))


async def test_a_model_that_fails_again_and_again_does_not_wear_the_server_down() -> None:
    stages = FakeStages([Faults(), *[Faults(raise_at_s=0.2)] * 5, Faults()])
    async with open_house(stages) as house, client(house) as http:
        healthy = Caller(http)
        await healthy.call()
        for _ in range(5):
            victim = Caller(http)
            await victim.call()
            await victim.event("error", code="engine")
            await until(lambda: len(house.signaling.registry) == 1, "end of the failed session", 10.0)
            await victim.hang_up(delete=False)
        await healthy.see(10)
        assert house.worker.seats == 1
        text = (await http.get("/metrics")).text
        assert "svp_calls_failed_total 5.0" in text and "svp_calls 1.0" in text
        await healthy.hang_up()
