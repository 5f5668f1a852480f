"""The routes of connections: calls, microphones (WHIP, RFC 9725) and viewers (WHEP, draft-ietf-wish-whep).

In: requests. Out: SDP with the headers that the protocols ask for. Remembers: nothing. What the methods mean:

    POST    /v1/call, /v1/whip, /v1/whep/{session}     201, Location (secret), ETag, Link of the ICE servers
    OPTIONS the same                                   204, Accept-Post, Link
    PATCH   the Location                               204 candidates taken, 200 ICE restarted
    DELETE  the Location                               200 everything is freed
    others                                             405
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from server import whip
from server.signaling import Created, Signaling, Wish
from server.whip import WhipError

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


async def read_body(request: Request, limit: int) -> bytes:
    """The body, read no further than the limit; raises `WhipError` 413."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise WhipError(413, f"the body is longer than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


async def wished(
    avatar: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    style: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    strength: Annotated[float | None, Query(ge=0, le=2, allow_inf_nan=False)] = None,
    temperature: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)] = None,
    echo: bool = False,
) -> Wish:
    """The wish in a query (a coroutine, so that no thread is taken for it)."""
    return Wish(avatar=avatar, style=style, strength=strength, temperature=temperature, echo=echo)


def line_routes(signaling: Signaling) -> APIRouter:
    """All of them."""
    router = APIRouter(prefix="/v1")
    _add_posts(router, signaling)
    for resource in ("/call/{secret}", "/whip/{secret}", "/whep/{session}/{secret}"):
        _add_resource(router, resource, signaling)
    for endpoint in ("/call", "/whip", "/whep/{session}"):
        _add_options(router, endpoint, signaling)
    return router


def _add_posts(router: APIRouter, signaling: Signaling) -> None:
    @router.post("/call", status_code=201)
    async def call(request: Request, wish: Annotated[Wish, Depends(wished)]) -> Response:
        return _created(await signaling.call(await _offer(request), wish), signaling)

    @router.post("/whip", status_code=201)
    async def publish(
        request: Request,
        wish: Annotated[Wish, Depends(wished)],
        session: Annotated[str | None, Query(max_length=100)] = None,
    ) -> Response:
        return _created(await signaling.whip(await _offer(request), wish, session), signaling)

    @router.post("/whep/{session}", status_code=201)
    async def watch(session: str, request: Request, layout: Literal["plain", "packed"] = "plain") -> Response:
        return _created(await signaling.whep(session, await _offer(request), layout), signaling)


def _add_resource(router: APIRouter, path: str, signaling: Signaling) -> None:
    @router.patch(path, status_code=204)
    async def trickle(secret: str, request: Request) -> Response:
        whip.content_type(request.headers.get("content-type"), whip.FRAGMENT_TYPE)
        body = await read_body(request, whip.MAX_FRAGMENT_BYTES)
        restarted = await signaling.trickle(secret, body, request.headers.get("if-match"))
        if restarted is None:
            return Response(status_code=204)
        return Response(restarted.fragment, 200, {"ETag": restarted.etag}, media_type=whip.FRAGMENT_TYPE)

    @router.delete(path, status_code=200)
    async def end(secret: str) -> Response:
        await signaling.end(secret)
        return Response(status_code=200)

    _forbid(router, path, ("PATCH", "DELETE"))


def _add_options(router: APIRouter, path: str, signaling: Signaling) -> None:
    @router.options(path, status_code=204)
    async def options() -> Response:
        response = Response(status_code=204, headers={"Accept-Post": whip.SDP_TYPE, "Allow": "POST, OPTIONS"})
        return _linked(response, signaling)

    _forbid(router, path, ("POST", "OPTIONS"))


def _forbid(router: APIRouter, path: str, allowed: tuple[str, ...]) -> None:
    """Words for the methods that a path does not have; without them the pages' 404 would answer."""

    async def refuse(request: Request) -> None:
        words = f"{request.method} is not for this URL; it takes {' and '.join(allowed)}"
        raise WhipError(405, words, {"Allow": ", ".join(allowed)})

    router.add_api_route(path, refuse, methods=[m for m in METHODS if m not in allowed])


async def _offer(request: Request) -> bytes:
    whip.content_type(request.headers.get("content-type"), whip.SDP_TYPE)
    whip.accepts(request.headers.get("accept"), whip.SDP_TYPE)
    return await read_body(request, whip.MAX_SDP_BYTES)


def _created(made: Created, signaling: Signaling) -> Response:
    headers = {"Location": made.location, "ETag": made.etag, "X-Session": made.id}
    return _linked(Response(made.sdp, 201, headers, media_type=whip.SDP_TYPE), signaling)


def _linked(response: Response, signaling: Signaling) -> Response:
    """The response, naming the STUN and TURN servers (RFC 9725 section 4.6)."""
    for link in signaling.paths.link_headers():
        response.headers.append("Link", link)
    return response
