"""What facts mean, as a table; the probes against real servers; the command."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from server import diagnosis, doctor, ice_seams, turn
from server.diagnosis import Asked, Finding
from svp_stream.config import ROOT, Config, Ice, Model, Server
from tests.fakes.coturn import SECRET, coturn, free_port

TOKEN = "t" * 16
TURN = Ice(turn=("turn:t",), secret="s")


@pytest.mark.parametrize(
    ("finding", "level", "words"),
    [
        (diagnosis.of_port("::1", 80, None), "ok", "::1 port 80 is free"),
        (diagnosis.of_port("h", 0, None), "ok", "any"),
        (diagnosis.of_port("h", 80, "permission denied"), "problem", "permission denied"),
        (diagnosis.of_addresses("127.0.0.1", ["127.0.0.1"], Ice()), "ok", "127.0.0.1"),
        (diagnosis.of_addresses("0.0.0.0", ["127.0.0.1"], Ice()), "problem", "no address"),
        (diagnosis.of_addresses("0.0.0.0", ["10.0.0.2"], Ice()), "warning", "private"),
        (diagnosis.of_addresses("0.0.0.0", ["10.0.0.2"], TURN), "ok", "10.0.0.2"),
        (diagnosis.of_addresses("::", ["10.0.0.2"], Ice.model_validate({"advertise": "8.8.8.8"})), "ok", "8.8.8.8"),
        (diagnosis.of_udp(None, 0, 1, 2), "ok", "any UDP port"),
        (diagnosis.of_udp((50000, 50009), 10, 1, 2), "problem", "all are taken"),
        (diagnosis.of_udp((50000, 50003), 2, 1, 2), "warning", "2 free"),
        (diagnosis.of_udp((50000, 50009), 1, 2, 2), "ok", "9 of 10 free at each of 2"),
        (diagnosis.of_stun(Asked("stun:s", None, "does not answer", 0), []), "warning", "does not answer"),
        (diagnosis.of_stun(Asked("stun:s", "8.8.8.8", None, 5), ["10.0.0.2"]), "ok", "sees us as 8.8.8.8"),
        (diagnosis.of_stun(Asked("stun:s", None, None, 5), ["10.0.0.2"]), "ok", "no NAT"),
        (diagnosis.of_turn(Asked("turn:t", None, "401", 0), policy="all", alone=True), "warning", "401"),
        (diagnosis.of_turn(Asked("turn:t", None, "401", 0), policy="relay", alone=True), "problem", "401"),
        (diagnosis.of_turn(Asked("turn:t", None, "401", 0), policy="relay", alone=False), "warning", "401"),
        (diagnosis.of_turn(Asked("turn:t", "10.0.0.2", None, 4), policy="all", alone=False), "warning", "private"),
        (diagnosis.of_turn(Asked("turn:t", "8.8.8.8", None, 4), policy="all", alone=False), "ok", "8.8.8.8"),
        (diagnosis.of_codec("VP8", "libvpx", present=False, needed=True), "problem", "libvpx"),
        (diagnosis.of_codec("H.264", "libx264", present=False, needed=False), "warning", "libx264"),
        (diagnosis.of_codec("Opus", "libopus", present=True, needed=True), "ok", "Opus"),
        (diagnosis.of_model("mini", 7, None), "ok", "7 files"),
        (diagnosis.of_model("mini", 0, "damaged"), "problem", "damaged"),
        (diagnosis.of_budget(30.0, 2, 1, 0.1), "ok", "room for 1"),
        (diagnosis.of_budget(30.0, 2, 2, 0.1), "warning", "server.capacity is 2"),
        (diagnosis.of_budget(33.0, 2, 1, 5.0), "problem", "busy machine"),
    ],
)  # fmt: skip
def test_what_facts_mean(finding: Finding, level: str, words: str) -> None:
    assert finding.level == level and words in finding.words
    assert finding.remedy or level == "ok", "whoever is warned is told what to do"


@pytest.mark.parametrize(
    ("server", "levels"),
    [
        (Server(), {"origin": "ok"}),
        (Server(host="0.0.0.0", token=TOKEN), {"origin": "warning"}),
        (Server(host="0.0.0.0"), {"token": "problem", "origin": "warning"}),
        (Server(host="0.0.0.0", token=TOKEN, tls="auto"), {"origin": "ok"}),
    ],
)
def test_origins(server: Server, levels: dict[str, str]) -> None:
    assert {f.subject: f.level for f in diagnosis.of_origin(server)} == levels


def test_the_table_and_the_exit_code() -> None:
    found = [Finding("ok", "a", "fine"), Finding("warning", "b", "hm", "do this"), Finding("ok", "c", "fine")]
    assert diagnosis.exit_code(found) == 0 and "-> do this" in diagnosis.table(found)
    assert diagnosis.exit_code([*found, Finding("problem", "d", "no", "do that")]) == 1
    assert diagnosis.listed(found)[1] == {"level": "warning", "subject": "b", "words": "hm", "remedy": "do this"}


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with coturn(tmp_path_factory.mktemp("coturn")) as port:
        yield port


async def test_servers_are_really_asked(relay: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice_seams, "TURN_S", 0.3)
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    ice = Ice(
        stun=(f"stun:127.0.0.1:{relay}",), secret=SECRET,
        turn=(f"turn:127.0.0.1:{relay}", f"turn:127.0.0.1:{relay}?transport=tcp", f"turn:127.0.0.1:{free_port()}"),
    )  # fmt: skip
    stun, udp, tcp, dead = await doctor.servers(Config(ice=ice), ["127.0.0.1"])
    assert stun.level == "ok" and "answers" in stun.words
    assert (udp.level, tcp.level) == ("ok", "ok") and "relays at 127.0.0.1" in tcp.words
    assert dead.level == "warning" and "does not answer" in dead.words


async def test_an_expired_credential_is_told(relay: int) -> None:
    past = turn.mint(SECRET, time.time() - 100, 60)
    keys = {"turn": (f"turn:127.0.0.1:{relay}",), "username": past.username, "credential": past.password}
    ice = Ice.model_validate(keys | {"policy": "relay"})
    found = await doctor.servers(Config(ice=ice), ["127.0.0.1"])
    assert found[0].level == "problem" and "401" in found[0].words and "expired" in found[0].words
    assert past.password not in str(found)


def test_ports_that_are_taken() -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        assert "in use" in str(doctor.listening_fails("127.0.0.1", tcp.getsockname()[1]))
        port = udp.getsockname()[1]
        assert doctor.taken_ports((port, port), ["127.0.0.1"]) == 1
    assert doctor.listening_fails("127.0.0.1", 0) is None
    assert doctor.listening_fails("no.such.host.invalid", 80) is not None


def test_the_model_and_its_hashes(tmp_path: Path) -> None:
    assert doctor.model(Config(model=Model(engine="noop"))).level == "ok"
    assert doctor.model(Config()).level == "ok", "the weights that ship are whole"
    config = Config(model=Model(weights=tmp_path))
    assert "cannot be read" in doctor.model(config).words
    (tmp_path / "hashes.json").write_text(json.dumps({"a.bin": "0" * 64}))
    assert "missing" in doctor.model(config).words
    (tmp_path / "a.bin").write_text("x")
    assert "damaged" in doctor.model(config).words


def test_the_command(tmp_path: Path) -> None:
    profile = tmp_path / "p.yaml"
    profile.write_text("server: {port: 0}\nmodel: {engine: noop}\n")
    run = [sys.executable, "-m", "svp_stream.cli", "doctor", "--config", str(profile), "--json"]
    told = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=120)
    found = json.loads(told.stdout)
    assert told.returncode == (1 if any(f["level"] == "problem" for f in found) else 0)
    assert {"port", "origin", "media ports", "codec", "model", "processor"} <= {f["subject"] for f in found}
    profile.write_text("server: {prot: 0}\n")
    command = typer.Typer()
    command.command()(doctor.main)
    wrong = CliRunner().invoke(command, ["--config", str(profile)])
    assert wrong.exit_code == 2 and "did you mean port" in wrong.output
