"""Microphones by WHIP and viewers by WHEP over real connections: sessions outlive them, failures stay small."""

from __future__ import annotations

import asyncio

import httpx
import numpy as np
import pytest
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket, pack_remb_fci

from server.live import Limits
from tests.fakes.engines import FakeStages, Faults, read_loudness, read_number
from tests.fakes.peers import SDP, Caller, Publisher, Watcher, until
from tests.loopback.conftest import client, open_house

FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


@pytest.mark.parametrize("camera", [True, False])
async def test_a_microphone_by_whip_moves_the_picture_of_a_viewer(camera: bool) -> None:
    async with open_house() as house, client(house) as http:
        publisher = Publisher(http, camera=camera)
        await publisher.connect("?style=calm&avatar=ben")
        assert ("\r\na=inactive" in publisher.answer) is camera, "the camera is not taken"
        watcher = Watcher(http, of=publisher.session)
        await watcher.connect()
        numbers = [read_number(p.rgb) for p in await watcher.see(25)]
        assert numbers == sorted(set(numbers))
        await until(lambda: watcher.shows() > 0.15 and watcher.sounds_like() > 0.2, "sound and its picture")
        publisher.mic.loud = False
        await until(lambda: watcher.shows() < 0.05 and watcher.sounds_like() < 0.01, "quiet picture and voice")
        heard = next(s for s in reversed(watcher.sounds) if float(np.abs(s.samples).max()) > 0.05)
        seen = next(p for p in reversed(watcher.pictures) if read_loudness(p.rgb) > 0.2)
        assert abs(heard.at_s - seen.at_s) < 0.6, "sound and picture of one moment leave together"
        (mark,) = (await http.get("/v1/sessions")).json()["sessions"]
        assert mark["id"] == publisher.session and mark["source"] == "whip" and mark["avatar"] == "ben"
        assert mark["connections"] == 2
        await watcher.hang_up()
        await publisher.hang_up()


async def test_a_session_without_connections_is_staged_watched_fed_and_ended() -> None:
    async with open_house() as house, client(house) as http:
        made = await http.post("/v1/sessions", json={"avatar": "ben", "style": "lively", "strength": 0.5})
        assert made.status_code == 201
        session = made.json()["id"]
        assert len(session) >= 22 and house.worker.seats == 1
        watcher = Watcher(http, of=session, channel_too=True)
        await watcher.connect()
        welcome = await watcher.event("welcome")
        assert welcome["name"] == "lively" and welcome["avatar"] == "ben" and welcome["strength"] == 0.5
        await watcher.see(5)
        publisher = Publisher(http)
        await publisher.connect(f"?session={session}")
        assert publisher.session == session
        await until(lambda: watcher.shows() > 0.15, "sound")
        late = Publisher(http)
        second = await late.post(f"?session={session}")
        assert second.status_code == 409 and "whip" in second.json()["error"]
        await late.hang_up()
        await publisher.hang_up()
        await until(lambda: watcher.shows() < 0.05, "quiet picture")
        again = Publisher(http)
        await again.connect(f"?session={session}")
        await until(lambda: watcher.shows() > 0.15, "sound of the next source")
        assert (await http.delete(f"/v1/sessions/{session}")).status_code == 200
        assert house.worker.seats == 0 and len(house.signaling.registry) == len(house.signaling.lines) == 0
        assert (await http.delete(f"/v1/sessions/{session}")).status_code == 404
        for line in (watcher, again):
            await line.hang_up(delete=False)


async def test_who_only_watches_gives_no_orders_but_sees_what_others_change() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        watcher = Watcher(http, of=caller.session, channel_too=True)
        await watcher.connect()
        await watcher.event("welcome")
        watcher.send("mute", on=True, id="w")
        assert "no orders" in (await watcher.event("error", id="w"))["message"]
        watcher.send("ping", t=3)
        assert (await watcher.event("pong"))["t"] == 3
        caller.send("style", name="calm", id="c")
        await caller.event("style", id="c")
        assert (await watcher.event("style"))["id"] is None
        await watcher.event("stats")
        await watcher.hang_up()
        await caller.see(5)
        await caller.hang_up()


async def test_the_caller_does_not_hear_the_own_voice_and_the_viewer_does() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        watcher = Watcher(http, of=caller.session)
        await watcher.connect()
        await until(lambda: watcher.sounds_like() > 0.2, "the caller's voice")
        assert max(float(np.abs(s.samples).max()) for s in caller.sounds) < 1e-3
        await caller.hang_up()
        assert len(house.signaling.registry) == 0, "a call's session ends with the call"
        assert len(house.signaling.lines) == 0, "and its viewers with the session"
        await watcher.hang_up(delete=False)


async def test_a_session_lingers_without_anybody_and_then_ends() -> None:
    limits = Limits(connect_s=5.0, silence_s=2.0, stats_s=0.1, linger_s=0.8)
    async with open_house(limits=limits) as house, client(house) as http:
        publisher = Publisher(http)
        await publisher.connect()
        watcher = Watcher(http, of=publisher.session)
        await watcher.connect()
        await publisher.hang_up()
        await asyncio.sleep(1.2)
        assert len(house.signaling.registry) == 1, "a viewer keeps it alive"
        await watcher.hang_up()
        assert len(house.signaling.registry) == 1
        await until(lambda: len(house.signaling.registry) == 0, "end of the session", 5.0)
        staged = (await http.post("/v1/sessions", json={})).json()["id"]
        await until(lambda: len(house.signaling.registry) == 0, "end of a session that nobody came to", 5.0)
        assert (await http.post(f"/v1/whep/{staged}", content="v=0", headers=SDP)).status_code == 404


async def test_a_viewer_that_dies_disturbs_nobody() -> None:
    limits = Limits(connect_s=5.0, silence_s=0.6, stats_s=0.2)
    async with open_house(limits=limits) as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        dying, healthy = Watcher(http, of=caller.session), Watcher(http, of=caller.session)
        await dying.connect()
        await healthy.connect()
        await dying.see(3)
        dying.die()
        seen = len(healthy.pictures)
        await until(lambda: len(house.signaling.lines) == 2, "end of the dead viewer", 8.0)
        assert len(healthy.pictures) > seen
        await healthy.see(10)
        await caller.see(10)
        (live,) = house.signaling.registry.holders()
        (encoding,) = live.pictures.encodings
        assert len(encoding.viewers) == 2
        for line in (dying, healthy, caller):
            await line.hang_up(delete=line is caller)


async def test_a_failing_engine_ends_its_viewers_too() -> None:
    async with open_house(FakeStages([Faults(raise_at_s=1.0)])) as house, client(house) as http:
        publisher = Publisher(http)
        await publisher.connect()
        watcher = Watcher(http, of=publisher.session, channel_too=True)
        await watcher.connect()
        await watcher.event("error", code="engine")
        await until(lambda: len(house.signaling.registry) == len(house.signaling.lines) == 0, "end", 5.0)
        for line in (publisher, watcher):
            await line.hang_up(delete=False)


@pytest.mark.parametrize("codec", ["vp8", "h264"])
async def test_layouts_and_codecs_have_encodings_of_their_own_for_as_long_as_they_are_watched(codec: str) -> None:
    async with open_house() as house, client(house) as http:
        staged = (await http.post("/v1/sessions", json={})).json()["id"]
        plain, packed = Watcher(http, of=staged, codec=codec), Watcher(http, of=staged, codec=codec)
        await plain.connect()
        await packed.connect("?layout=packed")
        flat = (await plain.see(5))[-1].rgb
        tall = (await packed.see(5))[-1].rgb
        assert flat.shape == (128, 128, 3) and tall.shape == (256, 128, 3)
        assert tall[128:].min() > 245, "no alpha: all of it is the person"
        pictures = house.signaling.live(staged).pictures
        assert {(e.codec, e.layout) for e in pictures.encodings} == {(codec, "plain"), (codec, "packed")}
        await packed.hang_up()
        assert [e.layout for e in pictures.encodings] == ["plain"]
        await plain.hang_up()
        assert pictures.encodings == ()


async def test_trickled_candidates_under_the_name_of_a_refused_section_connect() -> None:
    async with open_house() as house, client(house) as http:
        publisher = Publisher(http)
        response = await publisher.post(
            change=lambda sdp: "".join(
                line for line in sdp.splitlines(keepends=True) if not line.startswith(("a=candidate", "a=end-of"))
            )
        )
        assert response.status_code == 201, response.text
        lines = publisher.connection.localDescription.sdp.splitlines()
        ufrag = next(line for line in lines if line.startswith("a=ice-ufrag"))
        mid = [line for line in lines if line.startswith("a=mid")][-1]
        candidates = list(dict.fromkeys(line for line in lines if line.startswith("a=candidate")))
        body = "\r\n".join([ufrag, "m=video 9 UDP/TLS/RTP/SAVPF 0", mid, *candidates, "a=end-of-candidates", ""])
        patch = await http.patch(publisher.location, content=body, headers=FRAGMENT | {"If-Match": publisher.etag})
        assert patch.status_code == 204, patch.text
        await until(lambda: publisher.connection.connectionState == "connected", "connection")
        await publisher.hang_up()


async def _statuses(http: httpx.AsyncClient, path: str, methods: tuple[str, ...]) -> dict[str, int]:
    return {method: (await http.request(method, path)).status_code for method in methods}


async def test_endpoints_and_resources_say_what_they_take() -> None:
    async with open_house() as house, client(house) as http:
        for path in ("/v1/call", "/v1/whip", "/v1/whep/x"):
            options = await http.options(path)
            assert options.status_code == 204 and options.headers["accept-post"] == "application/sdp"
            wrong = await _statuses(http, path, ("GET", "HEAD", "PUT", "PATCH", "DELETE"))
            assert set(wrong.values()) == {405}, wrong
            refused = await http.get(path)
            assert refused.headers["allow"] == "POST, OPTIONS" and "takes POST" in refused.json()["error"]
            picky = await http.post(path, content="v=0", headers=SDP | {"Accept": "text/html, application/sdp;q=0"})
            assert picky.status_code == 406 and "application/sdp" in picky.json()["error"]
            assert (await http.post(path, content="v=0")).status_code == 415
        for path in ("/v1/call/x", "/v1/whip/x", "/v1/whep/x/y"):
            wrong = await _statuses(http, path, ("GET", "PUT", "POST"))
            assert set(wrong.values()) == {405}, wrong
            assert (await http.delete(path)).status_code == 404
            assert (await http.patch(path, headers=FRAGMENT)).status_code == 404
            assert (await http.patch(path)).status_code == 415
        assert (await http.post("/v1/whep/x?layout=upside-down", content="v=0", headers=SDP)).status_code == 422
        assert (await http.post("/v1/sessions", json={"style": "nope"})).status_code == 422
        wrong_key = await http.post("/v1/sessions", json={"stile": "calm"})
        assert wrong_key.status_code == 422 and "stile" in wrong_key.json()["error"]


async def test_ice_servers_are_told_in_links(monkeypatch: pytest.MonkeyPatch) -> None:
    links = ['<stun:a.example:3478>; rel="ice-server"', '<turn:b.example:3478>; rel="ice-server"; username="u"']
    async with open_house() as house, client(house) as http:
        monkeypatch.setattr(house.signaling.paths, "link_headers", lambda: links)
        assert (await http.options("/v1/whip")).headers.get_list("link") == links
        publisher = Publisher(http)
        response = await publisher.post()
        assert response.headers.get_list("link") == links
        await publisher.hang_up()


async def test_what_receivers_report_reaches_the_encoder() -> None:
    async with open_house() as house, client(house) as http:
        staged = (await http.post("/v1/sessions", json={})).json()["id"]
        watcher = Watcher(http, of=staged, codec="h264", voice=False)
        await watcher.connect()
        await watcher.see(3)
        (encoding,) = house.signaling.live(staged).pictures.encodings
        (receiver,) = watcher.connection.getReceivers()
        (ssrc,) = receiver._RTCRtpReceiver__active_ssrc
        keys = encoding.keys
        for _ in range(5):  # a receiver repeats what is not heard
            await receiver._send_rtcp_pli(ssrc)
        await until(lambda: encoding.keys == keys + 1, "key frame")
        estimate = RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=pack_remb_fci(333_000, [ssrc]))
        bits: list[int] = []

        async def told() -> bool:
            await receiver._send_rtcp(estimate)
            await watcher.see(1)
            bits.append(encoding.bits)
            return 320_000 < bits[-1] < 340_000

        assert any([await told() for _ in range(10)]), f"the encoder follows: {bits}"
        await watcher.see(10)
        assert encoding.keys <= keys + 2, "five wishes within half a second are one or two key frames, a rate is none"
        await watcher.hang_up()


async def test_connections_are_bounded() -> None:
    limits = Limits(connect_s=5.0, silence_s=2.0, stats_s=0.5, connections=1)
    async with open_house(limits=limits) as house, client(house) as http:
        publisher = Publisher(http)
        await publisher.connect()
        watcher = Watcher(http, of=publisher.session)
        refused = await watcher.post()
        assert refused.status_code == 503 and "1 connection at a time" in refused.json()["error"]
        caller = Caller(http)
        assert (await caller.post()).status_code == 503
        assert len(house.signaling.registry) == 1, "the session made for the call is gone again"
        for line in (watcher, caller, publisher):
            await line.hang_up()
