"""Calls of a server that uses TURN: credentials that are refused, relays that cannot be had, clients with RSA keys."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from aiortc import RTCCertificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from server import turn
from server.house import House
from server.ice import Ice
from server.security import Guard
from svp_stream.config import Ice as IceKeys
from tests.fakes.coturn import SECRET, coturn, free_port
from tests.fakes.engines import fake_studio
from tests.fakes.peers import SDP, Caller, until
from tests.loopback.conftest import LIMITS, client, open_house


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with coturn(tmp_path_factory.mktemp("coturn")) as port:
        yield f"turn:127.0.0.1:{port}"


@asynccontextmanager
async def relaying(keys: IceKeys) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    house = House(fake_studio(), Guard(None, local=True), capacity=2, limits=LIMITS, paths=Ice(keys))
    async with house.lifespan(house.app), client(house) as http:
        await until(lambda: house.readiness.warm, "warm engine")
        yield house, http


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_call_through_the_relay_of_the_server(relay: str, transport: str) -> None:
    keys = IceKeys(turn=(f"{relay}?transport={transport}",), secret=SECRET, policy="relay")
    async with relaying(keys) as (_, http):
        caller = Caller(http)
        await caller.call()
        told = [line for line in caller.answer.splitlines() if line.startswith("a=candidate")]
        assert told and all(" typ relay" in line for line in told), "nothing but the relay is told"
        await caller.see(5)
        await caller.hang_up()


async def test_links_carry_a_credential_that_the_turn_server_takes(relay: str) -> None:
    async with relaying(IceKeys(stun=("stun:s.example",), turn=(relay,), secret=SECRET)) as (_, http):
        caller = Caller(http)
        response = await caller.post()
        (asked, posted) = (
            turn.parse_links(", ".join(r.headers.get_list("link")))
            for r in (await http.options("/v1/call"), response)
        )
        assert [s.url for s in posted] == [s.url for s in asked] == ["stun:s.example", relay]
        assert posted[1].credential is not None and posted[1].credential.username.endswith(":caller")
        await caller.hang_up()


async def test_a_refused_credential_shows_in_stats_and_metrics_and_the_call_goes_on(relay: str) -> None:
    async with relaying(IceKeys(turn=(relay,), secret="another secret")) as (_, http):
        caller = Caller(http)
        await caller.call()
        stats = await caller.event("stats")
        (words,) = stats["ice"]
        assert "401" in words and "ice.secret" in words and "another secret" not in words
        assert "svp_ice_problems 1.0" in (await http.get("/metrics")).text
        await caller.hang_up()


async def test_without_the_relay_that_the_policy_demands_the_post_is_refused_in_words(relay: str) -> None:
    async with relaying(IceKeys(turn=(relay,), username="u", credential="c", policy="relay")) as (house, http):
        caller = Caller(http)
        response = await http.post("/v1/call", content=await caller.offer(), headers=SDP)
        assert response.status_code == 502
        assert "401" in response.json()["error"] and "ice.username" in response.json()["error"]
        assert len(house.signaling.registry) == len(house.signaling.lines) == 0
        await caller.hang_up()


def rsa_certificate() -> RTCCertificate:
    """What browsers of old and GStreamer use."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rsa")]), datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    )  # fmt: skip
    return RTCCertificate(key=key, cert=certificate)


async def test_a_client_with_an_rsa_certificate_that_does_not_trickle(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house() as house, client(house) as http:
        with monkeypatch.context() as patched:
            patched.setattr(RTCCertificate, "generateCertificate", classmethod(lambda cls: rsa_certificate()))
            caller = Caller(http)  # its offer holds all candidates, and it sends no PATCH
        (certificate,) = caller.connection._RTCPeerConnection__certificates
        assert isinstance(certificate._key, rsa.RSAPrivateKey)
        await caller.call()
        await caller.see(3)
        await caller.hang_up()


async def test_ports_run_out_in_words() -> None:
    port = free_port()
    async with relaying(IceKeys(port_range=(port, port))) as (house, http):
        first, second = Caller(http), Caller(http)
        await first.call()
        told = [line.split() for line in first.answer.splitlines() if line.startswith("a=candidate")]
        assert {line[5] for line in told} == {str(port)}
        refused = await http.post("/v1/call", content=await second.offer(), headers=SDP)
        assert refused.status_code == 502 and "ice.port_range" in refused.json()["error"]
        await first.see(3)
        await first.hang_up()
        assert (await second.post()).status_code == 201, "the port is free again"
        await second.hang_up()
