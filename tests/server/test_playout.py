"""Playing at the pace of time: order, position, bounds, cuts, and exactly one end for each beginning."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.pacing import Intake, MediaClock
from server.pcm_wire import Backpressure, Interrupted, PlaybackFinished, PlaybackStarted, Refused
from server.playout import MAX_SEGMENTS, PACKET_S, PREBUFFER_TICKS, Bounds, Playout, PlayoutEvent
from svp_stream.packets import Float32

DELAY_S = 0.166
LOUD = np.full(48_000, 16_384, np.int16)


class Stage:
    """A playout with a clock of its own; keeps what came out."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.playout = Playout(DELAY_S, bounds)
        self.now_s = 100.0
        self.packets: list[Float32] = []
        self.events: list[tuple[float, PlayoutEvent]] = []
        self.run(0.0)

    def run(self, seconds: float, tick_s: float = 0.005) -> None:
        ends = self.now_s + seconds
        while True:
            packets, events = self.playout.step(self.now_s)
            self.packets += packets
            self.events += [(self.now_s, event) for event in events]
            if self.now_s >= ends:
                return
            self.now_s += tick_s

    def speak(self, ms: int, name: str | None = None, rate_hz: int = 16_000, end: bool = True) -> None:
        self.playout.start(rate_hz, name)
        self.playout.feed(self.now_s, np.full(rate_hz * ms // 1000, 16_384, np.int16))
        if end:
            self.playout.end()

    def interrupt(self) -> list[PlayoutEvent]:
        events = self.playout.interrupt(self.now_s)
        self.events += [(self.now_s, event) for event in events]
        return events

    def told(self, kind: type[PlayoutEvent]) -> list[PlayoutEvent]:
        return [event for _, event in self.events if isinstance(event, kind)]

    def at(self, event: PlayoutEvent) -> float:
        return next(at for at, other in self.events if other == event)

    def loud_ms(self) -> float:
        sound = np.concatenate(self.packets)
        return float((np.abs(sound) > 0.2).sum() / 48)


def test_faster_than_time_is_played_in_time_in_order_and_told() -> None:
    stage = Stage()
    for name in "abc":
        stage.speak(300, name)
    began_s = stage.now_s
    stage.run(0.5)
    assert len(stage.packets) == pytest.approx(25, abs=1)
    stage.run(1.0)
    assert [e for _, e in stage.events] == [
        event for name in "abc" for event in (PlaybackStarted(name), PlaybackFinished(name, 300.0, False))
    ]
    assert stage.at(PlaybackStarted("a")) - began_s == pytest.approx(DELAY_S, abs=0.03)
    assert stage.at(PlaybackFinished("c", 300.0, False)) - began_s == pytest.approx(0.9 + DELAY_S, abs=0.03)
    assert stage.loud_ms() == pytest.approx(900, abs=3), "segments follow each other without a gap or a loss"
    sound = np.abs(np.concatenate(stage.packets))
    first = int(np.argmax(sound > 0.2))
    assert (sound[first + 60 : first + 43_000] > 0.2).all(), "no gap between segments"


def test_silence_comes_like_a_microphones() -> None:
    stage = Stage()
    stage.run(1.0)
    assert len(stage.packets) == pytest.approx(50, abs=1) and stage.playout.pts == 960 * len(stage.packets)
    assert all(len(p) == 960 and not p.any() for p in stage.packets) and not stage.events


@pytest.mark.parametrize("rate_hz", [16_000, 24_000, 48_000])
def test_the_position_of_a_cut_is_what_was_heard(rate_hz: int) -> None:
    stage = Stage()
    stage.speak(5000, "long", rate_hz)
    stage.run(1.0)
    *_, finished, cut = stage.interrupt()
    assert isinstance(finished, PlaybackFinished) and finished.interrupted
    assert finished.position_ms == pytest.approx(1000 - 1000 * DELAY_S, abs=25)
    assert isinstance(cut, Interrupted) and cut.segments == ("long",)
    assert cut.dropped_ms == pytest.approx(5000 - finished.position_ms, abs=0.1)
    stage.packets.clear()
    stage.run(0.5)
    assert not np.concatenate(stage.packets).any(), "not one sample of what was cut"
    assert stage.playout.buffered == 0 and not stage.playout.busy


def test_what_was_played_but_not_yet_heard_is_cut_too() -> None:
    stage = Stage()
    stage.speak(300, "short")
    stage.run(0.35)
    assert stage.playout.buffered == 0 and stage.playout.busy
    finished = stage.interrupt()[0]
    assert isinstance(finished, PlaybackFinished) and finished.interrupted and 100 < finished.position_ms < 300


@pytest.mark.parametrize("wait_s", [0.0, 0.02, 0.1])
def test_interrupt_before_anything_was_heard(wait_s: float) -> None:
    stage = Stage()
    stage.speak(500, "a", end=False)
    stage.playout.start(24_000, "b")
    stage.run(wait_s)
    assert stage.interrupt() == [
        PlaybackFinished("a", 0.0, True), PlaybackFinished("b", 0.0, True), Interrupted(("a", "b"), 500.0),
    ]  # fmt: skip
    stage.run(1.0)
    assert not stage.told(PlaybackStarted)


def test_two_interrupts_race() -> None:
    stage = Stage()
    stage.speak(500, "a")
    stage.run(0.3)
    stage.interrupt()
    assert stage.playout.interrupt(stage.now_s, 7) == [Interrupted((), 0.0, 7)]
    stage.run(1.0)
    assert len(stage.told(PlaybackFinished)) == 1


def test_sound_still_under_way_after_an_interrupt_is_dropped_without_a_word() -> None:
    stage = Stage()
    stage.speak(500, "a", end=False)
    stage.run(0.3)
    stage.interrupt()
    stage.playout.feed(stage.now_s, LOUD)
    stage.playout.end()
    stage.packets.clear()
    stage.run(0.3)
    assert not np.concatenate(stage.packets).any() and not stage.told(Refused)
    stage.speak(100, "b")
    stage.run(0.5)
    assert stage.told(PlaybackFinished)[-1] == PlaybackFinished("b", 100.0, False)


@pytest.mark.parametrize("before", [0, 200])
def test_an_empty_segment_ends_in_its_turn(before: int) -> None:
    stage = Stage()
    if before:
        stage.speak(before, "a")
    stage.playout.start(16_000, "none")
    stage.playout.end()
    stage.speak(100, "z")
    stage.run(1.0)
    names = [e.segment for e in stage.told(PlaybackFinished) if isinstance(e, PlaybackFinished)]
    assert names == [*(["a"] if before else []), "none", "z"]
    assert PlaybackFinished("none", 0.0, False) in stage.told(PlaybackFinished)
    assert PlaybackStarted("none") not in stage.told(PlaybackStarted)


def test_an_end_that_comes_late() -> None:
    stage = Stage()
    stage.speak(200, "a", end=False)
    stage.run(1.0)
    assert not stage.told(PlaybackFinished)
    stage.playout.end()
    stage.run(DELAY_S + 0.03)
    assert stage.told(PlaybackFinished) == [PlaybackFinished("a", 200.0, False)]


def test_a_start_ends_the_segment_before_and_names_are_given() -> None:
    stage = Stage()
    stage.speak(100, end=False)
    stage.speak(100, end=True)
    stage.run(1.0)
    assert stage.told(PlaybackFinished) == [PlaybackFinished("1", 100.0, False), PlaybackFinished("2", 100.0, False)]


def test_a_segment_in_real_time_with_jitter_is_whole() -> None:
    stage = Stage()
    stage.playout.start(16_000, "live")
    rng = np.random.default_rng(1)
    began_s = stage.now_s
    for packet in range(100):
        stage.run(max(0.0, began_s + packet * 0.02 + float(rng.uniform(0, 0.03)) - stage.now_s), 0.001)
        stage.playout.feed(stage.now_s, np.full(320, 16_384, np.int16))
    stage.playout.end()
    stage.run(0.5)
    assert stage.playout.underruns == 0 and stage.loud_ms() == pytest.approx(2000, abs=3)


def test_one_that_runs_dry_fades_waits_and_goes_on() -> None:
    stage = Stage()
    stage.speak(210, "a", end=False)
    stage.run(0.6)
    assert stage.playout.underruns == 1 and stage.playout.busy
    stage.playout.feed(stage.now_s, np.full(160, 16_384, np.int16))
    stage.run(0.1)
    assert stage.playout.underruns == 1, "too little to begin with again"
    stage.playout.feed(stage.now_s, np.full(16_000, 16_384, np.int16))
    stage.playout.end()
    stage.run(1.5)
    assert stage.told(PlaybackFinished) == [PlaybackFinished("a", 1220.0, False)]
    sound = np.concatenate(stage.packets)
    steps = np.abs(np.diff(sound))
    assert int((steps > 0.05).sum()) <= 30, "no click where it stopped or went on; its two ends are the resampler's"
    assert PREBUFFER_TICKS == 2880


def test_beyond_the_bound_the_newest_is_refused_and_told() -> None:
    stage = Stage(Bounds(2.0, 1.0, 0.5))
    stage.playout.start(16_000, "big")
    for _ in range(40):
        stage.playout.feed(stage.now_s, np.full(1600, 16_384, np.int16))
        stage.run(0.0)
    stage.run(1.2)
    refused = [e for e in stage.told(Refused) if isinstance(e, Refused)]
    assert sum(e.dropped_ms or 0 for e in refused) == pytest.approx(2000, abs=25) and 1 <= len(refused) <= 3
    assert {e.code for e in refused} == {"overflow"} and "60" not in refused[0].message and "2 s" in refused[0].message
    stage.playout.end()
    stage.run(1.5)
    pressure = [e for e in stage.told(Backpressure) if isinstance(e, Backpressure)]
    assert [e.on for e in pressure] == [True, False]
    assert pressure[0].buffered_ms == pytest.approx(1100, abs=1) and pressure[1].buffered_ms <= 500
    assert stage.loud_ms() == pytest.approx(2000, abs=30), "what was taken is played whole"


def test_sound_before_any_start_is_told_once() -> None:
    stage = Stage()
    for _ in range(5):
        stage.playout.feed(stage.now_s, LOUD)
    stage.run(0.1)
    assert [e.code for e in stage.told(Refused) if isinstance(e, Refused)] == ["no_segment"]


def test_there_are_only_so_many_segments() -> None:
    stage = Stage()
    for _ in range(MAX_SEGMENTS + 50):
        stage.playout.start(16_000)
        stage.playout.feed(stage.now_s, LOUD[:160])
    stage.run(0.0)
    assert [e.code for e in stage.told(Refused) if isinstance(e, Refused)] == ["too_many_segments"]
    assert len(stage.interrupt()) == MAX_SEGMENTS + 1


def test_after_a_stall_sound_waits_instead_of_bursting() -> None:
    stage = Stage()
    stage.speak(1000, "a")
    stage.run(0.3)
    stage.now_s += 0.5
    stage.packets.clear()
    stage.run(0.0)
    assert len(stage.packets) == 1
    stage.run(1.5)
    assert stage.told(PlaybackFinished) == [PlaybackFinished("a", 1000.0, False)]


def test_a_full_inbox_holds_the_sound_back() -> None:
    stage = Stage()
    stage.speak(400, "a")
    stage.run(0.1)
    held = stage.playout.buffered
    for _ in range(20):
        stage.now_s += 0.02
        packets, _ = stage.playout.step(stage.now_s, 0)
        assert not packets
    assert stage.playout.buffered == held
    stage.run(1.0)
    assert stage.loud_ms() == pytest.approx(400, abs=3)


@pytest.mark.parametrize("bounds", [(1.0, 2.0, 0.5), (2.0, 1.0, 1.0), (2.0, 1.0, 0.0)])
def test_bounds_that_make_no_sense(bounds: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="low_s < high_s <= bound_s"):
        Bounds(*bounds)


class ExactlyOnce(RuleBasedStateMachine):
    """Whatever an agent does: each start that is taken gives one end, in order, and nothing else gives any."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(Bounds(3.0, 1.0, 0.5))
        self.names: list[str] = []
        self.fed: Counter[str] = Counter()
        self.open = False

    @rule(rate=st.sampled_from([16_000, 24_000, 48_000]))
    def start(self, rate: int) -> None:
        name = f"s{len(self.names)}"
        self.names.append(name)
        self.stage.playout.start(rate, name)
        self.open, self.rate = True, rate

    @rule(ms=st.integers(0, 900))
    def feed(self, ms: int) -> None:
        before = self.stage.playout.buffered
        self.stage.playout.feed(self.stage.now_s, np.full(48 * ms, 9000, np.int16)[: (ms * 16 if self.open else None)])
        if self.open:
            self.fed[self.names[-1]] += self.stage.playout.buffered - before
        else:
            assert self.stage.playout.buffered == before

    @rule()
    def end(self) -> None:
        self.stage.playout.end()
        self.open = False

    @rule()
    def interrupt(self) -> None:
        self.stage.interrupt()
        self.open = False
        assert not self.stage.playout.busy

    @rule(ms=st.integers(0, 700), tick=st.sampled_from([3, 20, 90]))
    def wait(self, ms: int, tick: int) -> None:
        self.stage.run(ms / 1000, tick / 1000)

    @precondition(lambda self: not self.open)
    @rule()
    def hear_all(self) -> None:
        self.stage.run(self.stage.playout.buffered / 48_000 + DELAY_S + 3 * PACKET_S + 0.02 * len(self.names))
        assert not self.stage.playout.busy
        assert len(self.finished()) == len(self.names)

    def finished(self) -> list[PlaybackFinished]:
        return [e for e in self.stage.told(PlaybackFinished) if isinstance(e, PlaybackFinished)]

    @invariant()
    def one_end_each(self) -> None:
        finished = self.finished()
        assert [e.segment for e in finished] == self.names[: len(finished)]
        for event in finished:
            whole_ms = self.fed[event.segment] / 48
            assert event.position_ms <= whole_ms + 1e-6
            assert event.interrupted or event.position_ms == pytest.approx(whole_ms)
        started = [e.segment for e in self.stage.told(PlaybackStarted) if isinstance(e, PlaybackStarted)]
        assert len(started) == len(set(started))
        heard = {e.segment for e in finished if e.position_ms > 0}
        assert heard <= set(started)

    @invariant()
    def bounded(self) -> None:
        assert self.stage.playout.buffered <= 3 * 48_000
        assert all(len(p) == 960 for p in self.stage.packets[-5:])

    def teardown(self) -> None:
        self.stage.interrupt()
        assert len(self.finished()) == len(self.names)


TestExactlyOnce = ExactlyOnce.TestCase
TestExactlyOnce.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("jitter_s", [0.0, 0.005, 0.02, 0.05])
def test_the_intake_takes_it_whole_and_the_media_clock_keeps_time(jitter_s: float) -> None:
    """A loop that wakes late: nothing is dropped, nothing is put in between, media time stays with wall time."""
    rng = np.random.default_rng(2)
    playout, now_s = Playout(DELAY_S), 50.0
    clock = MediaClock(now_s)
    intake = Intake(clock)
    heard: list[Float32] = []
    playout.start(24_000, "a")
    playout.feed(now_s, np.full(24_000 * 20, 16_384, np.int16))
    playout.end()
    wake_s = now_s
    while now_s < 72.0:
        idle_s = intake.idle_due_s()
        if idle_s < wake_s:
            now_s = max(now_s, idle_s)
            heard += [chunk.samples for chunk in intake.idle(now_s)]
            continue
        now_s = max(now_s, wake_s)
        pts = playout.pts
        for number, packet in enumerate(playout.step(now_s)[0]):
            heard += [chunk.samples for chunk in intake.hear(now_s, pts + 960 * number, packet)]
        wake_s = playout.due_s() + float(rng.uniform(0, jitter_s))
    sound = np.concatenate(heard)
    loud = np.flatnonzero(np.abs(sound) > 0.2)
    assert len(loud) == pytest.approx(20 * 48_000, abs=100), "all of it"
    assert loud[-1] - loud[0] == pytest.approx(20 * 48_000, abs=100), "without a hole"
    assert intake.dropped == 0
    assert abs(clock.at(now_s) - (now_s - 50.0) * 48_000) < 0.06 * 48_000
