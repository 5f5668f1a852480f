"""The mouth at rest: pauses, murmurs that are no speech, and onsets that must not be missed."""

from __future__ import annotations

from svp_stream.audio.level import Level
from svp_stream.pipeline.resting import DOUBT_FRAMES, Resting

LOUD, QUIET = Level(0, 0.1, 0.5, 5.0), Level(0, 0.0, 0.0, 60.0)


def shares(levels: list[Level], speaking: bool | None, ahead: int = 2) -> list[float]:
    """Shares of rest over a run of frames."""
    rule = Resting()
    return [rule.step(x, levels[i + 1 : i + 1 + ahead], speaking) for i, x in enumerate(levels)]


def test_a_pause_rests_though_the_detector_still_waits() -> None:
    out = shares([LOUD] * 10 + [QUIET] * 10, speaking=True)
    assert out[9] == 0.0 and out[11] == 0.0, "a short silence may be a plosive"
    assert out[15] == 1.0


def test_the_lips_open_before_the_voice() -> None:
    out = shares([QUIET] * 10 + [LOUD] * 5, speaking=False)
    assert out[7] == 1.0
    assert out[8] < 1.0 and out[9] == 0.0, "two frames of look-ahead, two frames to open"


def test_sound_that_is_no_speech_rests_once_the_doubt_is_over() -> None:
    out = shares([QUIET] * 5 + [LOUD] * 40, speaking=False)
    assert min(out) == 0.0, "it might have been speech"
    assert out[5 + DOUBT_FRAMES + 6 :] == [1.0] * (40 - DOUBT_FRAMES - 6)


def test_speech_never_rests() -> None:
    assert shares([LOUD] * 50, speaking=True)[4:] == [0.0] * 46
    assert shares([LOUD] * 50, speaking=None)[4:] == [0.0] * 46, "where nobody judges, sound is speech"
    consonants = ([LOUD] * 6 + [QUIET] * 2) * 6
    assert max(shares(consonants, speaking=True)[4:]) == 0.0
