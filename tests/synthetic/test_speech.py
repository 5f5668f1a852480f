"""Synthetic voices: times that cover the sound, known symbols, and errors that say what to do."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from svp_stream.errors import MediaError
from svp_stream.synthetic import sentences, speech
from svp_stream.synthetic.phonemes import GLIDES, MOUTHS, SYMBOLS, VOWELS, from_abroad, from_espeak, from_flite
from svp_stream.synthetic.speech import ABROAD, HELD_OUT_VOICES, VOICES, Utterance, Voice, synthesise

TEXT = "Above the map, five brave judges measure butter. Is it 22?"
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
BY_ENGINE = [
    pytest.param(voice, marks=needs_flite if voice.engine == "flite" else needs_espeak, id=name)
    for name, voice in VOICES.items()
]


def _check(utterance: Utterance) -> None:
    sounds = utterance.phonemes
    assert sounds[0].symbol == sounds[-1].symbol == "pau"
    assert sounds[0].start_s == 0.0
    assert sounds[-1].end_s == pytest.approx(utterance.duration_s, abs=1e-6)
    for before, after in zip(sounds[:-1], sounds[1:], strict=True):
        assert before.end_s == after.start_s and before.end_s > before.start_s
        assert not (before.symbol == after.symbol == "pau")
    assert {sound.symbol for sound in sounds} <= SYMBOLS
    assert all(sound.stress in (0, 1, 2) for sound in sounds)
    assert all(sound.stress == 0 for sound in sounds if sound.symbol not in VOWELS)


@pytest.mark.parametrize("voice", BY_ENGINE)
def test_phonemes_cover_the_sound(voice: Voice) -> None:
    utterance = synthesise(TEXT, voice)
    _check(utterance)
    assert utterance.samples.dtype == np.float32 and utterance.samples.ndim == 1
    assert 0.1 < float(np.abs(utterance.samples).max()) <= 1.0
    symbols = [sound.symbol for sound in utterance.phonemes]
    assert symbols.count("m") == 2 and symbols.count("jh") == 2 and "zh" in symbols
    assert {sound.stress for sound in utterance.phonemes} == {0, 1, 2}


@pytest.mark.parametrize("voice", BY_ENGINE)
def test_times_agree_with_the_sound(voice: Voice) -> None:
    """Vowels are loud, silences are not: a shift of times would show."""
    utterance = synthesise(TEXT, voice)

    def level(kind: frozenset[str]) -> float:
        pieces = [
            utterance.samples[round(s.start_s * 16_000): round(s.end_s * 16_000)]
            for s in utterance.phonemes if s.symbol in kind
        ]
        return float(np.sqrt(np.mean(np.concatenate(pieces) ** 2)))

    assert level(VOWELS) > 5 * level(frozenset({"pau"}))


@needs_flite
def test_pace_and_pitch_follow_the_voice() -> None:
    slow = synthesise(TEXT, Voice("slt", "flite", 167.0, 1.3)).duration_s
    assert slow > 1.2 * synthesise(TEXT, Voice("slt", "flite", 167.0, 1.0)).duration_s
    low, high = (synthesise("Aah, oh no.", Voice("slt", "flite", f0, 1.0)).samples for f0 in (130.0, 220.0))
    assert not np.array_equal(low, high)


@needs_flite
def test_same_words_same_sound() -> None:
    one, two = synthesise(TEXT, VOICES["slt"]), synthesise(f"  {TEXT}\n", VOICES["slt"])
    np.testing.assert_array_equal(one.samples, two.samples)
    assert one.phonemes == two.phonemes


@needs_flite
def test_text_is_never_an_option_or_a_file() -> None:
    _check(synthesise("--help", VOICES["slt"]))
    _check(synthesise("/etc/passwd", VOICES["slt"]))


@needs_espeak
def test_espeak_text_with_markup_is_read_as_words() -> None:
    _check(synthesise("Ham & eggs <b> for five.", VOICES["en-us+f2"]))


@pytest.mark.parametrize("text", ["", "   ", "...", "?!"])
def test_nothing_to_speak(text: str) -> None:
    with pytest.raises(MediaError, match="at least one word"):
        synthesise(text, VOICES["slt"])


def test_missing_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MediaError, match="apt install flite"):
        synthesise("Hello.", VOICES["slt"])


@needs_espeak
def test_unknown_espeak_voice() -> None:
    with pytest.raises(MediaError, match="no voice 'xx-nowhere'"):
        synthesise("Hello.", Voice("xx-nowhere", "espeak", None, 1.0))


def test_a_stuck_program_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("flite", speech.TIMEOUT_S)

    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/flite")
    monkeypatch.setattr(subprocess, "run", stuck)
    with pytest.raises(MediaError, match="took more than"):
        synthesise("Hello.", VOICES["slt"])


def test_held_out_voices_have_no_twin() -> None:
    assert HELD_OUT_VOICES == ("rms",)
    assert not [name for name in VOICES if name.startswith("rms") and name not in HELD_OUT_VOICES]


def test_jitter_is_seeded_and_mild() -> None:
    voice = VOICES["slt"]
    one = voice.jitter(np.random.default_rng(4))
    assert one == voice.jitter(np.random.default_rng(4)) and one.name == "slt" and one != voice
    assert one.f0_hz is not None and abs(one.f0_hz / 167.0 - 1) <= 0.08 and abs(one.stretch - 1) <= 0.15


def test_symbols_of_both_engines() -> None:
    assert from_flite("axr") == "er" and from_flite("AA") == "aa"
    assert from_espeak("e@") == ("eh", "r") and from_espeak("_:") == ("pau",) and from_espeak("dZ") == ("jh",)
    assert all(half in MOUTHS for pair in GLIDES.values() for half in pair)
    for unknown in ("qq", "IR"):
        with pytest.raises(KeyError):
            from_espeak(unknown)


@needs_espeak
@pytest.mark.parametrize("name", [name for name in ABROAD if "+f" in name])
def test_other_languages_are_spoken_in_known_mouths(name: str) -> None:
    voice = ABROAD[name]
    for text in sentences.abroad()[voice.language][:3]:
        utterance = synthesise(text, voice)
        _check(utterance)
        assert 0.1 < float(np.abs(utterance.samples).max()) <= 1.0 and utterance.duration_s > 0.8


def test_every_language_has_a_woman_a_man_and_something_to_say() -> None:
    said = sentences.abroad()
    assert {voice.language for voice in ABROAD.values()} == set(said) and len(said) == 6
    assert all(len({n for n in ABROAD if ABROAD[n].language == code}) == 2 for code in said)
    assert all(len(texts) >= 10 for texts in said.values())
    assert not set(ABROAD) & set(VOICES)


def test_foreign_sounds_take_the_nearest_mouth() -> None:
    table = {"y": ("uw",), "Y:": ("uh",), "O~": ("ao",), "e:": ("eh",), "ts;": ("ch",), "'a": ("aa",), "t": ("t",)}
    assert {m: from_abroad(m) for m in table} == table
    assert from_espeak("y") == ("y",), "in English it is the sound of yes"
    with pytest.raises(KeyError):
        from_abroad("qqq")
