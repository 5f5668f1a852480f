"""The whole server put together: rooms, their start and their end.

In: a studio and the settings of a profile. Out: an application to be served.
Remembers: the inference and encoder threads while the server runs. The model warms up in the former, and `/healthz`
answers meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import FastAPI

from server import census, seams
from server.admission import Admission
from server.app import Rooms, create_app
from server.health import Census, Metrics, Readiness
from server.ice import Ice
from server.limits import Rates
from server.live import Limits
from server.press import Press
from server.security import Guard
from server.signaling import Signaling
from server.studio import Studio
from server.uploads import UploadShelf
from server.worker import Worker
from svp_stream.config import Media, Server

logger = logging.getLogger(__name__)

DRAIN_LOOK_S = 0.1
LOOK_S = 1.0
MIN_BURST = 20
"""Requests at once that any address may make: a studio opens its pages together."""


class House:
    """One server: `app` serves it, `lifespan` brings it up and down."""

    def __init__(
        self, studio: Studio, guard: Guard, *, capacity: int, media: Media | None = None, limits: Limits | None = None,
        echo: bool = False, settings: Server | None = None, paths: Ice | None = None,
    ) -> None:
        settings = settings or Server(budget="off")
        self.admission = Admission(auto=settings.budget == "auto")
        uploads = UploadShelf(studio.shelf, studio.engine.prior, studio.engine.style_dim)
        self.studio = studio = replace(studio, shelf=uploads)
        self.worker = Worker()
        self.press = Press()
        self.readiness = Readiness()
        self.metrics = Metrics(capacity)
        self.signaling = Signaling(
            studio, self.worker, self.press, self.readiness, self.metrics, capacity=capacity,
            media=media or Media(), limits=limits or Limits(), echo=echo,
            admission=self.admission, paths=paths or Ice(),
        )  # fmt: skip
        self.metrics.watch_paths(self.signaling.paths.problems)
        rates = Rates(settings.posts_per_minute, max(MIN_BURST, settings.posts_per_minute // 4))
        rooms = Rooms(studio, self.signaling, self.readiness, self.metrics, guard, rates, uploads, self.census)
        self.companions: list[Callable[[], Coroutine[Any, Any, None]]] = []
        """What runs beside the server from its start to its end; each handles its own failures."""
        self.url: str | None = None
        """Where the page is, once the server listens."""
        self.app: FastAPI = create_app(rooms, self.lifespan)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Start the threads and the warming-up; at the end close every session, then the threads."""
        seams.expect_hang_ups(asyncio.get_running_loop())
        self.worker.start()
        self.press.start()
        warming = asyncio.create_task(self._warm(), name="warm")
        looking = asyncio.create_task(self._look(), name="look")
        beside = [asyncio.create_task(companion(), name="companion") for companion in self.companions]
        try:
            yield
        finally:
            gc.unfreeze()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self.signaling.shut()
            warming.cancel()
            looking.cancel()
            await asyncio.gather(warming, looking, return_exceptions=True)
            if not await asyncio.to_thread(self.press.stop):
                logger.warning("the encoder thread is still at a picture; it ends with the process")
            if not await asyncio.to_thread(self.worker.stop):
                logger.warning("the inference thread is still in a turn; it ends with the process")

    def census(self) -> Census:
        """Who is here."""
        return census.take(self.signaling, self.admission)

    async def drain(self, seconds: float) -> None:
        """Take nobody new, tell everybody, and wait until all have gone, at most so long. A second time: no wait."""
        if self.readiness.draining:
            return
        self.readiness.draining = True
        lives = self.signaling.registry.holders()
        logger.info("draining: %d sessions may go on for %.0f s", len(lives), seconds)
        for live in lives:
            live.desk.tell("draining", seconds=seconds)
        for _ in range(round(seconds / DRAIN_LOOK_S)):
            if not len(self.signaling.registry):
                return
            await asyncio.sleep(DRAIN_LOOK_S)
        logger.info("draining: %d sessions are still there and are ended", len(self.signaling.registry))

    async def _look(self) -> None:
        """Once a second: whether the ladder is at its end, and whether somebody has gone."""
        swept = 0
        while True:
            await asyncio.sleep(LOOK_S)
            self.readiness.strain.look(census.levels(self.signaling.registry.holders()))
            gone = self.signaling.registry.released + self.signaling.lines.released
            if gone != swept and self.readiness.warm:
                # a connection is a knot of references, with native threads and buffers on it: cut it now, while the
                # heap is small (see `_warm`), rather than whenever the interpreter thinks of it
                swept = gone
                gc.collect()

    async def _warm(self) -> None:
        try:
            await asyncio.wrap_future(self.worker.ask(self.studio.engine.warm))
            self.admission.rehearsed(await asyncio.wrap_future(self.worker.ask(self.studio.rehearse)))
        except Exception as error:
            # a model may raise anything; the server stays up to say so at /readyz
            logger.exception("the model failed to warm up")
            self.readiness.failure = f"{type(error).__name__}: {error}"
        else:
            # what is here now is here to stay: no later collection has to look at it
            gc.collect()
            gc.freeze()
            self.readiness.warm = True
            logger.info("the engine %s is warm", self.studio.engine.name)
