"""Microphone to server on loopback: milliseconds from a packet's leaving of a real sender to its hearing, our jitter
buffer against aiortc's own, calm and in bad weather. The figures are printed as JSON lines. `SVP_SOAK_MINUTES` changes
the length (of all runs together; at least one minute)."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

from svp_stream.packets import Floats
from tests.fakes.pairs import mic_latencies
from tests.fakes.relay import Weather

WEATHERS = {
    "calm": None,
    "loss 5 %": Weather(loss=0.05),
    "jitter 20 ms": Weather(jitter_s=0.02),
    "jitter 50 ms": Weather(jitter_s=0.05),
}


def figures(late_s: Floats) -> dict[str, float]:
    """Median, 95th percentile and number."""
    p50, p95 = np.percentile(late_s, [50, 95]) * 1000
    return {"p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1), "clicks": len(late_s)}


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_microphone_to_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    seconds = max(60.0, 60 * float(os.environ.get("SVP_SOAK_MINUTES", "2"))) / (2 * len(WEATHERS))
    found = {}
    for name, weather in WEATHERS.items():
        for ours in (True, False):
            late = await mic_latencies(seconds, ours=ours, weather=weather)
            found[name, ours] = figures(late)
            line = {"weather": name, "buffer": "ours" if ours else "aiortc", **found[name, ours]}
            sys.stdout.write("\n" + json.dumps(line))
    sys.stdout.write("\n")
    assert found["calm", True]["p50_ms"] < found["calm", False]["p50_ms"] - 60
