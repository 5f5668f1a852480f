"""Whether the machine has time for one more session, pure: what a frame costs against what there is.

In: what frames cost, from a rehearsal while warming up and from the sessions that run. Out: None for "come in", or
words. Remembers: the last known cost of a frame at full quality.

One thread makes the frames of all sessions, 25 a second each: with n sessions a frame may cost 40 ms / n. A session is
let in when everybody, the newcomer too, could be served at full quality; the ladder is for what changes afterwards. The
first one is always let in: the ladder serves somebody badly rather than nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from svp_stream.clock import FRAME_RATE_HZ

FRAME_MS: Final = 1000 / FRAME_RATE_HZ
SHARE: Final = 0.95
"""Of the frame's time: above it the ladder gives up a rung (see `svp_stream.pipeline.budget`)."""
FULL: Final = 0
POOR: Final = 2
"""The rung from which on a session counts as served badly: features or latents are reused."""
KNOWN: Final = 8
"""So many frames say what a frame costs."""
RETRY_AFTER_S: Final = 10


@dataclass(frozen=True, slots=True)
class Cost:
    """One frame: the rung it was made at, wall milliseconds (of a busy machine more than of a quiet one)."""

    level: int
    ms: float


@dataclass(slots=True)
class Admission:
    """`auto` False lets everybody in; `share` of 40 ms is what frames may take in all."""

    auto: bool = True
    share: float = SHARE
    full_ms: float | None = field(default=None)
    """What a frame costs at full quality, as far as known."""

    def rehearsed(self, costs_ms: Sequence[float]) -> None:
        """Frames made while warming up cost this."""
        if costs_ms:
            self.full_ms = usual(costs_ms)

    def refusal(self, sessions: Sequence[Sequence[Cost]]) -> str | None:
        """Why one more session does not fit beside those whose last frames these are; None when it does."""
        self._learn(sessions)
        count = len(sessions)
        if not self.auto or count == 0:
            return None
        poor = sum(1 for costs in sessions if len(costs) >= KNOWN and median(c.level for c in costs) >= POOR)
        if poor:
            return f"the machine is too busy: {poor} of {count} sessions run at less than full quality already"
        if self.full_ms is None:
            return None
        needed, there = (count + 1) * self.full_ms, FRAME_MS * self.share
        if needed <= there:
            return None
        return (
            f"the machine is too busy: a frame costs {self.full_ms:.0f} ms here, so {count + 1} sessions need "
            f"{needed:.0f} of the {there:.0f} ms that there are for a frame of each"
        )

    def _learn(self, sessions: Sequence[Sequence[Cost]]) -> None:
        full = [cost.ms for costs in sessions for cost in costs if cost.level == FULL]
        if len(full) >= KNOWN:
            self.full_ms = usual(full)


def usual(costs_ms: Sequence[float]) -> float:
    """What a frame costs when nothing comes between: the lower quartile. A model that wakes up and a thread that loses
    its core for a moment say little; on a machine that is busy all the time the quartile rises, too."""
    return sorted(costs_ms)[(len(costs_ms) - 1) // 4]
