"""What a soak says, pure: percentiles, slopes per hour with their error, a verdict for each series.

In: samples (seconds, value) by name. Out: lines of figures; whether all is well. Remembers: nothing.

The slope is that of least squares. Neighbouring samples are alike, so its error is computed from as many independent
ones as their lag-1 autocorrelation leaves (Bayley & Hammersley 1946). A slope is bad when even its lower end (two
errors) is beyond the limit: noise alone does not fail a soak, a leak does. The first part of a run is warming up and
does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from svp_stream.packets import Floats

Samples = Sequence[tuple[float, float]]
HOUR_S: Final = 3600.0
WARM_UP_SHARE: Final = 0.2
WARM_UP_S: Final = 120.0
"""At most this much of a run is left out."""
FEWEST: Final = 12
"""So many samples make a slope."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How fast a series may rise (`up`) or fall (`down`) in an hour, and how large its p95 may be; None: any."""

    name: str
    unit: str
    up: float | None = None
    down: float | None = None
    most_p95: float | None = None
    fewest_p50: float | None = None


RULES: Final = (
    Rule("latency_ms", "ms", up=30.0),
    Rule("fps", "frames/s", down=2.0, fewest_p50=1.0),
    Rule("rss_mb", "MB", up=24.0),
    Rule("tasks", "", up=4.0),
    Rule("threads", "", up=4.0),
    Rule("fds", "", up=4.0),
    Rule("skew_ms", "ms", up=20.0, down=20.0),
    Rule("skew_size_ms", "ms", most_p95=40.0),
    Rule("viewer_fps", "frames/s", down=2.0, fewest_p50=1.0),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One series. `slope` and `error` in units an hour; `why` is empty when all is well."""

    name: str
    unit: str
    samples: int
    p50: float
    p95: float
    slope: float
    error: float
    why: str

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.why

    def line(self) -> str:
        """For people."""
        end = "ok" if self.good else f"BAD: {self.why}"
        figures = f"p50 {self.p50:9.2f}  p95 {self.p95:9.2f}  slope {self.slope:+9.2f} ± {2 * self.error:.2f}"
        return f"{self.name:<14}{figures} {self.unit or 'items'}/h  {end}"


def settled(samples: Samples) -> Samples:
    """Without the warming-up."""
    if not samples:
        return samples
    begin, end = samples[0][0], samples[-1][0]
    ready = begin + min(WARM_UP_S, WARM_UP_SHARE * (end - begin))
    return [(t, v) for t, v in samples if t >= ready]


def slope_per_hour(samples: Samples) -> tuple[float, float]:
    """(slope, its standard error), both per hour; raises ValueError for fewer than three samples or one moment."""
    t, v = np.array(samples, np.float64).T if len(samples) else (np.zeros(0), np.zeros(0))
    if len(t) < 3 or np.ptp(t) == 0:
        raise ValueError(f"{len(t)} samples at one moment or too few of them make no slope")
    spread = t - t.mean()
    sxx = float(spread @ spread)
    slope = float(spread @ v) / sxx
    rest = v - v.mean() - slope * spread
    count = len(t) * _independent(rest)
    error = float(np.sqrt(rest @ rest / sxx / max(1.0, count - 2)))
    return slope * HOUR_S, error * HOUR_S


def _independent(rest: Floats) -> float:
    """The share of the samples that counts as independent, from their lag-1 autocorrelation."""
    power = float(rest @ rest)
    if power <= 0:
        return 1.0
    alike = min(0.95, max(0.0, float(rest[1:] @ rest[:-1]) / power))
    return (1 - alike) / (1 + alike)


def judge(rule: Rule, samples: Samples) -> Verdict:
    """One series against its rule."""
    kept = settled(samples)
    if len(kept) < FEWEST:
        why = f"only {len(kept)} samples after warming up; {FEWEST} are needed"
        return Verdict(rule.name, rule.unit, len(kept), float("nan"), float("nan"), 0.0, 0.0, why)
    values = np.array([v for _, v in kept])
    p50, p95 = (float(p) for p in np.percentile(values, (50, 95)))
    slope, error = slope_per_hour(kept)
    return Verdict(rule.name, rule.unit, len(kept), p50, p95, slope, error, _wrong(rule, p50, p95, slope, error))


def _wrong(rule: Rule, p50: float, p95: float, slope: float, error: float) -> str:
    if rule.up is not None and slope - 2 * error > rule.up:
        return f"rises by more than {rule.up:g} an hour"
    if rule.down is not None and slope + 2 * error < -rule.down:
        return f"falls by more than {rule.down:g} an hour"
    if rule.most_p95 is not None and p95 > rule.most_p95:
        return f"p95 above {rule.most_p95:g}"
    if rule.fewest_p50 is not None and p50 < rule.fewest_p50:
        return f"p50 below {rule.fewest_p50:g}"
    return ""


def report(series: Mapping[str, Samples], rules: Sequence[Rule] = RULES) -> list[Verdict]:
    """Every rule whose series was measured, in the order of the rules."""
    return [judge(rule, series[rule.name]) for rule in rules if series.get(rule.name)]


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """For programs."""
    return {v.name: {**asdict(v), "good": v.good} for v in verdicts}
