"""The motion generator: alive, within bounds, gliding, and the four laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS
from svp_stream.errors import StreamError
from svp_stream.motion.generator import LIMITS, MotionDrive, MotionStream
from svp_stream.motion.kps import pose_vector
from svp_stream.motion.manner import Manner
from svp_stream.packets import Float32, Pose
from svp_stream.stage import Stage

LIVELY = Manner(head_size_deg=6.0, head_tempo_hz=0.8, nod_deg=8.0, yaw_deg=8.0, pitch_deg=6.0, roll_deg=-6.0,
                gaze_size_deg=10.0, gaze_rate_hz=2.0, breath_size=0.015)


def drives(n: int, seed: int = 0, first: int = 0) -> list[MotionDrive]:
    """Talk of 2-4 s between pauses, with accents about twice a second."""
    rng = np.random.default_rng(seed)
    accent = np.clip(np.sin(np.arange(n) * 2 * np.pi / 12 + rng.random() * 6) * 1.4 - 0.3, 0, 1)
    speaking = (np.arange(n) // 75) % 3 > 0
    return [MotionDrive((first + i) * FRAME_TICKS, bool(speaking[i]), float(accent[i])) for i in range(n)]


def run(stream: MotionStream, inputs: list[MotionDrive]) -> list[Pose]:
    return [pose for x in inputs for pose in stream.push(x)]


def table(poses: list[Pose]) -> Float32:
    return np.stack([pose_vector(p) for p in poses])


def test_is_a_stage_and_one_pose_for_each_drive() -> None:
    stream = MotionStream(Manner(), 1)
    assert isinstance(stream, Stage)
    assert stream.latency == FRAME_TICKS
    assert [p.pts for p in run(stream, drives(30))] == [i * FRAME_TICKS for i in range(30)]
    assert stream.flush() == []


def test_reset_equals_fresh_and_seeds_differ() -> None:
    stream = MotionStream(Manner(), 1)
    first = run(stream, drives(200))
    stream.set_manner(LIVELY)
    run(stream, drives(20, first=200))
    stream.flush()
    stream.reset()
    assert run(stream, drives(200)) == first == run(MotionStream(Manner(), 1), drives(200))
    assert run(MotionStream(Manner(), 2), drives(200)) != first


def test_no_pose_depends_on_later_drives() -> None:
    changed = [replace(x, speaking=not x.speaking, stress=1 - x.stress) if i >= 60 else x
               for i, x in enumerate(drives(120))]
    a, b = run(MotionStream(Manner(), 3), drives(120)), run(MotionStream(Manner(), 3), changed)
    assert a[:60] == b[:60]
    assert a[60:] != b[60:]


def test_interleaved_streams_do_not_meet() -> None:
    alone = [run(MotionStream(Manner(), seed), drives(100, seed)) for seed in (1, 2)]
    one, two = MotionStream(Manner(), 1), MotionStream(Manner(), 2)
    together: list[list[Pose]] = [[], []]
    for x, y in zip(drives(100, 1), drives(100, 2), strict=True):
        together[0] += one.push(x)
        together[1] += two.push(y)
    assert together == alone


def test_misuse_is_named() -> None:
    stream = MotionStream(Manner(), 1)
    stream.push(MotionDrive(0, False, 0.0))
    for pts in (0, -FRAME_TICKS, 100):
        with pytest.raises(StreamError, match="next frame is at 1920"):
            stream.push(MotionDrive(pts, False, 0.0))
    stream.push(MotionDrive(1000 * FRAME_TICKS, False, 0.0))
    stream.flush()
    with pytest.raises(StreamError, match="reset"):
        stream.push(MotionDrive(1001 * FRAME_TICKS, False, 0.0))


def test_missing_frames_are_lived_through() -> None:
    inputs = [replace(x, speaking=True, stress=0.4) for x in drives(40)]
    whole = run(MotionStream(Manner(), 5), inputs)
    sparse = run(MotionStream(Manner(), 5), inputs[:10] + inputs[14:])
    assert sparse == whole[:10] + whole[14:]


@pytest.mark.parametrize("manner", [Manner(), LIVELY])
def test_bounds_and_smoothness(manner: Manner) -> None:
    t = table(run(MotionStream(manner, 7), drives(3000)))
    assert np.all(np.abs(t[:, :5]) <= LIMITS + 1e-6)
    assert np.all((t[:, 5:7] >= 0) & (t[:, 5:7] <= 1))
    assert np.all(np.abs(t[:, 7:]) <= 15)
    speed = np.abs(np.diff(t[:, :3], axis=0)).max(axis=0)
    assert np.all(speed < [3.5, 3.5, 2.0]), f"degrees a frame: {speed}"
    jerk = np.abs(np.diff(t[:, :5], n=2, axis=0)).max(axis=0)
    assert np.all(jerk < [1.5, 2.0, 1.0, 0.003, 0.004]), f"the head jerks: {jerk}"


def test_the_wander_has_the_size_asked_for() -> None:
    sizes = [table(run(MotionStream(Manner(head_size_deg=s, gaze_size_deg=0.0), 1), drives(6000)))[:, 0].std()
             for s in (1.0, 3.0)]
    assert 0.6 < sizes[0] < 1.4
    assert 2.3 < sizes[1] / sizes[0] < 3.4


def test_listening_is_calmer_but_never_frozen() -> None:
    silent = [replace(x, speaking=False, stress=0.0) for x in drives(3000)]
    talking = [replace(x, speaking=True) for x in drives(3000)]
    quiet, loud = (table(run(MotionStream(Manner(), 1), d)) for d in (silent, talking))
    assert quiet[:, :3].std() < 0.75 * loud[:, :3].std()
    assert quiet[:, 5].max() > 0.9, "a listener blinks"
    assert np.abs(np.diff(quiet[:, 4])).min() >= 0 and np.ptp(quiet[:50, 4]) > 0.002, "a listener breathes"
    windows = quiet[: 2975, 4].reshape(-1, 25)
    assert np.all(np.ptp(windows, axis=1) > 1e-5), "no second without motion"


def test_nods_follow_stress() -> None:
    quiet = Manner(head_size_deg=0.1, nod_deg=0.0, gaze_size_deg=0.0)
    flat = table(run(MotionStream(quiet, 1), drives(2000)))[:, 1]
    nodding = table(run(MotionStream(replace(quiet, nod_deg=4.0), 1), drives(2000)))[:, 1]
    assert flat.std() < 0.25
    assert nodding.std() > 0.5
    assert nodding.max() > 2.5


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.6])
def test_blinks_are_natural(rate: float) -> None:
    manner = Manner(blink_rate_hz=rate, double_blink=0.0)
    lid = table(run(MotionStream(manner, 1), [replace(x, speaking=True) for x in drives(12000)]))[:, 5]
    shut = lid > 0.5
    begins = np.flatnonzero(shut[1:] & ~shut[:-1])
    per_second = len(begins) / (len(lid) / FRAME_RATE_HZ)
    assert 0.7 * rate < per_second < 1.6 * rate
    ends = np.flatnonzero(~shut[1:] & shut[:-1])
    lengths = ends - begins[: len(ends)]
    assert 2 <= np.median(lengths) <= 5
    assert np.median([lid[b : b + 6].max() for b in begins]) > 0.95
    assert np.diff(begins).min() > 0.3 * FRAME_RATE_HZ
    doubled = table(run(MotionStream(replace(manner, double_blink=0.6), 1), drives(6000)))[:, 5] > 0.5
    gaps = np.diff(np.flatnonzero(doubled[1:] & ~doubled[:-1]))
    assert np.mean(gaps < 10) > 0.1


def test_blinks_gather_where_a_phrase_ends() -> None:
    inputs = [MotionDrive(i * FRAME_TICKS, i % 75 < 50, 0.0) for i in range(15000)]
    lid = table(run(MotionStream(Manner(), 1), inputs))[:, 5]
    begins = np.flatnonzero((lid[1:] > 0.5) & (lid[:-1] <= 0.5)) % 75
    after = np.mean((begins >= 50) & (begins < 63)) / 13
    elsewhere = np.mean(begins < 50) / 50
    assert after > 2 * elsewhere


def test_gaze_holds_the_viewer_and_jumps() -> None:
    t = table(run(MotionStream(Manner(gaze_size_deg=6.0), 1), drives(6000)))
    world = t[:, 7:] + 0.9 * t[:, :2]
    assert np.mean(np.hypot(world[:, 0], world[:, 1]) < 2.0) > 0.55
    assert np.hypot(world[:, 0], world[:, 1]).max() > 6
    step = np.hypot(*np.diff(world, axis=0).T)
    assert np.mean(step < 0.05) > 0.85, "eyes hold still between saccades"
    assert step.max() > 3


def test_a_change_of_manner_glides() -> None:
    stream = MotionStream(Manner(yaw_deg=-8.0, lid_rest=0.0), 1)
    before = run(stream, drives(100))
    stream.set_manner(Manner(yaw_deg=8.0, lid_rest=0.4))
    stream.set_manner(Manner(yaw_deg=8.0, lid_rest=0.3))
    after = run(stream, drives(100, first=100))
    t = table(before + after)
    assert np.abs(np.diff(t[95:130, 0])).max() < 4.0
    assert t[110:, 0].mean() > 4
    at_change = np.abs(t[100, :5] - t[99, :5])
    assert np.all(at_change < [1.0, 1.0, 1.0, 0.005, 0.005])
