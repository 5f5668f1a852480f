"""What stands behind the person, by HTTP, and the page on which nothing does.

In: `PUT /v1/sessions/{id}/background` with a picture (PNG, JPEG, WebP) or `{"color": "#rrggbb"}`, `DELETE` for the
engine's own picture; `GET /obs`. Out: what is in effect, or words with 404, 413, 415, 422. Remembers: nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from server import whip
from server.control import BackgroundOrder, validated
from server.desk import told
from server.line_routes import read_body
from server.signaling import Signaling
from server.whip import WhipError
from svp_stream.errors import MediaError
from svp_stream.pipeline.backdrop import MAX_PICTURE_BYTES
from svp_stream.pipeline.compose import Background

PICTURES: Final = ("image/png", "image/jpeg", "image/webp")
JSON: Final = "application/json"
MAX_COLOUR_BYTES: Final = 1024


def backdrops(signaling: Signaling) -> APIRouter:
    """The background of a session as a resource."""
    router = APIRouter(prefix="/v1/sessions/{session}/background")

    @router.put("")
    async def put(session: str, request: Request) -> dict[str, Any]:
        desk = signaling.live(session).desk
        kind = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
        if kind not in (*PICTURES, JSON):
            raise WhipError(415, f"Content-Type must be one of {', '.join((*PICTURES, JSON))}, got {kind[:80]!r}")
        body = await read_body(request, MAX_COLOUR_BYTES if kind == JSON else MAX_PICTURE_BYTES)
        background = await asyncio.to_thread(_of_picture, body) if kind != JSON else _of_colour(body)
        desk.order_background(background)
        return {"background": told(background)}

    @router.delete("")
    async def remove(session: str) -> dict[str, Any]:
        signaling.live(session).desk.order_background(None)
        return {"background": None}

    return router


def overlay(pages: Path) -> APIRouter:
    """The page for OBS under its short name."""
    router = APIRouter()

    @router.get("/obs", include_in_schema=False)
    async def obs() -> FileResponse:
        return FileResponse(pages / "obs.html")

    return router


def _of_picture(body: bytes) -> Background:
    try:
        return Background.of_picture(body)
    except MediaError as error:
        raise WhipError(422, str(error)) from error


def _of_colour(body: bytes) -> Background | None:
    color = validated(BackgroundOrder, whip.decode(body, MAX_COLOUR_BYTES), json=True).color
    return None if color is None else Background.of_colour(color)
