"""What is wrong with a clip: one fault at a time, each named with what was found and what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from svp_stream.evaluation.face_reader import MARK, key_points
from svp_stream.packets import Float32, Floats
from svp_stream.preparing.config import PrepareConfig
from svp_stream.preparing.framing import boxes
from svp_stream.preparing.judge import (
    Look,
    judge,
    loudness,
    offset_fault,
    pooled_offset,
    stress,
    sync_curve,
)
from svp_stream.preparing.survey import filled, sharpness
from tests.preparing.films import opening, voice

CONFIG = PrepareConfig()


def landmarks(jaw: Float32) -> Float32:
    """Marks [T, 38, 2] of a face whose eyes are 60 px apart."""
    marks = np.zeros((len(jaw), len(MARK), 2), np.float32) + np.array([320, 240], np.float32)
    for name, x, y in (("right_eye_outer", 280, 200), ("right_eye_inner", 300, 200), ("left_eye_inner", 340, 200),
                       ("left_eye_outer", 360, 200), ("nose_tip", 320, 230), ("inner_lip_top", 320, 260)):
        marks[:, MARK[name]] = (x, y)
    marks[:, MARK["inner_lip_bottom"], 1] = 260 + 20 * jaw
    return marks


def good(frames: int = 120, seed: int = 0, late: int = 0) -> Look:
    """A clip without a fault; its picture may be `late` by frames."""
    jaw = opening(frames + 40, seed)
    marks = landmarks(jaw[20 - late : 20 - late + frames])
    angles = np.zeros((frames, 3), np.float32)
    audio = voice(jaw, seed)[20 * 640 : (20 + frames) * 640]
    return Look(marks, angles, 0.0, boxes(key_points(marks), angles, CONFIG), (640, 480),
                np.full(frames, 100, np.float32), audio)


def test_a_good_clip_has_no_fault() -> None:
    assert judge(good(), CONFIG) == []


def f32(x: Floats) -> Float32:
    """In single precision."""
    return np.asarray(x, np.float32)


SPOILT: dict[str, tuple[Callable[[Look], Look], str]] = {
    "short": (lambda x: good(40), "1.6 s; at least 2 s"),
    "no face": (lambda x: replace(x, lost=1.0), "in no frame"),
    "face lost": (lambda x: replace(x, lost=0.2), "in 20% of the frames; at most 5%"),
    "small": (lambda x: replace(x, landmarks=f32(x.landmarks / 4), boxes=f32(x.boxes / 4)), "15 px between the eyes"),
    "blurred": (lambda x: replace(x, sharpness=x.sharpness * 0.1), "sharpness 10.0; at least 20"),
    "turned": (lambda x: replace(x, angles=x.angles + np.float32(50)), "yaw of 50 degrees; at most 45"),
    "at the edge": (lambda x: replace(x, boxes=f32(x.boxes - [300, 0, 0])), "of the crop lies outside"),
    "leap": (lambda x: replace(x, landmarks=np.concatenate([x.landmarks[:60], x.landmarks[60:] + 80])), "leaps by"),
    "silent": (lambda x: replace(x, audio=x.audio // 5000), "never louder than"),
}


@pytest.mark.parametrize("key", SPOILT)
def test_each_fault_is_named(key: str) -> None:
    spoil, words = SPOILT[key]
    faults = judge(spoil(good()), CONFIG)
    assert [f.key for f in faults] == [key]
    assert words in faults[0].words


@pytest.mark.parametrize("late", [-6, -3, 0, 2, 5])
def test_the_offset_is_measured_over_a_video(late: int) -> None:
    looks = [good(120, seed, late) for seed in range(3)]
    told = pooled_offset(looks, CONFIG)
    assert told is not None and told[0] > 0.8
    # These films open and sound at once, so the usual lead of 60 ms shows.
    assert told[1] == pytest.approx(40 * late + 60, abs=15)
    assert (offset_fault(told, 0.25, CONFIG) is not None) == (abs(told[1]) > 100)


def test_little_sound_tells_no_offset() -> None:
    assert pooled_offset([good(120)], CONFIG) is None
    assert sync_curve(np.zeros(200, np.float32), voice(opening(200, 0), 0)) is None, "a mouth that stands still"
    assert offset_fault((0.1, 400.0), 0.25, CONFIG) is None, "a weak peak is not believed"
    assert offset_fault(None, 0.25, CONFIG) is None
    fault = offset_fault((0.6, -240.0), 0.25, CONFIG)
    assert fault is not None and "picture ahead of the sound by 240 ms" in fault.words


def test_loudness_and_stress_are_by_frame() -> None:
    audio = voice(opening(50, 3), 3)
    assert loudness(audio).shape == stress(audio).shape == (50,)
    assert loudness(np.zeros(640 * 3, np.int16)).tolist() == [-100.0] * 3
    assert 0 <= stress(audio).min() and stress(audio).max() <= 1


def test_sharpness_tells_blur_and_smallness() -> None:
    rng = np.random.default_rng(0)
    sharp = np.repeat(np.repeat(rng.integers(60, 200, (64, 64, 1)), 4, 0), 4, 1).repeat(3, 2).astype(np.uint8)
    box = np.array([40, 40, 200, 220], np.float32)
    blurred = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(3)), np.uint8)
    small = np.asarray(Image.fromarray(sharp).resize((64, 64)), np.uint8)
    full = sharpness(sharp, box)
    assert full > 10 * sharpness(blurred, box) and full > 5 * sharpness(small, f32(box / 4))
    assert sharpness(sharp, np.array([10, 10, 12, 12], np.float32)) == 0.0


def test_short_holes_are_bridged() -> None:
    values = np.arange(10, dtype=np.float32)[:, None, None].repeat(2, 2)
    found = np.ones(10, bool)
    found[[3, 4, 9]] = False
    spoilt = np.where(found[:, None, None], values, 0).astype(np.float32)
    bridged = filled(spoilt, found)
    assert np.allclose(bridged[:9], values[:9]) and np.allclose(bridged[9], 8)
    assert (filled(spoilt, np.zeros(10, bool)) == spoilt).all()
