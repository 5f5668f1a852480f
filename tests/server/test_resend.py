"""The budget of packets that are sent again."""

from __future__ import annotations

from server.resend import BURST, SHARE, ResendBudget


def test_a_few_are_sent_again_and_a_storm_is_not() -> None:
    budget, packets = ResendBudget(), BURST // 1200
    assert sum(budget.take(1200) for _ in range(100)) == packets and budget.refused == 100 - packets
    budget.sent(120_000)
    assert sum(budget.take(1200) for _ in range(100)) == SHARE * 100
    budget.sent(10_000_000)
    assert sum(budget.take(1200) for _ in range(100)) == packets, "it does not save up"


def test_five_per_cent_loss_is_always_made_good() -> None:
    budget = ResendBudget()
    for number in range(5000):
        budget.sent(1000)
        if number % 20 == 0:
            assert budget.take(1000)
    assert budget.refused == 0


def test_a_key_frame_instead_once_a_second() -> None:
    budget = ResendBudget()
    assert [budget.key_due(now) for now in (0.0, 0.5, 0.99, 1.0, 1.5, 2.1)] == [True, False, False, True, False, True]
