"""The seams: every place where we reach into names that aiortc and aioice keep to themselves. Nowhere else does.

In: a peer connection between `setRemoteDescription` and `createAnswer`. Out: the same, faster, for more clients.
Remembers: nothing. `tests/server/test_seams.py` pins each name and its effect, so a new aiortc fails there first.

- Two tracks in one MediaStream are lip-synced by the browser, which holds the picture back by what the sound needs
  (20-100 ms); the video gets a stream of its own.
- As DTLS client aiortc offers ECDSA suites only, so peers with RSA certificates fail; as DTLS server it takes both.
- Its senders encode for one viewer each; ours stands in the place of their encoder and hands on what is encoded.
- A connection that is closed while it comes about leaves a task of aioice behind.
- aioice gathers no loopback address, but a caller on this very machine may have no other.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, Protocol

import aioice.ice
from aiortc import RTCPeerConnection, RTCRtpSender
from aiortc.exceptions import InvalidStateError
from aiortc.rtp import RTP_HISTORY_SIZE

from server.resend import ResendBudget

logger = logging.getLogger(__name__)

_ENCODER: Final = "_RTCRtpSender__encoder"
_HISTORY: Final = "_RTCRtpSender__rtp_history"
LOOPBACK: Final = "127.0.0.1"
CHECK_PAUSE_S: Final = 0.1
"""Longer than the 20 ms between two connectivity checks of aioice."""

HostAddresses = Callable[[bool, bool], list[str]]


class SeamError(RuntimeError):
    """aiortc is not built as expected: the pinned version in `pyproject.toml` is the one that fits."""


def part_streams(connection: RTCPeerConnection) -> None:
    """Announces picture and voice as two MediaStreams; call before `createAnswer`."""
    for sender in connection.getSenders():
        if not hasattr(sender, "_stream_id"):
            raise SeamError("aiortc's RTCRtpSender has no _stream_id")
        if sender.kind == "video":
            sender._stream_id = str(uuid.uuid4())


def answer_passive(connection: RTCPeerConnection) -> None:
    """Answers `a=setup:passive`; only for an offer of `actpass`, before `createAnswer`."""
    transports = [t.receiver.transport for t in connection.getTransceivers()]
    if connection.sctp is not None:
        transports.append(connection.sctp.transport)
    for transport in transports:
        if not hasattr(transport, "_set_role"):
            raise SeamError("aiortc's RTCDtlsTransport has no _set_role")
        transport._set_role("server")


def with_loopback(gather: HostAddresses) -> HostAddresses:
    """The same gatherer of host addresses, with 127.0.0.1 first."""

    def addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        found = gather(use_ipv4, use_ipv6)
        return [LOOPBACK, *(a for a in found if a != LOOPBACK)] if use_ipv4 else found

    return addresses


def gather_loopback() -> None:
    """From now on this process offers 127.0.0.1 too: for a server that listens on this machine only."""
    if not hasattr(aioice.ice, "get_host_addresses"):
        raise SeamError("aioice.ice has no get_host_addresses")
    aioice.ice.get_host_addresses = with_loopback(aioice.ice.get_host_addresses)


class Ready(Protocol):
    """What is ready to be sent: an encoded picture, a packet of voice."""

    @property
    def payloads(self) -> list[bytes]:
        """RTP payloads, in order."""
        ...

    @property
    def timestamp(self) -> int:
        """RTP time in the codec's clock."""
        ...


class Packer:
    """In the place of a sender's encoder: what comes from the track is packed already, and nothing is encoded."""

    def __init__(self, estimate: Callable[[int], None]) -> None:
        self.budget = ResendBudget()
        self._estimate = estimate
        self._bits = 0

    def pack(self, ready: Ready) -> tuple[list[bytes], int]:
        """Same contract as aiortc's `Encoder.pack`: payloads and RTP time."""
        self.budget.sent(sum(map(len, ready.payloads)))
        return ready.payloads, ready.timestamp

    @property
    def target_bitrate(self) -> int:
        """The receiver's last estimate (REMB) in bits a second."""
        return self._bits

    @target_bitrate.setter
    def target_bitrate(self, bits_per_second: int) -> None:
        self._bits = bits_per_second
        self._estimate(bits_per_second)


def send_packed(
    sender: RTCRtpSender, estimate: Callable[[int], None] = lambda _: None, ask_key: Callable[[], None] = lambda: None
) -> None:
    """The sender's track gives what is `Ready`; the receiver's estimates (REMB) and its wishes for a key frame (PLI,
    FIR) go to the callbacks; packets are sent again within a budget. Call it before the connection stands; raises
    `SeamError`."""
    for name in (_ENCODER, _HISTORY, "_send_keyframe", "_retransmit"):
        if not hasattr(sender, name):
            raise SeamError(f"aiortc's RTCRtpSender has no {name}")
    packer = Packer(estimate)
    resend = sender._retransmit

    async def within_budget(sequence_number: int) -> None:
        packet = getattr(sender, _HISTORY).get(sequence_number % RTP_HISTORY_SIZE)
        kept = packet is not None and packet.sequence_number == sequence_number
        if kept and packer.budget.take(len(packet.payload)):
            await resend(sequence_number)
        elif packer.budget.key_due(time.monotonic()):
            ask_key()

    setattr(sender, _ENCODER, packer)
    sender._send_keyframe = ask_key
    sender._retransmit = within_budget


def received_packets(connection: RTCPeerConnection) -> int:
    """Datagrams of media, feedback and data that have come in: a peer that has gone sends none."""
    total = 0
    for transport in {t.receiver.transport for t in connection.getTransceivers()}:
        for stats in transport._get_stats().values():
            total += stats.packetsReceived
    return total


async def close(connection: RTCPeerConnection) -> None:
    """Closes, and ends what aioice leaves running when a connection is closed in the moment in which it comes about:
    the task that asks every 5 s whether the other side still consents (RFC 7675), for ever."""
    transports = {t.receiver.transport.transport for t in connection.getTransceivers()}
    await connection.close()
    agents = [transport._connection for transport in transports]
    if any(agent._query_consent_task is None for agent in agents):
        await asyncio.sleep(CHECK_PAUSE_S)  # `connect`, resumed once more, starts that task
    left = [a._query_consent_task for a in agents if a._query_consent_task and not a._query_consent_task.done()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def expect_hang_ups(loop: asyncio.AbstractEventLoop) -> None:
    """aiortc connects in a task that nobody awaits; when the caller hangs up meanwhile it ends with InvalidStateError,
    which the loop would log as an error with its traceback. Everything else is logged as before."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, InvalidStateError) and "closed" in str(error):
            logger.debug("a call was hung up while it came about: %s", error)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
