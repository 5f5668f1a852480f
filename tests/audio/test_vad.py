"""The voice activity network is silero's, hears speech, and keeps people apart."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.audio.speech import SpeechDetector
from svp_stream.audio.vad import WINDOW_SAMPLES, WINDOW_TICKS, Vad
from svp_stream.errors import WeightsError
from svp_stream.packets import AudioChunk, Float32
from tests.laws.stages import voice

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


@pytest.fixture(scope="module")
def vad() -> Vad:
    return Vad.load()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Float32:
    """One second of quiet noise, a sentence, two seconds of quiet noise, 16 kHz."""
    path = tmp_path_factory.mktemp("speech") / "a.wav"
    subprocess.run(["flite", "-voice", "slt", "-t", "The weather will be sunny today.", "-o", str(path)], check=True)
    with wave.open(str(path)) as w:
        assert w.getframerate() == 16_000
        x = np.frombuffer(w.readframes(w.getnframes()), np.int16).astype(np.float32) / 32768
    x = np.concatenate([np.zeros(16_000), x, np.zeros(32_000)])
    noise = np.random.default_rng(0).standard_normal(len(x))
    return np.asarray(x + 1e-3 * noise, np.float32)


def test_it_computes_what_the_packages_own_module_computes(vad: Vad) -> None:
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None and spec.submodule_search_locations
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        path = Path(spec.submodule_search_locations[0], "data", "silero_vad.jit")
        oracle = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    x = voice(4, 16_000, 2.0)
    x = x[: len(x) // WINDOW_SAMPLES * WINDOW_SAMPLES]
    ours = [w.probability for w in vad.stream().push(AudioChunk(0, x, 16_000))]
    with torch.no_grad():
        theirs = [float(oracle(w, 16_000)) for w in torch.from_numpy(x.reshape(-1, WINDOW_SAMPLES))]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert max(ours) - min(ours) > 0.1


@needs_flite
def test_it_hears_speech_and_only_speech(vad: Vad, spoken: Float32) -> None:
    out = vad.stream().push(AudioChunk(0, spoken, 16_000))
    p = np.array([w.probability for w in out])
    times = np.array([w.pts for w in out]) / 48_000
    assert p[times < 0.9].max() < 0.35
    assert p[times > times[-1] - 1.2].max() < 0.35
    assert np.median(p[(times > 1.4) & (times < times[-1] - 2.4)]) > 0.8


@needs_flite
def test_with_hysteresis_a_sentence_is_one_turn(vad: Vad, spoken: Float32) -> None:
    detector, stream = SpeechDetector(), vad.stream()
    windows = stream.push(AudioChunk(0, spoken, 16_000)) + stream.flush()
    states = [s for w in windows for s in detector.push(w)] + detector.flush()
    assert [s.speaking for s in states] == [False, True, False]
    assert 0.95 < states[1].pts / 48_000 < 1.5


def test_windows_lie_on_the_streams_grid_and_flush_pads(vad: Vad) -> None:
    stream = vad.stream()
    out = stream.push(AudioChunk(99, np.zeros(1300, np.float32), 16_000)) + stream.flush()
    assert [w.pts for w in out] == [99, 99 + WINDOW_TICKS, 99 + 2 * WINDOW_TICKS]
    assert not stream.flush()


def test_a_long_pause_forgets_the_voice(vad: Vad) -> None:
    stream, x = vad.stream(), voice(1, 16_000, 0.5)
    stream.push(AudioChunk(0, x, 16_000))
    after = stream.push(AudioChunk(960_000, x, 16_000))
    fresh = vad.stream().push(AudioChunk(960_000, x, 16_000))
    assert after[1:] == fresh and after[0].pts < 48_000


def test_loading_leaves_the_thread_count_alone() -> None:
    before = torch.get_num_threads()
    Vad.load()
    assert torch.get_num_threads() == before


def test_weights_that_are_no_weights_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "silero_vad.jit"
    with pytest.raises(WeightsError, match=r"silero_vad\.jit .*reinstall"):
        Vad.load(bad)
    bad.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match=r"silero_vad\.jit .*reinstall"):
        Vad.load(bad)
