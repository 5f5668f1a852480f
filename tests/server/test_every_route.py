"""Every route of the application, whoever adds it: none but the door itself answers without the token."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from server.app import PAGES
from server.gate import public_paths
from server.house import House
from server.security import Guard
from svp_stream.config import Server
from tests.fakes.asgi import ask
from tests.fakes.engines import fake_studio
from tests.fakes.peers import until

TOKEN = "a-token-of-some-length"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")
OPEN = public_paths(PAGES) | {"/healthz", "/readyz"}


def routes(found: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """(path with its parameters filled in, whether it is a WebSocket) of every route, those of mounts included."""
    for route in found:
        if isinstance(route, (APIRoute, Route, WebSocketRoute)):
            yield re.sub(r"{[^}]*}", "x", prefix + route.path), isinstance(route, WebSocketRoute)
        elif isinstance(route, Mount):
            yield f"{prefix}{route.path}/nothing", False
            yield from routes(list(route.routes), prefix + route.path)
        else:
            # FastAPI keeps an included router as one object
            inner = getattr(route, "original_router", None)
            assert inner is not None, f"{type(route).__name__} is a kind of route that this test does not know"
            yield from routes(list(inner.routes), prefix)


@asynccontextmanager
async def house(guard: Guard) -> AsyncIterator[House]:
    made = House(fake_studio(), guard, capacity=1, settings=Server(posts_per_minute=60_000))
    async with made.lifespan(made.app):
        await until(lambda: made.readiness.warm, "warm engine")
        yield made


async def strangers(made: House, headers: list[tuple[str, str]], status: int) -> int:
    """Tries every route and method; the number of tries."""
    tries = 0
    paths = set(routes(made.app.routes))
    assert len(paths) >= 10 and ("/v1/call", False) in paths
    for path, websocket in sorted(paths | {(path, False) for path in OPEN}):
        for method in ("WEBSOCKET",) if websocket else METHODS:
            reply = await ask(made.app, path, method, headers, websocket=websocket)
            tries += 1
            open_to_all = path in OPEN and method in ("GET", "HEAD")
            if not open_to_all:
                assert reply.status == status, f"{method} {path} answered {reply.status}"
                assert method == "HEAD" or websocket or b"error" in reply.body
    return tries


async def test_bound_wide_nothing_succeeds_without_the_token() -> None:
    async with house(Guard(TOKEN, local=False)) as made:
        assert await strangers(made, [("Host", "avatar.lan")], 401) > 100
        wrong = [("Host", "avatar.lan"), ("Authorization", "Bearer a-token-of-some-lengtH")]
        made_up = await ask(made.app, "/v1/styles", "GET", wrong)
        assert made_up.status == 401
        assert len(made.signaling.registry) == 0


async def test_with_the_token_the_same_routes_answer() -> None:
    async with house(Guard(TOKEN, local=False)) as made:
        known = [("Host", "avatar.lan"), ("Authorization", f"Bearer {TOKEN}")]
        for path in ("/v1/styles", "/v1/avatars", "/v1/sessions", "/metrics"):
            assert (await ask(made.app, path, "GET", known)).status == 200


async def test_a_page_of_another_site_gets_nothing_even_with_the_token() -> None:
    async with house(Guard(TOKEN, local=False)) as made:
        headers = [("Host", "avatar.lan"), ("Authorization", f"Bearer {TOKEN}"), ("Origin", "http://evil.example")]
        await strangers(made, headers, 403)


async def test_on_this_machine_a_page_of_another_site_gets_nothing() -> None:
    async with house(Guard(None, local=True)) as made:
        await strangers(made, [("Host", "127.0.0.1"), ("Origin", "http://evil.example")], 403)
        await strangers(made, [("Host", "127.0.0.1"), ("Origin", "null")], 403)


async def test_on_this_machine_a_foreign_name_gets_nothing() -> None:
    async with house(Guard(None, local=True)) as made:
        headers = [("Host", "rebound.example"), ("Origin", "http://rebound.example")]
        await strangers(made, headers, 421)
        for path in public_paths(PAGES):
            assert (await ask(made.app, path, "GET", headers)).status == 421
