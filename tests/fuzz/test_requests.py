"""Requests from anybody: any headers, JSON and bytes at every route give an answer with words, never a 500."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.house import House
from server.security import Guard
from server.uploads import UploadShelf
from svp_stream.config import Server
from svp_stream.errors import PresetError
from tests.fakes.asgi import Reply, ask
from tests.fakes.engines import FakeShelf, fake_studio
from tests.fuzz.test_control import values
from tests.server.test_every_route import METHODS, TOKEN, routes
from tests.server.test_uploads import preset

FEW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = ["host", "origin", "authorization", "content-type", "if-match", "content-length", "accept", "link", "cookie",
         "access-control-request-method", "sec-fetch-site", "x-forwarded-for", "transfer-encoding"]  # fmt: skip
KNOWN = ("Authorization", f"Bearer {TOKEN}")
TYPES = st.sampled_from(["application/json", "application/sdp", "application/trickle-ice-sdpfrag", "application/zip"])
words = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
headers = st.lists(st.tuples(st.sampled_from(NAMES), words), max_size=5)
fields = st.sampled_from(["avatar", "style", "strength", "temperature", "echo", "name", "weights", "id", "kind", "x"])
bodies = (values | st.dictionaries(fields, values, max_size=5)).map(json.dumps).map(str.encode)
PRESET = preset()


class Served:
    """A house that is up in a loop of its own: hypothesis calls plain functions."""

    def __init__(self, guard: Guard) -> None:
        self.loop = asyncio.new_event_loop()
        self.house = House(fake_studio(), guard, capacity=2, settings=Server(posts_per_minute=60_000))
        self.life = self.house.lifespan(self.house.app)
        self.loop.run_until_complete(self.life.__aenter__())
        self.paths = sorted(set(routes(self.house.app.routes)))

    def ask(self, path: str, method: str, lines: list[tuple[str, str]], body: bytes, websocket: bool = False) -> Reply:
        """One request; raises what the application lets through."""
        return self.loop.run_until_complete(
            asyncio.wait_for(ask(self.house.app, path, method, lines, body, websocket=websocket), 30)
        )

    def end(self) -> None:
        """Down again."""
        self.loop.run_until_complete(self.life.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


@pytest.fixture(scope="module")
def wide() -> Iterator[Served]:
    made = Served(Guard(TOKEN, local=False, origins=frozenset({"https://studio.example"})))
    yield made
    made.end()


@pytest.fixture(scope="module")
def local() -> Iterator[Served]:
    made = Served(Guard(None, local=True))
    yield made
    made.end()


@MANY
@given(data=st.data(), lines=headers, body=bodies | st.binary(max_size=200))
def test_no_headers_let_a_stranger_in(
    wide: Served, data: st.DataObject, lines: list[tuple[str, str]], body: bytes
) -> None:
    path, websocket = data.draw(st.sampled_from([p for p in wide.paths if p[0].startswith(("/v1", "/metrics"))]))
    reply = wide.ask(path, data.draw(st.sampled_from(METHODS)), lines, body, websocket)
    assert 400 <= reply.status < 500 and "content-security-policy" in reply.headers


@FEW
@given(data=st.data(), lines=headers, path=words.map("/".__add__))
def test_no_path_lets_a_stranger_in(wide: Served, data: st.DataObject, lines: list[tuple[str, str]], path: str) -> None:
    reply = wide.ask(path, data.draw(st.sampled_from(METHODS)), lines, b"")
    assert 400 <= reply.status < 500 or path == "/"


@MANY
@given(data=st.data(), body=bodies | st.binary(max_size=200), kind=TYPES)
def test_any_body_of_who_knows_the_token(wide: Served, data: st.DataObject, body: bytes, kind: str) -> None:
    path, websocket = data.draw(st.sampled_from(wide.paths))
    method = data.draw(st.sampled_from(METHODS))
    reply = wide.ask(path, method, [("Host", "a"), KNOWN, ("Content-Type", kind)], body, websocket)
    assert reply.status < 500 or reply.status == 503, f"{method} {path} {body!r}"
    if reply.status >= 400 and not websocket and method != "HEAD":
        assert isinstance(json.loads(reply.body), dict), "an error says what is wrong"


@MANY
@given(data=st.data(), body=bodies, lines=headers)
def test_json_at_every_route_that_takes_it(
    local: Served, data: st.DataObject, body: bytes, lines: list[tuple[str, str]]
) -> None:
    path, websocket = data.draw(st.sampled_from(local.paths))
    own = [("Host", "localhost"), ("Content-Type", "application/json")]
    extra = [line for line in lines if line[0] not in ("host", "content-type", "content-length", "transfer-encoding")]
    method = data.draw(st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]))
    reply = local.ask(path, method, own + extra, body, websocket)
    assert reply.status < 500 or reply.status == 503


@MANY
@given(
    edits=st.lists(st.tuples(st.integers(0, len(PRESET) - 1), st.integers(0, 255)), max_size=6),
    cut=st.none() | st.integers(0, len(PRESET)), more=st.binary(max_size=60),
)  # fmt: skip
def test_damaged_presets(edits: list[tuple[int, int]], cut: int | None, more: bytes) -> None:
    data = bytearray(PRESET)
    for at, value in edits:
        data[at] = value
    shelf = UploadShelf(FakeShelf(), "p", 4)
    try:
        name = shelf.add(bytes(data[:cut]) + more)
    except PresetError as error:
        assert str(error)
        return
    kept = shelf.get(name)
    assert kept.mu.shape == (4,) and np.isfinite(kept.mu).all() and not kept.extra


@FEW
@given(data=st.binary(max_size=300))
def test_uploads_of_anything(wide: Served, data: bytes) -> None:
    kind = ("Content-Type", "application/zip")
    assert wide.ask("/v1/styles", "POST", [("Host", "a"), KNOWN, kind], data).status == 422


def test_the_seeds_are_sound() -> None:
    assert UploadShelf(FakeShelf(), "p", 4).add(PRESET)
    assert io.BytesIO(PRESET).read(2) == b"PK"
