"""The inference thread: fair turns, jobs, failures that stay where they are, the ladder."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from server.mailbox import Packet, VoiceLine
from server.pacing import MediaClock
from server.worker import Seat, Worker
from svp_stream.packets import Frame
from svp_stream.pipeline.budget import Budget, Ladder
from tests.fakes.engines import FakeStreet, Faults

TONE = np.full(960, 0.5, np.float32)


def eventually(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    ends = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)


class Pile:
    """Takes all pictures."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def put(self, frame: Frame) -> None:
        self.frames.append(frame)


class Place:
    """A seat and what came out of it."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.street = FakeStreet(faults or Faults())
        self.clock = MediaClock(time.monotonic())
        self.frames = Pile()
        self.states: list[bool] = []
        self.failures: list[Exception] = []
        self.seat = Seat(
            self.street, self.clock, self.frames, VoiceLine(48_000), Budget(),
            on_state=lambda s: self.states.append(s.speaking), on_failure=self.failures.append,
        )  # fmt: skip

    def hear(self, packets: int, first: int = 0) -> None:
        for i in range(first, first + packets):
            self.seat.inbox.put(Packet(self.clock.due_s((i + 1) * 960), i * 960, TONE))


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    made.start()
    yield made
    assert made.stop()


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.loop.close()


def test_sound_becomes_frames_and_states(worker: Worker, place: Place) -> None:
    worker.admit(place.seat)
    place.hear(6)
    worker.wake()
    eventually(lambda: place.street._number >= 3)
    assert place.states[0] is True
    eventually(lambda: False in place.states)  # then nothing comes and silence is fed


def test_jobs_run_in_the_thread_and_bring_back_what_they_raise(worker: Worker) -> None:
    assert worker.ask(lambda: threading.current_thread().name).result(5) == "inference"
    with pytest.raises(ZeroDivisionError):
        worker.ask(lambda: 1 // 0).result(5)
    assert worker.ask(lambda: 5).result(5) == 5


def test_a_failing_seat_is_dismissed_and_the_others_go_on(worker: Worker, place: Place) -> None:
    bad = Place(Faults(raise_at_s=0.0))
    worker.admit(bad.seat)
    worker.admit(place.seat)
    eventually(lambda: bool(bad.failures))
    assert isinstance(bad.failures[0], RuntimeError)
    before = place.street._number
    eventually(lambda: place.street._number > before + 2)
    assert worker.seats == 1 and len(bad.failures) == 1
    bad.loop.close()


def test_turns_are_fair(worker: Worker, place: Place) -> None:
    slow = Place(Faults(frame_takes_s=0.03))
    slow.hear(10)
    place.hear(10)
    worker.admit(slow.seat)
    worker.admit(place.seat)
    eventually(lambda: place.street._number >= 5)
    assert slow.street._number <= 6, "nobody is served to the end before the others have a turn"
    worker.dismiss(slow.seat)
    slow.loop.close()


def test_a_dismissed_seat_gets_no_further_turn(worker: Worker, place: Place) -> None:
    worker.admit(place.seat)
    eventually(lambda: place.street._number > 0)
    worker.dismiss(place.seat)
    worker.dismiss(place.seat)
    worker.ask(lambda: None).result(5)
    number = place.street._number
    place.hear(4)
    worker.wake()
    worker.ask(lambda: None).result(5)
    assert place.street._number == number


def test_orders_are_carried_out_in_the_thread(worker: Worker, place: Place) -> None:
    worker.admit(place.seat)
    names: list[str] = []
    place.seat.orders.put(lambda street: names.append(threading.current_thread().name))
    worker.wake()
    eventually(lambda: names == ["inference"])


def test_work_that_is_too_slow_goes_down_the_ladder_and_sound_is_dropped_from_the_oldest(worker: Worker) -> None:
    slow = Place(Faults(frame_takes_s=0.09))
    worker.admit(slow.seat)
    for i in range(100):
        slow.seat.inbox.put(Packet(time.monotonic(), i * 960, TONE))
        worker.wake()
        time.sleep(0.01)
    eventually(lambda: slow.street.effort > 0 or slow.seat.budget.drops.snapshot()["repeated"] > 0)
    worker.dismiss(slow.seat)
    assert slow.seat.inbox.dropped > 0
    slow.loop.close()


def test_after_a_long_stall_the_clock_is_put_back_by_all_that_was_lost(place: Place) -> None:
    """Otherwise silence is made up for sound that was thrown away, which costs more than it caught up."""
    arrivals = [place.clock.due_s((i + 1) * 960) for i in range(200)]
    place.hear(200)
    while len(place.seat.inbox):
        place.seat.turn(arrivals[-1], 40.0)
    assert place.seat.intake.filled == 0
    assert place.seat.intake.behind(arrivals[-1]) == 0


def test_stop_ends_the_thread() -> None:
    worker = Worker()
    assert worker.stop()
    running = Worker()
    running.start()
    assert running.stop()


@pytest.mark.parametrize("greedy", [2, 3])
def test_greedy_sessions_get_equal_frames_on_a_slow_engine(worker: Worker, greedy: int) -> None:
    """Each always has sound waiting, one floods orders besides; after any time they are a frame or two apart."""
    places = [Place(Faults(frame_takes_s=0.01)) for _ in range(greedy)]
    for made in places:
        made.seat.budget = Budget(Ladder(worst=0))
        worker.admit(made.seat)
    fed = [0] * greedy

    def feed() -> bool:
        for i, made in enumerate(places):
            room = 8 - len(made.seat.inbox)
            made.hear(room, fed[i])
            fed[i] += room
        places[0].seat.orders.put(lambda street: None)
        worker.wake()
        return min(made.street._number for made in places) >= 30

    eventually(feed, 30.0)
    numbers = [made.street._number for made in places]
    assert max(numbers) - min(numbers) <= 2, f"frames of each: {numbers}"
    for made in places:
        worker.dismiss(made.seat)
        made.loop.close()


def test_a_failure_in_the_midst_of_greedy_sessions_takes_nothing_from_the_others(worker: Worker) -> None:
    places = [Place(Faults(frame_takes_s=0.005)), Place(Faults(raise_at_s=0.2)), Place(Faults(frame_takes_s=0.005))]
    for made in places:
        made.hear(10)
        worker.admit(made.seat)
    eventually(lambda: len(places[1].failures) == 1)
    for made in places[::2]:
        made.hear(10, 10)
        before = made.street._number
        eventually(lambda made=made, before=before: made.street._number > before)  # type: ignore[misc]
    assert worker.seats == 2 and not places[0].failures and not places[2].failures
    for made in places:
        worker.dismiss(made.seat)
        made.loop.close()


def test_what_frames_cost_is_told_with_their_rung(worker: Worker, place: Place) -> None:
    place.street._faults.frame_takes_s = 0.004
    worker.admit(place.seat)
    place.hear(10)
    worker.wake()
    eventually(lambda: len(place.seat.costs) >= 4)
    assert all(cost.ms >= 4 for cost in place.seat.costs if cost.level < 4)
    assert worker.costs() and len(worker.costs()[0]) <= 25


@pytest.mark.parametrize(("takes_s", "waits_s", "worse"), [(0.022, 0.0, False), (0.002, 0.045, True)])
def test_late_is_what_waited_not_what_takes_its_time(takes_s: float, waits_s: float, worse: bool) -> None:
    """A frame may cost most of its 40 ms; one that begins late may not."""
    place = Place(Faults(frame_takes_s=takes_s))
    place.seat.budget = Budget(Ladder(busy_share=2.5))
    rungs = []
    for number in range(24):
        arrives_s = place.clock.due_s((number + 1) * 960)
        time.sleep(max(0.0, arrives_s + waits_s - time.monotonic()))
        place.seat.inbox.put(Packet(arrives_s, number * 960, TONE))
        place.seat.turn(time.monotonic(), 40.0)
        rungs.append(place.street.effort)
    place.loop.close()
    late = sum(rung > 0 for rung in rungs) / len(rungs)
    assert late > 0.5 if worse else late < 0.25, rungs  # a busy machine makes a frame or two wait by itself
