"""The media clock and what hangs on it, with wall time as an argument."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.pacing import (
    LEAD_TICKS,
    PACKET_TICKS,
    SLACK_TICKS,
    STALL_TICKS,
    Intake,
    MediaClock,
    Playhead,
    Spacing,
    Thinning,
)
from svp_stream.clock import TICKS_PER_SECOND
from svp_stream.packets import AudioChunk

TONE = np.full(960, 0.5, np.float32)


def whole(chunks: list[AudioChunk]) -> bool:
    """Whether each chunk begins where the last ended, from 0."""
    return all(c.pts == p for c, p in zip(chunks, [0, *(c.end for c in chunks)], strict=False))


def test_punctual_packets_go_through_untouched() -> None:
    intake = Intake(MediaClock(0.0))
    chunks = [c for i in range(50) for c in intake.hear((i + 1) * 0.02, i * 960, TONE)]
    assert len(chunks) == 50 and whole(chunks) and all(c.samples is TONE for c in chunks)
    assert intake.filled == 0 and intake.dropped == 0 and intake.behind(1.0) == 0


def test_without_a_microphone_wall_time_feeds_silence() -> None:
    intake = Intake(MediaClock(10.0))
    chunks = [c for i in range(300) for c in intake.idle(10.0 + i * 0.01)]
    assert whole(chunks) and not any(c.samples.any() for c in chunks)
    assert abs(intake.behind(13.0)) <= 2 * PACKET_TICKS


def test_a_packet_that_is_lost_leaves_silence_in_its_place() -> None:
    intake = Intake(MediaClock(0.0))
    arrived = [i for i in range(20) if i not in (7, 8)]
    chunks = [c for i in arrived for c in intake.hear((i + 1) * 0.02, i * 960, TONE)]
    assert whole(chunks) and intake.filled == 2 * 960
    assert chunks[-1].end == 20 * 960, "what follows keeps its place"


def test_jitter_is_no_loss() -> None:
    intake = Intake(MediaClock(0.0))
    late = itertools.cycle([0.0, 0.03, 0.015, 0.05])
    chunks = [c for i in range(100) for c in intake.hear((i + 1) * 0.02 + next(late), i * 960, TONE)]
    assert whole(chunks) and intake.dropped == 0 and intake.filled <= 960 * 3


def test_a_burst_after_a_network_stall_does_not_run_ahead_of_time() -> None:
    intake = Intake(MediaClock(0.0))
    for i in range(10):
        intake.hear((i + 1) * 0.02, i * 960, TONE)
    now = 0.2
    while now < 0.7:
        now += 0.01
        intake.idle(now)
    for i in range(10, 35):
        intake.hear(0.7, i * 960, TONE)
    assert intake.fed - intake.clock.at(0.7) <= LEAD_TICKS and intake.dropped >= 20
    steady = [len(intake.hear(0.7 + (i - 34) * 0.02, i * 960, TONE)) for i in range(35, 100)]
    assert sum(steady) >= 60, "after the burst the microphone is heard again"


def test_sound_thrown_away_by_us_lets_media_time_stand_still() -> None:
    intake = Intake(MediaClock(0.0))
    for i in range(10):
        intake.hear((i + 1) * 0.02, i * 960, TONE)
    intake.skip(25 * 960)
    chunks = intake.hear(36 * 0.02, 35 * 960, TONE)
    assert [c.pts for c in chunks] == [9600] and intake.filled == 0 and intake.behind(36 * 0.02) == 0


def test_after_a_stall_of_our_own_there_is_no_second_of_silence_to_make_up() -> None:
    intake = Intake(MediaClock(0.0))
    intake.idle(0.02)
    fed = sum(len(c.samples) for c in intake.idle(5.0))
    assert fed <= STALL_TICKS and intake.behind(5.0) <= PACKET_TICKS


def test_mute_keeps_time_and_loses_sound() -> None:
    intake = Intake(MediaClock(0.0), muted=True)
    (chunk,) = intake.hear(0.02, 0, TONE)
    assert len(chunk.samples) == 960 and not chunk.samples.any()


def test_drift_of_a_fast_microphone_is_taken_up_without_drops() -> None:
    intake = Intake(MediaClock(0.0))
    for i in range(30_000):  # ten minutes, 300 ppm fast
        intake.hear((i + 1) * 0.02 / 1.0003, i * 960, TONE)
    assert intake.dropped == 0 and abs(intake.behind(30_000 * 0.02 / 1.0003)) < PACKET_TICKS


def test_drift_of_a_slow_microphone_is_filled_now_and_then() -> None:
    intake = Intake(MediaClock(0.0))
    for i in range(30_000):  # ten minutes, 300 ppm slow
        now = (i + 1) * 0.02 * 1.0003
        intake.idle(now)
        intake.hear(now, i * 960, TONE)
    assert 0 <= intake.behind(30_000 * 0.02 * 1.0003) <= SLACK_TICKS
    assert intake.filled <= 0.0004 * 600 * TICKS_PER_SECOND


packets = st.lists(
    st.tuples(st.floats(0, 0.3), st.integers(0, 3000), st.integers(0, 20_000), st.booleans()), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(packets)
def test_whatever_comes_the_line_is_whole_and_near_the_clock(script: list[tuple[float, int, int, bool]]) -> None:
    intake, now, mic, chunks = Intake(MediaClock(0.0)), 0.0, 0, []
    for pause, length, jump, heard in script:
        now += pause
        if heard:
            mic += jump
            chunks += intake.hear(now, mic, np.ones(length, np.float32))
            mic += length
        else:
            chunks += intake.idle(now)
        assert intake.fed - intake.clock.at(now) <= LEAD_TICKS + 3000
    chunks += intake.idle(now)
    assert whole(chunks) and intake.behind(now) <= max(SLACK_TICKS, STALL_TICKS)


def test_the_voice_leaves_after_the_delay_and_every_20_ms() -> None:
    clock = MediaClock(100.0)
    head = Playhead(clock, delay=4800)
    steps = []
    now = 100.0
    for _ in range(5):
        pts, wait = head.step(now)
        now += wait
        steps.append((pts, round(now - 100.0, 6)))
    assert steps == [(0, 0.12), (960, 0.14), (1920, 0.16), (2880, 0.18), (3840, 0.2)]


def test_the_voice_skips_whole_packets_after_a_stall_and_does_not_burst() -> None:
    clock = MediaClock(0.0)
    head = Playhead(clock, delay=0)
    head.step(0.0)
    pts, wait = head.step(1.0)
    assert pts % 960 == 0 and clock.at(1.0) - pts < 2 * 960 and wait <= 0.02 and head.skipped > 40
    assert head.step(1.0 + wait)[1] > 0.015, "the next one waits again"


def test_small_lateness_is_made_up() -> None:
    head = Playhead(MediaClock(0.0), delay=0)
    head.step(0.0)
    assert head.step(0.1) == (960, 0.0) and head.skipped == 0


def test_spacing_keeps_frames_apart() -> None:
    spacing = Spacing(gap_s=0.02)
    assert spacing.wait(5.0) == 0.0
    spacing.sent(5.0)
    assert spacing.wait(5.005) == pytest.approx(0.015) and spacing.wait(5.03) == 0.0


def test_a_voice_that_begins_late_has_skipped_nothing() -> None:
    head = Playhead(MediaClock(0.0), delay=4800)
    head.begin(10.0)
    pts, wait_s = head.step(10.0)
    assert 10.0 - 0.12 <= pts / 48_000 <= 10.0 - 0.1 and head.skipped == 0 and 0 <= wait_s <= 0.02
    early = Playhead(MediaClock(0.0), delay=4800)
    early.begin(0.01)
    assert early.step(0.01)[0] == 0


@pytest.mark.parametrize(("fps", "kept"), [(None, 250), (60.0, 250), (25.0, 250), (12.5, 125), (10.0, 100), (1.0, 10)])
def test_frames_are_thinned_out_evenly(fps: float | None, kept: int) -> None:
    thinning = Thinning(fps)
    left = [i for i in range(250) if thinning.keeps(i * 1920)]
    gaps = {b - a for a, b in zip(left, left[1:], strict=False)}
    assert len(left) == kept and max(gaps) - min(gaps) <= 1
