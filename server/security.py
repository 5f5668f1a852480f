"""Who may ask: a token where others can reach the server, the names and the origins that it answers to.

In: request headers. Out: nothing, or `Denied` with its HTTP status. Remembers: the token and the names.

On loopback any page of the web could try to reach us through the visitor's browser: a page of another origin is stopped
by `Origin` (RFC 6454 section 7), one that rebinds its own name to 127.0.0.1 by `Host`. Programs send no `Origin`.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from server.ice import LOOPBACK_NAMES, is_loopback
from svp_stream.config import Server
from svp_stream.errors import ConfigError

MIN_TOKEN: Final = 16
TOKEN_BYTES: Final = 24
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Denied(Exception):
    """The request is refused with `status`; `retry_after_s` says when it may succeed, `reason` is for counting."""

    def __init__(self, status: int, message: str, *, reason: str = "token", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Guard:
    """`token` None: everybody who can reach the port; `local`: only under names of this machine; `origins`: pages of
    other sites that may ask, as browsers write them ("https://studio.example")."""

    token: str | None
    local: bool
    origins: frozenset[str] = frozenset()

    def check(self, host: str | None, authorization: str | None) -> None:
        """Raises `Denied` (421, 401) unless the headers `Host` and `Authorization` will do."""
        self.check_host(host)
        scheme, _, given = (authorization or "").partition(" ")
        self.check_token(given.strip() if scheme.lower() == "bearer" else None)

    def check_host(self, host: str | None) -> None:
        """Raises `Denied` 421 for a foreign name on a server of this machine only."""
        if self.local and not is_loopback(hostname(host or "")):
            names = f"{', '.join(sorted(LOOPBACK_NAMES))} and 127.0.0.1"
            raise Denied(421, f"this server answers to {names} only", reason="host")

    def check_token(self, given: str | None) -> None:
        """Raises `Denied` 401; with reason "wrong" when a token was given, "token" when none was."""
        if self.token is None:
            return
        if given is None:
            raise Denied(401, "this server wants a token: send 'Authorization: Bearer TOKEN'")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode()):
            raise Denied(401, "this is not the token of this server", reason="wrong")

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Raises `Denied` 403 for a page of another site. The scheme is not compared: a proxy may speak TLS for us."""
        if origin is None or origin in self.origins:
            return
        scheme, _, authority = origin.partition("://")
        if scheme.lower() in ("http", "https") and _same(scheme.lower(), authority, host or ""):
            return
        raise Denied(403, "this request comes from a page of another site; see server.origins", reason="origin")


def hostname(host: str) -> str:
    """The name or address in a `Host` header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rsplit(":", 1)[0] if host.count(":") == 1 else host


def guard(server: Server) -> Guard:
    """The guard of a profile; raises `ConfigError` when it would let in strangers."""
    local = is_loopback(server.host)
    if server.token is not None and len(server.token) < MIN_TOKEN:
        raise ConfigError(f"server.token: has {len(server.token)} characters; give at least {MIN_TOKEN}")
    if not local and server.token is None:
        raise ConfigError(
            f"server.host: {server.host} can be reached from other machines; give a token of at least {MIN_TOKEN} "
            "characters (--token or server.token), or listen on 127.0.0.1"
        )
    for origin in server.origins:
        _check_written(origin)
    return Guard(server.token, local, frozenset(server.origins))


def with_token(server: Server) -> Server:
    """The settings with a fresh token (192 bit) where one is needed and none is given."""
    if server.token is not None or is_loopback(server.host):
        return server
    return server.model_copy(update={"token": secrets.token_urlsafe(TOKEN_BYTES)})


def _check_written(origin: str) -> None:
    """An origin is compared as browsers write it: scheme and authority, nothing else."""
    try:
        parts = urlsplit(origin)
        whole = f"{parts.scheme}://{parts.netloc}" == origin and parts.hostname is not None
    except ValueError:
        whole = False
    if not whole or parts.scheme not in ("http", "https") or "@" in origin or origin != origin.lower():
        raise ConfigError(f"server.origins: {origin!r} is no origin; write it like 'https://studio.example'")


def _same(scheme: str, authority: str, host: str) -> bool:
    """Whether two `name[:port]` mean the same place, the default port left out or not."""
    port = str(_PORTS[scheme])
    return authority.lower().removesuffix(f":{port}") == host.lower().removesuffix(f":{port}") and bool(authority)
