"""A live session: one avatar on stage, tied to no connection. Sources and viewers come and go.

In: sound of at most one source at a time, orders. Out: pictures and voice for any number of viewers, events.
Remembers: the clock, the seat at the inference thread, what it is set to, who is attached.

    staged ─▶ begun (clock at 0, seat admitted: at once, or with the first connection) ─▶ closing ─▶ closed
                └─ told to, its stages failed, or nobody there for `limits.linger_s` ──┘
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from server.desk import Desk
from server.feed import PictureFeed
from server.health import Metrics
from server.ice import Ice
from server.mailbox import Packet, VoiceLine
from server.mic import LevelMeter
from server.pacing import MediaClock
from server.press import Press
from server.report import Report
from server.studio import Manner, Studio
from server.voice_track import VoiceFeed
from server.worker import Seat, Street, Worker
from svp_stream.clock import TICKS_PER_SECOND
from svp_stream.config import Media

logger = logging.getLogger(__name__)

VOICE_LINE_TICKS: Final = 4 * TICKS_PER_SECOND
FAREWELL_S: Final = 0.25
"""Time for the last words on the data channels to leave."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long we wait, in seconds, and for how many connections there is room."""

    connect_s: float = 15.0
    silence_s: float = 4.0
    stats_s: float = 1.0
    linger_s: float = 60.0
    """How long a session without source and viewer lives on."""
    connections: int = 256


@dataclass(frozen=True, slots=True)
class Backstage:
    """What every session of a server shares."""

    studio: Studio
    worker: Worker
    press: Press
    metrics: Metrics
    media: Media
    limits: Limits
    paths: Ice = field(default_factory=Ice)


class SourceTaken(Exception):
    """Another source feeds the session already (HTTP 409)."""


class Attached(Protocol):
    """A connection as a session sees it."""

    async def close(self, reason: str) -> None:
        """End it."""
        ...


class Source:
    """The one source of sound of a session, made by `Live.take_source`. Loop thread only."""

    def __init__(self, live: Live, kind: str) -> None:
        self.kind = kind
        self.level = LevelMeter()
        self._live: Live | None = live

    def deliver(self, packet: Packet) -> None:
        """Sound as it arrives; before the session has begun and after `release` it is dropped."""
        live = self._live
        if live is not None and live.begun:
            self.level.hear(packet.samples)
            live.seat.inbox.put(packet)
            live.worker.wake()

    def drop_pending(self) -> None:
        """Forget sound that the model has not heard; silence takes its place."""
        if self._live is not None:
            self._live.seat.inbox.clear()

    def release(self) -> None:
        """Make room for another source; idempotent."""
        live, self._live = self._live, None
        if live is not None and live.source is self:
            live.source = None


class Live:
    """One avatar on stage. Made by `Signaling`, ended with `close`; `on_closed` is called once, when all is freed."""

    def __init__(
        self, id: str, key: str, back: Backstage, street: Street, manner: Manner, *, echo: bool,
        on_closed: Callable[[Live], None],
    ) -> None:  # fmt: skip
        self.id, self.key = id, key
        self.since_s = time.time()
        self.begun = False
        self.worker = back.worker
        self.source: Source | None = None
        self.clock = MediaClock(time.monotonic())
        self.pictures = PictureFeed(self.clock, back.press, back.media)
        voice = VoiceLine(VOICE_LINE_TICKS)
        self.voice = VoiceFeed(self.clock, voice, street.latency, back.media.audio_kbps * 1000)
        self.seat = Seat(
            street, self.clock, self.pictures, voice, back.studio.budget(),
            on_state=lambda state: self.pictures.post(lambda: self.desk.state(state)),
            on_failure=lambda error: self.pictures.post(lambda: self._fail(error)),
        )  # fmt: skip
        self.desk = Desk(id, key, back.studio, back.worker, self.seat, manner, echo=echo)
        self.report = Report(self.seat, self.pictures, self.voice)
        self._limits, self._metrics, self._paths = back.limits, back.metrics, back.paths
        self._on_closed = on_closed
        self._attached: list[Attached] = []
        self._loop = asyncio.get_running_loop()
        self._closing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._watch(), "watch")

    @property
    def state(self) -> str:
        """`connecting` (nothing has begun), `connected` or `closing`."""
        if self._closing is not None:
            return "closing"
        return "connected" if self.begun else "connecting"

    @property
    def connections(self) -> int:
        """How many connections are attached."""
        return len(self._attached)

    def begin(self) -> None:
        """Media time 0 is now, and the seat gets its turns; only the first call counts."""
        if not self.begun and self._closing is None:
            self.begun = True
            self.clock.restart(time.monotonic())
            self.worker.admit(self.seat)

    def take_source(self, kind: str) -> Source:
        """From now on this source feeds the session; raises `SourceTaken` while another one does."""
        if self.source is not None:
            raise SourceTaken(f"the session is fed by another source already ({self.source.kind}): end that one first")
        self.source = Source(self, kind)
        return self.source

    def attach(self, connection: Attached) -> None:
        """A connection has come: the session lives on while it is there, and ends it when it ends itself."""
        self._attached.append(connection)

    def detach(self, connection: Attached, *, owner: bool) -> None:
        """It has gone; a session whose `owner` it was (a call), or that never began, goes too."""
        if connection in self._attached:
            self._attached.remove(connection)
        if owner or not (self._attached or self.begun):
            self.begin_close("its connection has ended")

    def begin_close(self, reason: str) -> None:
        """Start ending the session, whoever asks; `close` waits for the end."""
        if self._closing is None:
            logger.info("session %s ends: %s", self.key, reason)
            self._closing = self._loop.create_task(self._close(reason), name=f"close {self.key}")

    async def close(self, reason: str) -> None:
        """End the session and its connections, and wait until everything is freed."""
        self.begin_close(reason)
        assert self._closing is not None
        await asyncio.shield(self._closing)

    async def _close(self, reason: str) -> None:
        self.worker.dismiss(self.seat)
        if self.source is not None:
            self.source.release()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(c.close(reason) for c in [*self._attached]), return_exceptions=True)
        self.pictures.close()
        self.voice.close()
        self._on_closed(self)

    async def _watch(self) -> None:
        """Reports each second; ends the session when nobody has been there for long."""
        alone_s = 0.0
        while True:
            await asyncio.sleep(self._limits.stats_s)
            if self.begun:
                db = self.source.level.take_db() if self.source is not None else None
                self.desk.tell("stats", **self.report.take(db, self._metrics), ice=self._paths.problems())
            # counted in looks, not in wall time: a machine that stands still keeps nobody away
            alone_s = 0.0 if self.source is not None or self._attached else alone_s + self._limits.stats_s
            if alone_s >= self._limits.linger_s:
                self.begin_close(f"no source and no viewer for {self._limits.linger_s:.0f} s")

    def _fail(self, error: Exception) -> None:
        """The stages raised: say so, then end this session (the others go on)."""
        if self._closing is None:
            self._metrics.failed.inc()
            self.desk.error("engine", f"the avatar has failed: {type(error).__name__}")
            self._spawn(self._part(), "farewell")

    async def _part(self) -> None:
        await asyncio.sleep(FAREWELL_S)
        self.begin_close("its stages have failed")

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = self._loop.create_task(work, name=f"{what} {self.key}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("session %s: task %s failed", self.key, task.get_name(), exc_info=task.exception())
            self.begin_close("one of its tasks has failed")
