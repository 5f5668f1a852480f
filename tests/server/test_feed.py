"""Encode once, send to many: who gets which picture, what is dropped, and when encodings begin and end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from server.encoding import EncodedPicture
from server.feed import QUEUE_PICTURES, FeedEnded, PictureFeed
from server.pacing import MediaClock
from server.press import Press
from svp_stream.clock import FRAME_TICKS
from svp_stream.config import Media
from svp_stream.packets import Frame
from tests.fakes.engines import draw
from tests.fakes.peers import until


@pytest.fixture
async def press() -> AsyncIterator[Press]:
    made = Press()
    made.start()
    yield made
    assert await asyncio.to_thread(made.stop)


def feed_of(press: Press, **media: object) -> PictureFeed:
    return PictureFeed(MediaClock(time.monotonic()), press, Media.model_validate(media))


def frame(number: int) -> Frame:
    return Frame(number * FRAME_TICKS, draw(number, 0.3), np.full((128, 128), 99, np.uint8), level=2)


async def play(feed: PictureFeed, first: int, count: int, pause_s: float = 0.03) -> None:
    for number in range(first, first + count):
        feed.put(frame(number))
        await asyncio.sleep(pause_s)


async def test_twenty_viewers_cost_one_encoding(press: Press) -> None:
    feed = feed_of(press)
    viewings = [feed.watch("vp8") for _ in range(20)]
    await play(feed, 0, 10)
    pictures = [await asyncio.wait_for(v.recv(), 5.0) for v in viewings]
    assert all(p is pictures[0] for p in pictures) and pictures[0].key and pictures[0].level == 2
    (encoding,) = feed.encodings
    assert encoding.pictures + encoding.superseded <= feed.made == 10 and encoding.keys == 1
    assert feed.take_shown().frames == encoding.pictures, "frames are counted, not viewers"
    for viewing in viewings:
        viewing.close()
        viewing.close()
    assert feed.encodings == ()
    feed.put(frame(20))
    assert feed.take_shown().frames == 0, "nobody watches: nothing is encoded"


async def test_who_comes_late_begins_with_a_key_frame(press: Press) -> None:
    feed = feed_of(press)
    first, seen = feed.watch("vp8"), []

    async def look() -> None:
        while True:
            seen.append(await first.recv())

    looking = asyncio.create_task(look())
    await play(feed, 0, 5)
    late = feed.watch("vp8")
    await play(feed, 5, 20)
    assert (await asyncio.wait_for(late.recv(), 5.0)).key and late.dropped > 0
    (encoding,) = feed.encodings
    assert encoding.keys == 2 and [p.key for p in seen].count(True) == 2
    assert all(b.number == a.number + 1 for a, b in zip(seen, seen[1:], strict=False))
    feed.close()
    with pytest.raises(FeedEnded):
        await looking


async def test_a_viewer_that_takes_nothing_loses_all_and_goes_on_with_a_key_frame(press: Press) -> None:
    feed = feed_of(press)
    sleeper = feed.watch("vp8")
    (encoding,) = feed.encodings
    made = [EncodedPicture("vp8", i * FRAME_TICKS, b"x", key=i in (0, 20)) for i in range(30)]
    for picture in made:
        sleeper.put(picture)
    assert (await sleeper.recv()).pts == 20 * FRAME_TICKS
    assert sleeper.dropped == 20 and encoding._gate.due(0.0), "12 at the overflow, the rest for want of a key frame"
    assert len(sleeper._queue) == 9 <= QUEUE_PICTURES
    feed.close()
    with pytest.raises(FeedEnded):
        await sleeper.recv()


async def test_fewer_frames_are_left_out_evenly_and_stamps_stay(press: Press) -> None:
    feed = feed_of(press, fps=10, size=64)
    viewing = feed.watch("h264", "packed")
    await play(feed, 0, 26)
    await until(lambda: feed.encodings[0].pictures >= 11, "pictures")
    pts = [(await viewing.recv()).pts // FRAME_TICKS for _ in range(11)]
    assert pts == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25]
    feed.close()


@pytest.mark.parametrize(("codec", "layout", "words"), [("vp8", "round", "plain, packed"), ("vp8", "", "layout")])
async def test_unknown_layouts(press: Press, codec: str, layout: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        feed_of(press).watch(codec, layout)


async def test_a_codec_that_fails_ends_its_viewers_and_no_other(press: Press, caplog: pytest.LogCaptureFixture) -> None:
    feed = feed_of(press)
    broken, healthy = feed.watch("broken"), feed.watch("vp8")
    await play(feed, 0, 6)
    with pytest.raises(FeedEnded):
        await asyncio.wait_for(broken.recv(), 5.0)
    assert (await asyncio.wait_for(healthy.recv(), 5.0)).key
    assert sum("could not be encoded" in r.message for r in caplog.records) >= 3
    feed.close()


async def test_estimates_of_the_viewers_set_the_rate(press: Press) -> None:
    feed = feed_of(press, video_kbps=1500)
    viewing, other = feed.watch("h264"), feed.watch("h264")
    viewing.estimate(600_000)
    await play(feed, 0, 4)
    (encoding,) = feed.encodings
    await until(lambda: encoding.bits == 600_000, "the rate of the slower")
    viewing.close()
    other.estimate(1_400_000)
    await play(feed, 4, 4)
    await until(lambda: encoding.bits == 1_400_000, "the rate of who is left")
    feed.close()


async def test_raw_frames_can_be_tapped(press: Press) -> None:
    feed, seen = feed_of(press), list[Frame]()
    untap = feed.tap(seen.append)
    feed.put(frame(3))
    untap()
    feed.put(frame(4))
    assert [f.pts for f in seen] == [3 * FRAME_TICKS]


class Noted:
    """A job that notes when it ran."""

    def __init__(self) -> None:
        self.ran: list[float] = []
        self.done = threading.Event()

    def run(self, now_s: float) -> None:
        self.ran.append(now_s)
        self.done.set()
        if len(self.ran) == 1:
            raise RuntimeError("jobs may fail")


def test_the_press_waits_until_a_job_is_due_and_survives_its_failure(caplog: pytest.LogCaptureFixture) -> None:
    press, job, withdrawn = Press(), Noted(), Noted()
    start = time.monotonic()
    press.submit(job, start + 0.05)
    press.submit(job, start + 99)
    press.submit(withdrawn, start + 0.05)
    press.withdraw(withdrawn)
    press.start()
    assert job.done.wait(5.0) and job.ran[0] >= start + 0.05
    job.done.clear()
    press.submit(job, 0.0)
    assert job.done.wait(5.0)
    assert press.stop() and len(job.ran) == 2 and withdrawn.ran == []
    assert "an encoding failed" in caplog.text
    assert Press().stop(), "one that never began"
