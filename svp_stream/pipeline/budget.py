"""The declared ladder: what to give up when frames come late, so that latency never grows.

Rungs: 0 full quality, 1 fewer steps, 2 reuse deep features, 3 reuse the latent, 4 repeat the frame (see `FaceStream`).
In: how far behind its due time the work is (ticks) and what the last frame cost (ms). Out: the rung to work at.
Remembers: the rung, the latest costs, how long it has been calm. Latency: none. Pure: no clock is read here.

Worse is quick, better is slow: one rung worse when work is late or its mean cost exceeds the allowance; frames are
repeated while far behind; one rung better only after a calm stretch, which doubles each time that a return to better
quality did not last (so that the picture does not flap between two rungs).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum

from svp_stream.clock import FRAME_TICKS, ms_to_ticks, ticks_to_ms

FULL = 0
REPEAT = 4
RUNGS = ("full", "fewer steps", "reuse deep features", "reuse latent", "repeat frame")


class Drop(StrEnum):
    """Why something was not made or not shown; each is counted and shown to the user."""

    REPEATED = "repeated"
    """A frame repeated the one before (last rung)."""
    SUPERSEDED = "superseded"
    """A frame was replaced by a newer one before it left."""
    LATE = "late"
    """A frame was ready after its time to be shown."""
    AUDIO_OVERFLOW = "audio_overflow"
    """Sound was discarded because the worker did not keep up."""


@dataclass(slots=True)
class DropCounts:
    """How many were lost, by cause."""

    counts: Counter[Drop] = field(default_factory=Counter)

    def add(self, cause: Drop, n: int = 1) -> None:
        """Count `n` losses; raises ValueError for a negative number."""
        if n < 0:
            raise ValueError(f"cannot lose {n} frames")
        self.counts[cause] += n

    def snapshot(self) -> dict[str, int]:
        """Every cause with its count, zeros included."""
        return {cause.value: self.counts[cause] for cause in Drop}


@dataclass(frozen=True, slots=True)
class Ladder:
    """When to change rung. Times are media time; `*_share` are fractions of the allowance for one frame."""

    late_ms: float = 20.0
    """Behind by more than this is late: one rung worse."""
    lost_ms: float = 120.0
    """Behind by more than this: repeat frames at once, until caught up."""
    busy_share: float = 0.95
    """A mean cost above this share of the allowance is too dear to keep up."""
    calm_share: float = 0.7
    """Only a mean cost below this share counts as calm."""
    settle_ms: float = 120.0
    """At least this long on a rung before the next worse one, so that its effect is seen first."""
    calm_ms: float = 2000.0
    """Calm this long: one rung better."""
    calm_max_ms: float = 60_000.0
    """The calm stretch doubles up to this after a return that did not last."""
    worst: int = REPEAT
    """The last rung that may be used."""

    def __post_init__(self) -> None:
        if not 0 < self.late_ms < self.lost_ms:
            raise ValueError(f"late_ms ({self.late_ms}) must be above 0 and below lost_ms ({self.lost_ms})")
        if not 0 < self.calm_share < self.busy_share:
            raise ValueError(f"calm_share ({self.calm_share}) must be above 0, below busy_share ({self.busy_share})")
        if not 0 < self.calm_ms <= self.calm_max_ms:
            raise ValueError(f"calm_ms ({self.calm_ms}) must be above 0, at most calm_max_ms ({self.calm_max_ms})")
        if not FULL <= self.worst <= REPEAT:
            raise ValueError(f"worst ({self.worst}) is a rung from {FULL} to {REPEAT}")


class Budget:
    """Chooses the rung for one session, once for each frame made.

    The last rung is for catching up only: it is left as soon as the work is in time again. On a machine that is too
    slow for every other rung, made and repeated frames therefore alternate: fewer frames a second, the same latency.
    """

    WINDOW = 8
    """Costs remembered on a rung. The dearest of them does not count: a stall says nothing about the rung."""
    KNOWN = 3
    """So many costs say what a rung costs."""

    def __init__(self, ladder: Ladder | None = None) -> None:
        self.ladder = ladder or Ladder()
        self.drops = DropCounts()
        self._worst_made = min(self.ladder.worst, REPEAT - 1)
        self.reset()

    def reset(self) -> None:
        """Full quality, nothing known of the cost; the drop counts stay."""
        self._made = FULL
        self._catching_up = False
        self._costs_ms: deque[float] = deque(maxlen=self.WINDOW)
        self._on_rung_ms = 0.0
        self._calm_ms = 0.0
        self._patience_ms = self.ladder.calm_ms
        self._since_better_ms = float("inf")

    @property
    def rung(self) -> int:
        """The rung to work at."""
        return REPEAT if self._catching_up else self._made

    def decide(
        self, *, behind_ticks: int, frame_ms: float, allowance_ms: float = ticks_to_ms(FRAME_TICKS), frames: int = 1
    ) -> int:
        """The rung for the next frame.

        `behind_ticks`: how late the work is (0 or less: in time). `frame_ms`: wall time that the last frame cost.
        `allowance_ms`: wall time that one frame may cost here (40 ms over the number of sessions that share a thread).
        `frames`: how many frames this decision covers. Repeated frames are counted as drops. Raises ValueError for
        numbers that make no sense.
        """
        if frames < 1 or frame_ms < 0 or allowance_ms <= 0:
            raise ValueError(f"got frames={frames}, frame_ms={frame_ms}, allowance_ms={allowance_ms}")
        late = behind_ticks > ms_to_ticks(self.ladder.late_ms)
        if self._catching_up:
            self.drops.add(Drop.REPEATED, frames)
            self._catching_up = late
            return self.rung
        self._observe(frame_ms, frames)
        share = self._cost_ms() / allowance_ms
        lost = behind_ticks > ms_to_ticks(self.ladder.lost_ms)
        if self.ladder.worst == REPEAT and (lost or (late and self._made == self._worst_made)):
            self._catching_up = True
            if share > self.ladder.busy_share and len(self._costs_ms) >= self.KNOWN:
                self._move(self._made + 1)
        elif late:
            self._calm_ms = 0.0
            self._move(self._made + (self._on_rung_ms >= self.ladder.settle_ms))
        else:
            self._weigh(share, frames * ticks_to_ms(FRAME_TICKS))
        return self.rung

    def _observe(self, frame_ms: float, frames: int) -> None:
        media_ms = frames * ticks_to_ms(FRAME_TICKS)
        self._costs_ms.append(frame_ms)
        self._on_rung_ms += media_ms
        self._since_better_ms += media_ms

    def _cost_ms(self) -> float:
        """What a frame costs on this rung: the mean without the dearest."""
        costs = self._costs_ms
        return costs[0] if len(costs) == 1 else (sum(costs) - max(costs)) / (len(costs) - 1)

    def _weigh(self, share: float, media_ms: float) -> None:
        """In time: judge by the mean cost as a `share` of the allowance."""
        ladder = self.ladder
        self._calm_ms = self._calm_ms + media_ms if share < ladder.calm_share else 0.0
        if share > ladder.busy_share and self._on_rung_ms >= ladder.settle_ms:
            self._move(self._made + 1)
        elif self._made > FULL and self._calm_ms >= self._patience_ms:
            self._move(self._made - 1)
        elif self._since_better_ms > 4 * self._patience_ms:
            self._patience_ms = ladder.calm_ms

    def _move(self, rung: int) -> None:
        rung = min(rung, self._worst_made)
        if rung > self._made and self._since_better_ms <= self._patience_ms:
            self._patience_ms = min(2 * self._patience_ms, self.ladder.calm_max_ms)
        if rung < self._made:
            self._since_better_ms = 0.0
        if rung != self._made:
            self._made = rung
            self._costs_ms.clear()
            self._on_rung_ms = self._calm_ms = 0.0
