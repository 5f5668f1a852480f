"""When things are due, pure: the media clock of a call, the sound that keeps it going, the spacing of what is sent.

In: wall seconds (an argument, never read here), microphone packets. Out: media ticks, whole 48 kHz chunks, due times.
Remembers: one anchor between wall and media time; how far the sound has come. Latency: none of its own.

The media clock follows the microphone: sound that has arrived up to tick T means that it is T now. It is set forward
when sound comes early and back when all sound of the last half second came late (the jitter buffer holds more, the
sender's clock is slow), little by little. While no sound comes (muted, absent, lost) wall time drives it and silence is
fed, so the face lives on and latency stays. After a stall of our own the clock is put back (media time stood still), it
never bursts to catch up.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from svp_stream.clock import FRAME_TICKS, TICKS_PER_SECOND, WIRE_RATE_HZ, ms_to_ticks
from svp_stream.packets import AudioChunk, Float32

PACKET_TICKS: Final = ms_to_ticks(20)
SLACK_TICKS: Final = ms_to_ticks(120)
"""Sound may come this much late before silence takes its place: a little more than `jitter.PATIENCE_S` and a packet."""
LEAD_TICKS: Final = ms_to_ticks(60)
"""Sound may come this much early (a burst after a stall of the network); what is beyond is dropped."""
STALL_TICKS: Final = ms_to_ticks(200)
"""When we are this much behind, we stood still ourselves: the clock is put back instead of making up for it."""
SLEW_TICKS: Final = ms_to_ticks(1.0)
"""Per packet: takes up the drift of two sound cards (at most a few hundred ppm), an anchor that began late, and what
the jitter buffer holds more or less."""
STEP_TICKS: Final = ms_to_ticks(10)
"""A second: one per cent of pace, which nobody hears."""
DEAD_TICKS: Final = ms_to_ticks(5)
LAG_PACKETS: Final = 25
"""The clock is set back by what the least late of so many packets in a row was late."""


@dataclass(slots=True)
class MediaClock:
    """Wall seconds to media ticks for one call. Both outgoing tracks and the input read this one clock."""

    _anchor_s: float
    _offset: int = 0

    def at(self, now_s: float) -> int:
        """The media time at a wall time."""
        return round((now_s - self._anchor_s) * TICKS_PER_SECOND) + self._offset

    def due_s(self, ticks: int) -> float:
        """The wall time of a media time."""
        return self._anchor_s + (ticks - self._offset) / TICKS_PER_SECOND

    def restart(self, now_s: float) -> None:
        """Media time 0 is now."""
        self._anchor_s, self._offset = now_s, 0

    def shift(self, ticks: int) -> None:
        """Set forward by `ticks` (negative: back)."""
        self._offset += ticks


@dataclass(slots=True)
class Intake:
    """Makes one contiguous line of sound from microphone packets and silence.

    Each chunk handed out begins where the last ended, from tick 0. Sound that was lost on the way (a jump of the
    microphone's own `pts`) is replaced by silence of the same length, so that lips and voice keep their place.
    """

    clock: MediaClock
    muted: bool = False
    dropped: int = 0
    """Microphone packets that came too early to be used."""
    filled: int = 0
    """Ticks of silence that stood in for missing sound."""
    _fed: int = 0
    _expected_mic: int | None = None
    _present: bool = False
    _lags: deque[int] = field(default_factory=lambda: deque(maxlen=LAG_PACKETS))

    @property
    def fed(self) -> int:
        """The tick up to which sound was handed out."""
        return self._fed

    def behind(self, now_s: float) -> int:
        """How far the sound handed out lags the clock, in ticks."""
        return self.clock.at(now_s) - self._fed

    def hear(self, now_s: float, mic_pts: int, samples: Float32) -> list[AudioChunk]:
        """A packet arrived at `now_s`: `samples` float32 [N] mono at 48 kHz, `mic_pts` in its own ticks."""
        length = len(samples)
        if length == 0:
            return []
        jump = 0 if self._expected_mic is None else max(0, mic_pts - self._expected_mic)
        self._expected_mic = mic_pts + length
        early = self._fed + length - self.clock.at(now_s)
        if early > LEAD_TICKS:
            self.dropped += 1
            return []
        chunks = []
        missing = max(0, -early)
        fill = missing if not self._present or missing > SLACK_TICKS else min(jump, missing)
        if fill > 0 or not self._present:
            fill = self._to_grid(min(fill, STALL_TICKS))
        if not self._present:
            self._present = True
            self._lags.clear()
        if fill > 0:
            chunks.append(self._silence(fill))
        self._follow(early + fill)
        chunks.append(self._chunk(np.zeros_like(samples) if self.muted else samples))
        return chunks

    def idle(self, now_s: float) -> list[AudioChunk]:
        """No packet is waiting at `now_s`: the silence that is due, if any."""
        behind = self.behind(now_s)
        if behind > STALL_TICKS:
            self.clock.shift(PACKET_TICKS - behind)
            behind = PACKET_TICKS
        if behind < (SLACK_TICKS if self._present else PACKET_TICKS):
            return []
        self._present = False
        return [self._silence(behind)]

    def idle_due_s(self) -> float:
        """The wall time at which `idle` will have something to say."""
        return self.clock.due_s(self._fed + (SLACK_TICKS if self._present else PACKET_TICKS))

    def skip(self, ticks: int) -> None:
        """`ticks` of microphone sound were thrown away because we were too slow: media time stood still meanwhile."""
        if self._expected_mic is not None:
            self._expected_mic += ticks
        self.clock.shift(-ticks)

    def _follow(self, early: int) -> None:
        """Sets the clock by a packet whose sound ends `early` ticks before its time (negative: late)."""
        self._lags.append(-early)
        shift = min(early, SLEW_TICKS)
        if early <= 0:
            shift = -max(0, min(*self._lags, SLEW_TICKS)) if len(self._lags) == LAG_PACKETS else 0
        if shift:
            self.clock.shift(shift)
            self._lags = deque((lag + shift for lag in self._lags), LAG_PACKETS)

    def _to_grid(self, fill: int) -> int:
        """About `fill` ticks, so that packets begin on whole multiples: a frame that ended inside one would wait for
        the end of it."""
        whole = max(round((self._fed + fill) / PACKET_TICKS), -(-self._fed // PACKET_TICKS))
        return whole * PACKET_TICKS - self._fed

    def _silence(self, ticks: int) -> AudioChunk:
        self.filled += ticks
        return self._chunk(np.zeros(ticks, np.float32))

    def _chunk(self, samples: Float32) -> AudioChunk:
        chunk = AudioChunk(self._fed, samples, WIRE_RATE_HZ)
        self._fed = chunk.end
        return chunk


@dataclass(slots=True)
class Playhead:
    """When each packet of the outgoing voice is due: `delay` ticks after the clock has passed its end.

    When we come late by more than a stall, whole packets are skipped: the voice goes on from now, without a burst.
    """

    clock: MediaClock
    delay: int
    least: int = 0
    most: int = TICKS_PER_SECOND
    skipped: int = 0
    _next: int = 0

    def keep_step(self, skew: int) -> None:
        """What it belongs to leaves `skew` ticks later: `delay` follows by at most `STEP_TICKS`, within its bounds."""
        if abs(skew) > DEAD_TICKS:
            step = max(-STEP_TICKS, min(STEP_TICKS, skew))
            self.delay = max(self.least, min(self.most, self.delay + step))

    def begin(self, now_s: float) -> None:
        """Go on from now: what is past has been heard by nobody."""
        now = self.clock.at(now_s) - self.delay
        self._next = max(0, now // PACKET_TICKS * PACKET_TICKS)

    def step(self, now_s: float) -> tuple[int, float]:
        """The `pts` of the next packet and the seconds to wait before it leaves; call it once for each packet."""
        pts = self._next
        late = self.clock.at(now_s) - (pts + PACKET_TICKS + self.delay)
        if late > STALL_TICKS:
            packets = late // PACKET_TICKS
            self.skipped += packets
            pts += packets * PACKET_TICKS
        self._next = pts + PACKET_TICKS
        return pts, max(0.0, self.clock.due_s(pts + PACKET_TICKS + self.delay) - now_s)


@dataclass(slots=True)
class Spacing:
    """Keeps two frames at least `gap_s` apart, so that frames made late in a row do not leave as a burst."""

    gap_s: float = FRAME_TICKS / TICKS_PER_SECOND / 2
    _last_s: float = field(default=float("-inf"))

    def wait(self, now_s: float) -> float:
        """Seconds until a frame may leave."""
        return max(0.0, self._last_s + self.gap_s - now_s)

    def sent(self, now_s: float) -> None:
        """A frame left at `now_s`."""
        self._last_s = now_s


@dataclass(slots=True)
class Thinning:
    """Leaves frames out evenly so that at most `fps` a second remain (None: all); their stamps stay as they are."""

    fps: float | None
    _slot: int = -1

    def keeps(self, pts: int) -> bool:
        """Whether the frame at `pts` is sent; call it once for each frame, in order."""
        if self.fps is None:
            return True
        slot = math.floor(pts * self.fps / TICKS_PER_SECOND)
        if slot == self._slot:
            return False
        self._slot = slot
        return True
