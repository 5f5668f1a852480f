"""One viewer's outgoing picture: what the session's encoding has made, as it comes.

In: `EncodedPicture`s of a `Viewing`. Out: the same, for `seams.send_packed`. Remembers: its viewing. Latency: none.
"""

from __future__ import annotations

from collections.abc import Callable

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.encoding import EncodedPicture
from server.feed import FeedEnded, PictureFeed, Viewing


class AvatarTrack(MediaStreamTrack):  # type: ignore[misc]
    """A track of encoded pictures; it watches from the first `recv` on, that is once its connection stands."""

    kind = "video"

    def __init__(self, feed: PictureFeed, layout: str, on_end: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.codec = "vp8"
        """What was negotiated; set it before the connection stands."""
        self.viewing: Viewing | None = None
        self._feed = feed
        self._layout = layout
        self._on_end = on_end

    async def recv(self) -> EncodedPicture:
        """The next picture; raises `MediaStreamError` after `stop` and when the feed has ended."""
        if self.readyState != "live":
            raise MediaStreamError
        if self.viewing is None:
            self.viewing = self._feed.watch(self.codec, self._layout)
        try:
            return await self.viewing.recv()
        except FeedEnded:
            self._on_end()
            raise MediaStreamError from None

    def estimate(self, bits_per_second: int) -> None:
        """The receiver's estimate of the room on the way (REMB)."""
        if self.viewing is not None:
            self.viewing.estimate(bits_per_second)

    def ask_key(self) -> None:
        """The receiver has lost its reference (PLI, FIR)."""
        if self.viewing is not None:
            self.viewing.ask_key()

    def stop(self) -> None:
        """End, also for the feed."""
        super().stop()
        if self.viewing is not None:
            self.viewing.close()
