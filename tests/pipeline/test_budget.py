"""The ladder: worse quickly, better slowly, latency bounded, drops counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp_stream.clock import FRAME_TICKS, ms_to_ticks
from svp_stream.pipeline.budget import FULL, REPEAT, RUNGS, Budget, Drop, DropCounts, Ladder

CHEAP = {0: 30.0, 1: 20.0, 2: 14.0, 3: 8.0, 4: 0.5}
DEAR = {0: 70.0, 1: 50.0, 2: 36.0, 3: 20.0, 4: 0.5}
HOPELESS = {0: 190.0, 1: 140.0, 2: 110.0, 3: 90.0, 4: 0.5}


def drive(budget: Budget, cost: Callable[[int, int], float], frames: int) -> list[tuple[int, float]]:
    """Make frames one after the other as a worker does; (rung, ms behind) after each. One arrives every 40 ms."""
    now = 0.0
    seen = []
    for n in range(frames):
        arrived = n * 40.0
        ms = cost(n, budget.rung)
        now = max(now, arrived) + ms
        behind = now - (arrived + 40.0)
        budget.decide(behind_ticks=ms_to_ticks(behind), frame_ms=ms)
        seen.append((budget.rung, behind))
    return seen


def test_in_time_is_full_quality() -> None:
    assert {rung for rung, _ in drive(Budget(), lambda _, rung: CHEAP[rung], 500)} == {FULL}


def test_too_dear_settles_on_the_first_rung_that_fits() -> None:
    seen = drive(Budget(), lambda _, rung: DEAR[rung], 2000)
    late = [rung for rung, _ in seen[500:]]
    assert late.count(2) > 0.8 * len(late)
    assert max(behind for _, behind in seen[500:]) < 120


def test_hopeless_machine_repeats_frames_and_latency_stays_flat() -> None:
    budget = Budget()
    seen = drive(budget, lambda _, rung: HOPELESS[rung], 3000)
    assert {rung for rung, _ in seen[200:]} == {3, REPEAT}
    first, last = (max(b for _, b in seen[a:b]) for a, b in ((200, 1000), (2000, 3000)))
    assert last <= first + 1
    assert last < Ladder().lost_ms + HOPELESS[3]
    repeated = sum(rung == REPEAT for rung, _ in seen[:-1])
    assert budget.drops.snapshot()["repeated"] == repeated > 1000


def test_one_stall_costs_no_lasting_quality() -> None:
    seen = drive(Budget(), lambda n, rung: 400.0 if n == 100 else CHEAP[rung], 300)
    assert seen[100][0] == REPEAT
    assert next(n for n, (rung, _) in enumerate(seen) if n > 100 and rung == FULL) < 125
    assert all(rung == FULL for rung, _ in seen[130:])


def test_returns_when_the_load_has_passed() -> None:
    busy = drive(budget := Budget(), lambda _, rung: DEAR[rung], 100)
    assert busy[-1][0] > FULL
    quiet = drive(budget, lambda _, rung: CHEAP[rung], 1500)
    assert quiet[-1][0] == FULL


def test_does_not_flap() -> None:
    """Rung 1 is calm, rung 0 too dear: each return to 0 is paid for by a longer wait."""
    seen = drive(Budget(), lambda _, rung: 60.0 if rung == 0 else 10.0, 25 * 300)
    returns = [n for n, ((a, _), (b, _)) in enumerate(itertools.pairwise(seen)) if b < a]
    gaps = [b - a for a, b in itertools.pairwise(returns)]
    assert len(returns) < 25
    assert gaps[-1] > 4 * gaps[0]


def test_patience_comes_back_after_a_good_stretch() -> None:
    budget = Budget()
    drive(budget, lambda _, rung: 60.0 if rung == 0 else 10.0, 25 * 60)
    drive(budget, lambda _, rung: 10.0, 25 * 400)
    drive(budget, lambda _, rung: DEAR[rung], 50)
    seen = drive(budget, lambda _, rung: 5.0, 25 * 10)
    assert seen[-1][0] == FULL


def test_worst_bounds_the_ladder() -> None:
    for worst in range(REPEAT):
        seen = drive(Budget(Ladder(worst=worst)), lambda _, rung: HOPELESS[rung], 200)
        assert max(rung for rung, _ in seen) == worst


def test_a_smaller_allowance_is_kept() -> None:
    budget = Budget()
    for _ in range(50):
        budget.decide(behind_ticks=0, frame_ms=30.0, allowance_ms=20.0)
    assert budget.rung > FULL


def test_reset_forgets_all_but_the_counts() -> None:
    budget = Budget()
    drive(budget, lambda _, rung: HOPELESS[rung], 100)
    counted = budget.drops.snapshot()
    budget.reset()
    assert budget.rung == FULL
    assert budget.drops.snapshot() == counted
    again = drive(budget, lambda _, rung: DEAR[rung], 300)
    assert again == drive(Budget(), lambda _, rung: DEAR[rung], 300)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-FRAME_TICKS, 20 * FRAME_TICKS), st.floats(0, 500)), max_size=200))
def test_rung_is_always_on_the_ladder(steps: list[tuple[int, float]]) -> None:
    budget = Budget()
    for behind, ms in steps:
        assert budget.decide(behind_ticks=behind, frame_ms=ms) in range(len(RUNGS))


@pytest.mark.parametrize(
    "wrong",
    [{"late_ms": 0}, {"late_ms": 200}, {"calm_share": 1.0}, {"calm_ms": 0}, {"calm_ms": 70_000}, {"worst": 5}],
)
def test_wrong_ladders(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Ladder(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"frame_ms": -1.0}, {"allowance_ms": 0.0}])
def test_wrong_measurements(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Budget().decide(**{"behind_ticks": 0, "frame_ms": 1.0, **wrong})  # type: ignore[arg-type]


def test_drop_counts() -> None:
    drops = DropCounts()
    drops.add(Drop.LATE, 2)
    drops.add(Drop.LATE)
    assert drops.snapshot() == {"repeated": 0, "superseded": 0, "late": 3, "audio_overflow": 0}
    with pytest.raises(ValueError, match="-1"):
        drops.add(Drop.LATE, -1)
