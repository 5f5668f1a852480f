"""The jitter buffer of the microphone, pure: puts packets in order, decides when each is played, concealed or left out.

In: RTP packets as they arrive and the time (an argument). Out: `Slot`s in order of `pts`, each a payload to decode or a
hole to conceal. Remembers: what is held, the last arrivals. Latency: `hold_s`, 0 on a calm network.

    transit = arrival - media time          base = the least transit of the last 50 packets: the fastest way here
    delay   = transit - base                hold = its 95th percentile beyond what the rooms behind bear anyway
    a packet is due at base + its media time + hold; one that follows a hole waits a little longer for the missing one

The hold grows at once and shrinks by a millisecond a packet, so that the media clock can follow. Whatever is due longer
than `PATIENCE_S` is left out, so delay never builds up; when everything is late for a while, the way has become longer
for good and the measurement begins anew. A jump of the timestamp without a missing number is silence (DTX, RFC 6716
section 2.1.9), not loss. Numbers have 16 bits and timestamps 32; both wrap (RFC 3550 section 5.1).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from svp_stream.clock import TICKS_PER_SECOND, ms_to_ticks

WINDOW: Final = 50
"""Packets, not seconds: what is known outlasts a silence or an outage."""
QUANTILE: Final = 0.95
FREE_S: Final = 0.020
"""Jitter that needs no hold: the voice that goes back leaves 40 ms after its sound, and lips are drawn every 40 ms."""
MOST_HOLD_S: Final = 0.120
SHRINK_S: Final = 0.001
"""By which the hold shrinks with each packet; `pacing.SLEW_TICKS` is as fast."""
LEAST_GRACE_S: Final = 0.010
"""What follows a hole waits this much beyond its own due time for the missing packet."""
PATIENCE_S: Final = 0.080
MOST_CONCEALED: Final = ms_to_ticks(60)
"""Longer holes are left as silence: nobody can guess a syllable."""
LATE_FOR_GOOD_S: Final = 0.2
OUTAGE_S: Final = 0.2
"""When nothing has come for so long, what comes in so long afterwards may have been held up."""
BOUND: Final = 64
"""Packets held at most: 160 ms of the shortest frames that Opus has."""
MOST_DROPOUT: Final = 3000
MOST_MISORDER: Final = 100
"""RFC 3550 appendix A.1: a number beyond these is another stream, not a late or early packet of this one."""
_EPSILON_S: Final = 1e-6


def unwrap(value: int, near: int, bits: int) -> int:
    """The number congruent to `value` modulo 2**bits that lies nearest to `near`."""
    span = 1 << bits
    return near + (value - near + span // 2) % span - span // 2


@dataclass(frozen=True, slots=True)
class Slot:
    """`ticks` of sound from `pts` (ticks since the first packet); `payload` None: the packet is lost, conceal it."""

    pts: int
    ticks: int
    payload: bytes | None


@dataclass(slots=True)
class Tally:
    """Everything that is not plain sailing, in packets since the beginning."""

    received: int = 0
    reordered: int = 0
    duplicate: int = 0
    late: int = 0
    """Came after their place was played, or waited too long for it."""
    lost: int = 0
    """Were not there when they were due."""
    concealed: int = 0
    """Holes handed out to be concealed."""
    overflown: int = 0
    restarts: int = 0
    """A new stream, or a way that became longer for good."""
    deepest: int = 0


@dataclass(slots=True)
class Spread:
    """The last `WINDOW` arrivals: the fastest way here and how much slower the others were."""

    _transits: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    base_s: float = 0.0
    delay_s: float = 0.0
    """The 95th percentile of the delays beyond `base_s`."""

    def add(self, transit_s: float) -> None:
        """A packet came; one that is faster than all by more than jitter has found a new way."""
        if self._transits and transit_s < self.base_s - FREE_S:
            self._transits.clear()
        self._transits.append(transit_s)
        ordered = sorted(self._transits)
        self.base_s = ordered[0]
        self.delay_s = ordered[int(QUANTILE * (len(ordered) - 1) + 0.5)] - self.base_s

    def bears(self, transit_s: float, patience_s: float) -> bool:
        """Whether a packet is slower than the fastest by no more than that, or the first."""
        return not self._transits or transit_s <= self.base_s + patience_s

    def clear(self) -> None:
        """Begin anew."""
        self._transits.clear()


@dataclass(frozen=True, slots=True)
class _Held:
    media: int
    ticks: int
    payload: bytes

    @property
    def end(self) -> int:
        return self.media + self.ticks


class JitterBuffer:
    """One stream of packets. `put` each as it arrives, then `take` what is due; call `take` again at `due_s`."""

    def __init__(self, clock_hz: int = TICKS_PER_SECOND, tally: Tally | None = None) -> None:
        if clock_hz <= 0 or TICKS_PER_SECOND % clock_hz:
            raise ValueError(f"an RTP clock of {clock_hz} Hz does not divide {TICKS_PER_SECOND} Hz")
        self._scale = TICKS_PER_SECOND // clock_hz
        self._spread = Spread()
        self._held: dict[int, _Held] = {}
        self._newest: int | None = None
        self._timestamp = 0
        self._next = 0
        self._end = 0
        self._frame = 0
        self._shift = 0
        self._played: deque[int] = deque(maxlen=BOUND)
        self._late_since_s: float | None = None
        self._late_by_s = 0.0
        self._arrived_s: float | None = None
        self._outage_until_s = 0.0
        self.hold_s = 0.0
        self.tally = tally or Tally()

    @property
    def depth(self) -> int:
        """Packets held."""
        return len(self._held)

    def put(self, now_s: float, number: int, timestamp: int, ticks: int, payload: bytes) -> None:
        """A packet arrived at `now_s`: 16-bit `number`, 32-bit `timestamp`, `ticks` of sound in it."""
        self.tally.received += 1
        newest = self._newest
        if newest is None:
            newest = self._begin(number, timestamp)
        index = unwrap(number, newest, 16)
        if not -MOST_MISORDER <= index - newest <= MOST_DROPOUT:
            self._held.clear()
            self.tally.restarts += 1
            index = self._begin(number, timestamp)
        self._timestamp = unwrap(timestamp, self._timestamp, 32)
        packet = _Held(self._timestamp * self._scale + self._shift, ticks, payload)
        self._adapt(now_s, now_s - packet.media / TICKS_PER_SECOND)
        if index < self._next:
            if index in self._played:
                self.tally.duplicate += 1
            else:
                self._too_late(now_s, packet)
        elif index in self._held:
            self.tally.duplicate += 1
        else:
            self._hold(index, packet)

    def take(self, now_s: float) -> list[Slot]:
        """What is due at `now_s`, in order."""
        slots: list[Slot] = []
        while self._held:
            index = min(self._held)
            if now_s < self._due(index) - _EPSILON_S:
                break
            packet = self._held.pop(index)
            if now_s > self._ideal(packet.media) + PATIENCE_S:
                self.tally.lost += index - self._next
                self._too_late(now_s, packet)
            else:
                slots += self._conceal(now_s, index - self._next, packet)
                slots.append(self._play(index, packet))
            self._next = index + 1
        return slots

    def due_s(self) -> float | None:
        """When `take` will have something, if nothing else arrives; None: nothing is held."""
        return self._due(min(self._held)) if self._held else None

    def _begin(self, number: int, timestamp: int) -> int:
        """This packet is the first of a stream; its sound follows on what was played."""
        self._timestamp = timestamp
        self._shift = self._end - timestamp * self._scale
        self._next = self._newest = number
        self._played.clear()
        self._spread.clear()
        self._late_since_s = None
        return number

    def _hold(self, index: int, packet: _Held) -> None:
        assert self._newest is not None
        if index < self._newest:
            self.tally.reordered += 1
        self._newest = max(self._newest, index)
        self._held[index] = packet
        if len(self._held) > BOUND:
            self._next = min(self._held) + 1
            del self._held[self._next - 1]
            self.tally.overflown += 1
        self.tally.deepest = max(self.tally.deepest, len(self._held))

    def _adapt(self, now_s: float, transit_s: float) -> None:
        """Measures a packet, but what an outage has held up: that is not jitter."""
        if self._arrived_s is not None and now_s - self._arrived_s > OUTAGE_S:
            self._outage_until_s = now_s + OUTAGE_S
            self._late_since_s = None
        self._arrived_s = now_s
        patience_s = FREE_S if now_s < self._outage_until_s else self.hold_s + PATIENCE_S
        if self._spread.bears(transit_s, patience_s):
            self._outage_until_s = 0.0
            self._spread.add(transit_s)
        wanted = min(MOST_HOLD_S, max(0.0, self._spread.delay_s - FREE_S))
        self.hold_s = max(wanted, self.hold_s - SHRINK_S)

    def _ideal(self, media: int) -> float:
        return self._spread.base_s + media / TICKS_PER_SECOND + self.hold_s

    def _due(self, index: int) -> float:
        due_s = self._ideal(self._held[index].media)
        if index > self._next:
            due_s += min(FREE_S, max(LEAST_GRACE_S, self._spread.delay_s - self.hold_s))
        return due_s

    def _too_late(self, now_s: float, packet: _Held) -> None:
        """Counts it. What an outage has held up comes faster than it was sent, so it is less late from packet to
        packet: only lateness that stays is a longer way."""
        self.tally.late += 1
        transit_s = now_s - packet.media / TICKS_PER_SECOND
        if self._late_since_s is None or transit_s < self._late_by_s - FREE_S / 2:
            self._late_since_s, self._late_by_s = now_s, transit_s
        elif now_s - self._late_since_s >= LATE_FOR_GOOD_S:
            self.tally.restarts += 1
            self._late_since_s = None
            self._spread.clear()

    def _play(self, index: int, packet: _Held) -> Slot:
        if packet.media < self._end:  # the sender has set its clock back: sound goes on where it was
            back = self._end - packet.media
            self._shift += back
            packet = _Held(packet.media + back, packet.ticks, packet.payload)
            self._held = {i: _Held(p.media + back, p.ticks, p.payload) for i, p in self._held.items()}
            self._spread.clear()
            self.tally.restarts += 1
        self._late_since_s = None
        self._played.append(index)
        self._end, self._frame = packet.end, packet.ticks
        return Slot(packet.media, packet.ticks, packet.payload)

    def _conceal(self, now_s: float, missing: int, packet: _Held) -> list[Slot]:
        """The hole before `packet` in frames as long as the last one; nothing where it is too long or was silence."""
        self.tally.lost += missing
        hole = packet.media - self._end
        longest = min(MOST_CONCEALED, missing * max(self._frame, packet.ticks))
        if missing < 1 or self._frame < 1 or not 0 < hole <= longest:
            return []
        slots = []
        for pts in range(self._end, packet.media, self._frame):
            if now_s <= self._ideal(pts) + PATIENCE_S:
                slots.append(Slot(pts, min(self._frame, packet.media - pts), None))
        self.tally.concealed += len(slots)
        return slots
