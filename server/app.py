"""The routes, and nothing else: each hands over to one handler and turns its errors into HTTP.

In: requests. Out: SDP, JSON, Prometheus text, the pages of `client_web`. Remembers: nothing of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from server import agents, backdrop, uploads, whip
from server.control import ControlError, StyleOrder, validated
from server.gate import Gate, public_paths
from server.health import Census, Metrics, Readiness
from server.limits import Rates
from server.line_routes import line_routes, read_body
from server.live import SourceTaken
from server.security import Guard
from server.shelfmarks import avatar_marks, session_marks, style_marks
from server.signaling import Signaling, Wish
from server.studio import Studio
from server.uploads import UploadShelf
from server.whip import WhipError
from svp_stream import __version__
from svp_stream.errors import CapacityError, EngineError, PresetError

PAGES: Final = Path(__file__).resolve().parent.parent / "client_web"
MAX_JSON_BYTES: Final = 16 * 1024
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
"""Beyond every route's own limit: what no request at all may bring."""
Lifespan = Callable[[FastAPI], Any]


class Gated(FastAPI):
    """An application whose outermost layer is the gate: its headers stand on errors, too."""

    gate: Callable[[ASGIApp], ASGIApp]

    def build_middleware_stack(self) -> ASGIApp:
        """As Starlette's, inside the gate."""
        return self.gate(super().build_middleware_stack())


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the routes hand over to."""

    studio: Studio
    signaling: Signaling
    readiness: Readiness
    metrics: Metrics
    guard: Guard
    rates: Rates
    uploads: UploadShelf
    census: Callable[[], Census]


def create_app(rooms: Rooms, lifespan: Lifespan) -> FastAPI:
    """The application; `lifespan` starts and stops the rooms."""
    app = Gated(
        title="SVP Stream", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url=None, max_body_size=MAX_BODY_BYTES,
    )  # fmt: skip
    app.gate = lambda inner: Gate(inner, rooms.guard, public_paths(PAGES), rooms.rates, on_refused=rooms.metrics.deny)
    _add_errors(app, rooms.metrics)
    for router in (
        _health(rooms), _metrics(rooms), line_routes(rooms.signaling), _lists(rooms),
        uploads.router(rooms.uploads, read_body), backdrop.backdrops(rooms.signaling), backdrop.overlay(PAGES),
        agents.routes(rooms.signaling, rooms.guard, rooms.metrics),
    ):  # fmt: skip
        app.include_router(router)
    app.mount("/", StaticFiles(directory=PAGES, html=True), name="pages")
    return app


def _health(rooms: Rooms) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        ready = rooms.readiness
        return JSONResponse({"status": ready.words}, 200 if ready.ready else 503)

    return router


def _metrics(rooms: Rooms) -> APIRouter:
    router, metrics = APIRouter(), rooms.metrics

    @router.get("/metrics")
    async def exposition() -> Response:
        metrics.look(rooms.census(), rooms.readiness)
        return Response(metrics.exposition(), media_type=metrics.content_type)

    return router


def _lists(rooms: Rooms) -> APIRouter:
    """What there is, for the page and for programs."""
    router = APIRouter(prefix="/v1")
    studio, signaling = rooms.studio, rooms.signaling

    @router.get("/sessions")
    async def sessions() -> dict[str, Any]:
        marks = [session_marks(live) for live in signaling.registry.holders()]
        return {"capacity": signaling.registry.capacity, "sessions": marks}

    @router.post("/sessions", status_code=201)
    async def stage(request: Request) -> dict[str, str]:
        whip.content_type(request.headers.get("content-type"), "application/json")
        text = whip.decode(await read_body(request, MAX_JSON_BYTES), MAX_JSON_BYTES)
        return {"id": (await signaling.stage(validated(Wish, text or "{}", json=True))).id}

    @router.delete("/sessions/{session}", status_code=200)
    async def dismiss(session: str) -> Response:
        await signaling.dismiss(session)
        return Response(status_code=200)

    @router.get("/styles")
    async def styles() -> dict[str, Any]:
        return {"default": studio.manner.told(), "styles": style_marks(studio)}

    @router.get("/avatars")
    async def avatars() -> dict[str, Any]:
        return {"default": studio.manner.avatar, "avatars": avatar_marks(studio)}

    @router.put("/sessions/{session}/style")
    async def put_style(session: str, request: Request) -> dict[str, Any]:
        whip.content_type(request.headers.get("content-type"), "application/json")
        text = whip.decode(await read_body(request, MAX_JSON_BYTES), MAX_JSON_BYTES)
        return signaling.style(session, validated(StyleOrder, text, json=True)).told()

    return router


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
    """Errors of the rooms as HTTP, always with words."""

    def say(status: int, error: Exception, headers: dict[str, str] | None = None) -> JSONResponse:
        metrics.refused.labels(str(status)).inc()
        return JSONResponse({"error": str(error)}, status, headers)

    @app.exception_handler(WhipError)
    async def on_whip(_: Request, error: WhipError) -> JSONResponse:
        return say(error.status, error, error.headers)

    @app.exception_handler(CapacityError)
    async def on_full(_: Request, error: CapacityError) -> JSONResponse:
        return say(503, error, {"Retry-After": str(error.retry_after_s)})

    @app.exception_handler(SourceTaken)
    async def on_taken(_: Request, error: SourceTaken) -> JSONResponse:
        return say(409, error)

    @app.exception_handler(PresetError)
    @app.exception_handler(EngineError)
    @app.exception_handler(ControlError)
    async def on_choice(_: Request, error: Exception) -> JSONResponse:
        return say(422, error)
