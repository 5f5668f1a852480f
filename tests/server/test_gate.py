"""The gate: tokens, hosts, origins, rates, headers; what passes and what is refused in words."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from starlette.types import Message, Receive, Scope, Send

from server.gate import Gate
from server.limits import Backoff, Rates
from server.security import Denied, Guard, guard, with_token
from svp_stream.config import Server
from svp_stream.errors import ConfigError
from tests.fakes.asgi import Reply, ask

TOKEN = "a-token-of-some-length"
KNOWN = ("Authorization", f"Bearer {TOKEN}")
STUDIO = "https://studio.example"


async def room(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that lets everybody in."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    messages: list[Message] = [
        {"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body", "body": b"in"},
    ]  # fmt: skip
    for message in messages:
        await send(message)


class Door:
    """A gate, its wall clock, and what it refused."""

    def __init__(self, token: str | None = TOKEN, origins: Iterable[str] = (), burst: int = 1000) -> None:
        self.now_s = 0.0
        self.refused: list[tuple[int, str]] = []
        self.gate = Gate(
            room, Guard(token, token is None, frozenset(origins)), {"/", "/main.js"}, Rates(60, burst),
            Backoff(free=2, first_s=4.0), on_refused=lambda *what: self.refused.append(what), clock=lambda: self.now_s,
        )  # fmt: skip

    async def ask(
        self, path: str = "/v1/styles", method: str = "GET", *headers: tuple[str, str], host: str = "avatar.lan:8080",
        query: str = "", websocket: bool = False, client: str = "10.0.0.7",
    ) -> Reply:  # fmt: skip
        lines = [("Host", host), *headers]
        return await ask(self.gate, path, method, lines, query=query, websocket=websocket, client=client)


@pytest.mark.parametrize("path", ["/", "/main.js", "/healthz", "/readyz"])
async def test_the_door_itself_is_open(path: str) -> None:
    door = Door()
    assert (await door.ask(path)).status == (await door.ask(path, "HEAD")).status == 200
    assert (await door.ask(path, "POST")).status == 401


@pytest.mark.parametrize("path", ["//", "/main.js/", "/Main.js", "/v1/../main.js", "/healthz/", "/%6dain.js", ""])
async def test_only_the_very_paths_are_open(path: str) -> None:
    assert (await Door().ask(path)).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([KNOWN], 200), ([("Authorization", f"bearer   {TOKEN} ")], 200), ([], 401),
        ([("Authorization", f"Basic {TOKEN}")], 401), ([("Authorization", TOKEN)], 401),
        ([("Authorization", "Bearer ")], 401), ([("Authorization", f"Bearer {TOKEN}x")], 401),
        ([("Authorization", "Bearer \xff\xfe")], 401), ([KNOWN, ("Authorization", "Bearer other")], 400),
    ],
)  # fmt: skip
async def test_tokens(headers: list[tuple[str, str]], status: int) -> None:
    reply = await Door().ask("/v1/styles", "GET", *headers)
    assert reply.status == status
    if status == 401:
        assert reply.headers["www-authenticate"] == "Bearer" and json.loads(reply.body)["error"]


async def test_a_websocket_may_bring_the_token_in_its_query_and_nothing_else_may() -> None:
    door = Door()
    assert (await door.ask("/v1/x", websocket=True)).status == 401
    assert (await door.ask("/v1/x", "", KNOWN, websocket=True)).status == 101
    assert (await door.ask("/v1/x", websocket=True, query=f"rate=16000&token={TOKEN}")).status == 101
    assert (await door.ask("/v1/x", websocket=True, query="token=wrong")).status == 401
    assert (await door.ask("/v1/x", websocket=True, query="a&" * 5000 + f"token={TOKEN}")).status == 401
    assert (await door.ask("/v1/x", query=f"token={TOKEN}")).status == 401
    closed = await ask(door.gate, "/v1/x", websocket=True, denial=False)
    assert closed.status == 403


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://avatar.lan:8080", "avatar.lan:8080", 200), ("https://avatar.lan", "avatar.lan", 200),
        ("https://avatar.lan", "avatar.lan:443", 200), ("http://avatar.lan:80", "avatar.lan", 200),
        ("HTTP://Avatar.lan:8080", "avatar.LAN:8080", 200), ("http://[fd00::1]:8080", "[fd00::1]:8080", 200),
        (STUDIO, "avatar.lan:8080", 200),
        ("http://avatar.lan:8081", "avatar.lan:8080", 403), ("http://evil.example", "avatar.lan:8080", 403),
        ("http://avatar.lan:8080.evil.example", "avatar.lan:8080", 403), ("null", "avatar.lan:8080", 403),
        ("http://", "", 403), ("", "avatar.lan:8080", 403), ("file://avatar.lan:8080", "avatar.lan:8080", 403),
        ("https://studio.example.evil", "avatar.lan:8080", 403), ("https://avatar.lan", "avatar.lan:80", 403),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET", "WEBSOCKET"])
async def test_origins(origin: str, host: str, status: int, method: str) -> None:
    door = Door(origins=[STUDIO])
    socket = method == "WEBSOCKET"
    reply = await door.ask("/v1/x", method, KNOWN, ("Origin", origin), host=host, websocket=socket)
    assert reply.status == (101 if socket and status == 200 else status)


async def test_a_listed_site_may_read_answers_and_ask_first() -> None:
    door = Door(origins=[STUDIO])
    asked = ("Access-Control-Request-Method", "POST")
    preflight = await door.ask("/v1/whep/x", "OPTIONS", ("Origin", STUDIO), asked)
    assert preflight.status == 204 and not preflight.body
    assert preflight.headers["access-control-allow-origin"] == STUDIO
    assert "If-Match" in preflight.headers["access-control-allow-headers"]
    reply = await door.ask("/v1/styles", "GET", KNOWN, ("Origin", STUDIO))
    assert reply.headers["access-control-allow-origin"] == STUDIO and "Location" in str(reply.headers)
    assert reply.headers["vary"] == "Origin"
    foreign = await door.ask("/v1/whep/x", "OPTIONS", ("Origin", "https://evil.example"), asked)
    assert foreign.status == 403 and "access-control-allow-origin" not in foreign.headers
    same = await door.ask("/v1/styles", "GET", KNOWN)
    assert "access-control-allow-origin" not in same.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8080", 200), ("localhost", 200), ("[::1]:1", 200), ("rebound.example", 421), ("", 421),
     ("127.0.0.1.evil.example", 421), ("localhost:80:80", 421)],
)  # fmt: skip
async def test_a_server_of_this_machine_knows_its_names(host: str, status: int) -> None:
    door = Door(token=None)
    assert (await door.ask(host=host)).status == status
    assert (await door.ask("/", host=host)).status == status
    assert (await door.ask("/healthz", host=host)).status == 200


async def test_many_posts_from_one_address_have_to_wait() -> None:
    door = Door(burst=3)
    statuses = [(await door.ask("/v1/call", "POST", KNOWN)).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    refused = await door.ask("/v1/call", "POST", KNOWN)
    assert int(refused.headers["retry-after"]) >= 1 and "too many" in json.loads(refused.body)["error"]
    assert (await door.ask("/v1/x", "", KNOWN, websocket=True)).status == 429
    assert (await door.ask("/v1/styles", "GET", KNOWN)).status == 200
    assert (await door.ask("/v1/call", "POST", KNOWN, client="10.0.0.8")).status == 200
    door.now_s += 1
    assert (await door.ask("/v1/call", "POST", KNOWN)).status == 200
    assert door.refused == [(429, "rate")] * 3


async def test_who_guesses_tokens_has_to_wait_even_with_the_right_one() -> None:
    door = Door()
    wrong = ("Authorization", "Bearer guess")
    assert [(await door.ask("/v1/styles", "GET", wrong)).status for _ in range(4)] == [401, 401, 401, 429]
    late = await door.ask("/v1/styles", "GET", KNOWN)
    assert late.status == 429 and 1 <= int(late.headers["retry-after"]) <= 4
    assert (await door.ask("/v1/styles", "GET", KNOWN, client="10.0.0.8")).status == 200
    door.now_s += 5
    assert (await door.ask("/v1/styles", "GET", KNOWN)).status == 200
    assert [(await door.ask("/v1/styles")).status for _ in range(9)] == [401] * 9, "to bring none is no guess"


async def test_headers_stand_on_everything() -> None:
    door = Door(origins=[STUDIO])
    for path, method, headers in [("/", "GET", []), ("/v1/styles", "GET", []), ("/v1/styles", "GET", [KNOWN])]:
        reply = await door.ask(path, method, *headers)
        for name in ("content-security-policy", "permissions-policy", "referrer-policy", "cache-control",
                     "cross-origin-opener-policy", "cross-origin-resource-policy"):  # fmt: skip
            assert name in reply.headers, f"{path} {reply.status}: no {name}"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    overlay = await door.ask("/obs", "GET", KNOWN)
    assert f"frame-ancestors 'self' {STUDIO}" in overlay.headers["content-security-policy"]


@pytest.mark.parametrize(
    "origin", ["studio.example", "https://studio.example/", "https://a@b.c", "ftp://a.b", "https://A.b", "*", "null"]
)
def test_origins_are_written_as_browsers_write_them(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.origins"):
        guard(Server(origins=(origin,)))


def test_a_token_is_made_only_where_it_is_needed() -> None:
    assert with_token(Server()).token is None
    given = Server(host="0.0.0.0", token="t" * 16)
    assert with_token(given) is given
    made = {with_token(Server(host="0.0.0.0")).token for _ in range(100)}
    assert len(made) == 100 and all(token and len(token) >= 32 for token in made)
    with pytest.raises(Denied):
        guard(with_token(Server(host="::"))).check("a.b", None)
