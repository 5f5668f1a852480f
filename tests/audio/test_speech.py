"""Turns: hysteresis, shortest speech, hangover, holes."""

from __future__ import annotations

import pytest

from svp_stream.audio.speech import SpeechDetector, SpeechRule
from svp_stream.audio.vad import WINDOW_TICKS
from svp_stream.errors import StreamError
from svp_stream.packets import SpeechState, VadWindow

RULE = SpeechRule(on=0.5, off=0.3, min_speech_ms=64, hangover_ms=96)
"""Two windows to open, three to close."""


def turns(probabilities: str, *, flush: bool = False) -> list[tuple[int, bool]]:
    """`.` is silence, `-` between the thresholds, `#` speech, a blank a hole; the result counts windows."""
    detector = SpeechDetector(RULE)
    out: list[SpeechState] = []
    for i, c in enumerate(probabilities):
        if c != " ":
            out += detector.push(VadWindow(i * WINDOW_TICKS, {".": 0.1, "-": 0.4, "#": 0.9}[c]))
    out += detector.flush() if flush else []
    assert all(s.pts % WINDOW_TICKS == 0 for s in out)
    return [(s.pts // WINDOW_TICKS, s.speaking) for s in out]


@pytest.mark.parametrize(("heard", "told"), [
    ("", []),
    ("....", [(0, False)]),
    ("##", [(0, False), (0, True)]),
    ("..##", [(0, False), (2, True)]),
    ("..#.", [(0, False)]),
    ("..#-", [(0, False), (2, True)]),
    ("..--", [(0, False)]),
    (".-##", [(0, False), (2, True)]),
    ("##...", [(0, False), (0, True), (5, False)]),
    ("##..", [(0, False), (0, True)]),
    ("##..-...", [(0, False), (0, True), (8, False)]),
    ("##..#..", [(0, False), (0, True)]),
    ("##...#.##", [(0, False), (0, True), (5, False), (7, True)]),
    ("##     .", [(0, False), (0, True), (5, False)]),
    ("##     ##", [(0, False), (0, True), (5, False), (7, True)]),
    ("##  ##", [(0, False), (0, True)]),
    ("..# #", [(0, False)]),
    (".....", [(0, False)]),
])
def test_turns(heard: str, told: list[tuple[int, bool]]) -> None:
    assert turns(heard) == told


def test_the_end_of_input_ends_a_turn_after_its_hangover() -> None:
    assert turns("##", flush=True) == [(0, False), (0, True), (5, False)]
    assert turns("##.", flush=True) == [(0, False), (0, True), (5, False)]
    assert turns("..#", flush=True) == [(0, False)]


def test_latency_is_whole_windows() -> None:
    assert SpeechDetector(RULE).latency == 2 * WINDOW_TICKS
    assert SpeechDetector(SpeechRule(min_speech_ms=65)).latency == 3 * WINDOW_TICKS
    assert SpeechDetector(SpeechRule(min_speech_ms=0)).latency == WINDOW_TICKS


def test_windows_must_not_overlap() -> None:
    detector = SpeechDetector()
    detector.push(VadWindow(0, 0.0))
    with pytest.raises(StreamError, match="overlaps the one that ends at 1536"):
        detector.push(VadWindow(WINDOW_TICKS - 1, 0.0))


@pytest.mark.parametrize("bad", [{"on": 0.3}, {"off": 0.0}, {"on": 1.0}, {"min_speech_ms": -1}, {"hangover_ms": -1}])
def test_rules_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must satisfy|0 or more"):
        SpeechRule(**bad)
