"""Real wav2vec2 classes over a rolling window: stream equals offline, the window's error, what is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.audio.rolling_error import measure_errors
from svp_stream.audio.wav2vec_rolling import (
    RollingConfig,
    RollingEncoder,
    RollingStream,
    load_rolling,
    load_wav2vec2,
    measure_statistics,
    save_statistics,
)
from svp_stream.errors import WeightsError
from svp_stream.packets import AudioChunk, Float32
from tests.fakes.tiny_sd15 import tiny_wav2vec2
from tests.laws.stages import voice

SECONDS = 3.0


@cache
def speech(seed: int = 0) -> Float32:
    return voice(seed, 16_000, SECONDS)


def encoder(norm: str, **config: int) -> RollingEncoder:
    model = tiny_wav2vec2(norm)
    measured = measure_statistics(model, [speech(7), speech(8)]) if norm == "group" else None
    return RollingEncoder(model, RollingConfig(**{"window": 12, "look_ahead": 2, **config}), measured)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("look_ahead", [0, 3])
def test_stream_equals_offline(norm: str, look_ahead: int) -> None:
    model = encoder(norm, look_ahead=look_ahead)
    stream, out, at = RollingStream(model), [], 0
    wav = speech()
    for size in (1, 700, 81, 5000, *[333] * 200):
        out += stream.push(AudioChunk(3 * at, wav[at : at + size], 16_000))
        at += size
        if at >= len(wav):
            break
    out += stream.flush()
    padded = np.pad(wav, (0, 720))
    offline = model.encode(padded[: len(out) * 640 + 80])
    streamed = np.concatenate([t.tokens for t in out])
    assert streamed.shape == offline.shape == (2 * 75, model.width)
    np.testing.assert_allclose(streamed, offline, rtol=0, atol=1e-5)
    assert [t.pts for t in out] == [1920 * i for i in range(75)]


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_window_over_everything_is_the_offline_pass(norm: str) -> None:
    model = encoder(norm, window=300, look_ahead=199)
    np.testing.assert_allclose(model.encode(speech()), model.encode_whole(speech()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_the_error_falls_with_window_and_look_ahead(norm: str) -> None:
    report = measure_errors(tiny_wav2vec2(norm), speech(), (0.4, 1.6), (0, 2, 8))
    error = {(r.window_s, r.look_ahead_ms): r.error for r in report.rows}
    assert error[0.4, 0] > error[1.6, 80] > 0
    assert error[1.6, 0] > error[1.6, 320]
    assert min(error.values()) < 0.5 and report.frozen < 0.7
    text = report.table()
    assert "| 1.6 s |" in text and "320 ms ahead" in text and norm in text


def test_frozen_statistics_are_those_of_the_group_norm() -> None:
    model, wav = tiny_wav2vec2("group"), torch.randn(1, 640 * 40 + 80).numpy()[0]
    mean, var = measure_statistics(model, [wav])
    frozen = RollingEncoder(tiny_wav2vec2("group"), RollingConfig(), (mean, var))
    with torch.no_grad():
        whole = model.feature_extractor(torch.from_numpy(wav / wav.std())[None])
        ours = frozen.model.feature_extractor(torch.from_numpy(wav / wav.std())[None])
    assert float((whole - ours).norm() / whole.norm()) < 0.05, "white noise is alike everywhere"


def test_files(tmp_path: Path) -> None:
    model = tiny_wav2vec2("group")
    model.save_pretrained(tmp_path / "w2v")
    save_statistics(tmp_path / "norm.safetensors", measure_statistics(model, [speech()]))
    back = load_rolling(str(tmp_path / "w2v"), tmp_path / "norm.safetensors")
    assert back.encode(speech()).shape == (2 * 74, back.width)
    with pytest.raises(WeightsError, match="--freeze"):
        load_rolling(str(tmp_path / "w2v"), None)
    with pytest.raises(WeightsError, match="there is no folder"):
        load_wav2vec2(str(tmp_path / "none"))
    with pytest.raises(WeightsError, match="no wav2vec2 can be loaded"):
        load_wav2vec2(str(tmp_path))
    with pytest.raises(ValueError, match="cannot hold"):
        RollingConfig(window=2, look_ahead=2)
