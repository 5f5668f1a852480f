"""Pins what `server.ice_seams` reaches into: ports, advertised address, TURN and STUN servers, failures in words.

When one of these fails after an update of aiortc or aioice, look at `server/ice_seams.py` first.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

import aioice.ice
import aiortc.rtcicetransport
import pytest
from aiortc import RTCPeerConnection

from server import ice, ice_seams, turn
from server.ice_seams import Agent, NoPath, Plan
from server.turn import Credential, IceUrl
from tests.fakes.coturn import SECRET, coturn, free_port


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with coturn(tmp_path_factory.mktemp("coturn")) as port:
        yield port


def minted(ttl_s: float = 600) -> Credential:
    return turn.mint(SECRET, time.time(), ttl_s)


def at(port: int, more: str = "") -> tuple[IceUrl, ...]:
    return (turn.parse_url(f"turn:127.0.0.1:{port}{more}"),)


async def gathered(plan: Plan) -> list[tuple[str, str, int]]:
    agent = Agent(plan, ice_controlling=False)
    try:
        await agent.gather_candidates()
        return [(c.type, c.host, c.port) for c in agent.local_candidates]
    finally:
        await agent.close()


async def test_connections_made_within_a_plan_follow_it_and_others_do_not() -> None:
    with ice_seams.agents(Plan()):
        inside = RTCPeerConnection(ice.configuration())
        inside.createDataChannel("x")
    outside = RTCPeerConnection(ice.configuration())
    outside.createDataChannel("x")
    assert isinstance(inside.sctp.transport.transport._connection, Agent)
    assert type(outside.sctp.transport.transport._connection) is aioice.ice.Connection
    assert aiortc.rtcicetransport.Connection is not aioice.ice.Connection
    await inside.close()
    await outside.close()


async def test_ports_of_the_range_and_no_others() -> None:
    first = free_port()
    ports = range(first, first + 1)
    assert await gathered(Plan(ports=ports)) == [("host", "127.0.0.1", first)]
    plan = Plan(ports=ports)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", first))
        with pytest.raises(NoPath, match=rf"every UDP port of ice.port_range \[{first}, {first}\] is taken"):
            await gathered(plan)
        assert "no free port" in plan.troubles.sentences()[0]
    await gathered(plan)
    assert plan.troubles.sentences() == []


async def test_the_advertised_address_comes_with_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1", "127.0.0.2"])
    told = await gathered(Plan(advertise="127.0.0.9"))
    assert {host for _, host, _ in told} == {"127.0.0.1", "127.0.0.2", "127.0.0.9"}
    assert {port for _, host, port in told if host == "127.0.0.9"} == {p for _, h, p in told if h != "127.0.0.9"}
    assert not [1 for _, host, _ in await gathered(Plan(advertise="203.0.113.9")) if host == "203.0.113.9"], (
        "nobody out there reaches a loopback socket"
    )
    assert not [1 for _, host, _ in await gathered(Plan(advertise="2001:db8::9")) if ":" in host]


@pytest.mark.parametrize("more", ["", "?transport=tcp"])
async def test_a_relay_is_had(relay: int, more: str) -> None:
    plan = Plan(turn=at(relay, more), credential=minted(), minted=True)
    assert [kind for kind, _, _ in await gathered(plan)] == ["host", "relay"]
    only = Plan(turn=at(relay, more), credential=minted(), minted=True, relay_only=True)
    assert [kind for kind, _, _ in await gathered(only)] == ["relay"]
    assert plan.troubles.sentences() == only.troubles.sentences() == []


@pytest.mark.parametrize(
    ("credential", "is_minted", "words"),
    [
        (minted(-60), True, "ice.secret"),
        (turn.mint("another secret", time.time(), 600), True, "clocks"),
        (Credential("somebody", "sesame"), False, "ice.username"),
    ],
    ids=["expired", "other secret", "unknown user"],
)
async def test_a_refused_credential_is_said(
    relay: int, credential: Credential, is_minted: bool, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "server")
    plan = Plan(turn=at(relay), credential=credential, minted=is_minted)
    assert [kind for kind, _, _ in await gathered(plan)] == ["host"], "the call goes on without a relay"
    (said,) = plan.troubles.sentences()
    assert "401" in said and words in said and f"127.0.0.1:{relay}" in said
    assert [r.getMessage() for r in caplog.records] == [said]
    assert credential.password not in caplog.text
    only = Plan(turn=at(relay), credential=credential, minted=is_minted, relay_only=True)
    with pytest.raises(NoPath, match=r"policy is relay.*401"):
        await gathered(only)


async def test_the_next_server_is_asked_when_the_first_is_dead(relay: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice_seams, "TURN_S", 0.3)
    dead, silent = free_port(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    urls = at(dead, "?transport=tcp") + at(silent.getsockname()[1]) + at(relay)
    plan = Plan(turn=urls, credential=minted(), minted=True)
    assert [kind for kind, _, _ in await gathered(plan)] == ["host", "relay"]
    said = " | ".join(plan.troubles.sentences())
    assert "nothing listens there" in said and "does not answer within 0.3 s" in said
    assert plan.troubles.order(urls, time.monotonic(), insist=False) == list(at(relay)), "the next call need not wait"
    silent.close()


async def test_a_turn_server_with_an_unknown_name() -> None:
    plan = Plan(turn=(turn.parse_url("turn:nowhere.invalid"),), credential=minted(), minted=True)
    await gathered(plan)
    assert "name that cannot be resolved" in plan.troubles.sentences()[0]


async def test_stun_finds_nothing_new_on_loopback_and_says_when_it_is_dead(
    relay: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = Plan(stun=(turn.parse_url(f"stun:127.0.0.1:{relay}"),))
    assert [kind for kind, _, _ in await gathered(well)] == ["host"] and well.troubles.sentences() == []
    monkeypatch.setattr(ice_seams, "STUN_S", 0.2)
    dead = Plan(stun=(turn.parse_url(f"stun:127.0.0.1:{free_port()}"),))
    assert [kind for kind, _, _ in await gathered(dead)] == ["host"]
    assert "does not answer" in dead.troubles.sentences()[0]
