"""STUN and TURN as text: URLs, short-lived credentials, the `Link` header that hands them to a caller. Pure.

In: a URL, a secret, the time. Out: an `IceUrl`, a `Credential`, a header line. Remembers: nothing.

A secret that the TURN server shares with us never leaves: what travels is a user name that says when it expires, and a
password that proves that we made it (draft-uberti-behave-turn-rest-00 section 2.2; coturn's `--use-auth-secret`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final, Literal

from svp_stream.config import ICE_URL

DEFAULT_PORTS: Final = {"stun": 3478, "turn": 3478, "turns": 5349}

_PARAMETER: Final = re.compile(r';\s*([a-z-]+)="((?:[^"\\]|\\.)*)"')
_LINK: Final = re.compile(r'<([^>]*)>((?:;\s*[a-z-]+="(?:[^"\\]|\\.)*")*)')


@dataclass(frozen=True, slots=True)
class IceUrl:
    """Where a STUN or TURN server is (RFC 7064, RFC 7065)."""

    scheme: str
    host: str
    port: int
    transport: Literal["udp", "tcp"]

    @property
    def relays(self) -> bool:
        """Whether this is TURN."""
        return self.scheme.startswith("turn")

    @property
    def secure(self) -> bool:
        """Whether it is spoken over TLS."""
        return self.scheme.endswith("s")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}:{host}:{self.port}" + (f"?transport={self.transport}" if self.relays else "")


@dataclass(frozen=True, slots=True)
class Credential:
    """What a TURN server wants to know; the password does not show up in logs."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class IceServer:
    """One entry of a `Link` header."""

    url: str
    credential: Credential | None = None


def parse_url(text: str) -> IceUrl:
    """Raises `ValueError`, in words, for what is no STUN or TURN URL."""
    match = ICE_URL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no STUN or TURN URL; one looks like turn:host:3478?transport=tcp")
    scheme, port = match["scheme"], int(match["port"] or DEFAULT_PORTS[match["scheme"]])
    tcp = match["transport"] == "tcp" or scheme == "turns"
    return IceUrl(scheme, match["host"].strip("[]"), port, "tcp" if tcp else "udp")


def mint(secret: str, now_s: float, ttl_s: float, name: str = "") -> Credential:
    """A credential good until `now_s + ttl_s` (Unix seconds); `name` tells its users apart in the TURN server's log."""
    username = f"{int(now_s + ttl_s)}" + (f":{name}" if name else "")
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return Credential(username, base64.b64encode(digest).decode())


def expires_s(username: str) -> int | None:
    """When a minted user name expires, in Unix seconds; None for a name that carries no time."""
    stamp = username.partition(":")[0]
    return int(stamp) if stamp.isdigit() and len(stamp) <= 12 else None


def link_header(server: IceServer) -> str:
    """The value of one `Link` header (RFC 9725 section 4.6, RFC 8288 section 3)."""
    parts = [f"<{server.url}>", 'rel="ice-server"']
    if server.credential is not None:
        parts.append(f"username={_quoted(server.credential.username)}")
        parts.append(f"credential={_quoted(server.credential.password)}")
        parts.append('credential-type="password"')
    return "; ".join(parts)


def parse_links(value: str) -> list[IceServer]:
    """What `Link` header values say, several joined with commas or not; other relations are left out."""
    found = []
    for match in _LINK.finditer(value):
        parameters = {key: re.sub(r"\\(.)", r"\1", text) for key, text in _PARAMETER.findall(match[2])}
        if parameters.get("rel") != "ice-server":
            continue
        credential = None
        if "username" in parameters and "credential" in parameters:
            credential = Credential(parameters["username"], parameters["credential"])
        found.append(IceServer(match[1], credential))
    return found


def refusal(code: int, reason: str, *, minted: bool) -> str:
    """What a TURN server's error answer means and what to do (RFC 8656 section 19, RFC 8489 section 14.8)."""
    if code == 401:
        if minted:
            return "refused the credential (401): ice.secret is not the server's secret, or the clocks differ"
        return "refused the credential (401): ice.username or ice.credential is wrong, or has expired"
    words = {
        403: "forbids it (403): its rules do not allow this client",
        437: "has lost the allocation (437)",
        441: "refused the credential (441): it belongs to another allocation",
        442: "does not relay UDP (442)",
        486: "has reached its quota for this user (486)",
        508: "has no relay port left (508)",
    }
    return words.get(code, f"answered {code} {reason.strip()}".rstrip())


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
