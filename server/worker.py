"""The inference thread: one for the process, serving every call in fair turns.

In: microphone packets and orders, through bounded mailboxes. Out: frames, the latest wins; the state of speech; a
call's failure. Remembers: the seats taken. Latency: the wait for a turn, at most two packets of each other call.

The event loop never waits for the model, and the model never sees the loop. An exception in one call's stages ends that
call alone. When nobody speaks the media clock feeds silence, so a face lives on without a microphone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final, Protocol, TypeVar

from server import logs
from server.admission import Cost
from server.mailbox import OldestOut, Packet, VoiceLine
from server.pacing import Intake, MediaClock
from svp_stream.clock import FRAME_RATE_HZ, TICKS_PER_SECOND
from svp_stream.packets import AudioChunk, Frame, SpeechState
from svp_stream.pipeline.budget import Budget
from svp_stream.pipeline.engine import Hushing, StyleRequest
from svp_stream.pipeline.meter import Meter, StageTimes

logger = logging.getLogger(__name__)
T = TypeVar("T")

INBOX_PACKETS: Final = 10
"""200 ms of sound: beyond it the oldest is dropped and media time stands still."""
ORDERS: Final = 32
TURN_PACKETS: Final = 2
"""One video frame's worth of sound a turn: nobody waits long for the others."""
_IDLE_WAIT_S: Final = 1.0


class Street(Protocol):
    """What the thread asks of one person's stages: `svp_stream.pipeline.session.Session` and the fakes of the tests."""

    effort: int

    @property
    def latency(self) -> int: ...

    @property
    def meter(self) -> Meter: ...

    def push(self, chunk: AudioChunk) -> list[Frame]: ...

    def take_states(self) -> list[SpeechState]: ...

    def set_style(self, style: StyleRequest) -> None: ...

    def set_avatar(self, name: str) -> None: ...


class FrameSink(Protocol):
    """Where the pictures of a seat go."""

    def put(self, frame: Frame) -> None:
        """Called on the thread; must not wait."""
        ...


Order = Callable[[Street], None]
COSTS: Final = 25
"""Frames whose cost is remembered: a second's."""


class Seat:
    """One call's place at the thread. `hear` and `tell` are for the loop, `turn` and `due_s` for the thread.

    `on_state` and `on_failure` are called in the thread and must not wait.
    """

    def __init__(
        self,
        street: Street,
        clock: MediaClock,
        frames: FrameSink,
        voice: VoiceLine,
        budget: Budget,
        *,
        on_state: Callable[[SpeechState], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.street = street
        self.intake = Intake(clock)
        self.inbox: OldestOut[Packet] = OldestOut(INBOX_PACKETS, lambda packet: len(packet.samples))
        self.orders: OldestOut[Order] = OldestOut(ORDERS)
        self.budget = budget
        self.on_failure = on_failure
        self._on_state = on_state
        self._frames = frames
        self._voice = voice
        self.key = ""
        """What the session is called in log lines."""
        self.costs: tuple[Cost, ...] = ()
        """What the last frames cost, oldest first; replaced as a whole, so that any thread may read it."""
        self._spent_s = 0.0
        self._times: Mapping[str, StageTimes] = {}
        self._times_at_s = 0.0
        self._hush_asked = False

    def times(self) -> Mapping[str, StageTimes]:
        """Milliseconds by stage, at most a second old: a snapshot that the thread itself took."""
        return self._times

    def due_s(self) -> float:
        """The wall time at which there is something to do even if nothing comes in."""
        return self.intake.idle_due_s()

    def hush(self) -> None:
        """An interrupt, from the loop: sound that nobody has seen or heard yet is forgotten, wherever it waits.

        Picture and voice fall silent at the same media time. Wake the worker after it.
        """
        self.inbox.clear()
        self._hush_asked = True

    def turn(self, now_s: float, allowance_ms: float) -> bool:
        """Work for at most `TURN_PACKETS`; whether there was anything to do."""
        if self._hush_asked:
            self._hush()
        orders = self.orders.take(ORDERS)
        for order in orders:
            order(self.street)
        lost = self.inbox.take_lost()
        if lost:
            self.intake.skip(lost)
        packets = self.inbox.take(TURN_PACKETS)
        for packet in packets:
            for chunk in self.intake.hear(packet.arrived_s, packet.mic_pts, packet.samples):
                self._push(chunk, packet.arrived_s, allowance_ms)
        if not packets:
            due_s = self.due_s()
            for chunk in self.intake.idle(now_s):
                self._push(chunk, due_s, allowance_ms)
                packets = [Packet(now_s, 0, chunk.samples)]
        return bool(orders or packets)

    def _hush(self) -> None:
        self._hush_asked = False
        self._voice.cut(self.street.hush() if isinstance(self.street, Hushing) else self.intake.fed)

    def _push(self, chunk: AudioChunk, due_s: float, allowance_ms: float) -> None:
        """Feeds one chunk that could have been fed from `due_s` on, and lets the ladder judge what it cost."""
        started_s = time.monotonic()
        self._voice.write(chunk)
        frames = self.street.push(chunk)
        for state in self.street.take_states():
            self._on_state(state)
        for frame in frames:
            self._frames.put(frame)
        ended_s = time.monotonic()
        self._spent_s += ended_s - started_s
        if frames:
            frame_ms = self._spent_s * 1000 / len(frames)
            self.costs = (*self.costs[1 - COSTS :], Cost(self.street.effort, frame_ms))
            self.street.effort = self.budget.decide(
                # what a frame costs is judged by its share: late is only what had to wait before its turn came
                behind_ticks=round((started_s - due_s) * TICKS_PER_SECOND),
                frame_ms=frame_ms,
                allowance_ms=allowance_ms,
                frames=len(frames),
            )
            self._spent_s = 0.0
            if ended_s - self._times_at_s > 1.0:
                self._times, self._times_at_s = self.street.meter.snapshot(), ended_s


class Worker:
    """Owns the thread. `ask` runs anything on it; `admit` and `dismiss` seats."""

    def __init__(self) -> None:
        self._seats: dict[int, Seat] = {}
        self._jobs: OldestOut[Callable[[], None]] = OldestOut(256)
        self._bell = threading.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End after the turn in hand; whether the thread ended in `timeout_s`. Blocks: not for the event loop."""
        self._stopping = True
        self._bell.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def seats(self) -> int:
        """How many calls are being served."""
        return len(self._seats)

    def costs(self) -> list[tuple[Cost, ...]]:
        """What the last frames of each call cost."""
        with self._lock:
            return [seat.costs for seat in self._seats.values()]

    def ask(self, job: Callable[[], T]) -> Future[T]:
        """Run `job` on the thread, between turns; the future carries its result or its exception."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except Exception as error:  # noqa: BLE001 - whatever a job raises belongs to the one who asked
                    future.set_exception(error)

        self._jobs.put(run)
        self._bell.set()
        return future

    def admit(self, seat: Seat) -> None:
        """From now on `seat` gets its turns."""
        with self._lock:
            self._seats[id(seat)] = seat
        self._bell.set()

    def dismiss(self, seat: Seat) -> None:
        """No further turn for `seat`; one in hand ends by itself. Harmless for a seat that was never admitted."""
        with self._lock:
            self._seats.pop(id(seat), None)

    def wake(self) -> None:
        """Something was put into a mailbox."""
        self._bell.set()

    def _run(self) -> None:
        while not self._stopping:
            self._bell.clear()
            jobs = self._jobs.take(1)
            for job in jobs:
                job()
            with self._lock:
                seats = list(self._seats.values())
            allowance_ms = 1000 / FRAME_RATE_HZ / max(1, len(seats))
            busy = [self._turn(seat, allowance_ms) for seat in seats]
            if not jobs and not any(busy):
                self._rest(seats)
        logger.debug("the inference thread has ended")

    def _turn(self, seat: Seat, allowance_ms: float) -> bool:
        try:
            with logs.about(seat.key):
                return seat.turn(time.monotonic(), allowance_ms)
        except Exception as error:  # noqa: BLE001 - a model may raise anything: it ends this call and no other
            with logs.about(seat.key):
                logger.exception("a call failed in its stages")
            self.dismiss(seat)
            seat.on_failure(error)
            return True

    def _rest(self, seats: list[Seat]) -> None:
        due_s = min((seat.due_s() for seat in seats), default=float("inf"))
        self._bell.wait(max(0.0, min(_IDLE_WAIT_S, due_s - time.monotonic())))
