"""Where chunks belong: holes, repeats, jumps, and what is no sound at all."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.audio.timeline import Timeline
from svp_stream.errors import StreamError
from svp_stream.packets import AudioChunk


def chunk(pts: int, n: int = 320, rate_hz: int = 16_000) -> AudioChunk:
    return AudioChunk(pts, np.linspace(0, (n - 1) / 1000, n, dtype=np.float32), rate_hz)


def test_chunks_that_join_on_are_taken_whole() -> None:
    line = Timeline(16_000)
    first, second = line.place(chunk(7)), line.place(chunk(7 + 960))
    assert (first.pts, first.restart, first.silence, len(first.samples)) == (7, True, 0, 320)
    assert (second.pts, second.restart, second.silence, len(second.samples)) == (967, False, 0, 320)


def test_a_small_hole_is_silence_and_a_large_one_a_new_stream() -> None:
    line = Timeline(16_000, fill_ticks=9600)
    line.place(chunk(0))
    filled = line.place(chunk(960 + 9600))
    assert (filled.pts, filled.restart, filled.silence) == (960, False, 3200)
    jumped = line.place(chunk(960 + 9600 + 960 + 9603))
    assert (jumped.pts, jumped.restart, jumped.silence) == (21_123, True, 0)


@pytest.mark.parametrize("jitter", [-2, -1, 1, 2])
def test_stamps_may_jitter_by_less_than_a_sample(jitter: int) -> None:
    line = Timeline(16_000)
    line.place(chunk(0))
    placed = line.place(chunk(960 + jitter))
    assert (placed.pts, placed.silence, len(placed.samples)) == (960, 0, 320)
    assert line.place(chunk(1920)).silence == 0


def test_what_was_heard_already_is_cut_off() -> None:
    line = Timeline(16_000)
    line.place(chunk(0))
    placed = line.place(chunk(900))
    assert placed.pts == 960 and len(placed.samples) == 300 and placed.samples[0] == chunk(0).samples[20]
    assert not len(line.place(chunk(900)).samples)
    assert line.place(chunk(960 + 900)).silence == 0


def test_time_that_runs_back_is_an_error() -> None:
    line = Timeline(16_000)
    line.place(chunk(5000))
    with pytest.raises(StreamError, match=r"tick 4999 comes after sound at tick 5000; pts must not fall"):
        line.place(chunk(4999))


def test_reset_and_close() -> None:
    line = Timeline(16_000)
    line.place(chunk(5000))
    line.close()
    with pytest.raises(StreamError, match="reset"):
        line.place(chunk(5960))
    line.reset()
    assert line.place(chunk(0)).restart


@pytest.mark.parametrize(("bad", "says"), [
    (AudioChunk(3, np.zeros(4, np.float32), 48_000), "48000 Hz; this stage takes 16000 Hz"),
    (AudioChunk(3, np.zeros((4, 1), np.float32), 16_000), r"float32 \(4, 1\)"),
    (AudioChunk(3, np.zeros(4, np.float64), 16_000), "float64"),
    (AudioChunk(3, np.array([0, np.nan], np.float32), 16_000), "not finite"),
    (AudioChunk(3, np.array([np.inf], np.float32), 16_000), "not finite"),
], ids=["rate", "shape", "type", "nan", "inf"])
def test_what_is_no_sound_is_refused_and_harms_nothing(bad: AudioChunk, says: str) -> None:
    line = Timeline(16_000)
    line.place(chunk(0))
    with pytest.raises(StreamError, match=says):
        line.place(bad)
    assert line.place(chunk(960)).silence == 0


def test_an_empty_chunk_is_nothing() -> None:
    line = Timeline(16_000)
    assert line.place(chunk(0, 0)).restart
    assert not line.place(chunk(0)).restart


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="fill_ticks"):
        Timeline(16_000, -1)
