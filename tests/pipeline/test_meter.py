"""The meter: per frame, by stage, bounded, with a clock of the test's own."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.pipeline.meter import TOTAL, Meter, Reservoir


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_spans_are_divided_over_frames() -> None:
    clock = Clock()
    meter = Meter(clock)
    for _ in range(2):
        with meter.span("vad"):
            clock.now += 0.004
    with meter.span("face"):
        clock.now += 0.012
    meter.add("face.decoder", 5.0)
    meter.frames(2)
    told = meter.snapshot()
    assert list(told) == ["vad", "face", "face.decoder", TOTAL]
    assert told["vad"].p50_ms == pytest.approx(4.0)
    assert told["face"].last_ms == pytest.approx(6.0)
    assert told["face.decoder"].p95_ms == pytest.approx(2.5)
    assert told[TOTAL].mean_ms == pytest.approx(10.0), "a stage inside another is not counted twice"
    assert told[TOTAL].count == 2
    assert meter.last_ms() == pytest.approx(10.0)


def test_work_without_frames_waits_for_the_next_frame() -> None:
    clock = Clock()
    meter = Meter(clock)
    with meter.span("vad"):
        clock.now += 0.001
    meter.frames(0)
    assert meter.snapshot() == {}
    assert meter.last_ms() == 0.0
    with meter.span("vad"):
        clock.now += 0.002
    meter.frames(1)
    assert meter.snapshot()["vad"].last_ms == pytest.approx(3.0)


def test_a_span_that_fails_is_still_counted() -> None:
    clock = Clock()
    meter = Meter(clock)
    with pytest.raises(RuntimeError), meter.span("face"):
        clock.now += 0.003
        raise RuntimeError
    meter.frames(1)
    assert meter.snapshot()["face"].last_ms == pytest.approx(3.0)


def test_reservoir_is_bounded_and_knows_its_percentiles() -> None:
    values = np.random.default_rng(0).exponential(10, 500)
    reservoir = Reservoir(100)
    for v in values:
        reservoir.add(float(v))
    told = reservoir.times()
    assert told.count == 500
    assert told.p50_ms == pytest.approx(np.percentile(values[-100:], 50))
    assert told.p95_ms == pytest.approx(np.percentile(values[-100:], 95))
    assert told.as_dict()["last_ms"] == values[-1]
    assert len(reservoir.values) == 100


def test_empty_reservoir_and_reset() -> None:
    with pytest.raises(ValueError, match="empty"):
        Reservoir(3).times()
    with pytest.raises(ValueError, match="window=0"):
        Reservoir(0)
    meter = Meter(Clock(), window=2)
    meter.add("a", 1.0)
    meter.frames(1)
    meter.reset()
    assert meter.snapshot() == {}
