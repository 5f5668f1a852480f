"""The seam at aioice: agents that bind the ports we want, ask the servers we want, and say why one of them refused.

In: a `Plan`, within which peer connections are made. Out: connections whose ICE agents follow it.
Remembers: nothing; `tests/server/test_ice_seams.py` pins the names of aiortc and aioice that it reaches into.

- aioice binds UDP port 0, so no firewall could name the ports; it tells its own addresses only, which behind a NAT or
  in a container nobody can reach.
- It asks one STUN and one TURN server and keeps their errors to itself: a wrong credential looks like a slow network.
- aiortc cannot restart ICE. `next_agent` makes an agent that fills the same stream of received datagrams, `move` puts
  it below the transport in place of the old one, `end` closes an agent without ending that stream.
- When the socket of the chosen path closes (TURN over TCP breaks off), it ends the stream. Here the stream waits for an
  ICE restart; a caller who does not come back is noticed by the silence.
"""

from __future__ import annotations

import asyncio
import copy
import ipaddress
import logging
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import aiortc.rtcicetransport
from aioice import ice as aioice_ice
from aioice import stun, turn
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import Connection, StunProtocol
from aiortc import RTCIceTransport, RTCPeerConnection

from server.ice_troubles import PORTS, Troubles
from server.turn import Credential, IceUrl, refusal

logger = logging.getLogger(__name__)

STUN_S: Final = 1.0
STUN_LAG_S: Final = 0.2
"""How much longer other addresses may take than the first that has an answer."""
TURN_S: Final = 2.0
_ADVERTISED_LESS: Final = 256
"""Below the address that it stands for: a direct path is tried first (RFC 8445 section 5.1.2.1)."""


class NoPath(Exception):
    """No candidate could be gathered that the profile allows; the message is for people."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where an agent looks for paths. `ports` None: any; `relay_only`: through TURN or not at all."""

    stun: tuple[IceUrl, ...] = ()
    turn: tuple[IceUrl, ...] = ()
    credential: Credential | None = None
    minted: bool = False
    ports: range | None = None
    advertise: str | None = None
    relay_only: bool = False
    troubles: Troubles = field(default_factory=Troubles)


_current: ContextVar[Plan | None] = ContextVar("ice plan", default=None)


@contextmanager
def agents(plan: Plan) -> Iterator[None]:
    """Peer connections that come about in here get agents that follow `plan`; others stay as they are."""
    aiortc.rtcicetransport.Connection = _make
    token = _current.set(plan)
    try:
        yield
    finally:
        _current.reset(token)


def _make(**arguments: Any) -> Connection:
    plan = _current.get()
    return Connection(**arguments) if plan is None else Agent(plan, **arguments)


class Agent(Connection):  # type: ignore[misc]
    """An ICE agent that follows a plan. `gather_candidates` raises `NoPath` when the plan allows none that works."""

    def __init__(self, plan: Plan, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.plan = plan
        if plan.relay_only:
            self._transport_policy = aioice_ice.TransportPolicy.RELAY
            # aioice's own words for it would be "there is no TURN server"
            self.turn_server = (plan.turn[0].host, plan.turn[0].port) if plan.turn else None

    async def get_component_candidates(self, component: int, addresses: list[str]) -> list[Candidate]:
        """Host, advertised, reflexive and relayed candidates; in place of aioice's."""
        plan = self.plan
        hosts = [p for p in [await self._bind(component, a) for a in addresses] if p is not None]
        self._protocols += hosts
        told = [p.local_candidate for p in hosts]
        if addresses and not hosts and plan.ports is not None:
            raise NoPath(f"every UDP port of {PORTS} [{plan.ports[0]}, {plan.ports[-1]}] is taken")
        if plan.ports is not None:
            plan.troubles.worked(PORTS)
        reflexive, relayed = await asyncio.gather(self._reflexive(hosts), self._relayed(component))
        if plan.relay_only and relayed is None:
            words = "; ".join(plan.troubles.sentences()) or "no TURN server answered"
            raise NoPath(f"ice.policy is relay, and no relay could be had: {words}")
        told += [a for a in (_advertised(c, plan.advertise) for c in told) if a is not None]
        known = {(c.host, c.port) for c in told}
        told += [c for c in reflexive if (c.host, c.port) not in known]
        return told + ([relayed] if relayed is not None else [])

    def protocol_lost(self, protocol: StunProtocol) -> None:
        """The stream outlives the socket of its path: an ICE restart gives it another."""
        if any(pair.protocol is protocol for pair in self._nominated.values()):
            logger.info("a path has lost its socket; the caller may restart ICE")

    async def _bind(self, component: int, address: str) -> StunProtocol | None:
        """A socket at `address`, on a port of the plan; None when there is none."""
        loop = asyncio.get_running_loop()
        ports = [0] if self.plan.ports is None else random.sample(self.plan.ports, len(self.plan.ports))
        for port in ports:
            try:
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda: StunProtocol(self), local_addr=(address, port)
                )
            except OSError as error:
                logger.debug("could not bind UDP %s port %d: %s", address, port, error)
                continue
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
            host, bound = transport.get_extra_info("sockname")[:2]
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", host), component=component, transport="udp",
                priority=candidate_priority(component, "host"), host=host, port=bound, type="host",
            )  # fmt: skip
            return protocol
        if self.plan.ports is not None:
            self._note(PORTS, f"has no free port at {address}")
        return None

    async def _reflexive(self, hosts: list[StunProtocol]) -> list[Candidate]:
        """How the first STUN server that answers sees our sockets (IPv4, as aioice)."""
        plan = self.plan
        for url in plan.troubles.order(plan.stun, time.monotonic(), insist=False):
            try:
                found = await _ask_stun(url, hosts)
            except (OSError, TimeoutError, stun.TransactionError, ConnectionError) as error:
                self._note(str(url), words_for(error, STUN_S, minted=False))
                continue
            self._well(str(url))
            return found
        return []

    async def _relayed(self, component: int) -> Candidate | None:
        """A relay at the first TURN server that gives one."""
        plan = self.plan
        for url in plan.troubles.order(plan.turn, time.monotonic(), insist=plan.relay_only):
            try:
                async with asyncio.timeout(TURN_S):
                    candidate, protocol = await aioice_ice.relayed_candidate(
                        component=component, hide_related_address=plan.relay_only,
                        protocol_factory=lambda: StunProtocol(self), turn_server=(url.host, url.port),
                        turn_username=plan.credential.username if plan.credential else None,
                        turn_password=plan.credential.password if plan.credential else None,
                        turn_ssl=url.secure, turn_transport=url.transport,
                    )  # fmt: skip
            except (OSError, TimeoutError, stun.TransactionError, ConnectionError) as error:
                self._note(str(url), words_for(error, TURN_S, minted=plan.minted))
                continue
            self._well(str(url))
            self._protocols.append(protocol)
            return candidate
        return None

    def _note(self, what: str, words: str) -> None:
        if self.plan.troubles.failed(what, words, time.monotonic()):
            logger.warning("%s %s", what, words)

    def _well(self, what: str) -> None:
        if self.plan.troubles.worked(what):
            logger.info("%s is well again", what)


def has_path(connection: RTCPeerConnection) -> bool:
    """Whether everything goes over one transport, and that one is connected: then it can move to another path."""
    transports = _transports(connection)
    return len(transports) == 1 and transports.pop().state == "completed"


def next_agent(connection: RTCPeerConnection, plan: Plan) -> Agent:
    """An agent for the next generation of the connection's only transport, with a fragment and password of its own."""
    old = _only(connection)._connection
    agent = Agent(plan, ice_controlling=old.ice_controlling)
    agent.remote_is_lite = old.remote_is_lite
    # one stream of datagrams for all generations: whoever waits for the next one need not know where it comes from
    agent._queue = old._queue
    return agent


def move(connection: RTCPeerConnection, agent: Agent) -> Connection:
    """Puts a connected agent below the transport; returns the old one, which still hears until `end`."""
    transport = _only(connection)
    old = transport._connection
    # the monitor would take the old agent's end for the end of the transport, and so would its checks of consent
    transport._RTCIceTransport__monitor_task.cancel()
    if old._query_consent_task is not None:
        old._query_consent_task.cancel()
    transport._connection = transport.iceGatherer._connection = agent
    transport._recv, transport._send = agent.recv, agent.send
    transport._RTCIceTransport__monitor_task = asyncio.ensure_future(transport._monitor())
    return old


async def end(agent: Connection) -> None:
    """Closes an agent that is not, or is not any more, below a transport; the stream of datagrams goes on."""
    agent._queue = asyncio.Queue()
    await agent.close()


def _transports(connection: RTCPeerConnection) -> set[RTCIceTransport]:
    found = {t.receiver.transport.transport for t in connection.getTransceivers()}
    return found | ({connection.sctp.transport.transport} if connection.sctp is not None else set())


def _only(connection: RTCPeerConnection) -> RTCIceTransport:
    (transport,) = _transports(connection)
    return transport


def words_for(error: Exception, waited_s: float, *, minted: bool) -> str:
    """What went wrong in asking a STUN or TURN server: the end of a sentence that begins with its URL."""
    if isinstance(error, stun.TransactionFailed):
        code, reason = error.response.attributes.get("ERROR-CODE", (0, "an error without a number"))
        return refusal(code, reason, minted=minted)
    if isinstance(error, (TimeoutError, stun.TransactionTimeout)):
        return f"does not answer within {waited_s:g} s: it is down, or a firewall is in between"
    if isinstance(error, socket.gaierror):
        return "has a name that cannot be resolved"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"does not speak TLS there: {error.reason}"
    if isinstance(error, ConnectionRefusedError):
        return "refuses the connection: nothing listens there"
    return f"cannot be reached: {error}"


async def _ask_stun(url: IceUrl, hosts: list[StunProtocol]) -> list[Candidate]:
    """Raises what the last address raised when no address has an answer."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(STUN_S):
        (resolved, *_) = await loop.getaddrinfo(url.host, url.port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    host, port = str(resolved[4][0]), url.port
    near = ipaddress.ip_address(host).is_loopback
    asked = {
        asyncio.create_task(aioice_ice.server_reflexive_candidate(protocol, (host, port)))
        for protocol in hosts
        if (here := ipaddress.ip_address(protocol.local_candidate.host)).version == 4 and (near or not here.is_loopback)
    }
    if not asked:
        return []
    ends_s, pending, found = loop.time() + STUN_S, asked, []
    failure: BaseException = TimeoutError()
    while pending and (left_s := ends_s - loop.time()) > 0:
        done, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                found.append(task.result()[0])
            else:
                failure = error
        if found:
            ends_s = min(ends_s, loop.time() + STUN_LAG_S)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    if not found:
        raise failure
    return found


def _advertised(candidate: Candidate, address: str | None) -> Candidate | None:
    """The same port under the address that others know us by; None where that makes no sense."""
    if address is None:
        return None
    ours, theirs = ipaddress.ip_address(candidate.host), ipaddress.ip_address(address)
    if ours.version != theirs.version or ours == theirs or (ours.is_loopback and not theirs.is_loopback):
        return None
    told = copy.copy(candidate)
    told.host, told.foundation = address, candidate_foundation("host", "udp", address)
    told.priority = candidate.priority - _ADVERTISED_LESS
    return told
