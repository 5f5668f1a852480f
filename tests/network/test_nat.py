"""Real networks between caller and server: a caller behind a NAT and a firewall, a server behind a port forward."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from svp_stream.config import ROOT
from tests.fakes.coturn import SECRET, coturn
from tests.fakes.network import INSIDE, OUTSIDE, ROUTER, TURN, Home, home

pytestmark = pytest.mark.timeout(240)
TOKEN = "a-token-of-some-length"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def networks() -> Iterator[Home]:
    with home() as made:
        yield made


@contextmanager
def serving(within: tuple[str, ...], host: str, ice: str, folder: Path) -> Iterator[str]:
    """A server in a namespace; yields its URL."""
    profile = folder / "profile.yaml"
    profile.write_text(f"model: {{engine: noop}}\nice: {{{ice}}}\n")
    process = subprocess.Popen(
        [
            *within, sys.executable, "-m", "server", "--config", str(profile), "--host", host, "--port", "8080",
            "--token", TOKEN, "--log-level", "warning",
        ],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("open http"), f"the server said {line!r}"
        yield f"http://{host}:8080"
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def calling(within: tuple[str, ...], url: str, policy: str = "all") -> dict[str, Any]:
    told = subprocess.run(
        [*within, sys.executable, "-m", "tests.network.calling", url, TOKEN, policy],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-3000:]
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_a_caller_behind_nat_and_firewall_comes_through_turn(networks: Home, tmp_path: Path) -> None:
    blocked = ("FORWARD", "-s", "10.77.1.0/24", "-p", "udp", "!", "--dport", "3478", "-j", "DROP")
    networks.rule("-A", *blocked)
    try:
        with coturn(tmp_path, host=TURN, port=3478, within=networks.outside) as port:
            ice = f'turn: ["turn:{TURN}:{port}"], secret: {SECRET}, port_range: [50000, 50010]'
            with serving(networks.outside, OUTSIDE, ice, tmp_path) as url:
                found = calling(networks.inside, url)
        assert found["local"] == "relay" and found["servers"] == [f"turn:{TURN}:3478"]
    finally:
        networks.rule("-D", *blocked)


def test_a_server_behind_a_port_forward_is_reached_at_the_address_it_advertises(
    networks: Home, tmp_path: Path
) -> None:
    forwards = [
        ("PREROUTING", "-p", kind, "-d", ROUTER, "--dport", ports, "-j", "DNAT", "--to-destination", INSIDE)
        for kind, ports in (("tcp", "8080"), ("udp", "50000:50010"))
    ]
    for forward in forwards:
        networks.rule("-t", "nat", "-A", *forward)
    try:
        ice = f"port_range: [50000, 50010], advertise: {ROUTER}"
        with serving(networks.inside, INSIDE, ice, tmp_path):
            found = calling(networks.outside, f"http://{ROUTER}:8080")
        assert found["told"] == sorted([INSIDE, ROUTER])
        host, port = found["to"]
        assert host == ROUTER and 50000 <= port <= 50010
    finally:
        for forward in forwards:
            networks.rule("-t", "nat", "-D", *forward)
