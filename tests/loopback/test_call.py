"""A whole call over real aiortc connections on loopback: pictures, voice, orders, events."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.fakes.engines import FakeStages, read_loudness, read_number
from tests.fakes.peers import Caller, ToneMic, until
from tests.loopback.conftest import client, open_house


async def test_pictures_arrive_in_order_and_move_with_the_sound() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        pictures = await caller.see(50)
        numbers = [read_number(p.rgb) for p in pictures]
        assert all(b > a for a, b in zip(numbers, numbers[1:], strict=False))
        assert len(numbers) / (numbers[-1] - numbers[0] + 1) > 0.6, "most frames are shown"
        pts = np.array([p.pts_s for p in pictures])
        assert (np.diff(pts) > 0).all()
        steps = np.diff(pts) / np.diff(numbers)
        assert np.allclose(steps, 0.04, atol=0.001), "RTP time is media time: 40 ms a frame, also where one is missing"
        assert max(read_loudness(p.rgb) for p in pictures) > 0.15
        assert caller.mic is not None
        caller.mic.loud = False
        await until(lambda: caller.shows() < 0.05, "quiet picture")
        caller.send("listen", on=True, id=4)
        await caller.event("listen", on=True, id=4)
        await caller.hang_up()


async def test_silence_keeps_the_face_alive() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await caller.see(10)
        assert caller.mic is not None
        caller.mic.gone = True
        await asyncio.sleep(0.3)
        pictures = await caller.see(25)
        pace = (pictures[-1].at_s - pictures[0].at_s) / (pictures[-1].pts_s - pictures[0].pts_s)
        assert 0.7 < pace < 1.4, "media time goes on with wall time"
        caller.mic.gone = False
        await until(lambda: caller.shows() > 0.15, "sound again")
        await caller.hang_up()


async def test_a_caller_without_microphone_sees_a_living_face() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http, mic=None)
        await caller.call()
        numbers = [read_number(p.rgb) for p in await caller.see(25)]
        assert numbers[-1] > numbers[0]
        await caller.hang_up()


async def test_latency_stays_flat() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        for _ in range(4):
            caller.events = [e for e in caller.events if e["type"] != "stats"]
            await caller.event("stats")
            await asyncio.sleep(0.3)
        stats = (await caller.event("stats"))
        assert stats["latency_ms"] is not None and stats["latency_ms"] < 400
        assert stats["fps"] > 10 and stats["drops"]["audio"] < 25
        assert stats["mic"] and stats["mic_db"] > -20 and "fake" in stats["stages_ms"]
        await caller.hang_up()


async def test_own_voice_is_silent_unless_asked_and_then_in_step_with_the_picture() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await until(lambda: len(caller.sounds) > 40, "voice packets")
        assert max(float(np.abs(s.samples).max()) for s in caller.sounds) < 1e-3
        caller.send("echo", on=True, id=7)
        await caller.event("echo", on=True, id=7)
        await until(lambda: float(np.abs(caller.sounds[-1].samples).max()) > 0.2, "own voice")
        assert caller.mic is not None
        caller.mic.loud = False
        await until(lambda: float(np.abs(caller.sounds[-1].samples).max()) < 0.01, "quiet voice")
        heard = next(s for s in reversed(caller.sounds) if float(np.abs(s.samples).max()) > 0.05)
        await until(lambda: caller.shows() < 0.05, "quiet picture")
        seen = next(p for p in reversed(caller.pictures) if read_loudness(p.rgb) > 0.2)
        assert abs(heard.at_s - seen.at_s) < 0.25, "sound and picture of one moment leave together"
        await caller.hang_up()


async def test_style_and_avatar_orders_are_acknowledged_after_they_took_effect() -> None:
    stages = FakeStages()
    async with open_house(stages) as house, client(house) as http:
        caller = Caller(http)
        await caller.call("?style=calm&strength=0.5&avatar=ben")
        welcome = await caller.event("welcome")
        assert welcome["name"] == "calm" and welcome["strength"] == 0.5 and welcome["avatar"] == "ben"
        street = stages.made[0]
        caller.send("style", name="lively", temperature=0.4, id=1)
        acknowledged = await caller.event("style", id=1)
        assert acknowledged["name"] == "lively" and acknowledged["strength"] == 1.3
        assert street.styles[-1].name == "lively" and street.styles[-1].temperature == 0.4
        caller.send("style", weights={"calm": 1.0, "warm": 1.0}, id=2)
        blend = await caller.event("style", id=2)
        assert blend["weights"] == {"calm": 0.5, "warm": 0.5}
        assert np.allclose(street.styles[-1].mu, [0.5, 0, 0.5, 0])
        caller.send("avatar", name="ada", id=3)
        await caller.event("avatar", id=3, name="ada")
        assert street.avatars[-1] == "ada"
        await caller.hang_up()


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        ('{"type":"style","v":1,"name":"nope"}', "refused", "there are: broken, calm"),
        ('{"type":"style","v":1,"name":"broken"}', "refused", "key 'mu'"),
        ('{"type":"avatar","v":1,"name":"nope"}', "refused", "ada, ben"),
        ('{"type":"avatar","v":1,"name":"cursed"}', "refused", "nobody may see"),
        ('{"type":"style","v":1,"strength":3}', "malformed", "less than or equal to 2"),
        ("{", "malformed", "not JSON"),
    ],
)
async def test_orders_that_cannot_be_are_answered_and_the_call_goes_on(message: str, code: str, words: str) -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        caller.channel.send(message)
        error = await caller.event("error", code=code)
        assert words in error["message"]
        caller.channel.send('{"type":"dance","v":9}')
        caller.send("ping", t=5)
        assert (await caller.event("pong"))["t"] == 5
        await caller.see(5)
        await caller.hang_up()


async def test_mute_makes_silence_and_states_are_told() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await caller.event("state", state="speaking")
        caller.send("mute", on=True)
        await caller.event("mute", on=True)
        await caller.event("state", state="silent")
        await until(lambda: caller.shows() < 0.05, "quiet picture")
        await caller.hang_up()


async def test_put_style_and_the_list_of_sessions() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await caller.event("stats")
        listed = (await http.get("/v1/sessions")).json()
        (session,) = listed["sessions"]
        assert session["id"] == caller.session and session["state"] == "connected" and session["stats"]["fps"] > 0
        assert caller.location.rsplit("/", 1)[1] not in str(listed), "the secret is not shown"
        put = await http.put(f"/v1/sessions/{caller.session}/style", json={"name": "lively"})
        assert put.status_code == 200 and put.json()["name"] == "lively"
        await caller.event("style", name="lively")
        await caller.hang_up()
        assert (await http.get("/v1/sessions")).json()["sessions"] == []


async def test_answer_is_passive_with_two_streams_and_vp8_first() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http, mic=ToneMic())
        await caller.call()
        assert "a=setup:passive" in caller.answer and "a=setup:active" not in caller.answer
        streams = {line.split()[0] for line in caller.answer.splitlines() if line.startswith("a=msid:")}
        assert len(streams) == 2, "picture and voice are in MediaStreams of their own"
        video = caller.answer[caller.answer.index("m=video") :]
        first = video.splitlines()[0].split()[3]
        assert f"a=rtpmap:{first} VP8/90000" in video
        await caller.hang_up()
