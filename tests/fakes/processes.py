"""A real server process for tests: its lines, its URL, its signals, what it holds of the machine.

In: arguments of `python -m server`. Out: a `ServerProcess`. Remembers: what it wrote to standard error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psutil

from svp_stream.config import ROOT


@dataclass(frozen=True)
class Held:
    """What a process holds: memory in MB, threads (but for those of the shared pools, which grow to their bound and
    stay), descriptors of open files, sockets."""

    rss_mb: float
    threads: int
    fds: int
    sockets: int


@dataclass
class ServerProcess:
    """One server, listening."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    def held(self) -> Held:
        """Now."""
        ps = psutil.Process(self.process.pid)
        held = Held(ps.memory_info().rss / 1e6, ps.num_threads(), ps.num_fds(), len(ps.net_connections()))
        return replace(held, threads=held.threads - int(self.metric("svp_pool_threads")))

    def metric(self, name: str) -> float:
        """One line of `/metrics`."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))

    def wait_warm(self, timeout_s: float = 60.0) -> None:
        """Until `/readyz` says so."""
        ends = time.monotonic() + timeout_s
        while self.metric("svp_ready") != 1:
            assert time.monotonic() < ends, "the server is not ready"
            time.sleep(0.1)

    def end(self, timeout_s: float = 60.0) -> int:
        """SIGINT, and its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(2)
        return self.process.wait(timeout_s)


@contextmanager
def server_process(*arguments: str, level: str = "warning") -> Iterator[ServerProcess]:
    """On a free port; its standard error is read along."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "--engine", "noop", "--port", "0", "--budget", "off",
         "--log-level", level, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    made = ServerProcess(process)
    assert process.stdout is not None and process.stderr is not None
    stderr = process.stderr
    reader = threading.Thread(target=lambda: made.lines.extend(iter(stderr.readline, "")), daemon=True)
    reader.start()
    try:
        line = process.stdout.readline()
        assert line.startswith("open "), f"the server said {line!r} {made.lines}"
        made.url = line.removeprefix("open ").strip().split("#")[0].rstrip("/")
        yield made
    finally:
        made.end()
        reader.join(10)
        process.stdout.close()
        stderr.close()
