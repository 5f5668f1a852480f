"""One WebRTC connection of a live session: from a checked offer to the last freed socket.

In: an `Offer`, later candidates. Out: an answer; sound for the session when it is a source, its pictures, voice and
events when it watches. Remembers: the connection, its tracks, the tasks that must end with it.

    offer ─▶ answer ─▶ connecting ─▶ connected (the session begins) ─▶ closing ─▶ closed
                            └─ too slow ──────────┘ failed, silent or told to ─┘

A peer that has gone without a word is noticed because nothing comes in any more, in `limits.silence_s`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError
from aiortc.mediastreams import MediaStreamTrack
from aiortc.sdp import candidate_from_sdp

from server import control, ice, ice_seams, seams, whip
from server.avatar_track import AvatarTrack
from server.live import Limits, Live, Source
from server.mic import Mic
from server.restart import Restarter
from server.voice_track import VoiceTrack
from server.whip import Fragment, Offer, WhipError

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S: Final = 4.0
REPORT_GAP: Final = 3.0
"""Who only watches or publishes may report less often than a browser in a call: that many times the patience."""


class Errand(StrEnum):
    """What a connection is for."""

    CALL = "call"
    """Microphone in; picture, voice and events out."""
    WHIP = "whip"
    """Microphone in."""
    WHEP = "whep"
    """Picture, voice and events out."""


@dataclass(frozen=True, slots=True)
class Visit:
    """An offer and what it asks for."""

    errand: Errand
    offer: Offer
    layout: str = "plain"


class Peer:
    """One connection. Made for a session, ended with `close`; `on_closed` is called once, when everything is freed."""

    def __init__(
        self, key: str, live: Live, visit: Visit, limits: Limits, codec: str, paths: ice.Ice,
        on_closed: Callable[[Peer], None],
    ) -> None:  # fmt: skip
        """`codec` is the first choice for the picture. Raises `SourceTaken`."""
        self.key = key
        self.live = live
        self.errand = visit.errand
        self._offer = visit.offer
        self._limits = limits
        self._codec = codec
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._source: Source | None = None
        self._mic: Mic | None = None
        if self.errand is not Errand.WHEP and visit.offer.sends("audio"):
            self._source = live.take_source(self.errand)
        self._picture = AvatarTrack(live.pictures, visit.layout, lambda: self.begin_close("its pictures have ended"))
        self._sound = VoiceTrack(live.voice, self._hears)
        self._paths = paths
        self._connection = RTCPeerConnection(ice.configuration())
        self._restarter = Restarter(self._connection, connect_s=limits.connect_s)
        self._connection.on("track", self._hear)
        self._connection.on("datachannel", self._open_channel)
        self._connection.on("connectionstatechange", self._state_changed)
        live.attach(self)

    @property
    def ufrag(self) -> str:
        """The other side's ICE user fragment."""
        return self._offer.ufrag

    @property
    def state(self) -> str:
        """`connecting`, `connected` or `closing`."""
        if self._closing is not None:
            return "closing"
        return "connected" if self._connected.is_set() else "connecting"

    async def answer(self) -> str:
        """The answer's SDP with all our candidates; raises `WhipError` 400 or 422 for an offer that aiortc refuses."""
        connection, offer = self._connection, self._offer
        try:
            with ice_seams.agents(self._paths.plan()):
                self._prepare()
                await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        except OperationError as error:
            raise WhipError(422, f"no codec in common: this server speaks VP8, H.264 and Opus ({error})") from error
        except (ValueError, AssertionError, KeyError, IndexError, AttributeError, StopIteration, TypeError) as error:
            # what aiortc's parser raises for text that is SDP line by line but makes no sense as a whole
            raise WhipError(400, f"the offer cannot be read: {type(error).__name__} {error}") from error
        for transceiver in connection.getTransceivers():
            if transceiver.sender.track is None and transceiver.kind == "video":
                transceiver.direction = "inactive"
        seams.hear_at_once(connection)
        seams.part_streams(connection)
        if offer.passive_allowed:
            seams.answer_passive(connection)
        try:
            await connection.setLocalDescription(await connection.createAnswer())
        except ice_seams.NoPath as error:
            raise WhipError(502, str(error)) from error
        sdp = whip.completed(str(connection.localDescription.sdp), offer)
        self._picture.codec = whip.first_codec(sdp, "video") or self._codec
        self._spawn(self._watch(), "watch")
        return sdp

    async def trickle(self, fragment: Fragment) -> None:
        """Takes further candidates of the other side."""
        if self._restarter.names(fragment.ufrag):
            await self._restarter.trickle(fragment.candidates)
            return
        taken = [section.mid for section in self._offer.sections]
        for candidate in fragment.candidates:
            parsed = candidate_from_sdp(candidate.line)
            # the bundle's candidates may come under the name of a section that was rejected
            parsed.sdpMid = candidate.mid if candidate.mid in taken else taken[0]
            await self._connection.addIceCandidate(parsed)
        if fragment.complete:
            await self._connection.addIceCandidate(None)

    def newest(self, fragment: Fragment) -> bool:
        """Whether a fragment belongs to the ICE session that is on or coming about."""
        first = self._restarter.first and fragment.ufrag == self.ufrag
        return fragment.ufrag is None or first or self._restarter.names(fragment.ufrag)

    def repeats(self, fragment: Fragment) -> bool:
        """Whether this very restart has been answered already."""
        return self._restarter.repeats(fragment) is not None

    async def restart(self, fragment: Fragment) -> Fragment:
        """ICE restart (RFC 9725 section 4.3.3): the fragment to answer with. Raises `WhipError` 400, 409, 502."""
        return await self._restarter.restart(fragment, self._offer.sections[0].mid or "0", self._paths.plan())

    def begin_close(self, reason: str) -> None:
        """Start ending the connection, whoever asks; `close` waits for the end."""
        if self._closing is None:
            logger.info("connection %s of session %s ends: %s", self.key, self.live.key, reason)
            self._closing = self._loop.create_task(self._close(), name=f"close {self.key}")

    async def close(self, reason: str) -> None:
        """End the connection and wait until everything is freed."""
        self.begin_close(reason)
        assert self._closing is not None
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._source is not None:
            self._source.release()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._restarter.close()
        self._picture.stop()
        self._sound.stop()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await seams.close(self._connection)
        except TimeoutError:
            logger.warning("connection %s did not close in %.0f s", self.key, CLOSE_TIMEOUT_S)
        finally:
            self._on_closed(self)
            self.live.detach(self, owner=self.errand is Errand.CALL)

    def _prepare(self) -> None:
        """Our tracks, before the offer is read: aiortc chooses codecs while it reads."""
        if self.errand is Errand.WHIP:
            return
        if self._offer.receives("audio"):
            both = self._source is not None
            sound = self._connection.addTransceiver(self._sound, "sendrecv" if both else "sendonly")
            seams.send_packed(sound.sender)
        if self._offer.receives("video"):
            picture = self._connection.addTransceiver(self._picture, "sendonly")
            picture.setCodecPreferences(ice.video_codecs(self._codec))
            seams.send_packed(picture.sender, self._picture.estimate, self._picture.ask_key)

    async def _watch(self) -> None:
        """Waits for the connection, then notices when nothing comes in any more."""
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await self._connected.wait()
        except TimeoutError:
            self.begin_close(f"no connection within {self._limits.connect_s:.0f} s")
            return
        heard, quiet_s = -1, 0.0
        patience_s = self._limits.silence_s * (1.0 if self.errand is Errand.CALL else REPORT_GAP)
        while True:
            await asyncio.sleep(self._limits.stats_s)
            packets = seams.received_packets(self._connection)
            # counted in looks, not in wall time: a machine that stands still hears nothing either
            quiet_s = quiet_s + self._limits.stats_s if packets == heard else 0.0
            heard = packets
            if quiet_s >= patience_s - self._limits.stats_s:
                self.begin_close("nothing has come in from the peer")
                return

    def _hears(self) -> bool:
        """Whether the session's voice goes to this peer: not the own one, unless echo is asked."""
        return self._source is None or self.live.desk.echo

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        logger.debug("connection %s is %s", self.key, state)
        if state == "connected" and not self._connected.is_set() and self._closing is None:
            self._connected.set()
            self.live.begin()
        elif state in ("failed", "closed"):
            self.begin_close(f"the connection is {state}")

    def _hear(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and self._mic is None and self._source is not None:
            self._mic = Mic(track, self._source.deliver)
            self._spawn(self._mic.run(), "mic")

    def _open_channel(self, channel: RTCDataChannel) -> None:
        if channel.label == control.LABEL:
            self.live.desk.open(channel, orders=self.errand is not Errand.WHEP)

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = self._loop.create_task(work, name=f"{what} {self.key}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("connection %s: task %s failed", self.key, task.get_name(), exc_info=task.exception())
            self.begin_close("one of its tasks has failed")
