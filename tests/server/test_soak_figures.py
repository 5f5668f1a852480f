"""Slopes and verdicts of made-up runs."""

from __future__ import annotations

import numpy as np
import pytest

from server.soak_figures import RULES, Rule, Samples, as_json, judge, report, settled, slope_per_hour

BY_NAME = {rule.name: rule for rule in RULES}


def run(
    per_hour: float = 0.0, level: float = 100.0, noise: float = 0.0, minutes: float = 10.0, alike: float = 0.0,
    seed: int = 0,
) -> Samples:
    """One sample each 5 s: a line with (autocorrelated) noise."""
    t = np.arange(0, minutes * 60, 5.0)
    rng = np.random.default_rng(seed)
    rest = np.zeros(len(t))
    for i in range(len(t)):
        rest[i] = (alike * rest[i - 1] if i else 0.0) + rng.normal(0, noise)
    return [(float(a), float(b)) for a, b in zip(t, level + per_hour * t / 3600 + rest, strict=True)]


@pytest.mark.parametrize("per_hour", [-40.0, 0.0, 12.5, 600.0])
def test_the_slope_of_a_line_is_its_own(per_hour: float) -> None:
    slope, error = slope_per_hour(run(per_hour))
    assert slope == pytest.approx(per_hour, abs=1e-6) and error < 1e-6


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.8])
def test_the_error_is_about_as_large_as_slopes_of_noise_are(alike: float) -> None:
    slopes, errors = zip(*(slope_per_hour(run(noise=5.0, alike=alike, seed=s)) for s in range(200)), strict=True)
    assert 0.5 < np.std(slopes) / np.mean(errors) < 1.6
    beyond = float(np.mean(np.abs(slopes) > 2 * np.array(errors)))
    assert beyond < 0.2


def test_too_little_makes_no_slope() -> None:
    for samples in ([], [(0.0, 1.0), (1.0, 1.0)], [(1.0, 1.0)] * 9):
        with pytest.raises(ValueError, match="no slope"):
            slope_per_hour(samples)


def test_warming_up_does_not_count() -> None:
    rising = [(t, 100 + (50 * t / 100 if t < 100 else 50)) for t, _ in run()]
    assert judge(BY_NAME["rss_mb"], rising).good
    assert settled(run(minutes=60))[0][0] == 120.0 and settled(run(minutes=5))[0][0] == 60.0 and settled([]) == []


@pytest.mark.parametrize(
    ("name", "samples", "good"),
    [
        ("rss_mb", run(0), True), ("rss_mb", run(10), True), ("rss_mb", run(60), False),
        ("rss_mb", run(60, noise=0.5), False), ("rss_mb", run(0, noise=3.0, alike=0.8), True),
        ("rss_mb", run(-600), True), ("tasks", run(12, level=20), False), ("tasks", run(0, level=20), True),
        ("latency_ms", run(200, noise=2), False), ("latency_ms", run(0, noise=40), True),
        ("fps", run(0, level=25), True), ("fps", run(-10, level=25), False), ("fps", run(0, level=0.5), False),
        ("skew_ms", run(0, level=-12), True), ("skew_ms", run(-90, level=0), False),
        ("skew_size_ms", run(0, level=39), True), ("skew_size_ms", run(0, level=41), False),
        ("fds", run(0)[:12], False),
    ],
)  # fmt: skip
def test_verdicts(name: str, samples: Samples, good: bool) -> None:
    verdict = judge(BY_NAME[name], samples)
    assert verdict.good is good, verdict.line()
    assert ("BAD" in verdict.line()) is not good


def test_a_report_holds_what_was_measured() -> None:
    verdicts = report({"rss_mb": run(0), "fds": run(100), "unknown": run(0), "tasks": []})
    assert [v.name for v in verdicts] == ["rss_mb", "fds"] and [v.good for v in verdicts] == [True, False]
    told = as_json(verdicts)
    assert told["fds"]["good"] is False and told["rss_mb"]["slope"] == pytest.approx(0)
    assert Rule("x", "").up is None
