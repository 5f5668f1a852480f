"""What a presenter at this machine needs: a session that the machine's microphone feeds, the avatar as a camera.

In: a wish for a microphone, a virtual camera. Out: a session that lives as long as the server; its id, once it is
there; events `source` for those who listen. Remembers: the session of the moment. Latency: none.

A session that fails is staged anew, under another id: `/obs?session=mic` follows it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from server.health import Readiness
from server.live import Live, SourceTaken
from server.local_mic import LocalMic, Microphones
from server.signaling import Signaling, Wish
from server.whip import WhipError
from svp_stream.errors import SvpError
from svp_stream.packets import Frame
from svp_stream.pipeline.compose import Background

logger = logging.getLogger(__name__)

SOURCE: Final = "mic"
LOOK_S: Final = 0.2
AGAIN_S: Final = 2.0


class Presenter:
    """Keeps a session on stage that `microphones` feed.

    `where` tells the URL of the page once the server listens; each session is said to `say`, with its URL for OBS.
    """

    def __init__(
        self, signaling: Signaling, readiness: Readiness, microphones: Microphones, wish: str,
        where: Callable[[], str | None], say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.mic: LocalMic | None = None
        self._signaling = signaling
        self._readiness = readiness
        self._microphones = microphones
        self._wish = wish
        self._where = where
        self._say = say

    async def run(self) -> None:
        """Until cancelled."""
        while not self._readiness.warm or (url := self._where()) is None:  # noqa: ASYNC110 - two rooms, no common bell
            await asyncio.sleep(LOOK_S)
        while True:
            try:
                live = await self._signaling.stage(Wish())
            except (SvpError, WhipError) as error:
                logger.warning("no session for this machine's microphone: %s", error)
                await asyncio.sleep(AGAIN_S)
                continue
            self._say(f"session {live.id}\nobs {overlay_url(url)}")
            await self._feed(live)
            logger.warning("session %s has ended; another is staged for the microphone", live.key)
            await asyncio.sleep(LOOK_S)

    async def _feed(self, live: Live) -> None:
        """Listen for as long as the session lives."""
        try:
            source = live.take_source(SOURCE)
        except SourceTaken:  # somebody was faster: whoever they are, they have the stage until it ends
            await _end_of(live)
            return

        def say(state: str, words: str) -> None:
            live.desk.tell("source", source=SOURCE, state=state, words=words)

        self.mic = LocalMic(self._microphones, self._wish, source.deliver, say)
        listening = asyncio.create_task(self.mic.run(), name="local mic")
        try:
            await _end_of(live)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            source.release()


def overlay_url(page: str) -> str:
    """The page for OBS, from the URL of the call page, with the token in the fragment. It names the session by its
    source, not by its id, and so outlives the server."""
    base, _, fragment = page.partition("#")
    return f"{base}obs?session=mic" + (f"#{fragment}" if fragment else "")


class Lens(Protocol):
    """As much of a `VirtualCamera` as filming needs."""

    background: Background | None

    def show(self, frame: Frame) -> None:
        """One more frame, on the inference thread; must not wait."""
        ...

    def close(self) -> None:
        """The end; may take a moment."""
        ...


class Filming:
    """Shows the newest session, or the one of a presenter, to a virtual camera."""

    def __init__(self, signaling: Signaling, camera: Lens) -> None:
        self._signaling = signaling
        self._camera = camera

    async def run(self) -> None:
        """Until cancelled; closes the camera at the end."""
        shown: Live | None = None
        untap: Callable[[], None] = lambda: None  # noqa: E731 - what ends showing nobody
        try:
            while True:
                newest = self._chosen()
                if newest is not shown:
                    untap()
                    shown = newest
                    untap = newest.pictures.tap(self._camera.show) if newest is not None else lambda: None
                if shown is not None:
                    self._camera.background = shown.pictures.background
                await asyncio.sleep(LOOK_S)
        finally:
            untap()
            await asyncio.to_thread(self._camera.close)

    def _chosen(self) -> Live | None:
        lives = [live for live in self._signaling.registry.holders() if live.state == "connected"]
        own = [live for live in lives if live.source is not None and live.source.kind == SOURCE]
        return max(own or lives, key=lambda live: live.since_s, default=None)


async def _end_of(live: Live) -> None:
    while live.state != "closing":  # noqa: ASYNC110 - a session tells nobody in particular that it ends
        await asyncio.sleep(LOOK_S)
