"""The street benchmark: counts every frame, names the machine, needs no clock of its own."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from svp_stream.audio.vad import Vad
from svp_stream.errors import MediaError
from svp_stream.pipeline.bench import machine, read_speech, run_street, syllables
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.noop import DrawnShelf, NoopEngine


def test_street_figures() -> None:
    warm = DrawnShelf().get("warm")
    style = StyleRequest(warm.name, warm.mu, warm.log_var)
    ticks = iter(range(1_000_000))
    figures = run_street(
        NoopEngine(), Vad.load(), style, "disc", syllables(1.5), effort=2, clock=lambda: next(ticks) * 1e-3
    )
    assert (figures.engine, figures.effort, figures.frames, figures.seconds) == ("noop", 2, 38, 1.5)
    assert {"resample", "vad", "speech", "face", "total"} <= set(figures.stages)
    assert figures.p50_ms == figures.stages["total"].p50_ms <= figures.p95_ms
    assert figures.realtime == pytest.approx(figures.fps / 25, rel=0.02)
    assert 120 < figures.latency_ms < 125
    assert json.loads(json.dumps(figures.as_dict()))["machine"]["cores"] >= 1


def test_machine_is_named() -> None:
    here = machine()
    assert here.processor
    assert here.torch_threads >= 1


def test_syllables_are_loud_enough_and_repeatable() -> None:
    x = syllables(2.0)
    assert x.dtype == np.float32
    assert 0.02 < np.sqrt(np.mean(x**2)) < 0.2
    assert np.abs(x).max() < 1
    assert np.array_equal(x, syllables(2.0))


def test_a_recording_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(np.full(32_000, 1000, "<i2").tobytes())
    assert len(read_speech(path, 1.5)) == 72_000
    assert len(read_speech(path, 9.0)) == pytest.approx(96_000, abs=10)
    with pytest.raises(MediaError, match="no such file"):
        read_speech(tmp_path / "other.wav", 1.0)
