"""Loudness and stress: units, silence, accents, and freedom from the microphone's gain."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.audio.level import FRAME_SAMPLES, Level, LevelStream
from svp_stream.clock import FRAME_TICKS
from svp_stream.packets import AudioChunk, Float32
from tests.laws.stages import voice


def levels(x: Float32, pts: int = 0) -> list[Level]:
    stream = LevelStream()
    return stream.push(AudioChunk(pts, x.astype(np.float32), 16_000)) + stream.flush()


def stress(x: Float32) -> Float32:
    return np.array([level.stress for level in levels(x)], np.float32)


def buzz(db: list[float], frames: int = 12) -> Float32:
    """A vowel whose level steps through `db` below full scale, `frames` each."""
    t = np.arange(len(db) * frames * FRAME_SAMPLES) / 16_000
    gain = np.repeat(10 ** (np.array(db) / 20), frames * FRAME_SAMPLES)
    return np.asarray(np.sqrt(2) * gain * np.sin(2 * np.pi * 200 * t), np.float32)


def test_one_level_a_frame_in_decibels_of_full_scale() -> None:
    out = levels(buzz([-20.0]), pts=5)
    assert [level.pts for level in out] == [5 + i * FRAME_TICKS for i in range(12)]
    assert out[5].rms == pytest.approx(0.1, rel=1e-3)
    assert out[5].dbfs == pytest.approx(-20, abs=0.01)
    assert levels(np.zeros(640, np.float32))[0].dbfs == -100


def test_silence_and_room_noise_have_no_stress() -> None:
    noise = np.random.default_rng(0).standard_normal(16_000) * 1e-3
    assert stress(np.zeros(16_000, np.float32)).max() == 0
    assert stress(noise.astype(np.float32)).max() < 0.05


def test_an_accent_stands_out_and_passes() -> None:
    s = stress(buzz([-26, -17, -26, -60]))
    assert s[16:24].min() > 0.85
    assert s[30:36].max() < 0.4
    assert s[44:].max() < 0.02


def test_a_whisperer_and_a_shouter_nod_alike() -> None:
    x = voice(3, 16_000, 4.0)
    loud, soft = stress(x), stress(x * np.float32(0.2))
    assert np.abs(loud - soft)[25:].max() < 0.1
    assert loud.max() > 0.9


def test_stress_stays_in_range_for_any_sound() -> None:
    x = np.random.default_rng(1).uniform(-1, 1, 32_000) * np.repeat(np.random.default_rng(2).random(50), 640)
    s = stress(np.sign(x).astype(np.float32))
    assert s.min() >= 0 and s.max() <= 1


def test_a_pause_keeps_the_persons_ceiling() -> None:
    stream = LevelStream()
    stream.push(AudioChunk(0, buzz([-12]), 16_000))
    after = stream.push(AudioChunk(480_000, buzz([-24]), 16_000))
    assert after[-1].pts == 480_000 + 11 * FRAME_TICKS
    assert after[-1].stress < 0.4 < levels(buzz([-24]))[-1].stress
