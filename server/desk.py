"""One call's data channel: orders in, events out.

In: messages of the page. Out: orders for the inference thread, events for the page (`control` says their form).
Remembers: the channel, the manner that the call is set to. Every order is answered: `style`, `avatar`, `mute`, `echo`
after it has taken effect, `pong`, or `error`. Events for a channel that is not open or not drained are left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiortc import RTCDataChannel
from aiortc.exceptions import InvalidStateError

from server import control
from server.control import AvatarOrder, ControlError, EchoOrder, MuteOrder, Ping, StyleOrder
from server.studio import Manner, Studio
from server.voice_track import VoiceTrack
from server.worker import Seat, Street, Worker
from svp_stream.clock import ticks_to_ms
from svp_stream.errors import SvpError
from svp_stream.packets import SpeechState

logger = logging.getLogger(__name__)

MAX_BUFFERED_BYTES: Final = 64 * 1024


class Desk:
    """Takes the orders of one call, by data channel or by HTTP."""

    def __init__(
        self, name: str, studio: Studio, worker: Worker, seat: Seat, voice: VoiceTrack, manner: Manner
    ) -> None:
        self.manner = manner
        self.speaking = False
        self._name = name
        self._studio = studio
        self._worker = worker
        self._seat = seat
        self._voice = voice
        self._channel: RTCDataChannel | None = None
        self._loop = asyncio.get_running_loop()

    def open(self, channel: RTCDataChannel) -> None:
        """The page has opened its channel (again)."""
        self._channel = channel
        channel.on("message", self._take)
        self._send(
            "welcome",
            session=self._name,
            **self.manner.told(),
            echo=self._voice.echo,
            muted=self._seat.intake.muted,
            street_latency_ms=ticks_to_ms(self._seat.street.latency),
        )

    def order_style(self, order: StyleOrder) -> Manner:
        """Set the style; returns what the call is set to from the next frame on. Raises `PresetError`."""
        manner = self._studio.ordered(self.manner, order)
        request = self._studio.request(manner)
        self.manner = manner
        self._tell(lambda street: street.set_style(request), "style", id=order.id, **manner.told())
        return manner

    def state(self, state: SpeechState) -> None:
        """Somebody began or ceased to speak."""
        self.speaking = state.speaking
        self._send("state", state="speaking" if state.speaking else "silent", pts=state.pts)

    def stats(self, fields: dict[str, Any]) -> None:
        """Figures of the last second."""
        self._send("stats", **fields)

    def error(self, code: str, message: str, **fields: Any) -> None:
        """Something went wrong; `code` is for programs, `message` for people."""
        self._send("error", code=code, message=message, **fields)

    def _take(self, message: str | bytes) -> None:
        try:
            order = control.parse(message)
        except ControlError as error:
            self.error("malformed", str(error))
            return
        try:
            match order:
                case StyleOrder():
                    self.order_style(order)
                case AvatarOrder(name=name):
                    self._order_avatar(order, self._studio.avatar(name))
                case MuteOrder(on=on):
                    self._seat.intake.muted = on
                    self._send("mute", on=on, id=order.id)
                case EchoOrder(on=on):
                    self._voice.echo = on
                    self._send("echo", on=on, id=order.id)
                case Ping(t=t):
                    self._send("pong", t=t, id=order.id)
                case None:
                    logger.debug("call %s: a message of a type that is not known here", self._name)
        except SvpError as error:
            self.error("refused", str(error), id=order.id if order is not None else None)

    def _order_avatar(self, order: AvatarOrder, name: str) -> None:
        self.manner = Manner(name, self.manner.weights, self.manner.strength, self.manner.temperature)
        self._tell(lambda street: street.set_avatar(name), "avatar", id=order.id, name=name)

    def _tell(self, change: Callable[[Street], None], event: str, **fields: Any) -> None:
        """Let the inference thread make `change`, then answer. What the engine refuses is an answer, too."""

        def carry_out(street: Street) -> None:
            try:
                change(street)
            except SvpError as error:
                words = str(error)
                self._post(lambda: self.error("refused", words, id=fields.get("id")))
            else:
                self._post(lambda: self._send(event, **fields))

        self._seat.orders.put(carry_out)
        self._worker.wake()

    def _post(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            logger.debug("call %s: the loop has closed", self._name)

    def _send(self, kind: str, **fields: Any) -> None:
        channel = self._channel
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > MAX_BUFFERED_BYTES:
            return
        try:
            channel.send(control.write(kind, **fields))
        except (ConnectionError, InvalidStateError):
            logger.debug("call %s: the channel closed before %s could leave", self._name, kind)
