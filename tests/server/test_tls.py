"""Certificates of our own making: for whom, how long, how safe, and files that do not fit in words."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509

from server import tls
from svp_stream.config import Config, Server
from svp_stream.errors import ConfigError

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
WANTED = frozenset({"localhost", "127.0.0.1", "::1", "box", "192.0.2.7"})


def test_it_is_for_all_names_and_for_the_user_alone(tmp_path: Path) -> None:
    made = tls.own(tmp_path / "new" / "folder", WANTED, NOW)
    assert made.certificate == made.key and made.certificate.stat().st_mode & 0o777 == 0o600
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    assert tls.named(certificate) == WANTED
    assert made.fingerprint is not None and len(made.fingerprint) == 32 * 3 - 1
    assert [path.name for path in made.certificate.parent.iterdir()] == ["tls.pem"], "nothing half-written stays"


def test_it_is_kept_while_it_fits_and_renewed_in_time(tmp_path: Path) -> None:
    first = tls.own(tmp_path, WANTED, NOW)
    assert tls.own(tmp_path, WANTED - {"box"}, NOW + 300 * DAY) == first
    longer = tls.own(tmp_path, WANTED | {"10.0.0.9"}, NOW + 300 * DAY)
    assert longer.fingerprint != first.fingerprint, "a new address needs a new certificate"
    kept = x509.load_pem_x509_certificate(longer.certificate.read_bytes())
    assert WANTED | {"10.0.0.9"} <= tls.named(kept)
    late = tls.own(tmp_path, WANTED, NOW + 640 * DAY)
    assert late.fingerprint != longer.fingerprint, "25 days before its end"
    assert tls.own(tmp_path, WANTED, NOW - 400 * DAY).fingerprint != late.fingerprint, "not valid yet"


@pytest.mark.parametrize("harm", ["cut", "open", "gone", "text"])
def test_a_file_that_cannot_be_trusted_is_made_anew(tmp_path: Path, harm: str) -> None:
    first = tls.own(tmp_path, WANTED, NOW)
    path = first.certificate
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:150])
    elif harm == "open":
        path.chmod(0o644)
    elif harm == "gone":
        path.unlink()
    else:
        path.write_text("hello")
    again = tls.own(tmp_path, WANTED, NOW)
    assert again.fingerprint != first.fingerprint and path.stat().st_mode & 0o777 == 0o600


def test_the_machine_knows_its_names() -> None:
    found = tls.names("203.0.113.5")
    assert {"localhost", "127.0.0.1", "::1", socket.gethostname(), "203.0.113.5"} <= found
    assert "0.0.0.0" not in tls.names("0.0.0.0") and not [name for name in found if name.startswith("fe80")]


def test_a_client_that_trusts_it_connects(tmp_path: Path) -> None:
    made = tls.own(tmp_path, WANTED, datetime.datetime.now(datetime.UTC))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(made.certificate, made.key)
    near, far = socket.socketpair()

    def serve() -> None:
        with serving.wrap_socket(far, server_side=True) as conversation:
            conversation.sendall(b"hello")

    thread = threading.Thread(target=serve)
    thread.start()
    asking = ssl.create_default_context(cafile=str(made.certificate))
    with asking.wrap_socket(near, server_hostname="192.0.2.7") as conversation:
        assert conversation.recv(5) == b"hello"
    thread.join()


def test_what_the_command_line_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "home", lambda: tmp_path)
    plain = Config()
    assert tls.settled(plain, None, NOW) is plain
    auto = tls.settled(plain, "auto", NOW)
    assert auto.server.secure and auto.server.tls_certificate == tmp_path / "tls.pem"
    file = str(tmp_path / "tls.pem")
    files = tls.settled(Config(server=Server(tls="auto")), f"{file},{file}", NOW)
    assert files.server.tls_key == tmp_path / "tls.pem"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("yes", ["--tls", "auto"]),
        ("a.pem,", ["--tls", "KEY.pem"]),
        ("a.pem,b.pem", ["tls_certificate", "no file a.pem"]),
        ("{good},{bad}", ["tls_key", "cannot be used"]),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, option: str, words: list[str]) -> None:
    good = tls.own(tmp_path, WANTED, NOW).certificate
    bad = tmp_path / "bad.pem"
    bad.write_text("no key")
    with pytest.raises(ConfigError) as caught:
        tls.settled(Config(), option.format(good=good, bad=bad), NOW)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        tls.own(tmp_path / "file", WANTED, NOW)
