"""One call's life: from a checked offer to the last freed socket.

In: an `Offer`, later candidates and orders. Out: an answer, two tracks, events on the data channel.
Remembers: the connection, the seat at the inference thread, the choices made, the tasks that must end with the call.

    offer ─▶ answer ─▶ connecting ─▶ connected (the seat is admitted) ─▶ closing ─▶ closed
                            └─ too slow ──────────┘ failed, silent or told to ─┘

A peer that has gone without a word is noticed because nothing comes in any more, in `limits.silence_s`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError
from aiortc.mediastreams import MediaStreamTrack
from aiortc.sdp import candidate_from_sdp

from server import control, ice, seams
from server.avatar_track import AvatarTrack
from server.desk import Desk
from server.health import Metrics
from server.mailbox import LatestFrame, Packet, VoiceLine
from server.mic import Mic
from server.pacing import MediaClock
from server.report import Report
from server.studio import Manner, Studio
from server.voice_track import VoiceTrack
from server.whip import Fragment, Offer, WhipError
from server.worker import Seat, Street, Worker
from svp_stream.clock import TICKS_PER_SECOND
from svp_stream.config import Media

logger = logging.getLogger(__name__)

VOICE_LINE_TICKS: Final = 4 * TICKS_PER_SECOND
CLOSE_TIMEOUT_S: Final = 4.0
FAREWELL_S: Final = 0.25
"""Time for the last words on the data channel to leave."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long we wait for a peer, in seconds."""

    connect_s: float = 15.0
    silence_s: float = 4.0
    stats_s: float = 1.0


class Peer:
    """One connection. Made with `open`, ended with `close`; `on_closed` is called once, when everything is freed."""

    def __init__(
        self,
        name: str,
        studio: Studio,
        worker: Worker,
        street: Street,
        manner: Manner,
        offer: Offer,
        *,
        echo: bool,
        media: Media,
        limits: Limits,
        metrics: Metrics,
        on_closed: Callable[[Peer], None],
    ) -> None:
        self.name = name
        self._offer = offer
        self.since_s = time.time()
        self._worker = worker
        self._limits = limits
        self._media = media
        self._metrics = metrics
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._clock = MediaClock(time.monotonic())
        self._frames = LatestFrame(self._loop)
        self._voice = VoiceLine(VOICE_LINE_TICKS)
        self._seat = Seat(
            street, self._clock, self._frames, self._voice, studio.budget(),
            on_state=lambda state: self._post(lambda: self.desk.state(state)),
            on_failure=lambda error: self._post(lambda: self._fail(error)),
        )  # fmt: skip
        self._picture = AvatarTrack(self._clock, self._frames)
        self._sound = VoiceTrack(
            self._clock, self._voice, street.latency, bit_rate=media.audio_kbps * 1000, echo=echo
        )
        self._mic: Mic | None = None
        self.report = Report(self._seat, self._picture, self._sound, self._frames)
        self.desk = Desk(name, studio, worker, self._seat, self._sound, manner)
        self._connection = RTCPeerConnection(ice.configuration())
        self._connection.on("track", self._hear)
        self._connection.on("datachannel", self._open_channel)
        self._connection.on("connectionstatechange", self._state_changed)

    @property
    def ufrag(self) -> str:
        """The caller's ICE user fragment."""
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
            await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        except OperationError as error:
            raise WhipError(422, f"no codec in common: this server speaks VP8, H.264 and Opus ({error})") from error
        except (ValueError, AssertionError, KeyError, IndexError, AttributeError, StopIteration, TypeError) as error:
            # what aiortc's parser raises for text that is SDP line by line but makes no sense as a whole
            raise WhipError(400, f"the offer cannot be read: {type(error).__name__} {error}") from error
        for transceiver in connection.getTransceivers():
            if transceiver.kind == "video":
                transceiver.direction = "sendonly"
                transceiver.setCodecPreferences(ice.video_codecs(self._media.video_codec))
        connection.addTrack(self._picture)
        if any(s.kind == "audio" and s.direction in ("sendrecv", "recvonly") for s in offer.sections):
            connection.addTrack(self._sound)
        seams.hear_at_once(connection)
        seams.part_streams(connection)
        if offer.passive_allowed:
            seams.answer_passive(connection)
        await connection.setLocalDescription(await connection.createAnswer())
        self._spawn(self._watch(), "watch")
        return str(connection.localDescription.sdp)

    async def trickle(self, fragment: Fragment) -> None:
        """Takes further candidates of the caller."""
        for candidate in fragment.candidates:
            parsed = candidate_from_sdp(candidate.line)
            parsed.sdpMid = candidate.mid
            await self._connection.addIceCandidate(parsed)
        if fragment.complete:
            await self._connection.addIceCandidate(None)

    def begin_close(self, reason: str) -> None:
        """Start ending the call, whoever asks; `close` waits for the end."""
        if self._closing is None:
            logger.info("call %s ends: %s", self.name, reason)
            self._closing = self._loop.create_task(self._close(), name=f"close {self.name}")

    async def close(self, reason: str) -> None:
        """End the call and wait until everything is freed."""
        self.begin_close(reason)
        assert self._closing is not None
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._worker.dismiss(self._seat)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._picture.stop()
        self._sound.stop()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await seams.close(self._connection)
        except TimeoutError:
            logger.warning("call %s: the connection did not close in %.0f s", self.name, CLOSE_TIMEOUT_S)
        self._on_closed(self)

    async def _watch(self) -> None:
        """Waits for the connection, then reports each second and notices when nothing comes in any more."""
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await self._connected.wait()
        except TimeoutError:
            self.begin_close(f"no connection within {self._limits.connect_s:.0f} s")
            return
        heard, quiet_s = -1, 0.0
        while True:
            await asyncio.sleep(self._limits.stats_s)
            packets = seams.received_packets(self._connection)
            # counted in looks, not in wall time: a machine that stands still hears nothing either
            quiet_s = quiet_s + self._limits.stats_s if packets == heard else 0.0
            heard = packets
            if quiet_s >= self._limits.silence_s - self._limits.stats_s:
                self.begin_close("nothing has come in from the peer")
                return
            self.desk.stats(self.report.take(self._mic, self._metrics))

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        logger.debug("call %s is %s", self.name, state)
        if state == "connected" and not self._connected.is_set() and self._closing is None:
            self._clock.restart(time.monotonic())
            self._connected.set()
            self._worker.admit(self._seat)
        elif state in ("failed", "closed"):
            self.begin_close(f"the connection is {state}")

    def _hear(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and self._mic is None:
            self._mic = Mic(track, self._deliver)
            self._spawn(self._mic.run(), "mic")

    def _deliver(self, packet: Packet) -> None:
        if self._connected.is_set():
            self._seat.inbox.put(packet)
            self._worker.wake()

    def _open_channel(self, channel: RTCDataChannel) -> None:
        if channel.label == control.LABEL:
            self.desk.open(channel)

    def _fail(self, error: Exception) -> None:
        """The stages raised: say so, then end this call (the others go on)."""
        if self._closing is None:
            self._metrics.failed.inc()
            self.desk.error("engine", f"the avatar has failed: {type(error).__name__}")
            self._spawn(self._part(), "farewell")

    async def _part(self) -> None:
        await asyncio.sleep(FAREWELL_S)
        self.begin_close("its stages have failed")

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = self._loop.create_task(work, name=f"{what} {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("call %s: task %s failed", self.name, task.get_name(), exc_info=task.exception())
            self.begin_close("one of its tasks has failed")

    def _post(self, call: Callable[[], None]) -> None:
        """From the inference thread into the loop; a loop that has closed needs no news."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            logger.debug("call %s: the loop has closed", self.name)
