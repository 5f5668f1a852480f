"""The gate around all routes: nothing comes in that `security` and `limits` do not let in, nothing leaves bare.

In: ASGI connections, HTTP and WebSocket. Out: the same to the routes, or a refusal in words; headers on every response.
Remembers: the buckets of `limits`. A route added later stands behind the gate without doing anything for it: the
token, `Host` and `Origin` are wanted everywhere but for the health probes and the files of the page.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.limits import Backoff, Rates
from server.security import Denied, Guard

PROBES: Final = frozenset({"/healthz", "/readyz"})
EMBEDDABLE: Final = "/obs"
MAKING: Final = frozenset({"POST"})
"""Methods that begin something costly; a WebSocket counts as one."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "
)
PERMISSIONS: Final = (
    "microphone=(self), autoplay=(self), fullscreen=(self), camera=(), display-capture=(), geolocation=(), payment=(), "
    "usb=(), serial=(), hid=(), midi=(), accelerometer=(), gyroscope=(), magnetometer=()"
)
CORS_METHODS: Final = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
CORS_ASKED: Final = "Authorization, Content-Type, If-Match"
CORS_SHOWN: Final = "Location, ETag, Link, Accept-Post, Retry-After, X-Session"


def public_paths(pages: Path) -> frozenset[str]:
    """The page and its files, and the overlay; what a browser loads before it knows the token."""
    files = (f"/{path.relative_to(pages).as_posix()}" for path in pages.rglob("*") if path.is_file())
    return frozenset({"/", EMBEDDABLE, *files})


class Gate:
    """ASGI middleware, the outermost. `on_refused(status, reason)` is called for every refusal, for counting."""

    def __init__(
        self, app: ASGIApp, guard: Guard, public: Iterable[str], rates: Rates, backoff: Backoff | None = None,
        on_refused: Callable[[int, str], None] = lambda status, reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._app = app
        self._guard = guard
        self._public = frozenset(public)
        self._rates = rates
        self._backoff = backoff or Backoff()
        self._on_refused = on_refused
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def dressed(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                self._dress(scope, headers, MutableHeaders(scope=message))
            await send(message)

        try:
            if self._is_preflight(scope, headers):
                await _answer(scope, dressed, 204, None, {})
                return
            self._admit(scope, headers)
        except Denied as denied:
            self._on_refused(denied.status, denied.reason)
            await _refuse(scope, receive, dressed, denied)
            return
        await self._app(scope, receive, dressed)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        """Raises `Denied`."""
        path, method = scope["path"], scope.get("method", "WEBSOCKET")
        if path in PROBES and method in ("GET", "HEAD"):
            return
        for name in ("host", "origin", "authorization"):
            if len(headers.getlist(name)) > 1:
                raise Denied(400, f"the header {name} is there twice", reason="malformed")
        self._guard.check_host(headers.get("host"))
        if path in self._public and method in ("GET", "HEAD"):
            return
        self._guard.check_origin(headers.get("origin"), headers.get("host"))
        address, now_s = (scope.get("client") or ("", 0))[0], self._clock()
        self._check_token(scope, headers, address, now_s)
        if scope["type"] == "websocket" or method in MAKING:
            wait_s = self._rates.take(address, now_s)
            if wait_s > 0:
                raise Denied(429, "too many requests from this address", reason="rate", retry_after_s=wait_s)

    def _check_token(self, scope: Scope, headers: Headers, address: str, now_s: float) -> None:
        if self._guard.token is None:
            return
        wait_s = self._backoff.wait(address, now_s)
        if wait_s > 0:
            raise Denied(429, "too many wrong tokens from this address", reason="backoff", retry_after_s=wait_s)
        try:
            self._guard.check_token(given_token(scope, headers))
        except Denied as denied:
            if denied.reason == "wrong":
                self._backoff.failed(address, now_s)
            raise
        self._backoff.passed(address)

    def _is_preflight(self, scope: Scope, headers: Headers) -> bool:
        """Whether a browser asks for a page of a listed site (Fetch standard, CORS-preflight); it sends no token."""
        asked = scope.get("method") == "OPTIONS" and "access-control-request-method" in headers
        return asked and headers.get("origin") in self._guard.origins

    def _dress(self, scope: Scope, asked: Headers, answer: MutableHeaders) -> None:
        path, origin = scope["path"], asked.get("origin")
        overlay = path in (EMBEDDABLE, f"{EMBEDDABLE}.html")
        frames = " ".join(["'self'", *sorted(self._guard.origins)]) if overlay else "'none'"
        answer.setdefault("Content-Security-Policy", POLICY + frames)
        answer.setdefault("X-Content-Type-Options", "nosniff")
        answer.setdefault("Referrer-Policy", "no-referrer")
        answer.setdefault("Permissions-Policy", PERMISSIONS)
        answer.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        answer.setdefault("Cross-Origin-Resource-Policy", "cross-origin" if self._guard.origins else "same-origin")
        answer.setdefault("Cache-Control", "no-store" if path.startswith("/v1") else "no-cache")
        if origin is not None and origin in self._guard.origins:
            answer["Access-Control-Allow-Origin"] = origin
            answer["Access-Control-Allow-Methods"] = CORS_METHODS
            answer["Access-Control-Allow-Headers"] = CORS_ASKED
            answer["Access-Control-Expose-Headers"] = CORS_SHOWN
            answer.add_vary_header("Origin")


def given_token(scope: Scope, headers: Headers) -> str | None:
    """The bearer token of a request (RFC 6750 section 2.1); for a WebSocket, whose headers a page cannot set, also the
    query parameter `token`. None where there is none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scope["type"] == "websocket":
        query = scope.get("query_string", b"").decode("latin-1")
        return next(iter(parse_qs(query, max_num_fields=64).get("token", [])), None) if query.count("&") < 64 else None
    return None


async def _refuse(scope: Scope, receive: Receive, send: Send, denied: Denied) -> None:
    headers = {}
    if denied.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if denied.retry_after_s > 0:
        headers["Retry-After"] = str(math.ceil(denied.retry_after_s))
    if scope["type"] == "websocket":
        await receive()  # the connect message comes first (ASGI, websocket connection scope)
    await _answer(scope, send, denied.status, str(denied), headers)


async def _answer(scope: Scope, send: Send, status: int, words: str | None, headers: dict[str, str]) -> None:
    """A whole response; for a WebSocket in place of its handshake, or a plain close where the server cannot do that."""
    kind = "http"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": words or ""})
            return
        kind = "websocket.http"
    body = b"" if words is None else json.dumps({"error": words}).encode()
    lines = {"Content-Length": str(len(body)), **({"Content-Type": "application/json"} if body else {}), **headers}
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in lines.items()]
    await send({"type": f"{kind}.response.start", "status": status, "headers": raw})
    await send({"type": f"{kind}.response.body", "body": body})
