"""Admission by measured budget: tables of what runs and what a frame costs."""

from __future__ import annotations

import pytest

from server.admission import KNOWN, Admission, Cost

NEW: tuple[Cost, ...] = ()


def running(ms: float, level: int = 0, frames: int = 25) -> tuple[Cost, ...]:
    return (Cost(level, ms),) * frames


@pytest.mark.parametrize(
    ("full_ms", "sessions", "fits"),
    [
        (None, [], True), (None, [NEW], True), (500.0, [], True),
        (18.0, [NEW], True), (19.5, [NEW], False),
        (3.0, [NEW] * 11, True), (3.0, [NEW] * 12, False),
        (500.0, [running(10.0)], True), (5.0, [running(30.0)], False),
        (5.0, [running(30.0, frames=KNOWN - 1)], True),
        (5.0, [running(5.0), running(5.0, level=1)], True),
        (5.0, [running(5.0), running(5.0, level=2)], False),
        (5.0, [running(5.0), running(0.1, level=4)], False),
        (5.0, [running(5.0, level=2, frames=KNOWN - 1)], True),
        (30.0, [running(8.0, level=1)], False),
    ],
)  # fmt: skip
def test_who_is_let_in(full_ms: float | None, sessions: list[tuple[Cost, ...]], fits: bool) -> None:
    admission = Admission(full_ms=full_ms)
    assert (admission.refusal(sessions) is None) is fits
    assert Admission(auto=False, full_ms=full_ms).refusal(sessions) is None


def test_the_words_say_what_is_needed_and_what_there_is() -> None:
    words = Admission(full_ms=25.0).refusal([NEW])
    assert words is not None
    for part in ("25 ms", "2 sessions", "50 of the 38 ms"):
        assert part in words


@pytest.mark.parametrize(
    ("costs", "ms"),
    [
        ([7.0], 7.0), ([900.0, 21.0, 20.0, 22.0, 19.0], 20.0), ([5.0] * 20 + [80.0] * 50, 5.0),
        ([80.0] * 99 + [5.0], 80.0),
    ],
)
def test_a_rehearsal_is_judged_by_its_lower_quartile(costs: list[float], ms: float) -> None:
    admission = Admission()
    admission.rehearsed([])
    assert admission.full_ms is None
    admission.rehearsed(costs)
    assert admission.full_ms == ms


def test_the_cost_is_learnt_while_running_and_kept_when_everybody_has_gone() -> None:
    admission = Admission(full_ms=5.0)
    assert admission.refusal([running(17.0)]) is None
    assert admission.full_ms == 17.0
    assert admission.refusal([]) is None and admission.full_ms == 17.0
    assert admission.refusal([running(17.0), running(17.0)]) is not None


def test_a_busy_machine_is_seen_and_a_quiet_one_again() -> None:
    """Wall time is what counts: the same frame costs more beside other work."""
    admission = Admission(full_ms=10.0)
    assert admission.refusal([running(10.0)]) is None
    assert admission.refusal([running(35.0)]) is not None
    assert admission.refusal([running(10.0)]) is None
