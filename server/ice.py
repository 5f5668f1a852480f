"""How a path for the media is found, and which codecs it carries.

In: the section `ice` of a profile. Out: an explicit `RTCConfiguration`, a plan for our own agents, `Link` headers for
the callers' agents, an order of codecs. Remembers: what is wrong with the STUN and TURN servers.

Without an explicit list aiortc asks a public STUN server on the internet, so an empty one is given: our agents ask the
servers of the profile (see `ice_seams`). The bundle policy stays BALANCED: MAX_BUNDLE loses a browser's candidates.
"""

from __future__ import annotations

import ipaddress
import time

from aiortc import RTCBundlePolicy, RTCConfiguration, RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpCodecCapability

from server import turn
from server.ice_seams import Plan
from server.ice_troubles import Troubles
from server.turn import Credential, IceServer
from svp_stream.config import Ice as IceKeys

LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})
OURS = "server"
THEIRS = "caller"
"""Names in minted credentials, so that the TURN server's log tells us from our callers."""


class Ice:
    """The paths of one server."""

    def __init__(self, keys: IceKeys | None = None) -> None:
        self._keys = keys or IceKeys()
        self.troubles = Troubles()

    def plan(self) -> Plan:
        """What an agent that is made now does; with a credential minted for it."""
        keys = self._keys
        return Plan(
            stun=tuple(turn.parse_url(url) for url in keys.stun),
            turn=tuple(turn.parse_url(url) for url in keys.turn),
            credential=self._credential(OURS) if keys.turn else None,
            minted=keys.secret is not None,
            ports=None if keys.port_range is None else range(keys.port_range[0], keys.port_range[1] + 1),
            advertise=None if keys.advertise is None else str(keys.advertise),
            relay_only=keys.policy == "relay",
            troubles=self.troubles,
        )

    def link_headers(self) -> list[str]:
        """One `Link` value for each server that a caller may use, with a credential minted for this caller."""
        keys, credential = self._keys, self._credential(THEIRS)
        servers = [*(IceServer(url) for url in keys.stun), *(IceServer(url, credential) for url in keys.turn)]
        return [turn.link_header(server) for server in servers]

    def problems(self) -> list[str]:
        """What is wrong with the servers, one sentence each."""
        return self.troubles.sentences()

    def _credential(self, name: str) -> Credential | None:
        keys = self._keys
        if keys.secret is not None:
            return turn.mint(keys.secret, time.time(), keys.ttl_s, name)
        if keys.username is not None and keys.credential is not None:
            return Credential(keys.username, keys.credential)
        return None


def configuration() -> RTCConfiguration:
    """No servers of aiortc's own choosing: enough on one machine and in one local network."""
    return RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.BALANCED)


def video_codecs(first: str) -> list[RTCRtpCodecCapability]:
    """All codecs for the picture, `first` ("vp8" or "h264") before the others and retransmission kept."""
    codecs = RTCRtpSender.getCapabilities("video").codecs
    return sorted(codecs, key=lambda codec: codec.mimeType.lower() != f"video/{first}")


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine only."""
    if host.lower() in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
