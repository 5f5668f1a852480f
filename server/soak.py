"""`python -m server.soak` (`svp soak`): real peers against a real server for as long as you like, and what creeps.

In: minutes, how many sessions and viewers, an engine. Out: percentiles, slopes per hour and a verdict for each of
delay, frame rate, memory, tasks, threads, descriptors and A/V skew. Exit code 1 when one of them is bad.
Remembers: the samples of one run. The server is a process of its own; its figures are read from `/metrics` and from the
`stats` events of its callers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server import seams
from server.soak_figures import Samples, Verdict, as_json, report
from server.soak_peer import PeerError, SoakPeer, ask
from svp_stream.config import ROOT
from svp_stream.errors import SvpError

EXIT_BAD: Final = 1
EXIT_WRONG: Final = 2
SAMPLE_S: Final = 5.0
START_S: Final = 240.0
END_S: Final = 60.0
GAUGES: Final = {
    "rss_mb": ("process_resident_memory_bytes", 1e-6), "fds": ("process_open_fds", 1.0),
    "tasks": ("svp_tasks", 1.0), "threads": ("svp_threads", 1.0),
}  # fmt: skip
"""Series to (metric, factor)."""


class Run:
    """The samples of one run, and what went wrong besides."""

    def __init__(self, base: str, callers: list[SoakPeer], viewers: list[SoakPeer]) -> None:
        self.base = base
        self.callers, self.viewers = callers, viewers
        self.series: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.faults: list[str] = []
        self._started_s = self._last_s = time.monotonic()
        self._pictures = [peer.pictures for peer in viewers]

    async def sample(self) -> None:
        """One moment of every series."""
        scraped = gauges((await ask(f"{self.base}/metrics")).text)
        now = time.monotonic()
        at_s, passed_s, self._last_s = now - self._started_s, now - self._last_s, now
        for name, (metric, factor) in GAUGES.items():
            if metric in scraped:
                self.series[name].append((at_s, scraped[metric] * factor))
        stats = [peer.stats for peer in self.callers if peer.stats]
        for name in ("latency_ms", "fps", "skew_ms"):
            values = [float(s[name]) for s in stats if s.get(name) is not None]
            self.series[name] += [(at_s, value) for value in values]
            if name == "skew_ms":
                self.series["skew_size_ms"] += [(at_s, abs(value)) for value in values]
        for i, peer in enumerate(self.viewers):
            self.series["viewer_fps"].append((at_s, (peer.pictures - self._pictures[i]) / passed_s))
            self._pictures[i] = peer.pictures
        for peer in [*self.callers, *self.viewers]:
            if peer.lost:
                raise PeerError(f"after {at_s:.0f} s a connection has ended by itself {peer.errors[-1:]}")

    async def go_on(self, minutes: float, tell: bool) -> None:
        """Samples until the time is over; what goes wrong ends it early and is a fault."""
        ends_s = self._started_s + 60 * minutes
        due_s = self._started_s
        try:
            while (now := time.monotonic()) < ends_s:
                due_s = max(due_s + SAMPLE_S, now)
                await asyncio.sleep(min(due_s, ends_s) - now)
                await self.sample()
                if tell:
                    typer.echo(self._now(), err=True, nl=False)
        except PeerError as error:
            self.faults.append(str(error))
        if tell:
            typer.echo("", err=True)

    def _now(self) -> str:
        last = {name: rows[-1][1] for name, rows in self.series.items() if rows}
        names = ("latency_ms", "fps", "rss_mb", "tasks")
        figures = "  ".join(f"{name} {last[name]:.1f}" for name in names if name in last)
        return f"\r{self._last_s - self._started_s:6.0f} s  {figures}   "


def gauges(text: str) -> dict[str, float]:
    """The metrics without labels of a Prometheus exposition."""
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


@asynccontextmanager
async def server(engine: str, sessions: int) -> AsyncIterator[str]:
    """A server process on a free port of this machine, warm; its URL. Raises `PeerError`."""
    profile = {"server": {"port": 0, "capacity": sessions, "budget": "off"}, "model": {"engine": engine}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "soak.yaml"
        path.write_text(yaml.safe_dump(profile), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server", "--config", str(path), "--log-level", "warning",
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            line = (await process.stdout.readline()).decode()
            if not line.startswith("open "):
                raise PeerError(f"the server did not start; it said {line!r}")
            base = line.removeprefix("open ").strip().rstrip("/")
            await _warm(base)
            yield base
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):  # it may have ended by itself
        process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _warm(base: str) -> None:
    ends_s = time.monotonic() + START_S
    while (reply := await ask(f"{base}/readyz")).status != 200:
        if time.monotonic() > ends_s:
            raise PeerError(f"the server is not ready after {START_S:.0f} s: {reply.text}")
        await asyncio.sleep(0.5)


async def soak(minutes: float, sessions: int, viewers: int, engine: str, *, tell: bool = False) -> Run:
    """A whole run; raises `PeerError` when it cannot begin."""
    async with server(engine, sessions) as base:
        callers = [SoakPeer(base, "/v1/call", talks=True) for _ in range(sessions)]
        watching: list[SoakPeer] = []
        try:
            for caller in callers:
                await caller.come()
            for i in range(viewers):
                watching.append(SoakPeer(base, f"/v1/whep/{callers[i % sessions].session}", talks=False))
                await watching[-1].come()
            run = Run(base, callers, watching)
            await run.go_on(minutes, tell)
        finally:
            for peer in [*watching, *callers]:
                with suppress(PeerError):  # a server that has gone needs no DELETE
                    await peer.hang_up()
        run.faults += await _left(base)
    return run


async def _left(base: str) -> list[str]:
    """What is still there when everybody has hung up."""
    found: Mapping[str, float] = {}
    for _ in range(50):
        with suppress(PeerError):
            found = gauges((await ask(f"{base}/metrics")).text)
            if found.get("svp_calls") == 0:
                return []
        await asyncio.sleep(0.1)
    return [f"5 s after the last hang-up {found.get('svp_calls', float('nan')):.0f} sessions are left"]


def told(run: Run, verdicts: list[Verdict], minutes: float) -> dict[str, Any]:
    """For programs."""
    return {
        "minutes": minutes, "sessions": len(run.callers), "viewers": len(run.viewers), "faults": run.faults,
        "connect_ms": [round(p.connect_s * 1000, 1) for p in [*run.callers, *run.viewers]], "load": os.getloadavg()[0],
        "series": as_json(verdicts),
    }  # fmt: skip


def series(run: Run) -> dict[str, Samples]:
    """What was measured, by name."""
    return dict(run.series)


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 10.0,
    sessions: Annotated[int, typer.Option(min=1, max=64, help="Callers with a microphone.")] = 1,
    viewers: Annotated[int, typer.Option(min=0, max=200, help="WHEP viewers, spread over the sessions.")] = 0,
    engine: Annotated[str, typer.Option(help="mini (the trained avatar) or noop (a drawn face).")] = "noop",
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Real peers against a real server: percentiles, slopes per hour, verdicts."""
    seams.gather_loopback()
    try:
        run = asyncio.run(soak(minutes, sessions, viewers, engine, tell=not as_json_ and sys.stderr.isatty()))
    except SvpError as error:
        typer.echo(f"soak: {error}", err=True)
        raise typer.Exit(EXIT_WRONG) from None
    verdicts = report(series(run))
    if as_json_:
        typer.echo(json.dumps(told(run, verdicts, minutes), indent=2))
    else:
        typer.echo("\n".join([v.line() for v in verdicts] + [f"FAULT: {fault}" for fault in run.faults]))
    if run.faults or not all(v.good for v in verdicts):
        raise typer.Exit(EXIT_BAD)


if __name__ == "__main__":
    typer.run(main)
