"""A certificate for this server: the one that the profile names, or a self-signed one of our own making.

In: the section `server` of a profile, the time. Out: a file with the certificate and one with its key.
Remembers: our own certificate and its key in one file of the user's configuration folder, readable by the user alone.

A browser gives a microphone only to a secure origin: https, or this very machine (W3C Secure Contexts section 3.1).
Nobody signs certificates in a local network, so the browser warns once; the fingerprint tells a person of whom.
"""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
import secrets
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ifaddr
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from svp_stream.config import Config, Server
from svp_stream.errors import ConfigError

logger = logging.getLogger(__name__)

LIFETIME: Final = datetime.timedelta(days=365)
RENEW_BEFORE: Final = datetime.timedelta(days=30)
FILE: Final = "tls.pem"
NAME: Final = "SVP Stream"


@dataclass(frozen=True, slots=True)
class Pair:
    """Where certificate and key lie (PEM, maybe in one file); `fingerprint` is set for one of our own making."""

    certificate: Path
    key: Path
    fingerprint: str | None = None


def pair(server: Server, now: datetime.datetime, folder: Path | None = None) -> Pair | None:
    """What the profile asks for; None for plain http. Raises `ConfigError` for files that do not fit."""
    if server.tls_certificate is not None and server.tls_key is not None:
        _try(server.tls_certificate, server.tls_key)
        return Pair(server.tls_certificate, server.tls_key)
    return own(folder or home(), names(server.host), now) if server.tls == "auto" else None


def settled(config: Config, option: str | None, now: datetime.datetime) -> Config:
    """The profile with the files that are served with; `option` is what the command line says, None for nothing.

    Raises `ConfigError`.
    """
    server = config.server if option is None else config.server.model_copy(update=parse(option))
    files = pair(server, now)
    if files is None:
        return config
    if files.fingerprint is not None:
        logger.warning(
            "serving with a certificate of our own making, which browsers warn of once; SHA-256 %s", files.fingerprint
        )
    chosen = {"tls": None, "tls_certificate": files.certificate, "tls_key": files.key}
    return config.model_copy(update={"server": server.model_copy(update=chosen)})


def parse(option: str) -> dict[str, str | Path | None]:
    """`auto`, or `CERT.pem,KEY.pem`, as keys of the section `server`; raises `ConfigError`."""
    if option == "auto":
        return {"tls": "auto", "tls_certificate": None, "tls_key": None}
    certificate, comma, key = (part.strip() for part in option.partition(","))
    if not (comma and certificate and key):
        raise ConfigError(f"--tls: say auto, or CERTIFICATE.pem,KEY.pem; found {option!r}")
    return {"tls": None, "tls_certificate": Path(certificate), "tls_key": Path(key)}


def home() -> Path:
    """Where our own certificate is kept."""
    return Path(typer.get_app_dir("svp-stream"))


def names(host: str) -> frozenset[str]:
    """The names and addresses that this machine goes by, and the host that it is told to listen on."""
    found = {"localhost", "127.0.0.1", "::1", socket.gethostname(), f"{socket.gethostname().partition('.')[0]}.local"}
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            if not ipaddress.ip_address(address).is_link_local:
                found.add(address)
    if host not in ("0.0.0.0", "::"):
        found.add(host.strip("[]"))
    return frozenset(found)


def own(folder: Path, wanted: frozenset[str], now: datetime.datetime) -> Pair:
    """Our own certificate in `folder`, made anew when it is missing, near its end, or lacks a name that is wanted."""
    path = folder / FILE
    certificate = _read(path)
    if certificate is None or not fits(certificate, wanted, now):
        kept = named(certificate) if certificate is not None else frozenset()
        text, certificate = make(wanted | kept if len(kept) < 64 else wanted, now)
        _write(path, text)
    return Pair(path, path, ":".join(f"{byte:02X}" for byte in certificate.fingerprint(hashes.SHA256())))


def fits(certificate: x509.Certificate, wanted: frozenset[str], now: datetime.datetime) -> bool:
    """Whether it is good for these names, and for a while yet."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins <= now < ends - RENEW_BEFORE and wanted <= named(certificate)


def named(certificate: x509.Certificate) -> frozenset[str]:
    """The names and addresses that a certificate is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = (str(address) for address in extension.get_values_for_type(x509.IPAddress))
    return frozenset([*extension.get_values_for_type(x509.DNSName), *addresses])


def make(wanted: frozenset[str], now: datetime.datetime) -> tuple[bytes, x509.Certificate]:
    """A key and a certificate signed with it, as one PEM text (RFC 5280; P-256, which every browser takes)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in sorted(wanted)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret + certificate.public_bytes(serialization.Encoding.PEM), certificate


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read(path: Path) -> x509.Certificate | None:
    """The certificate in our file; None when the file is missing, damaged, or could be read by others."""
    try:
        if path.stat().st_mode & 0o077:
            return None
        _try(path, path)
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, ConfigError):
        return None


def _write(path: Path, text: bytes) -> None:
    """All or nothing, and never readable by others, not even for a moment."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
        new.replace(path)
    except OSError as error:
        raise ConfigError(
            f"server.tls: auto keeps its certificate in {path}, which cannot be written ({error.strerror})"
        ) from error


def _try(certificate: Path, key: Path) -> None:
    """Raises `ConfigError` unless the two load and belong together."""
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        if not path.is_file():
            raise ConfigError(f"server.{name}: there is no file {path}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        words = getattr(error, "reason", None) or error.strerror or str(error)
        raise ConfigError(
            f"server.tls_certificate, tls_key: {certificate} and {key} cannot be used: {words}"
        ) from error
