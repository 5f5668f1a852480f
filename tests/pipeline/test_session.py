"""One person's street beyond the four laws (`tests/laws`): speech state, controls, holes in the sound, the meter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from svp_stream.audio.speech import SpeechDetector
from svp_stream.audio.vad import WINDOW_TICKS, Vad
from svp_stream.clock import FRAME_TICKS, TICKS_PER_SECOND, WIRE_RATE_HZ
from svp_stream.errors import EngineError, StreamError
from svp_stream.packets import AudioChunk, Float32, Frame, SpeechState
from svp_stream.pipeline.bench import syllables
from svp_stream.pipeline.cartoon import mouth_opening
from svp_stream.pipeline.engine import Engine, StyleRequest
from svp_stream.pipeline.meter import TOTAL
from svp_stream.pipeline.noop import DrawnShelf, NoopEngine
from svp_stream.pipeline.session import FILL_TICKS, Session

VAD = Vad.load()
CHUNK = 960


def request(name: str) -> StyleRequest:
    p = DrawnShelf().get(name)
    return StyleRequest(p.name, p.mu, p.log_var)


def session(engine: Engine | None = None, vad: Vad | None = VAD) -> Session:
    return Session(engine or NoopEngine(), vad, avatar="disc", style=request("warm"), seed=1)


def feed(s: Session, x: Float32, start: int = 0) -> list[Frame]:
    chunks = (AudioChunk(start + at, x[at : at + CHUNK], WIRE_RATE_HZ) for at in range(0, len(x), CHUNK))
    return [f for chunk in chunks for f in s.push(chunk)]


def quiet(seconds: float) -> Float32:
    return np.zeros(round(seconds * WIRE_RATE_HZ), np.float32)


class SilentFace:
    """A face that draws nothing and writes down what it is told."""

    size, name, prior, style_dim, avatars = 2, "silent", None, 1, ("nobody",)

    def __init__(self, latency: int) -> None:
        self.latency = latency
        self.effort = 0
        self.log: list[tuple[str, int]] = []
        self.times = {"decoder": 2.0}

    def warm(self) -> None: ...

    def stream(self, *, avatar: str, style: StyleRequest, seed: int) -> SilentFace:
        return self

    def push(self, x: AudioChunk) -> list[Frame]:
        self.log.append(("sound", x.end))
        return [Frame(x.pts, np.zeros((2, 2, 3), np.uint8))]

    def flush(self) -> list[Frame]:
        return []

    def reset(self) -> None: ...

    def hear(self, state: SpeechState) -> None:
        self.log.append(("state", state.pts))

    def set_style(self, style: StyleRequest) -> None: ...

    def set_avatar(self, name: str) -> None: ...

    def take_times(self) -> dict[str, float]:
        return self.times


@pytest.mark.parametrize("face_latency", [0, 1920, 5760, 9600])
def test_a_frame_knows_who_speaks(face_latency: int) -> None:
    """When the face gets sound up to tick T, every state that its frames up to T - latency need has been told."""
    face = SilentFace(face_latency)
    s = session(face)
    feed(s, syllables(4.0))
    told = [pts for kind, pts in face.log if kind == "state"]
    assert len(told) >= 3, "the syllables are heard as speech"
    for at, (kind, pts) in enumerate(face.log):
        if kind != "state":
            continue
        heard = max((end for k, end in face.log[:at] if k == "sound"), default=0)
        assert heard - face_latency <= pts, "a frame that this state concerns has already been made"


def test_latency_is_the_slower_branch() -> None:
    detector = WINDOW_TICKS + SpeechDetector().latency
    resampler = session(SilentFace(0), None).latency
    assert session(SilentFace(9600)).latency == resampler + 9600
    assert session(SilentFace(0)).latency == resampler + detector
    assert session(SilentFace(1920), None).latency == resampler + 1920


def test_every_frame_comes_by_its_latency() -> None:
    s = session()
    x = syllables(3.0)
    for at in range(0, len(x), CHUNK):
        for frame in s.push(AudioChunk(at, x[at : at + CHUNK], WIRE_RATE_HZ)):
            assert at - CHUNK < frame.pts + s.latency - CHUNK <= at + CHUNK
    owed = s.flush()
    assert owed[-1].pts == len(x) - FRAME_TICKS


def test_turns_are_told_and_taken_once() -> None:
    s = session()
    feed(s, np.concatenate([quiet(1.0), syllables(3.0), quiet(1.5)]))
    states = s.take_states()
    assert states[0] == SpeechState(0, False)
    assert [x.speaking for x in states[1:3]] == [True, False]
    assert TICKS_PER_SECOND * 0.8 < states[1].pts < TICKS_PER_SECOND * 1.4
    assert s.take_states() == []


def test_without_a_detector_nobody_is_heard() -> None:
    s = session(vad=None)
    frames = feed(s, syllables(2.0)) + s.flush()
    assert len(frames) == 50
    assert s.take_states() == []
    assert max(mouth_opening(f.rgb) for f in frames) > 0.3


def test_short_hole_is_silence_of_the_same_length() -> None:
    x, hole = syllables(1.0), TICKS_PER_SECOND
    s = session()
    holed = feed(s, x) + feed(s, x, start=len(x) + hole) + s.flush()
    t = session()
    whole = feed(t, np.concatenate([x, quiet(1.0), x])) + t.flush()
    assert [f.pts for f in holed] == [f.pts for f in whole]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(holed, whole, strict=True))


def test_long_hole_starts_again_with_the_controls_as_they_are() -> None:
    s = session()
    s.set_avatar("square")
    s.set_style(request("sad"))
    s.effort = 2
    first = feed(s, syllables(1.0))
    start = TICKS_PER_SECOND + FILL_TICKS + 77
    second = feed(s, quiet(1.0), start=start) + s.flush()
    frames = first + second
    assert len(frames) == 50
    assert [f.pts for f in frames[25:27]] == [start, start + FRAME_TICKS]
    assert (s.avatar, s.style.name, s.effort) == ("square", "sad", 2)
    assert frames[-1].level == 2
    blank = session()
    blank.set_avatar("square")
    blank.set_style(request("sad"))
    other = feed(blank, quiet(1.0)) + blank.flush()
    assert np.abs(frames[-1].rgb[:8].astype(int) - other[-1].rgb[:8]).mean() < 1, "the colour of the style stays"


def test_reset_brings_back_the_first_person_and_style() -> None:
    s = session()
    before = feed(s, syllables(0.4)) + s.flush()
    s.set_avatar("square")
    s.set_style(request("sad"))
    s.effort = 3
    s.reset()
    after = feed(s, syllables(0.4)) + s.flush()
    assert (s.avatar, s.style.name, s.effort) == ("disc", "warm", 0)
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(before, after, strict=True))


def test_wrong_controls_change_nothing() -> None:
    s = session()
    with pytest.raises(EngineError, match="nobody"):
        s.set_avatar("nobody")
    with pytest.raises(EngineError, match="tiny"):
        s.set_style(StyleRequest("tiny", np.zeros(3, np.float32), np.zeros(3, np.float32)))
    assert (s.avatar, s.style.name) == ("disc", "warm")
    assert feed(s, syllables(0.4))


@pytest.mark.parametrize(
    "chunk",
    [
        AudioChunk(0, np.zeros(320, np.float32), 16_000),
        AudioChunk(0, np.full(960, np.nan, np.float32), WIRE_RATE_HZ),
        AudioChunk(0, np.zeros((960, 2), np.float32), WIRE_RATE_HZ),
    ],
    ids=["rate", "nan", "stereo"],
)
def test_bad_sound_is_refused(chunk: AudioChunk) -> None:
    with pytest.raises(StreamError):
        session().push(chunk)


def test_end_is_the_end() -> None:
    s = session()
    feed(s, quiet(0.1))
    s.flush()
    with pytest.raises(StreamError, match="reset"):
        s.push(AudioChunk(4800, quiet(0.02), WIRE_RATE_HZ))
    s.reset()
    assert len(feed(s, quiet(0.2)) + s.flush()) == 5


def test_empty_stream() -> None:
    assert session().flush() == []


def _ticking() -> Callable[[], float]:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    return clock


def test_meter_accounts_by_stage() -> None:
    s = Session(SilentFace(1920), VAD, avatar="nobody", style=request("warm"), seed=0, clock=_ticking())
    s.push(AudioChunk(0, quiet(0.2), WIRE_RATE_HZ))
    told = s.meter.snapshot()
    assert list(told) == ["resample", "vad", "speech", "face", "face.decoder", TOTAL]
    assert told["face.decoder"].last_ms == 2.0, "a face that can say where its time goes is asked"
    assert told[TOTAL].last_ms == pytest.approx(sum(told[k].last_ms for k in ("resample", "vad", "speech", "face")))
