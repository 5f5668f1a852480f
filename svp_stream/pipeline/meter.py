"""How long each stage takes: bounded reservoirs of milliseconds for each frame, with their percentiles.

In: durations in ms by stage name. Out: `snapshot()` with count, mean, p50, p95 and the last value.
Remembers: the last `window` values of each stage. Latency: none. The clock is passed in, so tests need no waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

WallClock = Callable[[], float]
"""Seconds of a monotonic clock, such as `time.perf_counter`."""

TOTAL = "total"


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds a frame of one stage; `count` is over its whole life, the rest over the reservoir."""

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    last_ms: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


@runtime_checkable
class Timed(Protocol):
    """A face stream that can say where its time goes: the session merges it into the meter."""

    def take_times(self) -> dict[str, float]:
        """Milliseconds spent by each inner stage since the last call."""
        ...


@dataclass(slots=True)
class Reservoir:
    """The last `window` values and how many there have ever been."""

    window: int
    values: deque[float] = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"a reservoir holds at least one value, got window={self.window}")
        self.values = deque(maxlen=self.window)

    def add(self, value: float) -> None:
        """Keep one value; the oldest leaves when the reservoir is full."""
        self.values.append(value)
        self.count += 1

    def times(self) -> StageTimes:
        """Percentiles by linear interpolation (numpy's default); raises ValueError while empty."""
        if not self.values:
            raise ValueError("an empty reservoir has no percentiles")
        data = np.fromiter(self.values, dtype=np.float64)
        p50, p95 = np.percentile(data, (50, 95))
        return StageTimes(self.count, float(data.mean()), float(p50), float(p95), float(data[-1]))


class Meter:
    """Durations by stage. Spans add up until `frames(n)` divides them over the frames that they led to."""

    def __init__(self, clock: WallClock, window: int = 1024) -> None:
        self._clock = clock
        self._window = window
        self._open: dict[str, float] = {}
        self._stages: dict[str, Reservoir] = {}

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time a block of work of `stage`."""
        started = self._clock()
        try:
            yield
        finally:
            self.add(stage, (self._clock() - started) * 1000)

    def add(self, stage: str, ms: float) -> None:
        """Account `ms` to `stage` for the frame in the making."""
        self._open[stage] = self._open.get(stage, 0.0) + ms

    def frames(self, count: int) -> None:
        """`count` frames came out of the work since the last call; stages with a dot are inside another's time."""
        if count < 1:
            return
        total = sum(ms for stage, ms in self._open.items() if "." not in stage)
        for stage, ms in (*self._open.items(), (TOTAL, total)):
            reservoir = self._stages.setdefault(stage, Reservoir(self._window))
            for _ in range(min(count, self._window)):
                reservoir.add(ms / count)
        self._open.clear()

    def last_ms(self, stage: str = TOTAL) -> float:
        """The latest value of a stage, 0 before the first frame."""
        reservoir = self._stages.get(stage)
        return reservoir.values[-1] if reservoir and reservoir.values else 0.0

    def snapshot(self) -> dict[str, StageTimes]:
        """Figures of every stage seen, in the order of first sight, `total` last."""
        names = [name for name in self._stages if name != TOTAL] + [TOTAL] * (TOTAL in self._stages)
        return {name: self._stages[name].times() for name in names}

    def reset(self) -> None:
        """Forget every value."""
        self._open.clear()
        self._stages.clear()
