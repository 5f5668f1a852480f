"""Coefficient bank: joined speech keeps its times, takes repeat, held-out takes stay apart, caches follow causes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svp_stream.clock import MODEL_RATE_HZ
from svp_stream.errors import WeightsError
from svp_stream.synthetic import sentences
from svp_stream.synthetic.speech import HELD_OUT_VOICES, VOICES, Utterance, Voice
from svp_stream.synthetic.styles import NAMED
from svp_stream.training import coefficients
from svp_stream.training.coefficients import CoefficientConfig, join, load_bank, speak_take
from tests.fakes.coefficients import speak, tiny_bank, tiny_encoder

VOICE = VOICES["slt"]


def test_joined_speech_covers_its_length_and_keeps_each_word_at_its_sound() -> None:
    parts = [speak("alpha", VOICE), speak("beta", VOICE)]
    whole = join(parts, [0.5, 0.25, 0.0])
    ends = [p.end_s for p in whole.phonemes]
    assert [p.start_s for p in whole.phonemes] == pytest.approx([0.0, *ends[:-1]])
    assert ends[-1] == pytest.approx(whole.duration_s)
    second = round((0.5 + parts[0].duration_s + 0.25) * MODEL_RATE_HZ)
    np.testing.assert_array_equal(whole.samples[second:], parts[1].samples)
    assert whole.phonemes[-len(parts[1].phonemes)].start_s == pytest.approx(second / MODEL_RATE_HZ)


def test_join_wants_a_pause_around_every_part() -> None:
    with pytest.raises(ValueError, match="2 pauses"):
        join([speak("a", VOICE)], [0.1])


def test_a_take_depends_on_its_number_alone() -> None:
    config = CoefficientConfig(takes=4)
    one, again, other = (speak_take(config, i, False, speak)[0] for i in (3, 3, 2))
    np.testing.assert_array_equal(one.samples, again.samples)
    assert one.text != other.text


def test_training_takes_are_never_held_out() -> None:
    config = CoefficientConfig(silent_share=0.0, sentences_per_take=1)
    heard: list[tuple[str, str]] = []

    def listen(text: str, voice: Voice) -> Utterance:
        heard.append((text, voice.name))
        return speak(text, voice)

    for i in range(40):
        speak_take(config, i, False, listen)
    assert all(v not in HELD_OUT_VOICES and sentences.split(t) == "train" for t, v in heard)
    heard.clear()
    flags = [speak_take(config, i, True, listen)[1:] for i in range(40)]
    for (text, voice), (own_voice, own_text) in zip(heard, flags, strict=True):
        assert own_voice or own_text
        assert (voice in HELD_OUT_VOICES, sentences.split(text) == "heldout") == (own_voice, own_text)


def test_tokens_and_faces_share_one_grid(tmp_path: Path) -> None:
    bank = tiny_bank(tmp_path)
    assert len(bank.train) == 8 and len(bank.held_out) == 8 and bank.audio_dim == 16
    for take in bank.train:
        face = take.expression(NAMED["warm"], np.random.default_rng(0))
        assert face.shape == (take.frames, 42) and take.features().shape == (take.frames, 16)
        assert take.audio(1).shape == (2 * take.frames, 16)
        assert abs(take.frames / 25 - take.utterance.duration_s) < 0.04
    clean, noisy = bank.train[0].audio(0), bank.train[0].audio(1)
    assert not np.allclose(clean, noisy)


def test_silence_is_where_nobody_speaks(tmp_path: Path) -> None:
    take = max(tiny_bank(tmp_path).train, key=lambda t: len(t.utterance.phonemes))
    quiet = take.silent()
    spoken = next(p for p in take.utterance.phonemes if p.symbol != "pau")
    assert not quiet[int((spoken.start_s + spoken.end_s) / 2 * 25)]
    assert quiet.sum() < take.frames


def test_second_load_reads_the_cache_and_another_encoder_hears_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_bank(tmp_path)
    monkeypatch.setattr(coefficients, "_speak_all", None)
    with monkeypatch.context() as frozen:
        frozen.setattr(coefficients, "_encode_all", None)
        again = tiny_bank(tmp_path)
    np.testing.assert_array_equal(first.train[1].tokens, again.train[1].tokens)
    assert first.train[1].utterance.phonemes == again.train[1].utterance.phonemes
    config = CoefficientConfig(takes=8, held_out_takes=8, silent_share=0.1, opus_share=0.0, seed=1)
    other = load_bank(config, tiny_encoder(tmp_path / "other.safetensors", seed=5), tmp_path / "cache", speak)
    assert not np.allclose(first.train[1].tokens, other.train[1].tokens)


def test_missing_encoder_is_named(tmp_path: Path) -> None:
    tiny_bank(tmp_path)
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors"):
        load_bank(CoefficientConfig(), tmp_path / "nowhere.safetensors", tmp_path / "cache", speak)
