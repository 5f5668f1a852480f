"""Who may ask: a token where others can reach the server, the names that it answers to where they cannot.

In: request headers. Out: nothing, or `Denied` with 401 or 421. Remembers: the token and the names.

On loopback any page of the web could try to reach us through the visitor's browser. Our requests carry content types
that need a CORS preflight, which is never granted; a page that rebinds its own name to 127.0.0.1 is stopped by `Host`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from server.ice import LOOPBACK_NAMES, is_loopback
from svp_stream.config import Server
from svp_stream.errors import ConfigError

MIN_TOKEN: Final = 16


class Denied(Exception):
    """The request is refused with `status`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Guard:
    """`token` None: everybody who can reach the port; `local`: only under names of this machine."""

    token: str | None
    local: bool

    def check(self, host: str | None, authorization: str | None) -> None:
        """Raises `Denied` unless the headers `Host` and `Authorization` will do."""
        self.check_host(host)
        if self.token is None:
            return
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            raise Denied(401, "this server wants a token: send 'Authorization: Bearer TOKEN'")

    def check_host(self, host: str | None) -> None:
        """Raises `Denied` for a foreign name on a server of this machine only."""
        if self.local and not is_loopback(hostname(host or "")):
            raise Denied(421, f"this server answers to {', '.join(sorted(LOOPBACK_NAMES))} and 127.0.0.1 only")


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
    return Guard(server.token, local)
