"""The routes, and nothing else: each hands over to one handler and turns its errors into HTTP.

In: requests. Out: SDP, JSON, Prometheus text, the pages of `client_web`. Remembers: nothing of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from server import whip
from server.control import ControlError, StyleOrder, validated
from server.health import Metrics, Readiness
from server.line_routes import line_routes, read_body
from server.live import SourceTaken
from server.security import Denied, Guard
from server.shelfmarks import avatar_marks, session_marks, style_marks
from server.signaling import Signaling, Wish
from server.studio import Studio
from server.whip import WhipError
from svp_stream import __version__
from svp_stream.errors import CapacityError, EngineError, PresetError

PAGES: Final = Path(__file__).resolve().parent.parent / "client_web"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MAX_JSON_BYTES: Final = 16 * 1024
Lifespan = Callable[[FastAPI], Any]


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the routes hand over to."""

    studio: Studio
    signaling: Signaling
    readiness: Readiness
    metrics: Metrics
    guard: Guard


def create_app(rooms: Rooms, lifespan: Lifespan) -> FastAPI:
    """The application; `lifespan` starts and stops the rooms."""
    app = FastAPI(
        title="SVP Stream", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url=None,
    )  # fmt: skip

    async def guarded(
        host: Annotated[str | None, Header()] = None, authorization: Annotated[str | None, Header()] = None
    ) -> None:
        rooms.guard.check(host, authorization)

    _add_errors(app, rooms.metrics)
    app.include_router(_health(rooms))
    for router in (_metrics(rooms.metrics), line_routes(rooms.signaling), _lists(rooms)):
        app.include_router(router, dependencies=[Depends(guarded)])
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
        return JSONResponse({"status": ready.words}, 200 if ready.warm else 503)

    return router


def _metrics(metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics")
    async def exposition() -> Response:
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

    @app.exception_handler(Denied)
    async def on_denied(_: Request, error: Denied) -> JSONResponse:
        return say(error.status, error, {"WWW-Authenticate": "Bearer"} if error.status == 401 else None)

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

    @app.middleware("http")
    async def fence(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        response.headers.setdefault("Cache-Control", "no-store" if request.url.path.startswith("/v1") else "no-cache")
        return response
