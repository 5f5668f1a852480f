"""One handler for each verb of signalling: POST makes a call, PATCH trickles, DELETE ends it (RFC 9725, RFC 8840).

In: checked text. Out: `Created`, or an error with its HTTP status. Remembers: the registry of calls.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from server import whip
from server.control import StyleOrder
from server.health import Metrics, Readiness
from server.peer import Limits, Peer
from server.registry import Place, Registry
from server.studio import Manner, Studio
from server.whip import Fragment, Offer, WhipError
from server.worker import Worker
from svp_stream.config import Media
from svp_stream.errors import CapacityError, SvpError

logger = logging.getLogger(__name__)

WARMING_RETRY_S = 2


@dataclass(frozen=True, slots=True)
class Wish:
    """What the query of a POST asks for; None leaves it to the server."""

    avatar: str | None = None
    style: str | None = None
    strength: float | None = None
    temperature: float | None = None
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """A call was made: the answer, the path of its resource, its entity tag and its public id."""

    sdp: str
    location: str
    etag: str
    id: str


class Signaling:
    """The calls of one server."""

    def __init__(
        self, studio: Studio, worker: Worker, readiness: Readiness, metrics: Metrics, *, capacity: int, media: Media,
        limits: Limits, echo: bool = False,
    ) -> None:
        self.registry: Registry[Peer] = Registry(capacity)
        self._studio = studio
        self._worker = worker
        self._readiness = readiness
        self._metrics = metrics
        self._limits = limits
        self._media = media
        self._echo = echo
        self._open = True

    async def create(self, body: bytes, wish: Wish) -> Created:
        """POST. Raises `WhipError` (400, 413, 422), `PresetError`, `EngineError`, `CapacityError`."""
        offer = whip.parse_offer(body)
        if not self._readiness.warm or not self._open:
            words = self._readiness.words if self._open else "the server is going down"
            raise CapacityError(f"not now: {words}", WARMING_RETRY_S)
        manner = self._manner(wish)
        place = self.registry.reserve()
        self._metrics.calls.set(len(self.registry))
        try:
            answer = await self._build(place, offer, manner, wish)
        except BaseException:  # also when the request is cancelled: the place must not be lost
            await self._give_up(place)
            raise
        self._metrics.started.inc()
        logger.info("call %s: %s as %s", place.id, manner.style, manner.avatar)
        return Created(answer, f"/v1/call/{place.secret}", place.etag, place.id)

    async def trickle(self, secret: str, body: bytes, if_match: str | None) -> None:
        """PATCH. Raises `WhipError`: 404 no such call, 428/412 wrong entity tag, 422 an ICE restart, 400, 413."""
        place = self._place(secret)
        if if_match is None:
            raise WhipError(428, "PATCH needs If-Match with the ETag that POST returned (RFC 9725 section 4.3.1)")
        tags = {tag.strip() for tag in if_match.split(",")}
        fragment: Fragment = whip.parse_fragment(body)
        peer = place.holder
        assert peer is not None
        if fragment.ufrag is not None and fragment.ufrag != peer.ufrag:
            raise WhipError(422, "this server does not restart ICE: end the call and make another")
        if place.etag not in tags:
            raise WhipError(412, "If-Match does not name this call's ICE session")
        await peer.trickle(fragment)

    async def end(self, secret: str) -> None:
        """DELETE: returns when everything is freed. Raises `WhipError` 404."""
        peer = self._place(secret).holder
        assert peer is not None
        await peer.close("the caller has hung up")

    def style(self, public_id: str, order: StyleOrder) -> Manner:
        """PUT style. Raises `WhipError` 404, `PresetError`."""
        place = self.registry.by_id(public_id)
        if place is None or place.holder is None:
            raise WhipError(404, f"there is no session {public_id[:40]!r}")
        return place.holder.desk.order_style(order)

    async def shut(self) -> None:
        """End every call; no further one is taken."""
        self._open = False
        peers = self.registry.holders()
        await asyncio.gather(*(peer.close("the server is going down") for peer in peers), return_exceptions=True)

    def _manner(self, wish: Wish) -> Manner:
        studio, manner = self._studio, self._studio.manner
        if wish.avatar is not None:
            manner = replace(manner, avatar=studio.avatar(wish.avatar))
        if (wish.style, wish.strength, wish.temperature) != (None, None, None):
            order = StyleOrder(name=wish.style, strength=wish.strength, temperature=wish.temperature)
            manner = studio.ordered(manner, order)
        return manner

    async def _build(self, place: Place[Peer], offer: Offer, manner: Manner, wish: Wish) -> str:
        try:
            street = await asyncio.wrap_future(self._worker.ask(lambda: self._studio.street(manner)))
        except SvpError:
            raise
        except Exception as error:  # whatever a model may raise ends this call only
            logger.exception("call %s: the engine made no stream", place.id)
            raise WhipError(500, f"the avatar could not be made: {type(error).__name__}") from error
        peer = Peer(
            place.id, self._studio, self._worker, street, manner, offer,
            echo=wish.echo or self._echo, media=self._media, limits=self._limits, metrics=self._metrics,
            on_closed=lambda _: self._release(place),
        )  # fmt: skip
        place.holder = peer
        return await peer.answer()

    async def _give_up(self, place: Place[Peer]) -> None:
        if place.holder is not None:
            await place.holder.close("its offer could not be answered")
        self._release(place)

    def _release(self, place: Place[Peer]) -> None:
        self.registry.release(place)
        self._metrics.calls.set(len(self.registry))

    def _place(self, secret: str) -> Place[Peer]:
        place = self.registry.by_secret(secret)
        if place is None or place.holder is None:
            raise WhipError(404, "there is no such call: it has ended, or the URL is wrong")
        return place
