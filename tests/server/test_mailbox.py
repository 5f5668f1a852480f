"""The bounded boxes: what they keep, what they drop, what they count, and that threads may use them."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from server.mailbox import LatestFrame, OldestOut, VoiceLine
from svp_stream.packets import AudioChunk, Frame


def frame(pts: int) -> Frame:
    return Frame(pts, np.zeros((2, 2, 3), np.uint8))


def test_the_oldest_is_dropped_counted_and_told() -> None:
    box: OldestOut[int] = OldestOut(3)
    for item in range(5):
        box.put(item)
    assert len(box) == 3 and box.dropped == 2 and box.take_lost() == 2 and box.take_lost() == 0
    assert box.take(2) == [2, 3] and box.take(9) == [4] and box.take(9) == []


def test_all_that_was_lost_is_accounted_for_however_long_nobody_looked() -> None:
    box: OldestOut[str] = OldestOut(2, weigh=len)
    for _ in range(1000):
        box.put("abc")
    assert box.dropped == 998 and box.take_lost() == 3 * 998


def test_a_box_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        OldestOut[int](0)


async def test_the_latest_frame_wins() -> None:
    box = LatestFrame(asyncio.get_running_loop())
    for pts in (0, 1, 2):
        box.put(frame(pts))
    assert (await box.get()).pts == 2 and box.dropped == 2 and box.passed == 1
    waiting = asyncio.create_task(box.get())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    threading.Thread(target=box.put, args=(frame(7),)).start()
    assert (await asyncio.wait_for(waiting, 2.0)).pts == 7


async def test_frames_from_a_busy_thread_come_in_order() -> None:
    box = LatestFrame(asyncio.get_running_loop())

    def make() -> None:
        for pts in range(2000):
            box.put(frame(pts))

    thread = threading.Thread(target=make)
    thread.start()
    seen: list[int] = []
    while not seen or seen[-1] != 1999:
        seen.append((await asyncio.wait_for(box.get(), 5.0)).pts)
    thread.join()
    assert seen == sorted(set(seen)) and box.dropped + len(seen) == 2000


def test_a_frame_for_a_closed_loop_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    box = LatestFrame(loop)
    loop.close()
    box.put(frame(0))
    assert box.dropped == 1


def test_the_voice_line_gives_back_what_was_written_and_silence_around_it() -> None:
    line = VoiceLine(1000)
    samples = np.arange(1, 2501, dtype=np.float32)
    for start in range(0, 2500, 700):
        line.write(AudioChunk(start, samples[start : start + 700], 48_000))
    assert np.array_equal(line.read(1600, 900), samples[1600:2500])
    assert np.array_equal(line.read(2450, 100), np.r_[samples[2450:], np.zeros(50)])
    assert not line.read(0, 900).any(), "too long ago"
    assert not line.read(9000, 10).any(), "not yet"


def test_a_chunk_longer_than_the_line() -> None:
    line = VoiceLine(100)
    line.write(AudioChunk(0, np.arange(1000, dtype=np.float32), 48_000))
    assert np.array_equal(line.read(900, 100), np.arange(900, 1000))
