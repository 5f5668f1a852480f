"""The routes without a call: lists, health, pages, tokens, statuses and their words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from server.house import House
from server.security import Guard
from tests.fakes.engines import fake_studio
from tests.fakes.peers import until

TOKEN = "a-token-of-some-length"
SDP = {"Content-Type": "application/sdp"}


@asynccontextmanager
async def served(token: str | None = None, base: str = "http://127.0.0.1") -> AsyncIterator[httpx.AsyncClient]:
    house = House(fake_studio(), Guard(token, local=token is None), capacity=2)
    transport = httpx.ASGITransport(house.app)
    async with house.lifespan(house.app), httpx.AsyncClient(transport=transport, base_url=base) as http:
        await until(lambda: house.readiness.warm, "warm engine")
        yield http


async def test_lists() -> None:
    async with served() as http:
        styles = (await http.get("/v1/styles")).json()
        assert [s["name"] for s in styles["styles"]] == ["calm", "lively", "warm"], "the broken one is left out"
        assert styles["default"]["name"] == "warm" and styles["styles"][0]["strength"] == 0.8
        assert all(s["family"] == s["name"] and s["intensity"] is None for s in styles["styles"])
        assert styles["styles"][0]["thumbnail"].startswith("data:image/png;base64,")
        avatars = (await http.get("/v1/avatars")).json()
        assert avatars == {"default": "ada", "avatars": [{"name": "ada"}, {"name": "ben"}, {"name": "cursed"}]}
        assert (await http.get("/v1/sessions")).json() == {"capacity": 2, "sessions": []}


async def test_health_and_metrics() -> None:
    async with served() as http:
        assert (await http.get("/healthz")).json() == {"status": "alive"}
        assert (await http.get("/readyz")).status_code == 200
        await http.post("/v1/call", content="x", headers=SDP)
        metrics = (await http.get("/metrics")).text
        assert "svp_calls 0.0" in metrics and "svp_capacity 2.0" in metrics
        assert 'svp_calls_refused_total{status="400"} 1.0' in metrics


async def test_the_page_and_its_modules_come_with_a_policy() -> None:
    async with served() as http:
        page = await http.get("/")
        assert page.status_code == 200 and "<video" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "http" not in page.text.replace("http-equiv", ""), "no external assets"
        modules = "main whip peer mic stage style_pad styles radios control stats failures"
        for name in modules.split():
            module = await http.get(f"/{name}.js")
            assert module.status_code == 200 and "javascript" in module.headers["content-type"]
            assert module.text.startswith("// @ts-check"), name
        assert (await http.get("/../server/app.py")).status_code == 404
        assert (await http.get("/v1/nothing")).status_code == 404


@pytest.mark.parametrize(
    ("query", "headers", "body", "status", "words"),
    [
        ("", {"Content-Type": "text/plain"}, "v=0", 415, "application/sdp"),
        ("", {}, "v=0", 415, "missing|text"),
        ("", SDP, "nonsense", 400, "line 1"),
        ("", SDP, b"\xff\xfe", 400, "UTF-8"),
        ("", SDP, "v=0\r\n" + "a=x\r\n" * 20_000, 413, "longer than 65536"),
    ],
)
async def test_posts_that_are_refused(
    query: str, headers: dict[str, str], body: str | bytes, status: int, words: str
) -> None:
    async with served() as http:
        response = await http.post(f"/v1/call{query}", content=body, headers=headers)
        assert response.status_code == status
        assert any(word in response.json()["error"] for word in words.split("|"))


@pytest.mark.parametrize(
    "query", ["strength=3", "temperature=-1", "strength=nan", "echo=perhaps", "style=" + "x" * 300]
)
async def test_wishes_out_of_range(query: str) -> None:
    async with served() as http:
        assert (await http.post(f"/v1/call?{query}", content="v=0", headers=SDP)).status_code == 422


async def test_put_style_of_nobody_and_of_nonsense() -> None:
    async with served() as http:
        assert (await http.put("/v1/sessions/x/style", json={"name": "calm"})).status_code == 404
        nonsense = await http.put("/v1/sessions/x/style", json={"name": 7})
        assert nonsense.status_code == 422 and "name" in nonsense.json()["error"]
        plain = await http.put("/v1/sessions/x/style", content="{}", headers={"Content-Type": "text/plain"})
        assert plain.status_code == 415


async def test_a_token_is_wanted_everywhere_but_at_the_door() -> None:
    async with served(TOKEN, "http://avatar.example") as http:
        for path in ("/v1/styles", "/v1/avatars", "/v1/sessions", "/metrics"):
            assert (await http.get(path)).status_code == 401
        denied = await http.post("/v1/call", content="v=0", headers=SDP)
        assert denied.status_code == 401 and denied.headers["www-authenticate"] == "Bearer"
        assert (await http.delete("/v1/call/x")).status_code == 401
        assert (await http.get("/healthz")).status_code == 200 and (await http.get("/")).status_code == 200
        known = {"Authorization": f"Bearer {TOKEN}"}
        assert (await http.get("/v1/styles", headers=known)).status_code == 200


async def test_a_page_that_rebinds_its_name_gets_nothing() -> None:
    async with served(base="http://rebound.example") as http:
        assert (await http.get("/v1/sessions")).status_code == 421
        assert (await http.post("/v1/call", content="v=0", headers=SDP)).status_code == 421
