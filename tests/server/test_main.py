"""The command line: what it refuses before it listens, what it says, and that it ends gracefully."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from server import __main__ as command
from server import seams
from server.house import House
from svp_stream.config import ROOT, STYLES, Config, Server
from svp_stream.style.preset import StylePreset, save_preset

APP = typer.Typer()
APP.command()(command.main)
NOOP = ["--engine", "noop", "--log-level", "error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--style", "nope"], ["unknown style 'nope'", "warm"]),
        (["--style", "missing.npz"], ["missing.npz", "cannot be read"]),
        (["--avatar", "nope"], ["unknown avatar 'nope'", "disc"]),
        (["--engine", "nope"], ["engine"]),
        (["--host", "0.0.0.0", "--token", "short"], ["token", "16"]),
        (["--port", "99999"], ["server.port"]),
        (["--config", "no/such.yaml"], ["no/such.yaml"]),
        (["--profile", "no/such.yaml"], ["no/such.yaml"]),
        (["--tls", "k.pem"], ["--tls", "auto"]),
        (["--tls", "no.pem,key.pem"], ["server.tls_certificate", "no.pem"]),
        (["--log-level", "loud"], ["log level"]),
    ],
)
def test_wrong_arguments_end_with_2_before_anything_listens(
    arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "serve", lambda *_: pytest.fail("it listens"))
    result = CliRunner().invoke(APP, [*NOOP, *arguments])
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.output


def test_sd15_is_served_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fakes.tiny_sd15 import write_tiny_sd15

    served: list[House] = []

    def serve(house: House, settings: Config) -> int:
        served.append(house)
        return 0

    monkeypatch.setattr(command, "serve", serve)
    write_tiny_sd15(tmp_path)
    preset = str(tmp_path / "styles" / "warm.npz")
    sd15 = ["--engine", "sd15", "--model", str(tmp_path), "--log-level", "error"]
    result = CliRunner().invoke(APP, [*sd15, "--style", preset])
    assert result.exit_code == 0, result.output
    studio = served[0].studio
    assert studio.engine.name == "sd15" and studio.avatars == ("pat", "kim") and studio.manner.style == "warm"
    assert studio.style_names() == ("warm", "plain")
    result = CliRunner().invoke(APP, [*sd15, "--style", "sad"])
    assert result.exit_code == 2 and "plain, warm" in result.output
    result = CliRunner().invoke(APP, [*sd15, "--style", str(STYLES / "warm.npz")])
    assert result.exit_code == 2 and "warm.npz" in result.output
    result = CliRunner().invoke(APP, ["--engine", "sd15"])
    assert result.exit_code == 2 and "--model FOLDER" in result.output


def test_a_malformed_preset_is_named_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "serve", lambda *_: pytest.fail("it listens"))
    path = tmp_path / "mine.npz"
    np.savez(path, format=1, name="mine", mu=np.zeros(3), log_var=np.zeros(3, np.float32), prior="x")
    result = CliRunner().invoke(APP, [*NOOP, "--style", str(path)])
    assert result.exit_code == 2
    for word in (str(path), "key 'mu'", "expected float32", "float64"):
        assert word in result.output.replace("\n", "")


def test_a_preset_by_path_is_the_style_that_calls_begin_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    houses: list[House] = []

    def serve(house: House, _: Config) -> int:
        houses.append(house)
        return 0

    monkeypatch.setattr(command, "serve", serve)
    monkeypatch.setattr(seams, "gather_loopback", lambda: None)
    path = tmp_path / "mine.npz"
    zeros = np.zeros(128, np.float32)
    save_preset(path, StylePreset("own voice", zeros + 0.1, zeros, "any", strength=1.5, temperature=0.2))
    result = CliRunner().invoke(APP, [*NOOP, "--style", str(path), "--avatar", "square"])
    assert result.exit_code == 0, result.output
    studio = houses[0].studio
    assert studio.manner.told() == {
        "avatar": "square", "name": "own voice", "weights": {"own voice": 1.0}, "strength": 1.5,
        "temperature": pytest.approx(0.2),
    }  # fmt: skip
    assert "own voice" in studio.style_names() and "warm" in studio.style_names()
    assert np.allclose(studio.request(studio.manner).mu, 0.1)


@pytest.mark.parametrize(
    ("server", "url"),
    [
        (Server(), "http://127.0.0.1:9/"),
        (Server(host="::1"), "http://127.0.0.1:9/"),
        (Server(host="192.168.1.9", token="t" * 16), "http://192.168.1.9:9/#token=" + "t" * 16),
        (
            Server(host="2001:db8::1", token="t" * 16, tls="auto"),
            "https://[2001:db8::1]:9/#token=" + "t" * 16,
        ),
        (Server(host="0.0.0.0", token="t" * 16), f"http://{socket.gethostname()}:9/#token=" + "t" * 16),
    ],
)
def test_the_url_to_open(server: Server, url: str) -> None:
    assert command.page_url(Config(server=server), 9) == url


def test_a_wider_binding_without_a_token_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[House, Config]] = []

    def serve(house: House, settings: Config) -> int:
        served.append((house, settings))
        return 0

    monkeypatch.setattr(command, "serve", serve)
    for _ in range(2):
        assert CliRunner().invoke(APP, [*NOOP, "--host", "0.0.0.0"]).exit_code == 0
    tokens = [settings.server.token or "" for _, settings in served]
    assert len(set(tokens)) == 2 and min(map(len, tokens)) >= 32
    assert command.page_url(served[0][1], 9).endswith(f":9/#token={tokens[0]}")
    assert command.page_url(served[0][1], 9, "obs").endswith(f":9/obs#token={tokens[0]}")


def test_it_says_where_to_go_and_ends_when_told() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "server", *NOOP, "--port", "0"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/)\n", line)
        assert found, line
        with urllib.request.urlopen(found[1] + "healthz") as response:
            assert response.status == 200
        port = found[1].rsplit(":", 1)[1].strip("/")
        again = [sys.executable, "-m", "server", *NOOP, "--port", port]
        second = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert second.returncode == 3, "the port is taken"
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors
