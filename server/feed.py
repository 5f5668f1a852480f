"""The pictures of one live session: each frame is encoded once for each (codec, layout) and sent to all who watch.

In: frames of the inference thread. Out: `EncodedPicture`s in the bounded queue of each viewer.
Remembers: one waiting frame for each encoding (the latest wins), the encodings that somebody watches.
Latency: the encoding; frames made late in a row are kept apart (`pacing.Spacing`), by waiting before the encoder.

    inference thread: put ─▶ [latest frame] ─▶ encoder thread: compose ▸ scale ▸ encode ─▶ loop: N queues
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from server.encoding import Converter, EncodedPicture, KeyGate, PictureCodec, RateRule, open_codec, shared_rate
from server.pacing import MediaClock, Spacing, Thinning
from server.press import Press
from svp_stream.clock import FRAME_TICKS, ticks_to_ms
from svp_stream.config import Media
from svp_stream.packets import Frame
from svp_stream.pipeline import compose

logger = logging.getLogger(__name__)

LAYOUTS: Final = ("plain", "packed")
QUEUE_PICTURES: Final = 12
"""Half a second: a viewer that takes none in that time begins again with a key frame."""
MOST_FAILURES: Final = 3


class FeedEnded(Exception):
    """There will be no further picture for this viewer."""


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


@dataclass(frozen=True, slots=True)
class Encoded:
    """Totals over all encodings of a feed, those that have ended included; `spent_ms` is the encoders' wall time."""

    pictures: int = 0
    keys: int = 0
    spent_ms: float = 0.0


class Viewing:
    """One viewer of a shared encoding. Loop thread only."""

    def __init__(self, encoding: Encoding) -> None:
        self.dropped = 0
        """Pictures left out because the viewer did not take them in time, or came before its first key frame."""
        self.estimate_bits: int | None = None
        self._encoding = encoding
        self._queue: deque[EncodedPicture] = deque()
        self._ready = asyncio.Event()
        self._needs_key = True
        self._ended = False

    @property
    def codec(self) -> str:
        """`vp8` or `h264`."""
        return self._encoding.codec

    @property
    def waiting(self) -> int:
        """Pictures that the viewer has not taken."""
        return len(self._queue)

    async def recv(self) -> EncodedPicture:
        """The next picture, the first one a key frame; raises `FeedEnded` when there will be none."""
        while not self._queue:
            if self._ended:
                raise FeedEnded
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()

    def ask_key(self) -> None:
        """The viewer cannot go on without a key frame (PLI, FIR)."""
        self._encoding.ask_key()

    def estimate(self, bits_per_second: int) -> None:
        """The viewer's receiver estimates this much room (REMB)."""
        self.estimate_bits = bits_per_second
        self._encoding.weigh()

    def close(self) -> None:
        """Watch no more; idempotent. The encoding ends with its last viewer."""
        self.end()
        self._encoding.leave(self)

    def put(self, picture: EncodedPicture) -> None:
        """From the encoding."""
        if len(self._queue) >= QUEUE_PICTURES:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._needs_key = True
        if self._needs_key and not picture.key:
            self.dropped += 1
            self._encoding.ask_key()
            return
        self._needs_key = False
        self._queue.append(picture)
        self._ready.set()

    def end(self) -> None:
        """From the encoding: nothing will come any more."""
        self._ended = True
        self._queue.clear()
        self._ready.set()


class Encoding:
    """One (codec, layout) of a feed. `offer` for the inference thread, `run` for the encoder thread, the rest for the
    loop."""

    def __init__(self, feed: PictureFeed, codec: str, layout: str) -> None:
        self.codec, self.layout = codec, layout
        self.viewers: tuple[Viewing, ...] = ()
        self.pictures = 0
        self.keys = 0
        self.superseded = 0
        self.spent_ms = 0.0
        """Wall milliseconds of the encoder thread since the encoding began."""
        self._feed = feed
        self._ceiling = feed.media.video_kbps * 1000
        self._wish = shared_rate([], self._ceiling)
        self._rule = RateRule(self._wish)
        self._gate = KeyGate()
        self._spacing = Spacing()
        self._converter = Converter(feed.media.size)
        self._encoder: PictureCodec | None = None
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._last_pts = -1
        self._failures = 0

    @property
    def bits(self) -> int:
        """The bit rate that the encoder is set to."""
        return self._rule.bits

    @property
    def wish(self) -> int:
        """The bit rate that the viewers' estimates allow (see `encoding.shared_rate`)."""
        return self._wish

    def offer(self, frame: Frame, now_s: float) -> None:
        """The newest frame takes the place of one that still waits."""
        with self._lock:
            self.superseded += self._frame is not None
            self._frame = frame
        self._feed.press.submit(self, now_s + self._spacing.wait(now_s))

    def ask_key(self) -> None:
        """The next picture, or the next after `KEY_GAP_S`, shall be a key frame."""
        self._gate.ask()

    def weigh(self) -> None:
        """Decide anew on the bit rate; the encoder thread follows."""
        self._wish = shared_rate([v.estimate_bits for v in self.viewers], self._ceiling)

    def leave(self, viewing: Viewing) -> None:
        """A viewer has gone."""
        self.viewers = tuple(v for v in self.viewers if v is not viewing)
        if self.viewers:
            self.weigh()
        else:
            self._feed.forget(self)

    def run(self, now_s: float) -> None:
        """Encode the frame that waits."""
        with self._lock:
            frame, self._frame = self._frame, None
        if frame is None or frame.pts <= self._last_pts:
            return
        self._last_pts = frame.pts
        self._spacing.sent(now_s)
        try:
            picture = self._encode(frame, now_s)
        except Exception:
            # a codec may raise anything: it is opened anew, and given up when that does not help
            logger.exception("a picture could not be encoded as %s", self.codec)
            self._encoder, self._failures = None, self._failures + 1
            if self._failures >= MOST_FAILURES:
                self._feed.post(self._end)
            return
        self._failures = 0
        self.spent_ms += (time.monotonic() - now_s) * 1000
        if picture is not None:
            self._feed.post(lambda: self._deliver(picture))

    def _encode(self, frame: Frame, now_s: float) -> EncodedPicture | None:
        packed = self.layout == "packed"
        rgb = compose.packed(frame) if packed else compose.plain(frame, self._feed.background)
        picture = self._converter.convert(rgb, frame.pts, halves=2 if packed else 1)
        if self._encoder is None:
            self._encoder = open_codec(self.codec, self._rule.bits, self._ceiling)
        self._retune(self._encoder, now_s)
        data, key = self._encoder.encode(picture, self._gate.due(now_s))
        if not data:
            return None
        if key:
            self._gate.made(now_s)
            self.keys += 1
        self._rule.spent(now_s, len(data))
        self.pictures += 1
        return EncodedPicture(self.codec, frame.pts, data, key, self.pictures & 0x7FFF, frame.level)

    def _retune(self, encoder: PictureCodec, now_s: float) -> None:
        if self.codec == "h264":
            bits = self._rule.follow(now_s, self._wish, self._ceiling)
        else:
            bits = self._rule.decide(now_s, self._wish)
        if bits is not None:
            encoder.retune(bits)

    def _deliver(self, picture: EncodedPicture) -> None:
        for viewing in self.viewers:
            viewing.put(picture)
        if self.viewers:
            self._feed.left(picture)

    def _end(self) -> None:
        for viewing in self.viewers:
            viewing.end()


class PictureFeed:
    """All encodings of one live session."""

    def __init__(self, clock: MediaClock, press: Press, media: Media) -> None:
        self.press = press
        self.media = media
        self.background: compose.Background | None = None
        """What stands behind the person in the layout "plain"; may be replaced at any time."""
        self.made = 0
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._thinning = Thinning(media.fps)
        self._taps: tuple[Callable[[Frame], None], ...] = ()
        self._encodings: dict[tuple[str, str], Encoding] = {}
        self._superseded = 0
        self._ended = Encoded()
        self._shown = Shown()
        self._last_left = -1

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        """What is being encoded now."""
        return tuple(self._encodings.values())

    @property
    def superseded(self) -> int:
        """Frames that a newer one overtook before the encoder came to them."""
        return self._superseded + sum(e.superseded for e in self.encodings)

    @property
    def viewers(self) -> int:
        """How many watch."""
        return sum(len(e.viewers) for e in self.encodings)

    @property
    def waiting(self) -> int:
        """Pictures in the queues of all viewers."""
        return sum(v.waiting for e in self.encodings for v in e.viewers)

    def encoded(self) -> Encoded:
        """Totals since the session began."""
        return self._plus(self.encodings)

    def _plus(self, encodings: Iterable[Encoding]) -> Encoded:
        total = self._ended
        for e in encodings:
            total = Encoded(total.pictures + e.pictures, total.keys + e.keys, total.spent_ms + e.spent_ms)
        return total

    def put(self, frame: Frame) -> None:
        """From the inference thread; never waits."""
        self.made += 1
        for tap in self._taps:
            tap(frame)
        encodings = self.encodings
        if encodings and self._thinning.keeps(frame.pts):
            now = time.monotonic()
            for encoding in encodings:
                encoding.offer(frame, now)

    def tap(self, hear: Callable[[Frame], None]) -> Callable[[], None]:
        """Every frame as it is made, on the inference thread: `hear` must not wait. Returns what ends it."""
        self._taps = (*self._taps, hear)

        def untap() -> None:
            self._taps = tuple(t for t in self._taps if t is not hear)

        return untap

    def watch(self, codec: str, layout: str = "plain") -> Viewing:
        """One more viewer; raises ValueError for an unknown codec or layout."""
        if layout not in LAYOUTS:
            raise ValueError(f"there is no layout {layout!r}; there are {', '.join(LAYOUTS)}")
        encoding = self._encodings.get((codec, layout)) or Encoding(self, codec, layout)
        viewing = Viewing(encoding)
        encoding.viewers = (*encoding.viewers, viewing)
        encoding.ask_key()
        encoding.weigh()
        self._encodings = {**self._encodings, (codec, layout): encoding}
        return viewing

    def take_shown(self) -> Shown:
        """Counts since the last call."""
        shown, self._shown = self._shown, Shown(level=self._shown.level)
        return shown

    def close(self) -> None:
        """End every viewing."""
        for encoding in self.encodings:
            for viewing in encoding.viewers:
                viewing.close()

    def forget(self, encoding: Encoding) -> None:
        """From an encoding that nobody watches any more."""
        if self._encodings.get((encoding.codec, encoding.layout)) is encoding:
            self._superseded += encoding.superseded
            self._ended = self._plus([encoding])
            self._encodings = {k: e for k, e in self._encodings.items() if e is not encoding}
            self.press.withdraw(encoding)

    def left(self, picture: EncodedPicture) -> None:
        """From an encoding: a picture is on its way; the first of each frame counts."""
        if picture.pts <= self._last_left:
            return
        self._last_left = picture.pts
        delay_ms = ticks_to_ms(self._clock.at(time.monotonic()) - picture.pts - FRAME_TICKS // 2)
        shown = self._shown
        shown.frames += 1
        shown.level = picture.level
        shown.delay_ms += delay_ms
        shown.worst_ms = max(shown.worst_ms, delay_ms)

    def post(self, call: Callable[[], None]) -> None:
        """From any thread into the loop; a loop that has closed needs no pictures."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            logger.debug("pictures for a loop that has closed")
