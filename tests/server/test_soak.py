"""`svp soak` for some seconds: peers connect, series are measured, verdicts decide the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import aioice.ice
import pytest
import typer
from typer.testing import CliRunner

from server import seams, soak
from server.soak_figures import RULES
from server.soak_peer import PeerError, SoakPeer
from svp_stream import cli

APP = typer.Typer()
APP.command()(soak.main)


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


def test_real_peers_are_measured(monkeypatch: pytest.MonkeyPatch, loopback: None) -> None:
    monkeypatch.setattr(soak, "SAMPLE_S", 0.5)
    monkeypatch.setattr(seams, "gather_loopback", lambda: None)
    result = CliRunner().invoke(APP, ["--minutes", "0.15", "--sessions", "1", "--viewers", "1", "--json"])
    found = json.loads(result.stdout)
    assert not found["faults"] and len(found["connect_ms"]) == 2
    series = found["series"]
    for name in ("latency_ms", "fps", "rss_mb", "tasks", "threads", "fds", "viewer_fps"):
        assert series[name]["samples"] >= 4, name
    assert series["rss_mb"]["p50"] > 50 and series["fps"]["p50"] > 0
    assert result.exit_code == (0 if all(s["good"] for s in series.values()) else 1)


@pytest.fixture
def told() -> Iterator[list[list[str]]]:
    yield []


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_command_runs_it_in_a_process_of_its_own(
    code: int, monkeypatch: pytest.MonkeyPatch, told: list[list[str]]
) -> None:
    class Done:
        returncode = code

    def run(arguments: list[str], check: bool) -> Done:
        told.append(arguments)
        return Done()

    monkeypatch.setattr(subprocess, "run", run)
    result = CliRunner().invoke(cli.app, ["soak", "--minutes", "60", "--sessions", "2", "--viewers", "3", "--json"])
    assert result.exit_code == code
    assert told[0][:3] == [sys.executable, "-m", "server.soak"]
    assert told[0][3:] == ["--minutes=60.0", "--sessions=2", "--viewers=3", "--engine=noop", "--json"]


def test_bad_slopes_and_faults_end_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seams, "gather_loopback", lambda: None)
    rows = [(i * 5.0, 100.0 + i) for i in range(120)]

    def made(series: dict[str, list[tuple[float, float]]], faults: list[str]) -> int:
        async def run(*_: object, **__: object) -> soak.Run:
            done = soak.Run("", [], [])
            done.series.update(series)
            done.faults = faults
            return done

        monkeypatch.setattr(soak, "soak", run)
        return CliRunner().invoke(APP, []).exit_code

    assert made({"fps": [(t, 25.0) for t, _ in rows]}, []) == 0
    assert made({"rss_mb": rows}, []) == 1
    assert made({"fps": [(t, 25.0) for t, _ in rows]}, ["a connection has ended by itself"]) == 1


async def test_a_server_that_is_not_there_is_said_in_words(loopback: None) -> None:
    peer = SoakPeer("http://127.0.0.1:9", "/v1/call", talks=True)
    with pytest.raises(PeerError, match="127"):
        await peer.come()
    await peer.hang_up()


def test_every_gauge_has_a_rule() -> None:
    assert set(soak.GAUGES) <= {rule.name for rule in RULES}
