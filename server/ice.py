"""How a path for the media is found, and which codecs it carries.

In: nothing but the code's decision to ask nobody. Out: an explicit `RTCConfiguration`, an order of codecs.
Remembers: nothing. Without an explicit list aiortc asks a public STUN server on the internet, so one is given.
The bundle policy stays BALANCED: with MAX_BUNDLE aiortc loses a browser's candidates.
"""

from __future__ import annotations

import ipaddress

from aiortc import RTCBundlePolicy, RTCConfiguration, RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpCodecCapability

LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


def configuration() -> RTCConfiguration:
    """Host candidates only: enough on one machine and in one local network."""
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
