"""Microphones with faults built in: they die, fall silent, refuse, go away and come back with another number or rate.

In: what a test plugs in. Out: blocks of a sine in a thread of their own. Remembers: what is plugged in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from server.local_mic import Block, MicDevice, MicError

HZ = 440.0


@dataclass
class FakeStream:
    """Records until it is closed or killed; `stuck` keeps it active without a block."""

    device: MicDevice
    hear: Callable[[Block], None]
    block_s: float
    active: bool = True
    stuck: bool = False
    closed: bool = False
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        rate, at = self.device.rate_hz, 0
        size = round(rate * self.block_s)
        while self.active and not self.closed:
            if not self.stuck:
                t = (at + np.arange(size)) / rate
                sine = np.sin(2 * np.pi * HZ * t).astype(np.float32)
                both = np.stack([0.5 * sine] * self.device.channels, axis=1)
                self.hear(Block(time.monotonic(), both, rate))
                at += size
            time.sleep(self.block_s)

    def close(self) -> None:
        """As the protocol says."""
        self.closed = True
        self.thread.join(5)


@dataclass
class FakeMicrophones:
    """`plugged` is what there is; a device in `busy` refuses to open."""

    plugged: list[MicDevice] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)
    streams: list[FakeStream] = field(default_factory=list)
    block_s: float = 0.005

    def devices(self) -> list[MicDevice]:
        """As the protocol says."""
        return list(self.plugged)

    def open(self, device: MicDevice, hear: Callable[[Block], None]) -> FakeStream:
        """As the protocol says."""
        if device.name in self.busy:
            raise MicError(f"the microphone {device.name!r} cannot be opened: it is busy")
        stream = FakeStream(device, hear, self.block_s)
        self.streams.append(stream)
        return stream
