"""Is the machine fair to tests that measure wall time? A task of the same loop notes how late it is woken.

In: nothing. Out: the 95th percentile of its lateness. Remembers: each wake-up.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

import numpy as np
import pytest

STEP_S = 0.01
FAIR_MS = 15.0
"""Later than this too often, and a packet of 20 ms cannot be on time, whatever the server does."""


class Probe:
    """`async with Probe() as probe:` around what is measured; then `probe.late_ms`."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Probe:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="probe")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def late_ms(self) -> float:
        """95th percentile of the lateness."""
        return float(np.percentile(self._late, 95)) * 1000 if self._late else 0.0

    def skip_if_unfair(self) -> None:
        """Skips the test that asks, in words."""
        if self.late_ms > FAIR_MS:
            pytest.skip(f"the machine is too busy to judge: its timers are {self.late_ms:.0f} ms late")

    async def _run(self) -> None:
        while True:
            due_s = time.monotonic() + STEP_S
            await asyncio.sleep(STEP_S)
            self._late.append(max(0.0, time.monotonic() - due_s))
