"""The outgoing picture: each frame leaves when it is ready, stamped by the call's media clock.

In: the newest frame of a `LatestFrame` box. Out: `av.VideoFrame`s for aiortc's encoder.
Remembers: when the last one left, its pts, counts of a second. Latency: none; after a stall frames keep apart.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.mailbox import LatestFrame
from server.pacing import MediaClock, Spacing
from svp_stream.clock import FRAME_TICKS, TICKS_PER_SECOND, ticks_to_ms
from svp_stream.packets import Frame

_TIME_BASE: Final = Fraction(1, TICKS_PER_SECOND)


@dataclass(slots=True)
class Shown:
    """What left since the last look: `frames`, the rung of the newest, and the sum of sound-to-picture delays."""

    frames: int = 0
    level: int = 0
    delay_ms: float = 0.0
    worst_ms: float = 0.0

    @property
    def mean_ms(self) -> float | None:
        """Mean delay from a sound to the picture that shows it; None when nothing left."""
        return self.delay_ms / self.frames if self.frames else None


class AvatarTrack(MediaStreamTrack):  # type: ignore[misc]
    """A track of the newest frames."""

    kind = "video"

    def __init__(self, clock: MediaClock, box: LatestFrame) -> None:
        super().__init__()
        self._clock = clock
        self._box = box
        self._spacing = Spacing()
        self._last_pts = -1
        self._shown = Shown()

    async def recv(self) -> av.VideoFrame:
        """The next frame, later than the last in `pts`; raises `MediaStreamError` after `stop`."""
        while True:
            if self.readyState != "live":
                raise MediaStreamError
            frame = await self._box.get()
            wait_s = self._spacing.wait(time.monotonic())
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                if self._box.peek():
                    continue
            if frame.pts > self._last_pts:
                return self._leave(frame)

    def take_shown(self) -> Shown:
        """Counts since the last call."""
        shown, self._shown = self._shown, Shown(level=self._shown.level)
        return shown

    def _leave(self, frame: Frame) -> av.VideoFrame:
        now = time.monotonic()
        delay_ms = ticks_to_ms(self._clock.at(now) - frame.pts - FRAME_TICKS // 2)
        self._spacing.sent(now)
        self._last_pts = frame.pts
        self._shown.frames += 1
        self._shown.level = frame.level
        self._shown.delay_ms += delay_ms
        self._shown.worst_ms = max(self._shown.worst_ms, delay_ms)
        picture = av.VideoFrame.from_ndarray(frame.rgb, format="rgb24")
        picture.pts, picture.time_base = frame.pts, _TIME_BASE
        return picture
