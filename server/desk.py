"""The desk of one live session: orders in, events out.

In: messages of data channels, orders by HTTP. Out: orders for the inference thread, events for every listener
(`control` says their form). Remembers: the listeners, the manner that the session is set to, mute and echo.

Every order is answered: `style`, `avatar`, `mute`, `echo`, `listen`, `background` after it has taken effect, `pong`, or
`error`.
Changes are told to all, with the `id` of the order only to the one who gave it; `pong` and refusals go to that one
alone. Events for a channel that is not open or not drained are left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiortc import RTCDataChannel
from aiortc.exceptions import InvalidStateError

from server import control
from server.control import (
    AvatarOrder,
    BackgroundOrder,
    ControlError,
    EchoOrder,
    ListenOrder,
    MuteOrder,
    Order,
    Ping,
    StyleOrder,
)
from server.feed import PictureFeed
from server.studio import Manner, Studio
from server.worker import Seat, Street, Worker
from svp_stream.clock import ticks_to_ms
from svp_stream.errors import CapacityError, SvpError
from svp_stream.packets import SpeechState
from svp_stream.pipeline.compose import Background
from svp_stream.pipeline.engine import Attending

logger = logging.getLogger(__name__)

MAX_BUFFERED_BYTES: Final = 64 * 1024
MAX_LISTENERS: Final = 256

Listener = Callable[[str, dict[str, Any]], None]
"""Takes the kind of an event and its fields; called on the loop, must not wait."""


class Desk:
    """Takes the orders of one session."""

    def __init__(
        self, id: str, key: str, studio: Studio, worker: Worker, seat: Seat, manner: Manner, pictures: PictureFeed, *,
        echo: bool,
    ) -> None:  # fmt: skip
        self.manner = manner
        self.speaking = False
        self.echo = echo
        """Whether those who feed the session hear their own voice."""
        self._id = id
        self._key = key
        self._studio = studio
        self._worker = worker
        self._seat = seat
        self._pictures = pictures
        self._listeners: tuple[Listener, ...] = ()
        self._loop = asyncio.get_running_loop()

    @property
    def muted(self) -> bool:
        """Whether the source of sound is taken for silence."""
        return self._seat.intake.muted

    def listen(self, hear: Listener) -> Callable[[], None]:
        """Every event from now on goes to `hear`, `welcome` first; returns what ends it. Raises `CapacityError`."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise CapacityError(f"this session has {MAX_LISTENERS} listeners; that is all it takes", 5)
        self._listeners = (*self._listeners, hear)
        hear(
            "welcome",
            {
                "session": self._id, **self.manner.told(), "echo": self.echo, "muted": self.muted,
                "background": told(self._pictures.background),
                "street_latency_ms": ticks_to_ms(self._seat.street.latency),
            },
        )  # fmt: skip

        def leave() -> None:
            self._listeners = tuple(x for x in self._listeners if x is not hear)

        return leave

    def open(self, channel: RTCDataChannel, *, orders: bool = True) -> None:
        """A data channel becomes a listener; without `orders` it may only look on and ping."""

        def hear(kind: str, fields: dict[str, Any]) -> None:
            self._send(channel, kind, fields)

        try:
            leave = self.listen(hear)
        except CapacityError as error:
            self._send(channel, "error", {"code": "full", "message": str(error)})
            return
        channel.on("message", lambda message: self.take(message, hear, orders=orders))
        channel.on("close", leave)

    def order_style(self, order: StyleOrder, asker: Listener | None = None) -> Manner:
        """Set the style; returns what the session is set to from the next frame on. Raises `PresetError`."""
        manner = self._studio.ordered(self.manner, order)
        request = self._studio.request(manner)
        self.manner = manner
        self._tell(lambda street: street.set_style(request), "style", order, asker, **manner.told())
        return manner

    def order_background(
        self, background: Background | None, order: BackgroundOrder | None = None, asker: Listener | None = None
    ) -> None:
        """What stands behind the person from the next picture on; None: the engine's own picture."""
        self._pictures.background = background
        answer = order or BackgroundOrder(color=None)
        self._answer("background", answer, asker, background=told(background))

    def order_listen(self, order: ListenOrder, asker: Listener | None = None) -> None:
        """Somebody speaks to the avatar, or has ceased to: it listens, and nods now and then."""

        def attend(street: Street) -> None:
            if isinstance(street, Attending):
                street.attend(order.on)

        self._tell(attend, "listen", order, asker, on=order.on)

    def tell(self, kind: str, **fields: Any) -> None:
        """An event for everybody."""
        for hear in self._listeners:
            hear(kind, fields)

    def state(self, state: SpeechState) -> None:
        """Somebody began or ceased to speak."""
        self.speaking = state.speaking
        self.tell("state", state="speaking" if state.speaking else "silent", pts=state.pts)

    def error(self, code: str, message: str) -> None:
        """Something went wrong; `code` is for programs, `message` for people."""
        self.tell("error", code=code, message=message)

    def take(self, message: str | bytes, asker: Listener, *, orders: bool = True) -> None:
        """An order as text (see `control`); what is wrong with it is told to `asker`."""
        try:
            order = control.parse(message)
        except ControlError as error:
            asker("error", {"code": "malformed", "message": str(error)})
            return
        try:
            self._obey(order, asker, orders)
        except SvpError as error:
            asker("error", {"code": "refused", "message": str(error), "id": order.id if order is not None else None})

    def _obey(self, order: Order | None, asker: Listener, orders: bool) -> None:
        match order:
            case None:
                logger.debug("session %s: a message of a type that is not known here", self._key)
            case Ping(t=t):
                asker("pong", {"t": t, "id": order.id})
            case _ if not orders:
                asker("error", {"code": "refused", "message": "who only watches gives no orders", "id": order.id})
            case StyleOrder():
                self.order_style(order, asker)
            case AvatarOrder(name=name):
                self._order_avatar(order, self._studio.avatar(name), asker)
            case MuteOrder(on=on):
                self._seat.intake.muted = on
                self._answer("mute", order, asker, on=on)
            case EchoOrder(on=on):
                self.echo = on
                self._answer("echo", order, asker, on=on)
            case ListenOrder():
                self.order_listen(order, asker)
            case BackgroundOrder(color=color):
                self.order_background(None if color is None else Background.of_colour(color), order, asker)

    def _order_avatar(self, order: AvatarOrder, name: str, asker: Listener) -> None:
        self.manner = Manner(name, self.manner.weights, self.manner.strength, self.manner.temperature)
        self._tell(lambda street: street.set_avatar(name), "avatar", order, asker, name=name)

    def _answer(self, kind: str, order: Order, asker: Listener | None, **fields: Any) -> None:
        for hear in self._listeners:
            hear(kind, {**fields, "id": order.id if hear is asker else None})

    def _tell(
        self, change: Callable[[Street], None], event: str, order: Order, asker: Listener | None, **fields: Any
    ) -> None:
        """Let the inference thread make `change`, then answer. What the engine refuses is an answer, too."""

        def carry_out(street: Street) -> None:
            try:
                change(street)
            except SvpError as error:
                refusal = {"code": "refused", "message": str(error), "id": order.id}
                self._post(lambda: asker("error", refusal) if asker else self.tell("error", **refusal))
            else:
                self._post(lambda: self._answer(event, order, asker, **fields))

        self._seat.orders.put(carry_out)
        self._worker.wake()

    def _post(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            logger.debug("session %s: the loop has closed", self._key)

    def _send(self, channel: RTCDataChannel, kind: str, fields: dict[str, Any]) -> None:
        if channel.readyState != "open" or channel.bufferedAmount > MAX_BUFFERED_BYTES:
            return
        try:
            channel.send(control.write(kind, **fields))
        except (ConnectionError, InvalidStateError):
            logger.debug("session %s: the channel closed before %s could leave", self._key, kind)


def told(background: Background | None) -> str | None:
    """A background as an event says it: `#rrggbb`, `picture`, or None for the engine's own."""
    return background.told if background is not None else None
