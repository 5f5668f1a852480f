"""Token buckets and waits for wrong tokens, in virtual time."""

from __future__ import annotations

import pytest

from server.limits import Backoff, Rates, network


def test_a_burst_passes_and_then_the_long_run_counts() -> None:
    rates = Rates(per_minute=60, burst=5)
    assert [rates.take("1.2.3.4", 0.0) for _ in range(5)] == [0.0] * 5
    assert rates.take("1.2.3.4", 0.0) == pytest.approx(1.0)
    assert rates.take("1.2.3.4", 0.5) == pytest.approx(0.5), "asking too early costs nothing"
    assert rates.take("1.2.3.4", 1.0) == 0.0
    assert rates.take("1.2.3.4", 1.0) > 0
    assert rates.take("5.6.7.8", 1.0) == 0.0, "others have their own"


@pytest.mark.parametrize("per_minute", [6.0, 60.0, 600.0])
def test_over_an_hour_nobody_gets_more_than_the_rate(per_minute: float) -> None:
    rates = Rates(per_minute, burst=10)
    passed = sum(rates.take("a", second / 20) == 0.0 for second in range(20 * 3600))
    assert 60 * per_minute <= passed <= 60 * per_minute + 10


def test_a_clock_that_steps_back_gives_nothing_away() -> None:
    rates = Rates(60, 1)
    assert rates.take("a", 100.0) == 0.0
    assert rates.take("a", 50.0) > 0 and rates.take("a", 100.5) > 0 and rates.take("a", 101.5) == 0.0


def test_what_is_remembered_is_bounded() -> None:
    rates = Rates(60, 1, keep=100)
    for i in range(1000):
        assert rates.take(str(i), 0.0) == 0.0
    assert len(rates._buckets) == 100
    assert rates.take("999", 0.0) > 0, "the recent ones are known"


@pytest.mark.parametrize(("per_minute", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_numbers_that_let_nobody_in(per_minute: float, burst: int) -> None:
    with pytest.raises(ValueError, match="nobody"):
        Rates(per_minute, burst)


def test_wrong_tokens_make_one_wait_longer_and_longer() -> None:
    backoff = Backoff(free=3, first_s=1.0, longest_s=8.0)
    waits = []
    for _ in range(9):
        backoff.failed("1.2.3.4", 10.0)
        waits.append(backoff.wait("1.2.3.4", 10.0))
    assert waits == [0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert backoff.wait("1.2.3.4", 17.0) == pytest.approx(1.0) and backoff.wait("5.6.7.8", 10.0) == 0.0
    backoff.passed("1.2.3.4")
    assert backoff.wait("1.2.3.4", 10.0) == 0.0


def test_wrong_tokens_are_forgotten_in_time() -> None:
    backoff = Backoff(free=1, forget_s=100.0)
    backoff.failed("a", 0.0)
    backoff.failed("a", 1.0)
    assert backoff.wait("a", 1.0) > 0
    backoff.failed("a", 200.0)
    assert backoff.wait("a", 200.0) == 0.0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_what_counts_as_one_asker(address: str, key: str) -> None:
    assert network(address) == key
