"""Speech that comes faster than it can be spoken, played at the pace of time; pure.

In: segments of PCM16, wall seconds (an argument). Out: packets of 20 ms at 48 kHz as a microphone would give them,
silence where there is nothing to say; events, each at the moment in which viewers see what it tells of.
Remembers: at most `bound_s` of sound, the segments that are not finished, how far each has been heard.
Latency: 60 ms before a segment (or one that ran dry) begins, unless it is already complete; `delay_s` of the street
counts for the events.

    start ─▶ open ─▶ (end) ─▶ played ─▶ heard to its end ─▶ PlaybackFinished
               └────────┴───────┴── interrupt, close ──────▶ PlaybackFinished(interrupted)

A segment leaves the list of unfinished ones in one place only, which makes its `PlaybackFinished`: exactly one each.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from server.pacing import PACKET_TICKS
from server.pcm_wire import Backpressure, Int16, Interrupted, PlaybackFinished, PlaybackStarted, Refused
from svp_stream.audio.pcm import FADE_TICKS, PcmLine, fade_in, fade_out
from svp_stream.clock import TICKS_PER_SECOND, ms_to_ticks, ticks_per_sample, ticks_to_ms
from svp_stream.packets import Float32

PACKET_S: Final = PACKET_TICKS / TICKS_PER_SECOND
PREBUFFER_TICKS: Final = ms_to_ticks(60)
"""What must be there before an open segment begins: takes up the jitter of an agent that sends in real time."""
LATE_S: Final = 0.06
"""When we come later than this, sound waits instead of leaving in a burst that the intake would drop."""
COMPLAIN_S: Final = 1.0
MAX_SEGMENTS: Final = 256
SILENCE: Final[Float32] = np.zeros(PACKET_TICKS, np.float32)

PlayoutEvent = PlaybackStarted | PlaybackFinished | Interrupted | Backpressure | Refused


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much sound may wait, in seconds; `high_s` and `low_s` turn the back-pressure on and off."""

    bound_s: float = 60.0
    high_s: float = 30.0
    low_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.low_s < self.high_s <= self.bound_s:
            given = f"{self.low_s}, {self.high_s}, {self.bound_s}"
            raise ValueError(f"0 < low_s < high_s <= bound_s is needed, not {given}")


@dataclass(slots=True)
class _Segment:
    """`line` what is left to play; `heard` (wall time, ticks): at that time that much of it has been heard."""

    name: str
    line: PcmLine
    running: bool = False
    began_s: float | None = None
    told_start: bool = False
    heard: deque[tuple[float, int]] = field(default_factory=deque)
    position: int = 0
    overflowed: int = 0

    @property
    def played(self) -> bool:
        """Whether all of it has left."""
        return self.line.ended and self.line.held == 0


class Playout:
    """One agent's mouth. `delay_s`: from a packet's leaving until viewers see its end."""

    def __init__(self, delay_s: float, bounds: Bounds | None = None) -> None:
        self._delay_s = delay_s
        self.bounds = bounds or Bounds()
        self._bound = round(self.bounds.bound_s * TICKS_PER_SECOND)
        self._unfinished: deque[_Segment] = deque()
        self._open: _Segment | None = None
        self._stale = False
        self._complained = False
        self._crowded = False
        self._events: list[PlayoutEvent] = []
        self._next_s: float | None = None
        self._pressed = False
        self._refused = 0
        self._refused_s = float("-inf")
        self._refused_of = ""
        self._count = 0
        self.pts = 0
        """Ticks of all packets so far: the `pts` of the next one."""
        self.finished = 0
        self.interrupted = 0
        self.refused_ticks = 0
        self.underruns = 0

    @property
    def buffered(self) -> int:
        """Ticks of sound that have not been played."""
        return sum(segment.line.held for segment in self._unfinished)

    @property
    def busy(self) -> bool:
        """Whether a segment is unfinished."""
        return bool(self._unfinished)

    def start(self, rate_hz: int, name: str | None = None) -> None:
        """A segment begins; one that is open ends."""
        self.end()
        if len(self._unfinished) >= MAX_SEGMENTS:
            self._stale = True
            words = f"{MAX_SEGMENTS} segments wait already; wait for playback_finished before the next start"
            if not self._crowded:
                self._events.append(Refused("too_many_segments", words, name))
            self._crowded = True
            return
        self._stale = self._complained = self._crowded = False
        self._count += 1
        self._open = _Segment(name if name is not None else str(self._count), PcmLine(rate_hz))
        self._unfinished.append(self._open)

    def feed(self, now_s: float, samples: Int16) -> None:
        """Sound for the open segment; what does not fit is refused, the newest first."""
        segment = self._open
        if segment is None:
            if not self._stale and not self._complained:
                self._complained = True
                words = "sound came before any 'start', or after 'end'; it is dropped"
                self._events.append(Refused("no_segment", words))
            return
        room = max(0, self._bound - self.buffered) // ticks_per_sample(segment.line.rate_hz)
        segment.line.feed(samples[:room])
        lost = max(0, len(samples) - room) * ticks_per_sample(segment.line.rate_hz)
        if lost:
            self._refuse(now_s, segment.name, lost)
        self._press()

    def end(self) -> None:
        """The open segment is complete; without one nothing happens."""
        if self._open is not None:
            self._open.line.end()
            self._open = None

    def interrupt(self, now_s: float, id: str | int | None = None) -> list[PlayoutEvent]:
        """Forget everything; returns the events of it, those that were due before first."""
        events = self._settle(now_s)
        dropped = self.buffered
        names = []
        while self._unfinished:
            segment = self._unfinished[0]
            names.append(segment.name)
            dropped += segment.line.taken - segment.position
            events.append(self._finish(interrupted=True))
        self._open, self._stale = None, True
        self._press()
        events += self._take_events(now_s)
        return [*events, Interrupted(tuple(names), ticks_to_ms(dropped), id)]

    def due_s(self) -> float:
        """When `step` has the next packet."""
        return self._next_s if self._next_s is not None else float("-inf")

    def step(self, now_s: float, most: int = 3) -> tuple[list[Float32], list[PlayoutEvent]]:
        """The packets that are due at `now_s`, float32 [960] each, and events; beyond `most` of them sound waits."""
        if self._next_s is None:
            self._next_s = now_s + PACKET_S
        if now_s - self._next_s > LATE_S:
            self._next_s = now_s
        packets: list[Float32] = []
        while now_s >= self._next_s:
            if len(packets) >= most:
                self._next_s = now_s + PACKET_S
                break
            packets.append(self._packet(self._next_s))
            self._next_s += PACKET_S
        self.pts += PACKET_TICKS * len(packets)
        self._press()
        events = self._settle(now_s)
        return packets, events + self._take_events(now_s)

    def _packet(self, at_s: float) -> Float32:
        """The next 20 ms, from as many segments as it takes."""
        parts: list[Float32] = []
        room = PACKET_TICKS
        for segment in self._unfinished:
            if segment.played:
                if segment.began_s is None:  # an empty one ends in its turn, too
                    self._mark(segment, at_s)
                continue
            part = self._part(segment, room)
            if len(part):
                parts.append(part)
                self._mark(segment, at_s)
                room -= len(part)
            if room == 0 or not segment.line.ended:
                break
        if not parts:
            return SILENCE
        return np.concatenate([*parts, SILENCE[:room]]) if room or len(parts) > 1 else parts[0]

    def _part(self, segment: _Segment, room: int) -> Float32:
        """Up to `room` ticks of one segment; one that runs dry fades out, waits for some sound and fades in."""
        line = segment.line
        began = not segment.running
        if began:
            if not line.ended and line.ready < PREBUFFER_TICKS:
                return SILENCE[:0]
            segment.running = True
        dry = not line.ended and line.ready < room + FADE_TICKS
        part = line.take(room)
        if began and line.taken > len(part):
            part = fade_in(part)
        if dry:
            segment.running = False
            self.underruns += 1
            part = fade_out(part)
        return part

    def _mark(self, segment: _Segment, at_s: float) -> None:
        """After `at_s` and the street's delay, this much of it has been heard."""
        if segment.began_s is None:
            segment.began_s = at_s - PACKET_S + self._delay_s
        if not segment.heard or segment.heard[-1][1] < segment.line.taken:
            segment.heard.append((at_s + self._delay_s, segment.line.taken))

    def _settle(self, now_s: float) -> list[PlayoutEvent]:
        """What viewers have come to see by `now_s`."""
        events: list[PlayoutEvent] = []
        while self._unfinished:
            segment = self._unfinished[0]
            began_s = segment.began_s
            if segment.line.taken and not segment.told_start and began_s is not None and began_s <= now_s:
                segment.told_start = True
                events.append(PlaybackStarted(segment.name))
            while segment.heard and segment.heard[0][0] <= now_s:
                segment.position = segment.heard.popleft()[1]
            if not (segment.played and segment.position == segment.line.fed and not segment.heard):
                break
            events.append(self._finish(interrupted=False))
        return events

    def _finish(self, *, interrupted: bool) -> PlaybackFinished:
        """The one place where a segment is done."""
        segment = self._unfinished.popleft()
        self.finished += 1
        self.interrupted += interrupted
        return PlaybackFinished(segment.name, ticks_to_ms(segment.position), interrupted)

    def _press(self) -> None:
        buffered = self.buffered
        limit_s = self.bounds.low_s if self._pressed else self.bounds.high_s
        pressed = buffered > limit_s * TICKS_PER_SECOND
        if pressed != self._pressed:
            self._pressed = pressed
            self._events.append(Backpressure(pressed, ticks_to_ms(buffered)))

    def _refuse(self, now_s: float, name: str, ticks: int) -> None:
        if self._refused and name != self._refused_of:
            self._complain(now_s)
        self.refused_ticks += ticks
        self._refused += ticks
        self._refused_of = name

    def _complain(self, now_s: float) -> None:
        words = (
            f"{ticks_to_ms(self._refused):.0f} ms of sound were refused: {self.bounds.bound_s:.0f} s wait already; "
            "heed 'backpressure'"
        )
        self._events.append(Refused("overflow", words, self._refused_of, ticks_to_ms(self._refused)))
        self._refused, self._refused_s = 0, now_s

    def _take_events(self, now_s: float) -> list[PlayoutEvent]:
        if self._refused and now_s - self._refused_s >= COMPLAIN_S:
            self._complain(now_s)
        events, self._events = self._events, []
        return events
