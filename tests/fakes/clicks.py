"""A microphone that clicks, and the times at which its clicks are heard: latency through real codecs and networks.

In: nothing, then packets of sound with their wall time. Out: seconds from the leaving of a click to its hearing.
Remembers: when each click left. A click begins a packet; Opus delays it by 6.5 ms of sound, so it stays in that packet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from svp_stream.packets import Float32, Floats
from tests.fakes.peers import PACKET, ToneMic

EVERY = 10
"""Packets from click to click: 200 ms, so that latency below that is told without doubt."""
LOUD = 0.15


class ClickMic(ToneMic):
    """5 ms of a loud tone at the start of each `every`-th packet, silence between."""

    def __init__(self, every: int = EVERY) -> None:
        super().__init__()
        self.every = every

    def samples(self, packet: int) -> Floats:
        out = np.zeros(PACKET)
        if packet % self.every == 0:
            out[:240] = 0.9 * np.sin(np.arange(240) * 2 * np.pi * 1000 / 48_000)
        return out

    def left_s(self) -> list[float]:
        """When each click left."""
        return [at for i, (at, _) in enumerate(self.sent) if (i + 1) % self.every == 0]


@dataclass
class ClickEar:
    """Hears clicks: give it every packet."""

    heard_s: list[float] = field(default_factory=list)
    _last: bool = False

    def hear(self, samples: Float32, now_s: float | None = None) -> None:
        """A packet of sound, now."""
        loud = bool(len(samples)) and float(np.abs(samples).max()) > LOUD
        if loud and not self._last:
            self.heard_s.append(time.monotonic() if now_s is None else now_s)
        self._last = loud

    def latencies_s(self, mic: ClickMic) -> Floats:
        """For each click heard, the seconds since the last one that had left."""
        left = np.array(mic.left_s())
        at = np.searchsorted(left, np.array(self.heard_s)) - 1
        return np.array([h - left[i] for h, i in zip(self.heard_s, at, strict=True) if i >= 0])
