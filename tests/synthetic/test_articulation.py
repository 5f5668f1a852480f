"""Articulation: lips that meet, lead and rest as lips do, in every style, and styles that the face tells apart."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.arkit import MOUTH, SPEECH, SPEECH_INDEX
from svp_stream.packets import Float32
from svp_stream.synthetic.articulation import articulate, stress_track
from svp_stream.synthetic.phonemes import GLIDES, MOUTHS, VOWELS, Phoneme
from svp_stream.synthetic.speech import Utterance
from svp_stream.synthetic.styles import NAMED, SpeakingStyle, sample

WORDS = "pau m ae p pau f ay v b ow t s pau dh ah w uh m ax n th ih ng k s pau b ey b iy pau".split()


def _utterance(symbols: list[str], sound_s: float = 0.09, pause_s: float = 0.3) -> Utterance:
    """A made-up voice: each sound as long as told, vowels a loud hum, consonants a soft one."""
    phonemes, pieces, clock = [], [], 0.0
    for number, symbol in enumerate(symbols):
        length = pause_s if symbol == "pau" else sound_s
        stress = (1 + number % 2) if symbol in VOWELS and symbol != "ax" else 0
        phonemes.append(Phoneme(symbol, clock, clock + length, stress))
        level = 0.0 if symbol == "pau" else 0.3 if symbol in VOWELS else 0.05
        count = round((clock + length) * 16_000) - round(clock * 16_000)
        pieces.append(level * np.sin(2 * np.pi * 150 * np.arange(count) / 16_000))
        clock += length
    return Utterance("made up", "nobody", np.concatenate(pieces).astype(np.float32), tuple(phonemes))


def _frames(utterance: Utterance) -> int:
    return round(utterance.duration_s * 25)


def _track(face: Float32, name: str) -> Float32:
    return np.asarray(face[:, SPEECH_INDEX[name]])


def _parting(face: Float32) -> Float32:
    """How far the lips are apart, [T]: whatever opens them less what closes them."""
    opening = _track(face, "jawOpen") - _track(face, "mouthClose") + 0.5 * _track(face, "mouthFunnel")
    return np.asarray(opening + _track(face, "mouthLowerDownLeft") + _track(face, "mouthUpperUpLeft"))


@pytest.mark.parametrize("style", NAMED.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("sound_s", [0.04, 0.09, 0.15])
def test_lips_meet_on_every_bilabial(style: SpeakingStyle, sound_s: float) -> None:
    utterance = _utterance(WORDS, sound_s)
    face = articulate(utterance, style, _frames(utterance), np.random.default_rng(0))
    parting = _parting(face)
    for sound in utterance.phonemes:
        if MOUTHS.get(sound.symbol, MOUTHS["pau"]).lips_shut:
            shown = slice(int((sound.start_s - 0.08) * 25), int(sound.end_s * 25) + 1)
            assert parting[shown].min() < 0.03, (sound, parting[shown])


@pytest.mark.parametrize("style", NAMED.values(), ids=lambda s: s.name)
def test_teeth_touch_the_lip_on_f_and_v(style: SpeakingStyle) -> None:
    utterance = _utterance("pau aa f aa v aa pau".split(), 0.07)
    face = articulate(utterance, style, _frames(utterance), np.random.default_rng(0))
    for sound in utterance.phonemes:
        if sound.symbol in ("f", "v"):
            shown = slice(int((sound.start_s - 0.08) * 25), int(sound.end_s * 25) + 1)
            assert _track(face, "mouthRollLower")[shown].max() > 0.55
            best = int(_track(face, "mouthRollLower")[shown].argmax())
            assert _track(face, "mouthLowerDownLeft")[shown][best] < 0.05
            assert _track(face, "jawOpen")[shown][best] < 0.12


def test_lips_lead_the_sound() -> None:
    """The opening of the mouth fits the loudness best 20 to 100 ms before it."""
    rng = np.random.default_rng(5)
    vowels, others = sorted(VOWELS - set(GLIDES) - {"ax"}), ["t", "d", "n", "s", "m", "b"]
    symbols = [s for _ in range(60) for s in (rng.choice(others), rng.choice(vowels))]
    utterance = _utterance(["pau", *symbols, "pau"], 0.12)
    face = articulate(utterance, NAMED["neutral"], _frames(utterance), np.random.default_rng(0))
    parting = np.repeat(_parting(face), 640)[: len(utterance.samples)]
    loud = np.abs(utterance.samples)[: len(parting)]
    shifts = range(-10, 11)
    score = [float(np.corrcoef(parting[3200:-3200], np.roll(loud, -160 * k)[3200:-3200])[0, 1]) for k in shifts]
    lead_ms = 10 * shifts[int(np.argmax(score))]
    assert 20 <= lead_ms <= 100


@pytest.mark.parametrize("style", NAMED.values(), ids=lambda s: s.name)
def test_lips_are_closed_in_silence_with_the_face_of_the_style(style: SpeakingStyle) -> None:
    utterance = _utterance(["pau", "aa", "t", "pau"], pause_s=1.0)
    face = articulate(utterance, style, 80, np.random.default_rng(0))
    assert _parting(face)[[0, 5, 10, 50, 79]].max() < 0.02
    smile = max(_track(face, "mouthSmileLeft")[0], _track(face, "mouthSmileRight")[0])
    assert smile == pytest.approx(style.smile, rel=0.45, abs=0.01)


def test_vowels_open_and_round_as_they_should() -> None:
    def held(symbol: str) -> Float32:
        utterance = _utterance(["pau", symbol, "pau"], 0.4)
        face: Float32 = articulate(utterance, NAMED["neutral"], _frames(utterance), np.random.default_rng(0))[10]
        return face

    at = SPEECH_INDEX
    assert held("aa")[at["jawOpen"]] > held("eh")[at["jawOpen"]] > held("iy")[at["jawOpen"]] + 0.1
    assert held("uw")[at["mouthPucker"]] > 0.6 > 0.1 > held("iy")[at["mouthPucker"]]
    assert held("iy")[at["mouthStretchLeft"]] > 0.25 > 0.1 > held("uw")[at["mouthStretchLeft"]]
    assert held("th")[at["tongueOut"]] > 0.2


def test_neighbours_colour_a_sound() -> None:
    """A 't' between rounded vowels stays rounded; between spread ones it does not."""
    rounded, spread = (
        articulate(u, NAMED["neutral"], _frames(u), np.random.default_rng(0))[:, SPEECH_INDEX["mouthPucker"]][11]
        for u in (_utterance(["pau", v, "t", v, "pau"], 0.1) for v in ("uw", "iy"))
    )
    assert rounded > spread + 0.25


def test_fast_speech_undershoots() -> None:
    slow, fast = (_utterance(["pau", "t", "aa", "t", "aa", "t", "pau"], length) for length in (0.2, 0.05))
    wide = [articulate(u, NAMED["neutral"], _frames(u), np.random.default_rng(0)) for u in (slow, fast)]
    assert _track(wide[0], "jawOpen").max() > 1.2 * _track(wide[1], "jawOpen").max()


def test_same_seed_same_face_other_seed_other_face() -> None:
    utterance = _utterance(WORDS)
    one, same, other = (articulate(utterance, NAMED["warm"], 60, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01


def test_values_in_range_for_any_sampled_style() -> None:
    utterance, rng = _utterance(WORDS), np.random.default_rng(8)
    for _ in range(40):
        face = articulate(utterance, sample(rng), _frames(utterance), rng)
        assert face.shape == (_frames(utterance), len(SPEECH)) and face.dtype == np.float32
        assert np.isfinite(face).all() and face.min() >= 0 and face.max() <= 1


def test_motion_is_smooth_enough_to_be_a_face() -> None:
    utterance = _utterance(WORDS)
    face = articulate(utterance, NAMED["neutral"], _frames(utterance), np.random.default_rng(0))
    upper = [i for i, name in enumerate(SPEECH) if name not in MOUTH]
    assert np.abs(np.diff(face[:, upper], axis=0)).max() < 0.12
    assert np.abs(np.diff(_track(face, "jawOpen"))).max() < 0.45


def test_styles_are_read_off_one_sentence() -> None:
    """Mean and spread of the face over a sentence name the style: nearest neighbour over other seeds and words."""
    other_words = "pau w iy l ay k dh ax b ih g r eh d b uh k s pau t uw p aa m z pau".split()

    def mark(words: list[str], style: SpeakingStyle, seed: int) -> Float32:
        utterance = _utterance(words, 0.1)
        face = articulate(utterance, style, _frames(utterance), np.random.default_rng(seed))
        return np.concatenate([face.mean(axis=0), face.std(axis=0)])

    known = {name: mark(WORDS, style, 0) for name, style in NAMED.items()}
    for name, style in NAMED.items():
        seen = mark(other_words, style, 7)
        assert min(known, key=lambda n: float(np.linalg.norm(known[n] - seen))) == name


def test_asymmetry_shows_on_the_right_side() -> None:
    utterance = _utterance(WORDS)
    face = articulate(utterance, NAMED["sly"], _frames(utterance), np.random.default_rng(0))
    assert _track(face, "mouthSmileLeft").mean() > 2 * _track(face, "mouthSmileRight").mean()
    assert _track(face, "browOuterUpLeft").mean() > 2 * _track(face, "browOuterUpRight").mean()


def test_stress_track() -> None:
    utterance = _utterance(WORDS)
    stress = stress_track(utterance, _frames(utterance))
    assert stress.shape == (_frames(utterance),) and 0 <= stress.min() and 0.6 < stress.max() <= 1
    assert stress[:4].max() < 0.1
    silent = Utterance("", "", np.zeros(16_000, np.float32), (Phoneme("pau", 0.0, 1.0, 0),))
    assert stress_track(silent, 25).max() == 0.0


def test_frames_beyond_the_end_rest_and_none_is_fine() -> None:
    utterance = _utterance(["pau", "aa", "pau"])
    long = articulate(utterance, NAMED["neutral"], 2000, np.random.default_rng(0))
    assert np.isfinite(long).all() and _parting(long)[100:].max() < 0.01
    assert articulate(utterance, NAMED["neutral"], 0, np.random.default_rng(0)).shape == (0, 42)
    with pytest.raises(ValueError, match="n_frames"):
        articulate(utterance, NAMED["neutral"], -1, np.random.default_rng(0))
