"""What stands behind the person, by HTTP and by order: what is taken, what is refused, and the page for OBS."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from server.desk import Listener, told
from server.house import House
from server.live import Live
from server.security import Guard
from server.signaling import Wish
from svp_stream.config import Media, load_config
from svp_stream.errors import ConfigError
from svp_stream.pipeline.compose import Background
from tests.fakes.engines import fake_studio
from tests.fakes.peers import until

TOKEN = "a-token-of-some-length"
AUTH = {"Authorization": f"Bearer {TOKEN}"}


def picture(side: int = 30) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(out, "PNG")
    return out.getvalue()


@asynccontextmanager
async def served(media: Media | None = None) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    house = House(fake_studio(), Guard(TOKEN, local=False), capacity=2, media=media)
    transport = httpx.ASGITransport(house.app)
    async with (
        house.lifespan(house.app),
        httpx.AsyncClient(transport=transport, base_url="http://avatar.example", headers=AUTH) as http,
    ):
        await until(lambda: house.readiness.warm, "warm engine")
        yield house, http


def shown(live: Live) -> Background | None:
    return live.pictures.background


class Ear:
    """A listener of a session."""

    def __init__(self, live: Live) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.hear: Listener = lambda kind, fields: self.events.append((kind, fields))
        live.desk.listen(self.hear)

    def last(self, kind: str) -> dict[str, Any]:
        return [fields for k, fields in self.events if k == kind][-1]


async def test_colour_and_picture_by_http_are_told_to_all() -> None:
    async with served() as (house, http):
        live = await house.signaling.stage(Wish())
        ear, path = Ear(live), f"/v1/sessions/{live.id}/background"
        assert ear.last("welcome")["background"] is None and shown(live) is None
        assert (await http.put(path, json={"color": "#00FF00"})).json() == {"background": "#00ff00"}
        green = shown(live)
        assert green is not None and green.rgb == (0, 255, 0)
        assert ear.last("background") == {"background": "#00ff00", "id": None}
        answer = await http.put(path, content=picture(), headers={"Content-Type": "image/png"})
        assert answer.json() == {"background": "picture"} and ear.last("background")["background"] == "picture"
        red = shown(live)
        assert red is not None and (red.cover(4, 4) == (255, 0, 0)).all()
        assert (await http.put(path, json={"color": None})).json() == {"background": None}
        assert (await http.delete(path)).json() == {"background": None} and shown(live) is None


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("image/png", b"no picture", 422, "no PNG, JPEG or WebP"),
        ("image/png", picture()[:40], 422, "picture"),
        ("image/png", picture(5000), 422, "4096"),
        ("image/webp", bytes(8 * 1024 * 1024 + 1), 413, "longer"),
        ("image/gif", b"GIF89a", 415, "image/png"),
        ("image/svg+xml", b"<svg/>", 415, "image/webp"),
        ("application/json", b'{"color": "green"}', 422, "BackgroundOrder.color"),
        ("application/json", b"{}", 422, "color"),
        ("application/json", b'{"color": "#00ff00", "x": "' + bytes(2000) + b'"}', 413, "longer"),
        ("application/json", b"\xff", 400, "UTF-8"),
    ],
)
async def test_everything_else_is_refused_in_words(kind: str, body: bytes, status: int, words: str) -> None:
    async with served() as (house, http):
        live = await house.signaling.stage(Wish())
        answer = await http.put(
            f"/v1/sessions/{live.id}/background", content=body, headers={"Content-Type": kind}
        )
        assert answer.status_code == status and words in answer.json()["error"]
        assert live.pictures.background is None


async def test_strangers_change_nothing() -> None:
    async with served() as (house, http):
        live = await house.signaling.stage(Wish())
        path = f"/v1/sessions/{live.id}/background"
        del http.headers["Authorization"]
        assert (await http.put(path, json={"color": "#00ff00"})).status_code == 401
        assert (await http.delete(path)).status_code == 401
        http.headers.update(AUTH)
        assert (await http.put("/v1/sessions/nobody/background", json={"color": "#00ff00"})).status_code == 404
        assert (await http.delete("/v1/sessions/nobody/background")).status_code == 404


async def test_an_order_on_the_channel_is_answered_to_the_one_who_gave_it() -> None:
    async with served() as (house, _):
        live = await house.signaling.stage(Wish())
        one, other = Ear(live), Ear(live)
        live.desk.take('{"type":"background","v":1,"color":"#102030","id":7}', one.hear)
        assert one.last("background") == {"background": "#102030", "id": 7}
        assert other.last("background") == {"background": "#102030", "id": None}
        live.desk.take('{"type":"background","v":1,"color":"red"}', one.hear)
        assert "color" in one.last("error")["message"]
        live.desk.take('{"type":"background","v":1,"color":"#ffffff"}', one.hear, orders=False)
        assert "no orders" in one.last("error")["message"]
        live.desk.take('{"type":"background","v":1,"color":null}', one.hear)
        assert live.pictures.background is None


async def test_a_profile_sets_what_sessions_begin_with(tmp_path: Path) -> None:
    (tmp_path / "room.png").write_bytes(picture())
    (tmp_path / "profile.yaml").write_text("media: {background: room.png}\n")
    media = load_config(tmp_path / "profile.yaml").media
    assert media.background == str(tmp_path / "room.png")
    async with served(media) as (house, http):
        live = await house.signaling.stage(Wish())
        assert told(shown(live)) == "picture"
        await http.delete(f"/v1/sessions/{live.id}/background")
        other = await house.signaling.stage(Wish())
        assert shown(live) is None and shown(other) is not None
    with pytest.raises(ConfigError, match=r"media.background: .*nowhere"):
        House(fake_studio(), Guard(None, local=True), capacity=1, media=Media(background="nowhere.png"))


async def test_the_page_for_obs_needs_no_token_and_no_inline_script() -> None:
    async with served() as (_, http):
        del http.headers["Authorization"]
        page = await http.get("/obs?session=x")
        assert page.status_code == 200 and "<canvas" in page.text and "default-src 'none'" in page.headers[
            "content-security-policy"
        ]
        assert "<script>" not in page.text and "style=" not in page.text and "onload" not in page.text
        for name in ("obs", "compose", "whep", "backdrop"):
            module = await http.get(f"/{name}.js")
            assert module.status_code == 200 and module.text.startswith("// @ts-check")
        assert "background: transparent" in (await http.get("/obs.css")).text
