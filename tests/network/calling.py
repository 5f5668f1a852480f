"""A caller as a program of its own, for a network namespace: calls, waits for pictures, prints on which path they came.

In: the URL of a server, a token, `relay` or `all`. Out: one line of JSON. Remembers: nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy, RTCPeerConnection

from server import turn
from tests.fakes.peers import Caller


class Abroad(Caller):
    """A caller that uses the STUN and TURN servers that the server names in its `Link` headers."""

    servers: tuple[turn.IceServer, ...] = ()
    policy = RTCIceTransportPolicy.ALL

    def prepare(self) -> None:
        servers = [
            RTCIceServer(s.url, s.credential.username if s.credential else None,
                         s.credential.password if s.credential else None)
            for s in self.servers
        ]  # fmt: skip
        configuration = RTCConfiguration(iceServers=servers, iceTransportPolicy=self.policy)
        self.connection = RTCPeerConnection(configuration)
        self.connection.on("track", lambda track: self._watching.append(asyncio.ensure_future(self._watch(track))))
        super().prepare()


async def call(url: str, token: str, policy: str) -> dict[str, Any]:
    """Calls, sees ten pictures, hangs up."""
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
        asked = await http.options("/v1/call")
        Abroad.servers = tuple(turn.parse_links(", ".join(asked.headers.get_list("link"))))
        Abroad.policy = RTCIceTransportPolicy(policy)
        caller = Abroad(http)
        await caller.call()
        await caller.see(10, timeout_s=30)
        agent = caller.connection.getTransceivers()[0].receiver.transport.transport._connection
        (pair,) = agent._nominated.values()
        told = [line.split()[4] for line in caller.answer.splitlines() if line.startswith("a=candidate")]
        found = {
            "local": pair.local_candidate.type, "remote": pair.remote_candidate.type, "to": pair.remote_addr,
            "told": sorted(set(told)), "servers": [s.url for s in Abroad.servers],
        }  # fmt: skip
        await caller.hang_up()
        return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(call(*sys.argv[1:]))) + "\n")
