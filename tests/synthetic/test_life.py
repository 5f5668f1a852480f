"""Real life: breaths that are heard and seen, words singled out, heads that turn aside, a camera slightly off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from svp_stream.arkit import SPEECH_INDEX
from svp_stream.packets import Float32, Pose
from svp_stream.synthetic import life
from svp_stream.synthetic.articulation import articulate, stress_track
from svp_stream.synthetic.camera import Framing
from svp_stream.synthetic.phonemes import Phoneme
from svp_stream.synthetic.speech import Utterance
from svp_stream.synthetic.styles import NAMED

RATE = 16_000


def _said(text: str = "ah, ah") -> Utterance:
    """0.8 s of silence, a vowel, 0.8 s of silence, a longer vowel, silence."""
    marks = [("pau", 0.0, 0.8, 0), ("ah", 0.8, 1.0, 2), ("pau", 1.0, 1.8, 0), ("ah", 1.8, 2.1, 2), ("pau", 2.1, 2.4, 0)]
    time = np.arange(round(2.4 * RATE)) / RATE
    voiced = sum(((time >= a) & (time < b)).astype(float) for s, a, b, _ in marks if s == "ah")
    tone = 0.3 * np.sin(2 * np.pi * 150 * time) * voiced
    return Utterance(text, "x", tone.astype(np.float32), tuple(Phoneme(*m) for m in marks))


def _level(samples: Float32, start_s: float, end_s: float) -> float:
    return float(np.sqrt(np.mean(samples[round(start_s * RATE) : round(end_s * RATE)] ** 2)))


def test_a_breath_is_heard_before_words_and_nowhere_else() -> None:
    said = _said()
    breathed = life.breathe(said, 1.0, np.random.default_rng(0))
    assert len(breathed.breaths) == 2 and breathed.phonemes == said.phonemes
    for start, end in breathed.breaths:
        assert 0.0005 < _level(breathed.samples, start, end) < 0.05
    changed = np.flatnonzero(breathed.samples != said.samples) / RATE
    assert all(any(a <= t < b for a, b in breathed.breaths) for t in changed)
    ends = [end for _, end in breathed.breaths]
    assert ends == pytest.approx([0.8 - life.BREATH_GAP_S, 1.8 - life.BREATH_GAP_S], abs=2e-4)
    assert life.breathe(said, 0.0, np.random.default_rng(0)) is not breathed
    assert not life.breathe(said, 0.0, np.random.default_rng(0)).breaths


def test_lips_part_for_a_breath() -> None:
    said = _said()
    breathed = life.breathe(said, 1.0, np.random.default_rng(0))
    quiet, drawn = (articulate(u, NAMED["neutral"], 60, np.random.default_rng(1)) for u in (said, breathed))
    opened = (drawn - quiet)[:, SPEECH_INDEX["jawOpen"]]
    middle = round(sum(breathed.breaths[0]) / 2 * 25)
    assert opened[middle] > 0.05 and abs(opened[2]) < 1e-3
    assert quiet[:, SPEECH_INDEX["jawOpen"]].max() > opened.max(), "speech opens further"


def test_one_word_is_singled_out_louder_and_with_the_brows() -> None:
    said = _said()
    loud = life.emphasise(said, np.random.default_rng(3))
    middles = [0.9, 1.95]
    (accent,) = loud.accents
    assert any(abs(accent - m) < 1e-6 for m in middles)
    other = next(m for m in middles if abs(accent - m) > 0.1)
    gains = [_level(loud.samples, m - 0.05, m + 0.05) / _level(said.samples, m - 0.05, m + 0.05)
             for m in (accent, other)]
    assert 10 ** (3 / 20) - 0.01 < gains[0] < 10 ** (6 / 20) + 0.01 and gains[1] == pytest.approx(1.0)
    assert stress_track(loud, 60)[round(other * 25)] < stress_track(said, 60)[round(other * 25)] + 1e-6
    for style, brow in (("cheerful", "browOuterUpLeft"), ("angry", "browDownLeft")):
        flat = replace(NAMED[style], brow_down=0.2, brow_outer=0.2)
        plain_and_accented = (said, replace(said, accents=(0.9,)))
        still, moved = (articulate(u, flat, 60, np.random.default_rng(1)) for u in plain_and_accented)
        flash = (moved - still)[:, SPEECH_INDEX[brow]]
        assert flash.max() > 0.2 and abs(int(flash.argmax()) - 0.86 * 25) <= 1.5
        assert flash[:12].max() < 1e-6 and flash[35:].max() < 1e-6


def test_a_question_ends_on_its_accent_and_silence_has_none() -> None:
    ends = {life.emphasise(_said("ah ah?"), np.random.default_rng(i)).accents for i in range(8)}
    assert len(ends) == 1 and ends.pop() == pytest.approx((1.95,))
    mute = Utterance("", "x", np.zeros(RATE, np.float32), (Phoneme("pau", 0.0, 1.0, 0),))
    assert life.emphasise(mute, np.random.default_rng(0)) is mute


def test_heads_turn_to_twenty_degrees_smoothly_and_no_further() -> None:
    poses = [Pose(n * 1920, yaw=3.0 * float(np.sin(n / 20))) for n in range(2000)]
    turned = life.turn_heads(poses, 20.0, 0.3, np.random.default_rng(0))
    yaw, gaze = (np.array([getattr(p, name) for p in turned]) for name in ("yaw", "gaze_x"))
    assert 18 < np.abs(yaw).max() <= 20 and yaw.max() > 12 and yaw.min() < -12
    assert np.abs(np.diff(yaw)).max() * 25 < 120, "degrees a second"
    assert np.abs(gaze).max() <= life.GAZE_LIMIT_DEG
    aside = np.abs(yaw - [p.yaw for p in poses]) > 8
    held = np.abs(yaw[aside] + gaze[aside])
    assert (held < 8).mean() > 0.2 and (np.abs(gaze[aside]) < 1e-9).mean() > 0.2, "eyes stay, or go along"
    assert life.turn_heads(poses, 20.0, 0.0, np.random.default_rng(0)) == poses
    assert life.turn_heads(poses, 5.0, 1.0, np.random.default_rng(0)) == poses, "too little to be a turn"


def test_framing_is_off_by_no_more_than_asked() -> None:
    found = [life.frame(0.02, np.random.default_rng(i)) for i in range(50)]
    scales = np.array([f.inter_ocular / Framing().inter_ocular - 1 for f, _, _ in found])
    assert 0.01 < np.abs(scales).max() <= 0.02
    assert all(abs(dx) <= 0.02 and abs(dy) <= 0.02 for _, dx, dy in found)
    assert life.frame(0.0, np.random.default_rng(0)) == (Framing(), 0.0, 0.0)
