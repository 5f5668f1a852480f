"""ICE restart (RFC 9725 section 4.3.3, RFC 8445 section 9): a new path below a call that goes on.

In: a caller's new user fragment, password and candidates. Out: our own new ones; then the media on the new path.
Remembers: the generation that is coming about, and the newest one with what was answered, for a PATCH that is repeated.

    PATCH ─▶ new agent gathers ─▶ answer ─▶ it checks ─▶ connected: media moves over ─▶ the old agent lingers, closes
                                                  └─ not within `connect_s`, or a newer restart: given up, old one stays

DTLS and SRTP above do not notice: keys, sequence numbers and clocks go on.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from aioice.ice import Connection
from aiortc import RTCPeerConnection
from aiortc.rtcicetransport import candidate_from_aioice, candidate_to_aioice
from aiortc.sdp import candidate_from_sdp, candidate_to_sdp

from server import ice_seams
from server.ice_seams import Agent, NoPath, Plan
from server.whip import Candidate, Fragment, WhipError

logger = logging.getLogger(__name__)

CONNECT_S: Final = 15.0
LINGER_S: Final = 2.0
"""How long the old path still hears: the caller moves over a little later than we do."""


@dataclass(slots=True)
class Generation:
    """One ICE session of a call (RFC 9725 section 4.3.1: each has an entity tag of its own)."""

    ufrag: str
    pwd: str
    agent: Agent
    answer: Fragment


class Restarter:
    """The restarts of one peer connection. `close` before the connection is closed."""

    def __init__(self, connection: RTCPeerConnection, *, connect_s: float = CONNECT_S, linger_s: float = LINGER_S):
        self._connection = connection
        self._connect_s = connect_s
        self._linger_s = linger_s
        self._turn = asyncio.Lock()
        self._newest: Generation | None = None
        self._moving: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self.moved = 0

    def repeats(self, fragment: Fragment) -> Fragment | None:
        """The answer that this very restart has got already, None for a new one."""
        newest = self._newest
        same = newest is not None and (fragment.ufrag, fragment.pwd) == (newest.ufrag, newest.pwd)
        return newest.answer if newest is not None and same else None

    @property
    def first(self) -> bool:
        """Whether there has been no restart yet."""
        return self._newest is None

    def names(self, ufrag: str | None) -> bool:
        """Whether `ufrag` is the caller's newest generation that came by a restart."""
        return self._newest is not None and self._newest.ufrag == ufrag

    async def restart(self, fragment: Fragment, mid: str, plan: Plan) -> Fragment:
        """Begins a restart; returns our user fragment, password and candidates for the section `mid`.

        Raises `WhipError`: 400 without a password, 409 before the first path has come about, 502 no candidates.
        """
        if fragment.ufrag is None or fragment.pwd is None:
            raise WhipError(400, "an ICE restart needs a=ice-ufrag and a=ice-pwd (RFC 8839 section 5.4)")
        async with self._turn:
            again = self.repeats(fragment)
            if again is not None:
                return again
            if not ice_seams.has_path(self._connection):
                raise WhipError(409, "ICE cannot restart before its first connection has come about; try again")
            await self._give_up()
            agent = ice_seams.next_agent(self._connection, plan)
            try:
                await agent.gather_candidates()
                agent.remote_username, agent.remote_password = fragment.ufrag, fragment.pwd
                await _add(agent, fragment.candidates)
            except NoPath as error:
                await agent.close()
                raise WhipError(502, str(error)) from error
            except BaseException:  # also when the request is cancelled: its sockets must not be lost
                await agent.close()
                raise
            answer = _answer(agent, mid)
            self._newest = Generation(fragment.ufrag, fragment.pwd, agent, answer)
            self._moving = asyncio.create_task(self._move(agent), name="ice restart")
            return answer

    async def trickle(self, candidates: tuple[Candidate, ...]) -> None:
        """Further candidates of the newest generation."""
        if self._newest is not None:
            await _add(self._newest.agent, candidates)

    async def close(self) -> None:
        """Ends what is under way and the old paths that linger."""
        await self._give_up()
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _give_up(self) -> None:
        task, self._moving = self._moving, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _move(self, agent: Agent) -> None:
        """Checks, then moves the media over; the agent is closed unless it takes over."""
        try:
            async with asyncio.timeout(self._connect_s):
                await agent.connect()
        except (TimeoutError, ConnectionError):
            logger.info("an ICE restart found no path in %.0f s; the old one stays", self._connect_s)
            await ice_seams.end(agent)
            return
        except asyncio.CancelledError:
            await ice_seams.end(agent)
            raise
        old = ice_seams.move(self._connection, agent)
        self.moved += 1
        logger.info("the media goes over a new path")
        leaving = asyncio.create_task(self._leave(old), name="ice leaves")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, old: Connection) -> None:
        try:
            await asyncio.sleep(self._linger_s)
        finally:
            await ice_seams.end(old)


async def _add(agent: Agent, candidates: tuple[Candidate, ...]) -> None:
    """Gives candidates to an agent; the end of candidates is never told, so that a caller found late still connects."""
    for line in dict.fromkeys(candidate.line for candidate in candidates):
        await agent.add_remote_candidate(candidate_to_aioice(candidate_from_sdp(line)))


def _answer(agent: Agent, mid: str) -> Fragment:
    lines = [candidate_to_sdp(candidate_from_aioice(c)) for c in agent.local_candidates]
    told = tuple(Candidate(mid, line) for line in lines)
    return Fragment(agent.local_username, agent.local_password, told, complete=True)
