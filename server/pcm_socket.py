"""An agent's WebSocket: one handler for `/v1/sessions/{id}/audio`, the shell around `pcm_wire` and `playout`.

In: messages of one agent. Out: packets for the session's source at the pace of time, events for the agent.
Remembers: the playout; at most `EVENTS` events that have not left. Latency: none beyond the playout's.

Three tasks, and whichever ends first ends the socket: the reader (waits for nothing but messages, so that an interrupt
is never queued behind sound), the player (every 20 ms), the writer. However it ends, what was being said is cut, each
unfinished segment gets its `playback_finished`, and the session is free for another source at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from server import pcm_wire
from server.control import ListenOrder, Ping
from server.live import Live, Source, SourceTaken
from server.mailbox import Packet
from server.pacing import PACKET_TICKS
from server.pcm_wire import End, Event, Interrupt, PlaybackFinished, Pong, Refused, Start, State, Welcome, WireError
from server.playout import Bounds, Playout
from server.voice_track import MARGIN_TICKS
from server.worker import INBOX_PACKETS
from svp_stream.clock import TICKS_PER_SECOND, ticks_to_ms
from svp_stream.errors import CapacityError

logger = logging.getLogger(__name__)

KIND: Final = "pcm"
EVENTS: Final = 1024
"""Room for the end of every segment that may wait, and for what else there is to tell."""
WAITING_PACKETS: Final = INBOX_PACKETS // 2
"""While so much waits at a busy inference thread, sound stays in the playout, where it is not dropped."""
REASON_BYTES: Final = 123
"""RFC 6455 section 5.5: a close frame carries 125, two of them are the code."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait for an agent, in seconds, and how much nonsense we take."""

    idle_s: float = 300.0
    """Without any message, a `ping` for instance."""
    write_s: float = 5.0
    """For an event to leave: an agent that does not read is let go."""
    farewell_s: float = 1.0
    malformed: int = 64


class Counts:
    """What all agents of a server come to; made once for each registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.agents = Gauge("svp_agents", "Voice agents connected", registry=registry)
        self.turned_away = Counter("svp_agents_turned_away", "Agents who found the session taken", registry=registry)
        self.playback = Counter(
            "svp_playback_finished", "Segments of agents, by how they ended", ["how"], registry=registry
        )  # fmt: skip
        self.refused_s = Counter("svp_agent_refused_seconds", "Sound of agents beyond the bound", registry=registry)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a socket ends; without a `code` it has gone already."""

    code: int | None
    words: str


class Agent:
    """One agent at one session. `run` serves it; a session that ends calls `close` (it is a `live.Attached`)."""

    def __init__(
        self, socket: WebSocket, live: Live, counts: Counts, bounds: Bounds | None = None,
        patience: Patience | None = None,
    ) -> None:  # fmt: skip
        self._socket = socket
        self._live = live
        self._counts = counts
        self._patience = patience or Patience()
        street = live.seat.street.latency
        self._street_ms = ticks_to_ms(street)
        self._playout = Playout((street + MARGIN_TICKS) / TICKS_PER_SECOND, bounds)
        self._events: asyncio.Queue[Event] = asyncio.Queue(EVENTS)
        self._told: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self._malformed = 0
        self._listens = False
        self._refused_ticks = 0

    async def run(self) -> None:
        """Until the agent goes, is let go, or the session ends.

        Raises `SourceTaken`, or `CapacityError` for a session with too many listeners, before anything has begun.
        """
        source = self._live.take_source(KIND)
        try:
            self._live.attach(self)
            leave = self._live.desk.listen(self._hear)
            verdict = Verdict(None, "its socket has failed")
            self._counts.agents.inc()
            try:
                self._welcome()
                verdict = await self._serve(source)
            finally:
                leave()
                if self._listens:
                    self._live.desk.order_listen(ListenOrder(on=False))
                self._counts.agents.dec()
                self._cut(source, verdict)
        finally:
            source.release()
            self._live.detach(self, owner=False)
            self._gone.set()
        await self._part(verdict)

    async def close(self, reason: str) -> None:
        """The session ends: let the agent know, and wait until it no longer feeds the session."""
        self._end(pcm_wire.ENDED, reason)
        await self._gone.wait()

    async def _serve(self, source: Source) -> Verdict:
        tasks = [
            asyncio.create_task(work, name=f"agent {self._live.key}")
            for work in (self._read(source), self._play(source), self._write())
        ]
        try:
            await asyncio.wait([*tasks, self._told], return_when=asyncio.FIRST_COMPLETED)
            ended = next((task for task in tasks if task.done()), None)
            return self._told.result() if ended is None else ended.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, source: Source) -> Verdict:
        while True:
            try:
                async with asyncio.timeout(self._patience.idle_s):
                    message = await self._socket.receive()
            except TimeoutError:
                return Verdict(pcm_wire.IDLE, f"nothing came for {self._patience.idle_s:.0f} s; send 'ping' to stay")
            if message["type"] != "websocket.receive":
                return Verdict(None, f"the agent has gone ({message.get('code', 'no code')})")
            try:
                self._take(source, message)
            except WireError as error:
                self._tell([Refused(error.code, str(error))])
                self._malformed += 1
                if self._malformed > self._patience.malformed:
                    return Verdict(pcm_wire.TOO_GARBLED, f"{self._malformed} messages could not be read")

    def _take(self, source: Source, message: Mapping[str, Any]) -> None:
        """One message; raises `WireError`."""
        now_s, data = time.monotonic(), message.get("bytes")
        if data is not None:
            self._playout.feed(now_s, pcm_wire.samples(data))
            return
        match order := pcm_wire.parse(message.get("text") or ""):
            case Start(rate_hz=rate_hz, segment=name):
                self._playout.start(rate_hz, name)
            case End():
                self._playout.end()
            case Interrupt(id=id):
                if self._playout.busy:
                    source.drop_pending()
                self._tell(self._playout.interrupt(now_s, id))
            case ListenOrder():
                self._live.desk.order_listen(order)
                self._listens = order.on
            case Ping(t=t, id=id):
                self._tell([Pong(t, id)])
            case None:
                logger.debug("session %s: a message of a type that is not known here", self._live.key)

    async def _play(self, source: Source) -> Verdict:
        while True:
            await asyncio.sleep(max(0.0, self._playout.due_s() - time.monotonic()))
            now_s, pts = time.monotonic(), self._playout.pts
            packets, events = self._playout.step(now_s, self._room())
            for number, samples in enumerate(packets):
                source.deliver(Packet(now_s, pts + number * PACKET_TICKS, samples))
            self._tell(events)

    def _room(self) -> int:
        """How many packets the session takes now: none before it has begun, few while its thread is busy."""
        return max(0, WAITING_PACKETS - len(self._live.seat.inbox)) if self._live.begun else 0

    async def _write(self) -> Verdict:
        while True:
            event = await self._events.get()
            try:
                async with asyncio.timeout(self._patience.write_s):
                    await self._socket.send_text(pcm_wire.write(event))
            except TimeoutError:
                return Verdict(pcm_wire.NOT_READING, f"an event could not leave for {self._patience.write_s:.0f} s")
            except (WebSocketDisconnect, RuntimeError, OSError):  # what Starlette raises for a socket that has gone
                return Verdict(None, "the agent has gone")

    def _tell(self, events: Sequence[Event]) -> None:
        """Queue events; an agent with too many unread ones is let go."""
        for event in events:
            if isinstance(event, PlaybackFinished):
                self._counts.playback.labels("interrupted" if event.interrupted else "whole").inc()
            try:
                self._events.put_nowait(event)
            except asyncio.QueueFull:
                self._end(pcm_wire.NOT_READING, f"{EVENTS} events wait to be read")
        refused = self._playout.refused_ticks
        if refused > self._refused_ticks:
            self._counts.refused_s.inc((refused - self._refused_ticks) / TICKS_PER_SECOND)
            self._refused_ticks = refused

    def _welcome(self) -> None:
        bounds = self._playout.bounds
        limits_ms = (1000 * bounds.bound_s, 1000 * bounds.high_s, 1000 * bounds.low_s)
        self._tell([Welcome(self._live.id, self._street_ms, *limits_ms)])

    def _hear(self, kind: str, fields: dict[str, Any]) -> None:
        """Events of the session that concern an agent."""
        if kind == "state":
            self._tell([State(fields["state"])])
        elif kind == "error":
            self._tell([Refused(str(fields["code"]), str(fields["message"]))])

    def _end(self, code: int, words: str) -> None:
        if not self._told.done():
            self._told.set_result(Verdict(code, words))

    def _cut(self, source: Source, verdict: Verdict) -> None:
        """Whatever was being said ends here, and is accounted for."""
        if self._playout.busy:
            source.drop_pending()
        left = self._playout.interrupt(time.monotonic())[:-1]
        cut = sum(isinstance(event, PlaybackFinished) and event.interrupted for event in left)
        self._tell(left)
        logger.info(
            "session %s: its agent ends: %s; %d segments played, %d of them cut, %d by this",
            self._live.key, verdict.words, self._playout.finished, self._playout.interrupted, cut,
        )  # fmt: skip

    async def _part(self, verdict: Verdict) -> None:
        """The last events and the close frame, for a socket that can still be told."""
        if verdict.code is None or self._socket.application_state is not WebSocketState.CONNECTED:
            return
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
            async with asyncio.timeout(self._patience.farewell_s):
                if verdict.code != pcm_wire.NOT_READING:
                    while not self._events.empty():
                        await self._socket.send_text(pcm_wire.write(self._events.get_nowait()))
                await dismiss(self._socket, verdict)


async def dismiss(socket: WebSocket, verdict: Verdict) -> None:
    """An `error` with code `closing`, then the close frame with the same words."""
    assert verdict.code is not None
    await socket.send_text(pcm_wire.write(Refused("closing", verdict.words)))
    await socket.close(verdict.code, verdict.words.encode()[:REASON_BYTES].decode(errors="ignore"))


async def serve(socket: WebSocket, live: Live, counts: Counts) -> None:
    """One accepted socket from its first message to its last."""
    try:
        await Agent(socket, live, counts).run()
    except (SourceTaken, CapacityError) as error:
        counts.turned_away.inc()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
            await dismiss(socket, Verdict(pcm_wire.TAKEN, str(error)))
