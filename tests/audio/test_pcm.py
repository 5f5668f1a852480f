"""PCM in pieces: the same sound however it is cut, exactly as long as it was, and true to its rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp_stream.audio.pcm import FADE_TICKS, PcmLine, fade_in, fade_out
from svp_stream.clock import ticks_per_sample
from svp_stream.packets import Float32

RATES = (16_000, 24_000, 48_000)


def whole(rate_hz: int, sound: np.ndarray[tuple[int], np.dtype[np.int16]]) -> Float32:
    line = PcmLine(rate_hz)
    line.feed(sound)
    line.end()
    return line.take(line.held)


def noise(samples: int, seed: int = 3) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples).astype(np.int16)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from(RATES), cuts_in=st.lists(st.integers(0, 700), min_size=0, max_size=12),
    cuts_out=st.lists(st.integers(0, 2500), min_size=0, max_size=12),
)  # fmt: skip
def test_any_cut_gives_the_same_sound(rate: int, cuts_in: list[int], cuts_out: list[int]) -> None:
    sound = noise(sum(cuts_in))
    line, out, at = PcmLine(rate), [], 0
    for i, n in enumerate(cuts_in):
        line.feed(sound[at : at + n])
        at += n
        if i < len(cuts_out):
            piece = line.take(cuts_out[i])
            assert len(piece) <= cuts_out[i]
            out.append(piece)
    line.end()
    for n in cuts_out:
        out.append(line.take(n))
    out.append(line.take(line.held))
    got = np.concatenate(out)
    assert len(got) == len(sound) * ticks_per_sample(rate) == line.fed == line.taken and line.held == 0
    assert np.array_equal(got, whole(rate, sound))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [0, 1, 5, 17, 33, 1000])
def test_length_is_kept(rate: int, length: int) -> None:
    assert len(whole(rate, noise(length))) == length * ticks_per_sample(rate)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_stays_a_tone_in_its_place(rate: int) -> None:
    t = np.arange(rate) / rate
    tone = np.rint(16_384 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
    got = whole(rate, tone)
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    inner = slice(2000, 46_000)
    assert float(np.abs(got[inner] - wanted[inner]).max()) < 2e-3


def test_nothing_after_the_end() -> None:
    line = PcmLine(16_000)
    line.end()
    with pytest.raises(ValueError, match="has ended"):
        line.feed(noise(4))


def test_ready_keeps_the_resamplers_millisecond_until_the_end() -> None:
    line = PcmLine(16_000)
    line.feed(noise(320))
    assert 0 < line.held - line.ready <= 60
    assert len(line.take(10_000)) == line.taken < 960
    line.end()
    assert len(line.take(10_000)) > 0 and line.held == 0


def test_fades_touch_the_edge_only() -> None:
    ones = np.ones(960, np.float32)
    out, into = fade_out(ones), fade_in(ones)
    assert out[-1] == 0 and into[0] == 0 and ones.min() == 1
    assert (out[:-FADE_TICKS] == 1).all() and (into[FADE_TICKS:] == 1).all()
    assert len(fade_out(ones[:3])) == 3 and len(fade_in(ones[:0])) == 0
