"""ICE restarts by PATCH (RFC 9725 section 4.3.3): the call goes on over the new path, and nothing is left behind."""

from __future__ import annotations

import asyncio

import httpx
from aiortc.rtcicetransport import candidate_from_aioice, candidate_to_aioice
from aiortc.sdp import candidate_from_sdp, candidate_to_sdp

from server import ice_seams, whip
from server.ice_seams import Agent, Plan
from server.whip import Candidate, Fragment
from tests.fakes.peers import Caller, until
from tests.loopback.conftest import client, open_house

HEADERS = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}


async def next_agent(caller: Caller) -> tuple[Agent, Fragment]:
    """The caller's own new agent, and the fragment that asks for a restart with it."""
    agent = ice_seams.next_agent(caller.connection, Plan())
    await agent.gather_candidates()
    lines = [candidate_to_sdp(candidate_from_aioice(c)) for c in agent.local_candidates]
    candidates = tuple(Candidate("0", line) for line in lines)
    return agent, Fragment(agent.local_username, agent.local_password, candidates, complete=True)


async def patch(http: httpx.AsyncClient, caller: Caller, fragment: Fragment, if_match: str = "*") -> httpx.Response:
    return await http.patch(
        caller.location, content=whip.write_fragment(fragment), headers=HEADERS | {"If-Match": if_match}
    )


async def take(agent: Agent, answer: httpx.Response) -> None:
    """Puts the server's side into the caller's agent."""
    ours = whip.parse_fragment(answer.content)
    agent.remote_username, agent.remote_password = ours.ufrag, ours.pwd
    for candidate in ours.candidates:
        await agent.add_remote_candidate(candidate_to_aioice(candidate_from_sdp(candidate.line)))


async def move(caller: Caller, agent: Agent) -> None:
    """Checks and moves over; the old sockets are cut at once, as by a network that has gone."""
    await agent.connect()
    old = ice_seams.move(caller.connection, agent)
    for protocol in old._protocols:
        protocol.transport.abort()
    await ice_seams.end(old)


async def test_the_call_goes_on_over_a_new_path() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await caller.see(5)
        for turn in (1, 2):
            agent, fragment = await next_agent(caller)
            answer = await patch(http, caller, fragment)
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"].startswith("application/trickle-ice-sdpfrag")
            assert answer.headers["etag"] not in ("", caller.etag)
            stale = await patch(http, caller, Fragment("old0", None, (), False), caller.etag)
            assert stale.status_code == 412, "the old entity tag names a session that is over"
            caller.etag = answer.headers["etag"]
            again = await patch(http, caller, fragment)
            assert (again.text, again.headers["etag"]) == (answer.text, caller.etag), "a repeated PATCH changes nothing"
            await take(agent, answer)
            await move(caller, agent)
            pictures = await caller.see(15)
            assert all(b.pts_s > a.pts_s for a, b in zip(pictures, pictures[1:], strict=False))
            heard = len(caller.sounds)
            await until(lambda heard=heard: len(caller.sounds) > heard + 10, "voice")  # type: ignore[misc]
            (peer,) = house.signaling.lines.holders()
            assert peer._restarter.moved == turn and caller.connection.connectionState == "connected"
            assert peer.state == "connected"
        caller.send("mute", on=True)  # the data channel goes on, too
        await caller.hang_up()
        assert len(house.signaling.registry) == 0


async def test_trickled_candidates_of_the_new_session() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        await caller.see(3)
        agent, fragment = await next_agent(caller)
        answer = await patch(http, caller, Fragment(fragment.ufrag, fragment.pwd, (), False))
        assert answer.status_code == 200, answer.text
        late = Fragment(fragment.ufrag, None, fragment.candidates, complete=True)
        assert (await patch(http, caller, late, caller.etag)).status_code == 412, "the tag is the old session's"
        assert (await patch(http, caller, late, answer.headers["etag"])).status_code == 204
        await take(agent, answer)
        await move(caller, agent)
        await caller.see(5)
        await caller.hang_up()


async def test_a_restart_that_finds_no_path_leaves_the_call_as_it_was() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        await caller.call()
        (peer,) = house.signaling.lines.holders()
        peer._restarter._connect_s = 0.3
        sockets = len(asyncio.all_tasks())
        answer = await patch(http, caller, Fragment("gone", "g" * 22, (), False))
        assert answer.status_code == 200
        await asyncio.sleep(0.5)
        assert peer._restarter.moved == 0 and len(asyncio.all_tasks()) <= sockets + 1
        await caller.see(5)
        second, fragment = await next_agent(caller)
        await patch(http, caller, Fragment("gone2", "g" * 22, (), False))  # overtaken by the next
        await take(second, await patch(http, caller, fragment))
        await move(caller, second)
        await caller.see(5)
        assert peer._restarter.moved == 1
        await caller.hang_up()


async def test_what_is_no_restart_is_told() -> None:
    async with open_house() as house, client(house) as http:
        caller = Caller(http)
        from tests.fakes.peers import SDP

        early = await http.post("/v1/call", content=await caller.offer(), headers=SDP)
        caller.location = early.headers["location"]
        soon = await patch(http, caller, Fragment("anew", "p" * 22, (), False))
        assert soon.status_code == 409 and "try again" in soon.json()["error"], soon.text
        without = await patch(http, caller, Fragment("anew", None, (), False))
        assert without.status_code == 400 and "ice-pwd" in without.json()["error"]
        other = await patch(http, caller, Fragment("anew", "p" * 22, (), False), early.headers["etag"])
        assert other.status_code == 412 and "If-Match: *" in other.json()["error"]
        await caller.hang_up()
