"""Calls through bad weather, over real connections: they go on, they recover within a second, nothing grows."""

from __future__ import annotations

import pytest

from server.jitter import BOUND
from tests.fakes.probe import Probe
from tests.fakes.relay import Weather
from tests.loopback.ordeal import Ordeal, endure


async def weathered(weather: Weather, trouble_s: float, settle_s: float) -> Ordeal:
    """A quick ordeal; on a machine that holds no call even in calm, the test is skipped."""
    async with Probe() as probe:
        ordeal = await endure(weather, calm_s=0.8, trouble_s=trouble_s, settle_s=settle_s)
    probe.skip_if_unfair()
    return ordeal


def check(ordeal: Ordeal) -> None:
    """What holds after any weather."""
    assert ordeal.sight_s < 1.5 and ordeal.voice_s < 1.5, ordeal
    assert ordeal.after.fps > 0.7 * ordeal.before.fps, ordeal
    assert ordeal.after.delay_ms < ordeal.before.delay_ms + 40, ordeal
    assert ordeal.tasks_more <= 2 and ordeal.held <= BOUND, ordeal


async def test_five_percent_of_loss_is_concealed() -> None:
    ordeal = await weathered(Weather(loss=0.05), trouble_s=2.4, settle_s=0.7)
    check(ordeal)
    assert ordeal.during.fps > 0.6 * ordeal.before.fps, ordeal
    assert ordeal.hearing["lost"] >= 2 and ordeal.hearing["concealed"] >= 0.5 * ordeal.hearing["lost"], ordeal


async def test_fifty_milliseconds_of_jitter_and_reordering() -> None:
    ordeal = await weathered(Weather(jitter_s=0.05), trouble_s=2.0, settle_s=1.7)
    check(ordeal)
    assert ordeal.during.fps > 0.6 * ordeal.before.fps, ordeal
    assert ordeal.hearing["reordered"] >= 5 and ordeal.hearing["late"] < 0.15 * ordeal.hearing["received"], ordeal


@pytest.mark.parametrize("keeps", [False, True], ids=["lost", "held up"])
async def test_an_outage_of_two_seconds(keeps: bool) -> None:
    """Everything in between is lost, or comes at once afterwards."""
    ordeal = await weathered(Weather(dark=True, keeps=keeps), trouble_s=2.0, settle_s=1.2)
    check(ordeal)
