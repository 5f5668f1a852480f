"""The bounded boxes: what they keep, what they drop, what they count."""

from __future__ import annotations

import numpy as np
import pytest

from server.mailbox import OldestOut, VoiceLine
from svp_stream.packets import AudioChunk


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


def test_what_is_cleared_away_is_not_lost() -> None:
    box: OldestOut[int] = OldestOut(3)
    for number in range(4):
        box.put(number)
    assert box.clear() == 3 and len(box) == 0 and box.take_lost() == 1 and box.dropped == 1


def test_a_box_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        OldestOut[int](0)


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
