"""Picture and voice on one clock: how far apart a beep is seen and heard at a real receiving peer, for as long as told.

The microphone's sound card is 100 ppm fast. `SVP_SOAK_MINUTES` is the length; the figures are printed as one JSON line:
the skew itself (positive: the picture comes after the voice), its drift from the first minute, its slope.
"""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.loopback.test_av_skew import listen


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_picture_and_voice_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    minutes = float(os.environ.get("SVP_SOAK_MINUTES", "10"))
    figures = await listen(60 * minutes, pace=1.0001)
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
    assert figures["drift_ms_p95"] <= 40
    assert figures["beeps"] > 60 * minutes / 2.02 * 0.9 - 5
