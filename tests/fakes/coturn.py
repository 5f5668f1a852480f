"""A real TURN server, coturn, on this machine.

In: a shared secret, addresses. Out: its port. Remembers: nothing; the process ends with its context.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECRET = "shared-with-coturn"


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for UDP and TCP."""
    for _ in range(50):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind((host, 0))
            port: int = udp.getsockname()[1]
            try:
                tcp.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no port of {host} is free for UDP and TCP")


@contextmanager
def coturn(
    folder: Path, *, host: str = "127.0.0.1", port: int | None = None, within: tuple[str, ...] = (),
    users: tuple[str, ...] = (), flags: tuple[str, ...] = (),
) -> Iterator[int]:
    """coturn with the shared `SECRET`, or with fixed `users` ("name:password"); `within` begins its command line, such
    as ("ip", "netns", "exec", NAME). Skips the test where it is not installed. Yields its port."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("coturn is not installed")
    listening = free_port(host) if port is None else port
    manner = (
        [f"--user={user}" for user in users] + ["--lt-cred-mech"] if users
        else ["--use-auth-secret", f"--static-auth-secret={SECRET}"]
    )  # fmt: skip
    log = folder / "coturn.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [
                *within, program, "-n", f"--listening-ip={host}", f"--relay-ip={host}", f"--listening-port={listening}",
                "--min-port=52000", "--max-port=52400", "--allow-loopback-peers", *manner, "--realm=lab.local",
                "--no-tls", "--no-dtls", "--no-cli", "--fingerprint", "--simple-log", "--log-file=stdout",
                f"--userdb={folder / 'users'}", f"--pidfile={folder / 'pid'}", *flags,
            ],
            stdout=said, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, "LANG": "C"},
        )  # fmt: skip
    try:
        _await(process, within, host, listening, log)
        yield listening
    finally:
        process.terminate()
        process.wait(timeout=20)


def _await(process: subprocess.Popen[bytes], within: tuple[str, ...], host: str, port: int, log: Path) -> None:
    """Until it answers a STUN request; asked from where it lives, which may be a network namespace."""
    ask = (
        "import os, socket, sys, time\n"
        "s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(0.1)\n"
        "ends = time.monotonic() + 20\n"
        "while time.monotonic() < ends:\n"
        "    try:\n"
        "        s.sendto(bytes.fromhex('000100002112a442') + os.urandom(12), (sys.argv[1], int(sys.argv[2])))\n"
        "        s.recv(1000)\n"
        "        sys.exit(0)\n"
        "    except OSError:\n"
        "        time.sleep(0.02)\n"
        "sys.exit(1)\n"
    )
    asked = subprocess.run([*within, sys.executable, "-S", "-c", ask, host, str(port)], timeout=30)
    assert process.poll() is None and asked.returncode == 0, log.read_text(errors="replace")
