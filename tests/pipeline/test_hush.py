"""An interrupt inside the street: what was heard and not shown becomes silence, at a tick that is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svp_stream.clock import FRAME_TICKS, WIRE_RATE_HZ
from svp_stream.packets import AudioChunk, Float32, Frame
from svp_stream.pipeline.bench import syllables
from svp_stream.pipeline.cartoon import mouth_opening
from svp_stream.pipeline.engine import Engine, Hushing, StyleRequest
from svp_stream.pipeline.noop import DrawnShelf, NoopEngine
from svp_stream.pipeline.session import Session
from tests.fakes.tiny_weights import tiny_engine, tiny_styles
from tests.pipeline.test_session import SilentFace

PACKET = 960
HALF = 31 * PACKET
"""Amid a syllable."""
SPEECH: Float32 = syllables(2.0)


def session(engine: Engine | None = None, avatar: str = "disc", style: StyleRequest | None = None) -> Session:
    warm = DrawnShelf().get("warm")
    style = style or StyleRequest(warm.name, warm.mu, warm.log_var)
    return Session(engine or NoopEngine(), None, avatar=avatar, style=style, seed=1)


def push(s: Session, x: Float32, start: int) -> list[Frame]:
    return [f for at in range(0, len(x), PACKET) for f in s.push(AudioChunk(start + at, x[at : at + PACKET], 48_000))]


def test_the_next_frame_is_the_first_without_it() -> None:
    s = session()
    before = push(s, SPEECH[:HALF], 0)
    since = s.hush()
    after = push(s, np.zeros(HALF, np.float32), HALF)
    assert since == after[0].pts == before[-1].pts + FRAME_TICKS
    assert [f.pts for f in after] == [since + i * FRAME_TICKS for i in range(len(after))]
    openings = [mouth_opening(f.rgb) for f in after]
    assert openings == sorted(openings, reverse=True), "the drawn mouth halves with each frame"
    assert 0.3 < openings[0] and max(openings[5:]) < 0.05
    waiting = session()
    push(waiting, SPEECH[:HALF], 0)
    later = [mouth_opening(f.rgb) for f in push(waiting, np.zeros(HALF, np.float32), HALF)]
    assert sum(o > 0.05 for o in later) >= sum(o > 0.05 for o in openings) + 2, "two frames of look-ahead are saved"


def test_speech_after_it_is_heard_as_ever() -> None:
    s, fresh = session(), session()
    push(s, SPEECH[:HALF], 0)
    push(fresh, np.zeros(HALF, np.float32), 0)
    s.hush()
    for one in (s, fresh):
        push(one, np.zeros(WIRE_RATE_HZ, np.float32), HALF)
    a, b = (push(one, SPEECH, HALF + WIRE_RATE_HZ) for one in (s, fresh))
    assert [mouth_opening(f.rgb) for f in a] == pytest.approx([mouth_opening(f.rgb) for f in b], abs=0.02)


@pytest.mark.parametrize("effort", [0, 4])
def test_the_trained_face_shows_what_it_would_show_in_silence(tiny_weights: Path, effort: int) -> None:
    engine, style = tiny_engine(), tiny_styles()["plain"]
    shown: dict[str, list[Frame]] = {}
    for name in ("hushed", "spoken"):
        s = session(engine, "pat", style)
        before = push(s, SPEECH[:HALF], 0)
        s.effort = effort
        since = s.hush() if name == "hushed" else 0
        after = push(s, np.zeros(HALF // 2, np.float32), HALF)
        shown[name] = after
        if name == "hushed":
            assert since == after[0].pts == before[-1].pts + FRAME_TICKS
    first = [np.abs(shown["hushed"][0].rgb.astype(int) - shown["spoken"][0].rgb).mean()]
    assert first[0] > 0, "the first picture shows less than was heard; a repeated one would be the same"


def test_before_any_sound_there_is_nothing_to_forget(tiny_weights: Path) -> None:
    assert session().hush() == 0
    s = session(tiny_engine(), "pat", tiny_styles()["plain"])
    assert s.hush() == 0
    assert [f.pts for f in push(s, np.zeros(HALF, np.float32), 0)][:2] == [0, FRAME_TICKS]


def test_an_engine_that_cannot_forget_says_when_it_will_be_through() -> None:
    face = SilentFace(1920)
    assert not isinstance(face, Hushing)
    s = session(face, "nobody")
    push(s, SPEECH[:HALF], 0)
    assert s.hush() == HALF
