"""How loud, and how much of it is stress.

In: AudioChunk at 16 kHz. Out: one Level for each video frame (1920 ticks, 640 samples). Remembers: `LevelState`, the
loudest the voice has lately been and the unfinished frame. Latency: 1920 ticks, the frame itself.

`stress` drives nods. Loudness is measured in decibels below a ceiling that jumps up with the voice and sinks slowly, so
that a whisperer and a shouter nod alike; it rises with a vowel's attack and falls behind it, as accents are perceived.
The defaults match the quantiles of the emphasis the corpus is spoken with (`synthetic.articulation.stress_track`)
within 0.09 and follow it with r = 0.67 and no lag: a gain of nods learned there holds here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from svp_stream.audio.timeline import Timeline
from svp_stream.clock import FRAME_TICKS, MODEL_RATE_HZ, TICKS_PER_SECOND, ticks_per_sample
from svp_stream.packets import AudioChunk, Float32

FRAME_SAMPLES = FRAME_TICKS // ticks_per_sample(MODEL_RATE_HZ)
SILENCE_DBFS = -100.0


@dataclass(frozen=True, slots=True)
class Level:
    """The frame at `pts`: `rms` of its samples in [0, 1] (1 is a full-scale square wave), `stress` in [0, 1], and how
    far it lies below the loudest that the voice has lately been."""

    pts: int
    rms: float
    stress: float
    below_db: float = 0.0

    @property
    def dbfs(self) -> float:
        """Decibels below full scale, at least -100."""
        return dbfs(self.rms)


@dataclass(frozen=True, slots=True)
class LevelRule:
    """`range_db` below the ceiling stress is 0; the ceiling never sinks under `floor_dbfs`, so that room noise does not
    nod. Time constants in milliseconds. `contrast` is the power that sets accents apart from ordinary vowels."""

    range_db: float = 18.0
    floor_dbfs: float = -42.0
    sink_db_per_s: float = 1.5
    attack_ms: float = 30.0
    release_ms: float = 60.0
    contrast: float = 2.0


@dataclass(slots=True)
class LevelState:
    """`partial` float32 [under 640] begins at `pts`; `ceiling` in dBFS."""

    ceiling: float
    pts: int = 0
    envelope: float = 0.0
    partial: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))


class LevelStream:
    """A `Stage[AudioChunk, Level]`; frames lie on a grid that starts with the stream."""

    def __init__(self, rule: LevelRule | None = None) -> None:
        self._rule = rule or LevelRule()
        self._timeline = Timeline(MODEL_RATE_HZ)
        self._attack = _share(self._rule.attack_ms)
        self._release = _share(self._rule.release_ms)
        self._state = LevelState(self._rule.floor_dbfs)

    @property
    def latency(self) -> int:
        """One frame."""
        return FRAME_TICKS

    def push(self, x: AudioChunk) -> list[Level]:
        """Feed sound; raises StreamError as `Timeline.place` does."""
        placed = self._timeline.place(x)
        out: list[Level] = []
        if placed.restart:
            out = self._finish()
            # The ceiling belongs to the person, who stays the same across a pause.
            self._state = LevelState(self._state.ceiling, placed.pts)
        state = self._state
        silence = np.zeros(placed.silence, np.float32)
        samples = np.concatenate([state.partial, silence, placed.samples])
        whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        state.partial = samples[whole:]
        return out + [self._measure(f) for f in samples[:whole].reshape(-1, FRAME_SAMPLES)]

    def flush(self) -> list[Level]:
        """The unfinished frame, completed with silence."""
        self._timeline.close()
        return self._finish()

    def hush(self) -> None:
        """The unfinished frame becomes silence."""
        self._state.partial = np.zeros_like(self._state.partial)

    def reset(self) -> None:
        """Forget the voice and the time."""
        self._timeline.reset()
        self._state = LevelState(self._rule.floor_dbfs)

    def _finish(self) -> list[Level]:
        rest = self._state.partial
        if not len(rest):
            return []
        self._state.partial = np.zeros(0, np.float32)
        return [self._measure(np.pad(rest, (0, FRAME_SAMPLES - len(rest))))]

    def _measure(self, frame: Float32) -> Level:
        state, rule = self._state, self._rule
        rms = min(math.sqrt(float(np.mean(np.square(frame, dtype=np.float64)))), 1.0)
        loud = dbfs(rms)
        sunk = state.ceiling - rule.sink_db_per_s * FRAME_TICKS / TICKS_PER_SECOND
        state.ceiling = max(loud, sunk, rule.floor_dbfs)
        goal = min(max(1.0 + (loud - state.ceiling) / rule.range_db, 0.0), 1.0)
        state.envelope += (goal - state.envelope) * (self._attack if goal > state.envelope else self._release)
        out = Level(state.pts, rms, state.envelope**rule.contrast, state.ceiling - loud)
        state.pts += FRAME_TICKS
        return out


def dbfs(rms: float) -> float:
    """Decibels relative to full scale, at least -100."""
    return max(20.0 * math.log10(max(rms, 1e-12)), SILENCE_DBFS)


def _share(time_constant_ms: float) -> float:
    """How much of a step a one-pole follower with this time constant takes in one frame."""
    return 1.0 - math.exp(-FRAME_TICKS * 1000 / TICKS_PER_SECOND / time_constant_ms)
