"""Asks an ASGI application directly: any method, any header lines, HTTP or WebSocket, from any address.

In: a request in parts. Out: status, headers, body; for a WebSocket 101 when it was accepted, 403 when it was closed.
Remembers: nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

HTTP = {"method": "GET", "http_version": "1.1", "scheme": "http"}


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Headers
    body: bytes


async def ask(
    app: ASGIApp, path: str, method: str = "GET", headers: Iterable[tuple[str, str]] = (), body: bytes = b"",
    *, query: str = "", websocket: bool = False, client: str = "127.0.0.1", denial: bool = True,
) -> Reply:  # fmt: skip
    """One request; `denial`: whether the server can answer a WebSocket's handshake with HTTP (uvicorn can)."""
    scope = {
        "type": "websocket" if websocket else "http", "asgi": {"version": "3.0"}, "path": path, "root_path": "",
        "raw_path": path.encode(), "query_string": query.encode(), "client": (client, 50_000),
        "server": ("127.0.0.1", 80), "state": {},
        "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers],
        **({"subprotocols": [], "scheme": "ws", "extensions": {"websocket.http.response": {}} if denial else {}}
           if websocket else {**HTTP, "method": method}),
    }  # fmt: skip
    first: Message = {"type": "websocket.connect"} if websocket else {"type": "http.request", "body": body}
    incoming = [first]
    sent: list[Message] = []

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        await asyncio.sleep(0)
        return {"type": "websocket.disconnect" if websocket else "http.disconnect", "code": 1005}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    status, lines = 0, Headers({})
    for message in sent:
        if message["type"].endswith("http.response.start"):
            status, lines = message["status"], Headers(raw=message["headers"])
        elif not status and message["type"] in ("websocket.accept", "websocket.close"):
            status = 101 if message["type"] == "websocket.accept" else 403
    return Reply(status, lines, b"".join(m.get("body", b"") for m in sent))
