"""One handler for each verb of signalling: POST makes sessions and connections, PATCH trickles, DELETE ends them
(RFC 9725, RFC 8840).

In: checked text. Out: `Created`, or an error with its HTTP status. Remembers: the registries of sessions and of
connections.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from server import whip
from server.control import Name, StyleOrder
from server.health import Metrics, Readiness
from server.ice import Ice
from server.live import Backstage, Limits, Live
from server.peer import Errand, Peer, Visit
from server.press import Press
from server.registry import Place, Registry, new_etag
from server.studio import Manner, Studio
from server.whip import Fragment, WhipError
from server.worker import Worker
from svp_stream.config import Media
from svp_stream.errors import CapacityError, SvpError

logger = logging.getLogger(__name__)

WARMING_RETRY_S = 2


class Wish(BaseModel):
    """What a POST asks for; None leaves it to the server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    avatar: Name | None = None
    style: Name | None = None
    strength: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """A connection was made: the answer, the path of its resource, its entity tag and the session's public id."""

    sdp: str
    location: str
    etag: str
    id: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """An ICE restart was taken: the fragment to answer with, and the new entity tag."""

    fragment: str
    etag: str


class Signaling:
    """The sessions and connections of one server."""

    def __init__(
        self, studio: Studio, worker: Worker, press: Press, readiness: Readiness, metrics: Metrics, *, capacity: int,
        media: Media, limits: Limits, echo: bool = False, paths: Ice | None = None,
    ) -> None:  # fmt: skip
        self.registry: Registry[Live] = Registry(capacity)
        self.lines: Registry[Peer] = Registry(limits.connections, noun="connection")
        self.paths = paths or Ice()
        self._back = Backstage(studio, worker, press, metrics, media, limits, self.paths)
        self._readiness = readiness
        self._echo = echo
        self._open = True

    async def stage(self, wish: Wish) -> Live:
        """A session without any connection, which begins at once and ends when nobody has been there for
        `limits.linger_s`. Raises `CapacityError`, `PresetError`, `EngineError`, `WhipError` 500."""
        live = await self._raise_curtain(wish)
        live.begin()
        return live

    def live(self, public_id: str) -> Live:
        """The session with that id; raises `WhipError` 404."""
        place = self.registry.by_id(public_id)
        if place is None or place.holder is None or place.holder.state == "closing":
            raise WhipError(404, "there is no such session: it has ended, or the id is wrong")
        return place.holder

    async def dismiss(self, public_id: str) -> None:
        """DELETE of a session: returns when everything is freed. Raises `WhipError` 404."""
        await self.live(public_id).close("it was told to end")

    async def call(self, body: bytes, wish: Wish) -> Created:
        """POST of a call. Raises `WhipError` (400, 413, 422), `PresetError`, `EngineError`, `CapacityError`."""
        visit = Visit(Errand.CALL, whip.parse_call(body))
        live = await self._raise_curtain(wish)
        try:
            return await self._connect(live, visit, "/v1/call")
        except BaseException:  # also when the request is cancelled: the place must not be lost
            await live.close("its offer could not be answered")
            raise

    async def whip(self, body: bytes, wish: Wish, session: str | None = None) -> Created:
        """POST of a microphone, for a session that is there (its id) or for one made for it.

        Raises as `call`, `WhipError` 404 for an unknown session, `SourceTaken` for one that is fed already.
        """
        visit = Visit(Errand.WHIP, whip.parse_whip(body))
        live = await self._raise_curtain(wish) if session is None else self.live(session)
        try:
            return await self._connect(live, visit, "/v1/whip")
        except BaseException:  # also when the request is cancelled: a session made for it must not be left
            if session is None:
                await live.close("its offer could not be answered")
            raise

    async def whep(self, session: str, body: bytes, layout: str) -> Created:
        """POST of a viewer. Raises `WhipError` (404, 400, 413, 422), `CapacityError`."""
        live = self.live(session)
        return await self._connect(live, Visit(Errand.WHEP, whip.parse_whep(body), layout), f"/v1/whep/{session}")

    async def trickle(self, secret: str, body: bytes, if_match: str | None) -> Restarted | None:
        """PATCH: candidates (None), or an ICE restart, which names no entity tag: `If-Match: *` (RFC 9725 section 4.3).

        Raises `WhipError`: 404 no such connection, 428/412 wrong entity tag, 400, 413; 409, 502 no restart now.
        """
        place, peer = self._line(secret)
        if if_match is None:
            raise WhipError(428, "PATCH needs If-Match with the ETag that POST returned (RFC 9725 section 4.3.1)")
        tags = {tag.strip() for tag in if_match.split(",")}
        fragment: Fragment = whip.parse_fragment(body)
        if "*" in tags and fragment.ufrag not in (None, peer.ufrag):
            return await self._restart(place, peer, fragment)
        if not peer.newest(fragment):
            raise WhipError(412, "these candidates are of another ICE session; to restart ICE send If-Match: *")
        if place.etag not in tags:
            raise WhipError(412, "If-Match does not name this call's ICE session")
        await peer.trickle(fragment)
        return None

    async def _restart(self, place: Place[Peer], peer: Peer, fragment: Fragment) -> Restarted:
        """An ICE restart makes a new ICE session, so a new entity tag (RFC 9725 section 4.3.3)."""
        known = peer.repeats(fragment)
        ours = await peer.restart(fragment)
        if not known:
            place.etag = new_etag()
        return Restarted(whip.write_fragment(ours), place.etag)

    async def end(self, secret: str) -> None:
        """DELETE of a connection: returns when everything is freed. Raises `WhipError` 404."""
        _, peer = self._line(secret)
        await peer.close("the other side has hung up")
        if peer.errand is Errand.CALL:
            await peer.live.close("the caller has hung up")

    def style(self, public_id: str, order: StyleOrder) -> Manner:
        """PUT style. Raises `WhipError` 404, `PresetError`."""
        return self.live(public_id).desk.order_style(order)

    async def shut(self) -> None:
        """End every session; no further one is taken."""
        self._open = False
        lives = self.registry.holders()
        await asyncio.gather(*(live.close("the server is going down") for live in lives), return_exceptions=True)

    def _manner(self, wish: Wish) -> Manner:
        studio = self._back.studio
        manner = studio.manner
        if wish.avatar is not None:
            manner = replace(manner, avatar=studio.avatar(wish.avatar))
        if (wish.style, wish.strength, wish.temperature) != (None, None, None):
            order = StyleOrder(name=wish.style, strength=wish.strength, temperature=wish.temperature)
            manner = studio.ordered(manner, order)
        return manner

    async def _raise_curtain(self, wish: Wish) -> Live:
        """A session that has not begun."""
        if not self._readiness.warm or not self._open:
            words = self._readiness.words if self._open else "the server is going down"
            raise CapacityError(f"not now: {words}", WARMING_RETRY_S)
        manner, back = self._manner(wish), self._back
        place = self.registry.reserve()
        back.metrics.calls.set(len(self.registry))
        try:
            street = await asyncio.wrap_future(back.worker.ask(lambda: back.studio.street(manner)))
        except BaseException as error:  # also when the request is cancelled: the place must not be lost
            self._release(place)
            if isinstance(error, SvpError) or not isinstance(error, Exception):
                raise
            logger.exception("session %s: the engine made no stream", place.key)
            raise WhipError(500, f"the avatar could not be made: {type(error).__name__}") from error
        live = place.holder = Live(
            place.id, place.key, back, street, manner, echo=wish.echo or self._echo,
            on_closed=lambda _: self._release(place),
        )  # fmt: skip
        back.metrics.started.inc()
        logger.info("session %s: %s as %s", place.key, manner.style, manner.avatar)
        return live

    async def _connect(self, live: Live, visit: Visit, path: str) -> Created:
        """A connection for a session; raises `WhipError` 400 or 422, `SourceTaken`, `CapacityError`."""
        place = self.lines.reserve()
        back = self._back
        try:
            codec = back.media.video_codec
            peer = Peer(place.key, live, visit, back.limits, codec, self.paths, lambda _: self.lines.release(place))
        except BaseException:  # the place must not be lost, whatever it was
            self.lines.release(place)
            raise
        place.holder = peer
        try:
            answer = await peer.answer()
        except BaseException:  # also when the request is cancelled: nothing of it may be left
            await peer.close("its offer could not be answered")
            raise
        logger.info("connection %s: %s of session %s", place.key, visit.errand, live.key)
        return Created(answer, f"{path}/{place.secret}", place.etag, live.id)

    def _release(self, place: Place[Live]) -> None:
        self.registry.release(place)
        self._back.metrics.calls.set(len(self.registry))

    def _line(self, secret: str) -> tuple[Place[Peer], Peer]:
        place = self.lines.by_secret(secret)
        if place is None or place.holder is None:
            raise WhipError(404, "there is no such connection: it has ended, or the URL is wrong")
        return place, place.holder
