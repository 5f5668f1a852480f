"""Engines and stages with faults built in: slow, failing after a while, refusing; each frame says which it is.

In: 48 kHz chunks. Out: 128x128 frames: upper half 16 bars, the bits of the frame's number (white is 1); lower half
grey, the loudness of the frame's sound. `read_number` and `read_loudness` read them back after a video codec.
Remembers: the number of the next frame. Latency: declared, a whole number of frames.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from server.studio import Manner, Studio
from svp_stream.clock import FRAME_TICKS
from svp_stream.errors import EngineError, PresetError
from svp_stream.packets import AudioChunk, Bytes, Float32, Frame, SpeechState
from svp_stream.pipeline.engine import Engine, FaceStream, StyleRequest
from svp_stream.pipeline.meter import Meter
from svp_stream.style.preset import StylePreset

SIZE = 128
BITS = 16
LOUD = 0.05
"""Root mean square above which a frame's sound counts as speech."""


def draw(number: int, loudness: float) -> Bytes:
    """A frame that says its number and loudness."""
    rgb = np.zeros((SIZE, SIZE, 3), np.uint8)
    bar = SIZE // BITS
    for bit in range(BITS):
        rgb[: SIZE // 2, bit * bar : (bit + 1) * bar] = 235 if number >> bit & 1 else 20
    rgb[SIZE // 2 :] = int(20 + 200 * min(1.0, loudness))
    return rgb


def read_number(rgb: Bytes) -> int:
    """The number in a received picture."""
    bar = SIZE // BITS
    strip = rgb[SIZE // 8 : 3 * SIZE // 8].mean(axis=(0, 2))
    return sum(1 << bit for bit in range(BITS) if strip[bit * bar + 2 : (bit + 1) * bar - 2].mean() > 127)


def read_loudness(rgb: Bytes) -> float:
    """The loudness in a received picture, about 0 to 1."""
    return float((rgb[5 * SIZE // 8 : 7 * SIZE // 8].mean() - 20) / 200)


@dataclass
class Faults:
    """What goes wrong, and when (media seconds)."""

    raise_at_s: float | None = None
    error: Callable[[], Exception] = lambda: RuntimeError("the model has burst")
    frame_takes_s: float = 0.0
    stall_at_s: float | None = None
    stall_s: float = 0.0
    refuse_to_start: Exception | None = None


class FakeStreet:
    """One person's stages."""

    def __init__(self, faults: Faults, latency_frames: int = 1) -> None:
        self.effort = 0
        self.meter = Meter(time.perf_counter)
        self.styles: list[StyleRequest] = []
        self.avatars: list[str] = []
        self.pushed: deque[AudioChunk] = deque(maxlen=500)
        self._faults = faults
        self._latency_frames = latency_frames
        self._sound: Float32 = np.zeros(0, np.float32)
        self._loudness: list[float] = []
        self._number = 0
        self._heard = 0
        self._speaking: bool | None = None
        self._states: list[SpeechState] = []
        self._stalled = False

    @property
    def latency(self) -> int:
        return self._latency_frames * FRAME_TICKS

    def push(self, chunk: AudioChunk) -> list[Frame]:
        assert chunk.pts == self._heard, f"sound at {chunk.pts} does not follow on {self._heard}"
        self._heard = chunk.end
        self.pushed.append(chunk)
        self._misbehave(chunk.end / 48_000)
        self._sound = np.concatenate([self._sound, chunk.samples])
        frames = []
        while len(self._sound) >= FRAME_TICKS:
            with self.meter.span("fake"):
                frames += self._frame(self._sound[:FRAME_TICKS])
            self._sound = self._sound[FRAME_TICKS:]
        self.meter.frames(len(frames))
        return frames

    def take_states(self) -> list[SpeechState]:
        states, self._states = self._states, []
        return states

    def hush(self) -> int:
        self._sound = np.zeros_like(self._sound)
        self._loudness[self._number :] = [0.0] * (len(self._loudness) - self._number)
        return self._number * FRAME_TICKS

    def set_style(self, style: StyleRequest) -> None:
        self.styles.append(style)

    def set_avatar(self, name: str) -> None:
        if name == "cursed":
            raise EngineError("nobody may see the cursed one")
        self.avatars.append(name)

    def _misbehave(self, now_s: float) -> None:
        faults = self._faults
        if faults.raise_at_s is not None and now_s >= faults.raise_at_s:
            raise faults.error()
        if faults.stall_at_s is not None and now_s >= faults.stall_at_s and not self._stalled:
            self._stalled = True
            time.sleep(faults.stall_s)

    def _frame(self, sound: Float32) -> list[Frame]:
        rms = float(np.sqrt(np.mean(np.square(sound))))
        speaking = rms > LOUD
        if speaking != self._speaking:
            self._speaking = speaking
            self._states.append(SpeechState(len(self._loudness) * FRAME_TICKS, speaking))
        self._loudness.append(rms)
        if len(self._loudness) <= self._latency_frames - 1:
            return []
        if self.effort < 4:
            time.sleep(self._faults.frame_takes_s)
        number, self._number = self._number, self._number + 1
        return [Frame(number * FRAME_TICKS, draw(number, self._loudness[number]), level=self.effort)]


class FakeEngine:
    """Shared by all; `warm` can be made to fail."""

    name = "fake"
    size = SIZE
    avatars = ("ada", "ben", "cursed")
    prior = None
    style_dim = 4

    def __init__(self, warm_error: Exception | None = None) -> None:
        self._warm_error = warm_error

    def warm(self) -> None:
        if self._warm_error is not None:
            raise self._warm_error

    def stream(self, *, avatar: str, style: StyleRequest, seed: int) -> FaceStream:
        raise NotImplementedError("the fake studio makes streets, not faces")


class FakeShelf:
    """Three presets on the axes of a space of four numbers, and one whose file is broken."""

    def names(self) -> tuple[str, ...]:
        return ("broken", "calm", "lively", "warm")

    def get(self, name: str) -> StylePreset:
        if name == "broken":
            raise PresetError("styles/broken.npz: key 'mu': expected float32 [4]; found float64 [3]")
        axes = {"calm": 0, "lively": 1, "warm": 2}
        if name not in axes:
            raise PresetError(f"unknown style '{name[:80]}' In styles there are: broken, calm, lively, warm")
        mu = np.eye(4, dtype=np.float32)[axes[name]]
        strengths = {"calm": 0.8, "lively": 1.3, "warm": 1.0}
        thumbnail = np.full((64, 64, 3), 60 * axes[name] + 40, np.uint8)
        return StylePreset(name, mu, np.zeros(4, np.float32), "", f"speaks {name}", 0.1, strengths[name], thumbnail)


@dataclass
class FakeStages:
    """Makes streets, each with the next faults of the list (the last ones go on), and keeps them for the test."""

    faults: list[Faults] = field(default_factory=lambda: [Faults()])
    latency_frames: int = 1
    made: list[FakeStreet] = field(default_factory=list)

    def __call__(self, avatar: str, style: StyleRequest, seed: int) -> FakeStreet:
        faults = self.faults[min(len(self.made), len(self.faults) - 1)]
        if faults.refuse_to_start is not None:
            raise faults.refuse_to_start
        street = FakeStreet(faults, self.latency_frames)
        street.styles.append(style)
        street.avatars.append(avatar)
        self.made.append(street)
        return street


def fake_studio(stages: FakeStages | None = None, engine: Engine | None = None) -> Studio:
    """A studio of fakes."""
    seeds: Iterator[int] = count()
    return Studio(
        engine or FakeEngine(), FakeShelf(), stages or FakeStages(), Manner("ada", {"warm": 1.0}, 1.0, 0.1), seeds=seeds
    )
