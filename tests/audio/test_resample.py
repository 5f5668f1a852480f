"""The resampler keeps time and pitch, and tells its latency truly. Chunking and causality are in `tests/laws`."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.audio.resample import Resampler
from svp_stream.clock import ticks_per_sample
from svp_stream.errors import StreamError
from svp_stream.packets import AudioChunk, Float32

PAIRS = [(48_000, 16_000), (24_000, 16_000), (8_000, 16_000), (16_000, 48_000), (48_000, 24_000)]


def tone(rate_hz: int, seconds: float, hz: float = 440.0, pts: int = 0) -> AudioChunk:
    t = pts / 48_000 + np.arange(round(rate_hz * seconds)) / rate_hz
    return AudioChunk(pts, np.sin(2 * np.pi * hz * t).astype(np.float32), rate_hz)


def joined(chunks: list[AudioChunk]) -> Float32:
    """The samples of chunks that join on without a gap."""
    for a, b in zip(chunks, chunks[1:], strict=False):
        assert a.end == b.pts
    return np.concatenate([c.samples for c in chunks])


@pytest.mark.parametrize(("in_hz", "out_hz"), PAIRS)
def test_a_tone_stays_in_place(in_hz: int, out_hz: int) -> None:
    stage = Resampler(in_hz, out_hz)
    chunks = stage.push(tone(in_hz, 0.5, pts=777)) + stage.flush()
    y, wanted = joined(chunks), tone(out_hz, 0.5, pts=777).samples
    assert chunks[0].pts == 777 and len(y) == len(wanted)
    inner = slice(out_hz // 100, -out_hz // 100)
    assert np.abs(y - wanted)[inner].max() < 1e-3


def test_what_16_khz_cannot_hold_is_taken_out() -> None:
    stage = Resampler(48_000, 16_000)
    y = joined(stage.push(tone(48_000, 0.5, hz=11_000)) + stage.flush())
    assert np.abs(y[200:-200]).max() < 0.01


@pytest.mark.parametrize(("in_hz", "out_hz"), PAIRS)
def test_the_declared_latency_is_tight(in_hz: int, out_hz: int) -> None:
    """Fed sample by sample, the slowest output comes at most two samples sooner than declared, and never later."""
    stage, step = Resampler(in_hz, out_hz), ticks_per_sample(in_hz)
    delays = []
    for i, s in enumerate(tone(in_hz, 0.05).samples):
        for c in stage.push(AudioChunk(i * step, s[None], in_hz)):
            delays += [(i + 1) * step - c.pts - k * ticks_per_sample(out_hz) for k in range(len(c.samples))]
    assert stage.latency - 2 * max(step, ticks_per_sample(out_hz)) <= max(delays) <= stage.latency


def test_the_models_rate_passes_untouched() -> None:
    x = tone(16_000, 0.1)
    assert np.array_equal(joined(Resampler(16_000).push(x)), x.samples)


def test_a_lost_packet_is_silence_in_its_place() -> None:
    stage, x = Resampler(48_000), tone(48_000, 0.1)
    head, tail = AudioChunk(0, x.samples[:960], 48_000), AudioChunk(1920, x.samples[1920:], 48_000)
    y = joined(stage.push(head) + stage.push(tail) + stage.flush())
    muted = x.samples.copy()
    muted[960:1920] = 0
    other = Resampler(48_000)
    assert np.array_equal(y, joined(other.push(AudioChunk(0, muted, 48_000)) + other.flush()))


def test_a_long_pause_starts_afresh_at_the_right_tick() -> None:
    stage = Resampler(48_000)
    before = stage.push(tone(48_000, 0.1))
    after = stage.push(tone(48_000, 0.1, pts=480_000))
    drained, restarted = after[0], after[1]
    assert drained.pts == before[-1].end and drained.end == 4800
    assert restarted.pts == 480_000
    assert sum(len(c.samples) for c in after) < 48_000


@pytest.mark.parametrize("rate_hz", [0, -1, 44_100])
def test_rates_that_do_not_divide_the_clock_are_refused(rate_hz: int) -> None:
    with pytest.raises(ValueError, match="does not divide"):
        Resampler(rate_hz)


def test_bad_sound_is_refused_and_the_stream_lives_on() -> None:
    stage, x = Resampler(48_000), tone(48_000, 0.04)
    out = stage.push(AudioChunk(0, x.samples[:960], 48_000))
    with pytest.raises(StreamError):
        stage.push(AudioChunk(960, np.full(960, np.nan, np.float32), 48_000))
    out += stage.push(AudioChunk(960, x.samples[960:], 48_000)) + stage.flush()
    whole = Resampler(48_000)
    assert np.array_equal(joined(out), joined(whole.push(x) + whole.flush()))
