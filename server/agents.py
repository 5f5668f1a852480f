"""The route of voice agents: who may come in, to which session.

In: WebSocket handshakes. Out: a socket handed to `pcm_socket`, or a refusal: by HTTP status before the handshake where
the request may not come in at all, by a close code with words where there is no such session.
Remembers: nothing. A browser, which cannot set headers on a WebSocket, gives its token as `?token=`.
"""

from __future__ import annotations

import contextlib

from fastapi import APIRouter
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from server import pcm_socket, pcm_wire
from server.health import Metrics
from server.security import Denied, Guard
from server.signaling import Signaling
from server.whip import WhipError


def routes(signaling: Signaling, guard: Guard, metrics: Metrics) -> APIRouter:
    """`/v1/sessions/{id}/audio`."""
    router = APIRouter(prefix="/v1/sessions")
    counts = pcm_socket.Counts(metrics.registry)

    @router.websocket("/{session}/audio")
    async def audio(socket: WebSocket, session: str) -> None:
        try:
            _admit(socket, guard)
        except Denied as denied:
            metrics.refused.labels(str(denied.status)).inc()
            await _refuse(socket, denied)
            return
        await socket.accept()
        try:
            live = signaling.live(session)
        except WhipError as error:
            metrics.refused.labels(str(error.status)).inc()
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
                await pcm_socket.dismiss(socket, pcm_socket.Verdict(pcm_wire.NO_SESSION, str(error)))
            return
        await pcm_socket.serve(socket, live, counts)

    return router


async def _refuse(socket: WebSocket, denied: Denied) -> None:
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(JSONResponse({"error": str(denied)}, denied.status))
    else:
        await socket.close(1008, str(denied))


def _admit(socket: WebSocket, guard: Guard) -> None:
    """Raises `Denied` unless token and names will do."""
    token = socket.query_params.get("token")
    given = socket.headers.get("authorization") or (f"Bearer {token}" if token is not None else None)
    guard.check(socket.headers.get("host"), given)
