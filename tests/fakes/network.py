"""Two networks of this machine with a router between them that hides the inner one (NAT), as at somebody's home.

In: root's rights, iproute2, iptables. Out: commands that run inside or outside. Remembers: nothing; all is taken down.

    inside 10.77.1.2 ── 10.77.1.1 router 10.77.2.1 ── 10.77.2.2 outside (and 10.77.2.3, for a TURN server)

From outside there is no way to 10.77.1.0/24 but through what the router forwards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

INSIDE, ROUTER, OUTSIDE, TURN = "10.77.1.2", "10.77.2.1", "10.77.2.2", "10.77.2.3"


@dataclass(frozen=True)
class Home:
    """The three namespaces, as the beginnings of command lines."""

    inside: tuple[str, ...]
    router: tuple[str, ...]
    outside: tuple[str, ...]

    def rule(self, *words: str) -> None:
        """One rule of the router's iptables."""
        _run(*self.router, "iptables", "-w", *words)


@contextmanager
def home() -> Iterator[Home]:
    """Skips the test, with the reason, where namespaces cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    missing = [program for program in ("ip", "iptables") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    names = [f"svp{os.getpid()}{part}" for part in ("in", "nat", "out")]
    try:
        try:
            for name in names:
                _run("ip", "netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        inner, router, outer = (("ip", "netns", "exec", name) for name in names)
        made = Home(inner, router, outer)
        _wire(made, *names)
        yield made
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _wire(home: Home, inside: str, router: str, outside: str) -> None:
    for end, address, gateway, theirs in (
        (inside, f"{INSIDE}/24", "10.77.1.1/24", "10.77.1.1"), (outside, f"{OUTSIDE}/24", f"{ROUTER}/24", ""),
    ):  # fmt: skip
        link = f"v{end[-6:]}"
        _run("ip", "link", "add", "eth0", "netns", end, "type", "veth", "peer", "name", link, "netns", router)
        _run("ip", "-n", end, "addr", "add", address, "dev", "eth0")
        _run("ip", "-n", router, "addr", "add", gateway, "dev", link)
        for name, device in ((end, "eth0"), (end, "lo"), (router, link), (router, "lo")):
            _run("ip", "-n", name, "link", "set", device, "up")
        if theirs:
            _run("ip", "-n", end, "route", "add", "default", "via", theirs)
    _run("ip", "-n", outside, "addr", "add", f"{TURN}/24", "dev", "eth0")
    _run(*home.router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    home.rule("-t", "nat", "-A", "POSTROUTING", "-s", "10.77.1.0/24", "-d", "10.77.2.0/24", "-j", "MASQUERADE")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
