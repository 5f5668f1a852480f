"""The jitter buffer in virtual time: tables of arrivals in, slots out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.jitter import BOUND, MOST_HOLD_S, PATIENCE_S, JitterBuffer, Slot, unwrap

PACKET_S = 0.02
TICKS = 960


@dataclass
class Listener:
    """Feeds packets by number as they arrive and takes at each due time, as the loop's timer does."""

    buffer: JitterBuffer = field(default_factory=JitterBuffer)
    first: int = 0
    stamp: int = 0
    out: list[tuple[float, Slot]] = field(default_factory=list)

    def hear(self, arrivals: Iterable[tuple[float, int]], silence: int = 0) -> Listener:
        """`arrivals` (time, packet) in order of time; `silence` ticks of DTX before each."""
        for at_s, i in arrivals:
            self.wait(at_s)
            number, stamp = (self.first + i) % (1 << 16), (self.stamp + i * (TICKS + silence)) % (1 << 32)
            self.buffer.put(at_s, number, stamp, TICKS, str(i).encode())
            self.take(at_s)
        return self

    def wait(self, until_s: float) -> None:
        """Takes whatever becomes due before."""
        while (due_s := self.buffer.due_s()) is not None and due_s < until_s:
            assert self.take(due_s), "at its due time there is something to take"

    def take(self, now_s: float) -> list[Slot]:
        slots = self.buffer.take(now_s)
        self.out += [(now_s, slot) for slot in slots]
        return slots

    @property
    def text(self) -> str:
        """What was played, with `-` where it was concealed."""
        return " ".join("-" if s.payload is None else s.payload.decode() for _, s in self.out)

    def lags(self) -> list[float]:
        """Seconds from the sending of each packet that was played to its playing."""
        return [at - int(s.payload) * PACKET_S for at, s in self.out if s.payload is not None]


def sent(count: int, start: int = 0) -> list[tuple[float, int]]:
    """Packets that arrive when they are sent."""
    return [(i * PACKET_S, i) for i in range(start, start + count)]


def jittery(count: int, spread_s: float, seed: int = 0, start: int = 0) -> list[tuple[float, int]]:
    """Each packet late by its own uniform draw, so neighbours overtake each other."""
    late = np.random.default_rng(seed).uniform(0, spread_s, count)
    return sorted((float((start + i) * PACKET_S + late[i]), start + i) for i in range(count))


def numbers(listener: Listener) -> list[int]:
    return [int(s.payload) for _, s in listener.out if s.payload is not None]


@pytest.mark.parametrize(
    ("value", "near", "bits", "result"),
    [(0, 65_535, 16, 65_536), (65_535, 65_536, 16, 65_535), (5, 5, 16, 5), (3, 65_536 * 4, 16, 65_536 * 4 + 3),
     (0, (1 << 32) - 960, 32, 1 << 32), ((1 << 32) - 960, 1 << 32, 32, (1 << 32) - 960), (65_535, 0, 16, -1)],
)
def test_numbers_wrap(value: int, near: int, bits: int, result: int) -> None:
    assert unwrap(value, near, bits) == result


def test_a_calm_network_adds_nothing() -> None:
    listener = Listener().hear(sent(200))
    assert numbers(listener) == list(range(200)) and max(listener.lags()) < 1e-9
    assert [s.pts for _, s in listener.out] == [i * TICKS for i in range(200)]
    assert listener.buffer.tally.lost == listener.buffer.tally.late == listener.buffer.tally.reordered == 0


def test_jitter_below_one_packet_adds_nothing_either() -> None:
    arrivals = jittery(300, 0.018)
    listener = Listener().hear(arrivals)
    assert numbers(listener) == list(range(300)) and listener.buffer.hold_s == 0
    assert [at for at, _ in listener.out] == [at for at, _ in arrivals], "each is played when it comes"


def test_wrapping_changes_nothing() -> None:
    arrivals = jittery(300, 0.05)
    plain = Listener().hear(arrivals)
    wrapped = Listener(first=65_400, stamp=(1 << 32) - 100 * TICKS).hear(arrivals)
    assert [s for _, s in wrapped.out] == [s for _, s in plain.out]


def test_a_packet_that_comes_a_little_later_than_its_successor_is_put_back_in_place() -> None:
    arrivals = [*sent(10), (0.2205, 11), (0.2245, 10), *sent(10, 12)]
    listener = Listener().hear(arrivals)
    assert numbers(listener) == list(range(22)) and listener.buffer.tally.reordered == 1
    assert listener.buffer.tally.lost == 0


@pytest.mark.parametrize(("lost", "text"), [({5}, "4 - 6"), ({5, 6}, "4 - - 7"), ({5, 6, 7}, "4 - - - 8"),
                                            ({5, 6, 7, 8}, "4 9")])
def test_short_holes_are_concealed_and_long_ones_left(lost: set[int], text: str) -> None:
    listener = Listener().hear([a for a in sent(20) if a[1] not in lost])
    listener.wait(1.0)
    assert text in listener.text and listener.buffer.tally.lost == len(lost)
    assert listener.buffer.tally.concealed == text.count("-")
    assert max(listener.lags()) < 0.011, "what follows waits 10 ms for the missing one, no longer"
    pts = [s.pts for _, s in listener.out]
    assert pts == sorted(pts) and pts[-1] == 19 * TICKS


def test_silence_is_no_loss() -> None:
    """DTX: consecutive numbers, 400 ms apart; then one of them is lost: still nothing to conceal."""
    gaps = 19 * TICKS
    arrivals = [(i * 0.4, i) for i in range(20)]
    listener = Listener().hear(arrivals, gaps)
    assert numbers(listener) == list(range(20)) and listener.buffer.tally.concealed == 0
    lossy = Listener().hear([a for a in arrivals if a[1] != 7], gaps)
    lossy.wait(10.0)
    assert lossy.buffer.tally.lost == 1 and lossy.buffer.tally.concealed == 0


def test_under_jitter_the_hold_grows_to_what_it_asks_for_and_shrinks_when_calm() -> None:
    listener = Listener().hear(jittery(200, 0.05))
    assert 0.02 <= listener.buffer.hold_s <= 0.035, "0.95 of 50 ms, less the 20 ms that are free"
    settled = [at - int(s.payload) * PACKET_S for at, s in listener.out[60:] if s.payload is not None]
    assert max(settled) < 0.055 and listener.buffer.tally.late + listener.buffer.tally.lost <= 4
    listener.hear(sent(200, 203))
    assert listener.buffer.hold_s == 0 and max(listener.lags()[-100:]) < 1e-6
    assert numbers(listener) == sorted(numbers(listener))


def test_the_hold_is_bounded() -> None:
    listener = Listener().hear(jittery(500, 0.5))
    assert listener.buffer.hold_s <= MOST_HOLD_S
    assert listener.buffer.tally.deepest <= BOUND


def test_an_outage_leaves_no_delay_behind() -> None:
    """Nothing for 2 s, then everything at once, as a Wi-Fi queue gives it back."""
    burst = [(4.0, i) for i in range(100, 200)]
    listener = Listener().hear([*sent(100), *burst, *sent(200, 200)])
    assert max(listener.lags()) <= PATIENCE_S + 1e-6, "what is older is left out"
    assert max(listener.lags()[-195:]) < 1e-6 and numbers(listener)[-200:] == list(range(200, 400))
    assert listener.buffer.tally.late >= 90


@pytest.mark.parametrize("each_s", [0.001, 0.004, 0.008])
def test_what_was_held_up_and_comes_slowly_leaves_no_delay_behind(each_s: float) -> None:
    """The queue of an outage takes up to 0.8 s to come in, so that packets are late for long, but ever less."""
    burst, at, i = [], 4.0, 100
    while at > i * PACKET_S:
        burst.append((at, i))
        at, i = at + each_s, i + 1
    listener = Listener().hear([*sent(100), *burst, *sent(200, i)])
    assert listener.buffer.tally.restarts == 0 and max(listener.lags()) <= PATIENCE_S + 0.02
    assert listener.buffer.hold_s == 0 and max(listener.lags()[-100:]) < 1e-6


def test_lost_for_two_seconds() -> None:
    listener = Listener().hear([*sent(100), *sent(100, 200)])
    assert numbers(listener)[100:] == list(range(200, 300)) and listener.buffer.tally.concealed == 0
    assert max(listener.lags()) < 0.011


@pytest.mark.parametrize("change_s", [0.07, 0.15, 0.6, 3.0])
def test_a_way_that_becomes_longer_for_good_is_taken_after_a_moment(change_s: float) -> None:
    arrivals = [*sent(100), *((i * PACKET_S + change_s, i) for i in range(100, 300))]
    listener = Listener().hear(arrivals)
    heard = [i for i in numbers(listener) if i >= 100]
    assert min(heard) <= 112 and heard[-180:] == list(range(120, 300)), "a quarter of a second is lost at most"
    assert listener.lags()[-1] == pytest.approx(change_s, abs=1e-6), "and in the end nothing is added"


def test_a_way_that_becomes_shorter_is_taken_at_once() -> None:
    arrivals = sorted([*((i * PACKET_S + 0.3, i) for i in range(100)), *sent(100, 100)])
    listener = Listener().hear(arrivals)
    assert max(at - int(s.payload) * PACKET_S for at, s in listener.out[-90:] if s.payload) < 1e-6


def test_duplicates_and_strangers() -> None:
    listener = Listener().hear([a for i in sent(50) for a in (i, i)])
    assert numbers(listener) == list(range(50)) and listener.buffer.tally.duplicate == 50
    stranger = Listener().hear(sent(50))
    stranger.buffer.put(1.0, 30_000, 7, TICKS, b"99")
    assert [s.pts for s in stranger.buffer.take(1.0)] == [50 * TICKS], "a new stream follows on the old one"
    assert stranger.buffer.tally.restarts == 1


def test_a_sender_that_sets_its_clock_back_is_heard_again_and_pts_do_not_fall() -> None:
    listener = Listener().hear(sent(50))
    for i in range(50, 100):
        at_s = i * PACKET_S
        listener.wait(at_s)
        listener.buffer.put(at_s, i, (i - 50) * TICKS, TICKS, str(i).encode())
        listener.take(at_s)
    pts = [s.pts for _, s in listener.out]
    assert pts == sorted(pts) and numbers(listener)[-35:] == list(range(65, 100))


def test_a_clock_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="44100 Hz"):
        JitterBuffer(44_100)


def test_eight_kilohertz_units_are_ticks() -> None:
    buffer = JitterBuffer(8_000)
    for i in range(3):
        buffer.put(i * PACKET_S, i, i * 160, TICKS, b"x")
    assert [s.pts for s in buffer.take(1.0)] == [] and buffer.tally.late == 3
    buffer = JitterBuffer(8_000)
    out = []
    for i in range(3):
        buffer.put(i * PACKET_S, i, i * 160, TICKS, b"x")
        out += buffer.take(i * PACKET_S)
    assert [s.pts for s in out] == [0, 960, 1920]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 65_535), st.integers(0, (1 << 32) - 1), st.floats(0, 0.3), st.integers(1, 5760)),
        max_size=80,
    ),
    st.booleans(),
)
def test_whatever_comes_pts_rise_and_everything_is_accounted_for(
    packets: list[tuple[int, int, float, int]], tame: bool
) -> None:
    """Random numbers and stamps, or nearly in order: bounded, contiguous or with holes, never backwards."""
    buffer, now_s, slots = JitterBuffer(), 0.0, []
    for i, (number, stamp, pause_s, ticks) in enumerate(packets):
        now_s += pause_s
        if tame:
            number, stamp = (65_500 + i + number % 3) % (1 << 16), ((i + number % 3) * 960) % (1 << 32)
        buffer.put(now_s, number, stamp, ticks, b"x")
        slots += buffer.take(now_s)
        assert buffer.depth <= BOUND and 0 <= buffer.hold_s <= MOST_HOLD_S
    slots += buffer.take(now_s + 1e9)
    ends = [0, *(s.pts + s.ticks for s in slots)]
    assert all(s.pts >= end for s, end in zip(slots, ends, strict=False))
    played = sum(s.payload is not None for s in slots)
    tally = buffer.tally
    assert tally.received == len(packets) and played + tally.late + tally.duplicate <= len(packets)
    assert buffer.depth == 0
