"""The whole server put together: rooms, their start and their end.

In: a studio and the settings of a profile. Out: an application to be served.
Remembers: the inference and encoder threads while the server runs. The model warms up in the former, and `/healthz`
answers meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from server import seams
from server.app import Rooms, create_app
from server.health import Metrics, Readiness
from server.ice import Ice
from server.live import Limits
from server.press import Press
from server.security import Guard
from server.signaling import Signaling
from server.studio import Studio
from server.worker import Worker
from svp_stream.config import Media

logger = logging.getLogger(__name__)


class House:
    """One server: `app` serves it, `lifespan` brings it up and down."""

    def __init__(
        self, studio: Studio, guard: Guard, *, capacity: int, media: Media | None = None, limits: Limits | None = None,
        echo: bool = False, paths: Ice | None = None,
    ) -> None:
        self.studio = studio
        self.worker = Worker()
        self.press = Press()
        self.readiness = Readiness()
        self.metrics = Metrics(capacity)
        self.signaling = Signaling(
            studio, self.worker, self.press, self.readiness, self.metrics, capacity=capacity,
            media=media or Media(), limits=limits or Limits(), echo=echo, paths=paths or Ice(),
        )  # fmt: skip
        self.metrics.watch_paths(self.signaling.paths.problems)
        rooms = Rooms(studio, self.signaling, self.readiness, self.metrics, guard)
        self.app: FastAPI = create_app(rooms, self.lifespan)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Start the threads and the warming-up; at the end close every session, then the threads."""
        seams.expect_hang_ups(asyncio.get_running_loop())
        self.worker.start()
        self.press.start()
        warming = asyncio.create_task(self._warm(), name="warm")
        try:
            yield
        finally:
            await self.signaling.shut()
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)
            if not await asyncio.to_thread(self.press.stop):
                logger.warning("the encoder thread is still at a picture; it ends with the process")
            if not await asyncio.to_thread(self.worker.stop):
                logger.warning("the inference thread is still in a turn; it ends with the process")

    async def _warm(self) -> None:
        try:
            await asyncio.wrap_future(self.worker.ask(self.studio.engine.warm))
        except Exception as error:
            # a model may raise anything; the server stays up to say so at /readyz
            logger.exception("the model failed to warm up")
            self.readiness.failure = f"{type(error).__name__}: {error}"
        else:
            self.readiness.warm = True
            logger.info("the engine %s is warm", self.studio.engine.name)
