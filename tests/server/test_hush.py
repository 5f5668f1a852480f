"""An interrupt in the server's boxes: inbox emptied, voice cut with a fade where the mouth closes."""

from __future__ import annotations

import time

import numpy as np

from server.mailbox import OldestOut, Packet, VoiceLine
from server.pacing import MediaClock
from server.worker import Seat, Street
from svp_stream.audio.pcm import FADE_TICKS
from svp_stream.clock import FRAME_TICKS
from svp_stream.packets import AudioChunk, Frame
from svp_stream.pipeline.budget import Budget
from svp_stream.pipeline.engine import Hushing
from tests.fakes.engines import FakeStreet, Faults


class Frames:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.kept: list[Frame] = []

    def put(self, frame: Frame) -> None:
        self.kept.append(frame)


class Deaf:
    """A street that cannot forget."""

    def __init__(self, street: FakeStreet) -> None:
        self._street = street

    def __getattr__(self, name: str) -> object:
        if name == "hush":
            raise AttributeError(name)
        return getattr(self._street, name)


def line_of(ones: int, size: int = 48_000) -> VoiceLine:
    line = VoiceLine(size)
    for at in range(0, ones, 960):
        line.write(AudioChunk(at, np.ones(960, np.float32), 48_000))
    return line


def test_a_cut_is_a_fade_and_then_silence() -> None:
    line = line_of(9600)
    line.cut(4800)
    sound = line.read(0, 9600)
    assert (sound[: 4800 - FADE_TICKS] == 1).all() and not sound[4800:].any()
    assert (np.diff(sound[4800 - FADE_TICKS : 4801]) < 0).all() and np.abs(np.diff(sound)).max() < 0.01
    line.write(AudioChunk(9600, np.ones(960, np.float32), 48_000))
    assert (line.read(9600, 960) == 1).all(), "what comes after it is heard"


def test_a_cut_beyond_the_line_on_either_side() -> None:
    line = line_of(9600)
    line.cut(20_000)
    assert (line.read(0, 9600) == 1).all()
    line.cut(0)
    assert not line.read(0, 9600).any()
    round_ring = line_of(9600, 4800)
    round_ring.cut(100)
    assert not round_ring.read(0, 9600).any(), "the ring holds the last part only, all of it after the cut"


def test_clearing_counts_nothing_as_lost() -> None:
    box: OldestOut[Packet] = OldestOut(4, lambda p: len(p.samples))
    for _ in range(3):
        box.put(Packet(0.0, 0, np.zeros(960, np.float32)))
    assert box.clear() == 3 and len(box) == 0 and box.take_lost() == 0 and box.dropped == 0


def seated(street: Street) -> tuple[Seat, Frames, VoiceLine, float]:
    now_s = time.monotonic()
    frames, voice = Frames(), VoiceLine(96_000)
    seat = Seat(
        street, MediaClock(now_s), frames, voice, Budget(), on_state=lambda _: None, on_failure=lambda _: None
    )  # fmt: skip
    return seat, frames, voice, now_s


def speak(seat: Seat, now_s: float, packets: range, loud: float = 0.5) -> None:
    for n in packets:
        seat.inbox.put(Packet(now_s + 0.02 * (n + 1), n * 960, np.full(960, loud, np.float32)))
        seat.turn(now_s + 0.02 * (n + 1), 40.0)


def test_mouth_and_voice_fall_silent_at_the_same_tick() -> None:
    street = FakeStreet(Faults(), latency_frames=3)
    assert isinstance(street, Hushing)
    seat, frames, voice, now_s = seated(street)
    speak(seat, now_s, range(25))
    shown = len(frames.kept)
    seat.inbox.put(Packet(now_s + 0.52, 25 * 960, np.full(960, 0.5, np.float32)))
    seat.hush()
    assert len(seat.inbox) == 0
    speak(seat, now_s, range(26, 40), 0.0)
    silent = shown * FRAME_TICKS
    assert silent < 24_000, "pictures lag the sound"
    sound = voice.read(0, 36_000)
    assert (sound[: silent - FADE_TICKS] == 0.5).all() and not sound[silent:].any()
    assert [f.pts for f in frames.kept] == [i * FRAME_TICKS for i in range(len(frames.kept))]
    lower = [float(f.rgb[100:].mean()) for f in frames.kept]
    assert min(lower[:shown]) > 100 and max(lower[shown:]) < 25


def test_without_a_street_that_forgets_the_voice_stays_with_the_mouth() -> None:
    deaf = Deaf(FakeStreet(Faults(), latency_frames=3))
    assert not isinstance(deaf, Hushing)
    seat, _, voice, now_s = seated(deaf)  # type: ignore[arg-type]
    speak(seat, now_s, range(25))
    seat.hush()
    speak(seat, now_s, range(25, 40), 0.0)
    sound = voice.read(0, 36_000)
    assert (sound[: 24_000 - FADE_TICKS] == 0.5).all() and not sound[24_000:].any()
