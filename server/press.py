"""The encoder thread: one for the process, serving every encoding in the order in which they are due.

In: encodings that have a picture waiting. Out: calls of their `run`. Remembers: who waits, once each.
Latency: the wait for the encodings before it. Neither the event loop nor the inference thread ever encodes a picture.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

logger = logging.getLogger(__name__)


class Job(Protocol):
    """Something to do on the encoder thread."""

    def run(self, now_s: float) -> None:
        """Do what is due."""
        ...


class Press:
    """Owns the thread. Bounded: a job waits at most once, so there are never more than encodings."""

    def __init__(self) -> None:
        self._due: dict[Job, float] = {}
        self._bell = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End after the job in hand; whether the thread ended in `timeout_s`. Blocks: not for the event loop."""
        with self._bell:
            self._stopping = True
            self._bell.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def submit(self, job: Job, due_s: float) -> None:
        """From any thread; never waits. A job that waits already keeps the earlier time."""
        with self._bell:
            self._due[job] = min(due_s, self._due.get(job, due_s))
            self._bell.notify()

    def withdraw(self, job: Job) -> None:
        """Forget a job that waits; one in hand ends by itself."""
        with self._bell:
            self._due.pop(job, None)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.run(time.monotonic())
            except Exception:
                # a codec may raise anything: it costs this encoding a picture and no other anything
                logger.exception("an encoding failed")

    def _next(self) -> Job | None:
        with self._bell:
            while not self._stopping:
                job = min(self._due, key=self._due.__getitem__, default=None)
                wait_s = None if job is None else self._due[job] - time.monotonic()
                if job is not None and wait_s is not None and wait_s <= 0:
                    del self._due[job]
                    return job
                self._bell.wait(wait_s)
        return None
