"""The laws of `svp_stream.stage`, over every stage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svp_stream.errors import StreamError
from svp_stream.stage import Stage
from tests.laws.stages import CASES, Case, Moment, end_of, moments, perturbed, recut, run

every_stage = pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
SIZES = st.lists(st.one_of(st.integers(1, 40), st.integers(1, 4000)), max_size=24)


@every_stage
def test_any_chunking_gives_the_same_output(case: Case) -> None:
    whole = run(case.make(), case.feed(1))
    assert whole

    @settings(max_examples=case.examples, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    @given(sizes=SIZES)
    def check(sizes: list[int]) -> None:
        assert run(case.make(), recut(case.feed(1), sizes)) == whole

    check()


@every_stage
def test_no_output_depends_on_input_after_its_latency(case: Case) -> None:
    packets, other = recut(case.feed(1), ()), recut(case.feed(2), ())
    whole, latency = run(case.make(), packets), case.make().latency
    rng = np.random.default_rng(0)
    changed = 0
    for at in rng.integers(packets[0].pts, end_of(packets[-1]), 4):
        out = run(case.make(), perturbed(packets, other, int(at)))
        settled = [m for m in whole if m[0] + latency <= at]
        assert out[: len(settled)] == settled, f"input at tick {at} reaches back more than {latency} ticks"
        changed += out != whole
    assert changed, "the other input changes nothing, so that this test shows nothing"


@every_stage
def test_output_is_not_later_than_declared(case: Case) -> None:
    packets = recut(case.feed(1), (700, 3, 1500, 1, 1, 2, 960))
    whole, stage = run(case.make(), packets), case.make()
    out = []
    for packet in packets:
        out += moments(stage.push(packet))
        due = [m for m in whole if m[0] + stage.latency <= end_of(packet)]
        assert out[: len(due)] == due, f"{due[len(out)][0]} was due by {end_of(packet)}, latency {stage.latency}"


@every_stage
def test_pts_never_fall(case: Case) -> None:
    ticks = [m[0] for m in run(case.make(), recut(case.feed(1), ()))]
    assert ticks == sorted(ticks)


@every_stage
@pytest.mark.parametrize("ended", [False, True])
def test_reset_equals_fresh(case: Case, ended: bool) -> None:
    stage = case.make()
    for packet in recut(case.feed(2), (1, 777)):
        stage.push(packet)
    if ended:
        stage.flush()
    stage.reset()
    packets = recut(case.feed(1), ())
    assert run(stage, packets) == run(case.make(), packets)


@every_stage
def test_two_streams_do_not_touch_each_other(case: Case) -> None:
    feeds = [recut(case.feed(1), ()), recut(case.feed(2), ())]
    alone = [run(case.make(), feed) for feed in feeds]
    assert alone[0] != alone[1]
    stages: list[Stage[object, object]] = [case.make(), case.make()]
    together: list[list[Moment]] = [[], []]
    for pair in zip(*feeds, strict=True):
        for i in (0, 1):
            together[i] += moments(stages[i].push(pair[i]))
    assert [t + moments(s.flush()) for t, s in zip(together, stages, strict=True)] == alone


@every_stage
def test_a_flushed_stage_wants_reset(case: Case) -> None:
    stage, packets = case.make(), recut(case.feed(1), ())
    stage.push(packets[0])
    stage.flush()
    with pytest.raises(StreamError, match="reset"):
        stage.push(packets[1])


@every_stage
def test_a_stage_that_heard_nothing_has_nothing_to_flush(case: Case) -> None:
    assert not case.make().flush()


@every_stage
def test_it_is_a_stage(case: Case) -> None:
    stage = case.make()
    assert isinstance(stage, Stage) and isinstance(stage, case.covers)
    assert isinstance(stage.latency, int) and stage.latency >= 0
