"""Longer storms than the default suite has time for; each prints the server's delay before, during and after.

`SVP_SOAK_MINUTES` is the length of all of them together.
"""

from __future__ import annotations

import json
import os
import sys

import aioice.ice
import pytest

from tests.fakes.relay import Weather
from tests.loopback.ordeal import endure
from tests.loopback.test_storm import check

STORMS = {
    "loss 5 %": Weather(loss=0.05),
    "jitter 50 ms, reordering": Weather(jitter_s=0.05),
    "delay 100 ms, jitter 50 ms, in order": Weather(delay_s=0.1, jitter_s=0.05, ordered=True),
    "loss 5 %, jitter 50 ms, duplicates 2 %": Weather(loss=0.05, jitter_s=0.05, duplicate=0.02),
    "800 kbit/s": Weather(kbps=800),
    "outage, lost": Weather(dark=True),
    "outage, held up": Weather(dark=True, keeps=True),
}


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", STORMS)
async def test_storm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    weather = STORMS[name]
    share_s = 60 * float(os.environ.get("SVP_SOAK_MINUTES", "4")) / len(STORMS)
    trouble_s = 2.0 if weather.dark else max(4.0, share_s / 2)
    ordeal = await endure(weather, calm_s=max(2.0, share_s / 6), trouble_s=trouble_s, settle_s=2.0)
    sys.stdout.write("\n" + json.dumps({"storm": name, **ordeal.row()}) + "\n")
    check(ordeal)
