"""One person's street: the stages in flow order, from the wire's sound to pictures.

In: 48 kHz mono `AudioChunk`s. Out: `Frame`s, one for each 1920 ticks; speech states beside them.
Remembers: the four light streams, the sound held back for the detector, the controls, the meter.
Latency: the resampler's plus the longer of the face's and of voice activity with hysteresis (they hear the same sound
at the same time). Where the detector is slower, the face's sound waits for it, so that a frame knows who speaks.

    resample 48 > 16 kHz ──▶ vad ──▶ speech ──▶ (hear)
                         └─▶ wait ────────────▶ face stream ──▶ frames
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

import numpy as np

from svp_stream.audio.resample import Resampler
from svp_stream.audio.speech import SpeechDetector, SpeechRule
from svp_stream.audio.vad import Vad
from svp_stream.clock import MODEL_RATE_HZ, WIRE_RATE_HZ, ms_to_ticks, ticks_per_sample
from svp_stream.packets import AudioChunk, Float32, Frame, SpeechState
from svp_stream.pipeline.engine import Attending, Engine, Hushing, StyleRequest
from svp_stream.pipeline.meter import Meter, Timed, WallClock

FILL_TICKS = ms_to_ticks(2000)
"""A hole in the sound up to this long is heard as silence; after a longer one the picture starts again."""

_STATES_KEPT = 256
_STEP = ticks_per_sample(MODEL_RATE_HZ)


class Session:
    """A `Stage[AudioChunk, Frame]` over a shared engine and voice-activity network.

    `vad` None leaves the speech state unknown (the face idles as a listener). Used from the inference thread only.
    `clock` measures the stages and never touches what they compute.
    """

    def __init__(
        self,
        engine: Engine,
        vad: Vad | None,
        *,
        avatar: str,
        style: StyleRequest,
        seed: int,
        rule: SpeechRule | None = None,
        clock: WallClock = time.perf_counter,
    ) -> None:
        self.meter = Meter(clock)
        self.avatar = avatar
        self.style = style
        self.addressed = False
        self._first = (avatar, style)
        self._resampler = Resampler(WIRE_RATE_HZ, MODEL_RATE_HZ, fill_ticks=FILL_TICKS)
        self._vad = vad.stream() if vad is not None else None
        self._speech = SpeechDetector(rule)
        self._face = engine.stream(avatar=avatar, style=style, seed=seed)
        heard = self._vad.latency + self._speech.latency if self._vad is not None else 0
        wait = max(heard - self._face.latency, 0)
        self._wait = -(-wait // _STEP)
        self._begin()

    def _begin(self) -> None:
        self._due: int | None = None
        self._silent_until = 0
        self._held: Float32 = np.zeros(0, dtype=np.float32)
        self._held_pts = 0
        self._states: deque[SpeechState] = deque(maxlen=_STATES_KEPT)

    @property
    def latency(self) -> int:
        """Declared, in ticks."""
        return self._resampler.latency + self._face.latency + self._wait * _STEP

    @property
    def effort(self) -> int:
        """Rung of the ladder that the next frame is made at."""
        return self._face.effort

    @effort.setter
    def effort(self, rung: int) -> None:
        self._face.effort = rung

    def set_style(self, style: StyleRequest) -> None:
        """Glide to `style` from the next frame on; raises `EngineError` when it does not fit the engine."""
        self._face.set_style(style)
        self.style = style

    def set_avatar(self, name: str) -> None:
        """Show another person from the next frame on; raises `EngineError` for an unknown name."""
        self._face.set_avatar(name)
        self.avatar = name

    def attend(self, on: bool) -> None:
        """Whether somebody who is not heard here speaks to the person, from the next frame on; an engine whose people
        do not listen leaves it at that."""
        if isinstance(self._face, Attending):
            self._face.attend(on)
        self.addressed = on

    def take_states(self) -> list[SpeechState]:
        """Changes of who speaks since the last call (the latest 256)."""
        states = list(self._states)
        self._states.clear()
        return states

    def push(self, x: AudioChunk) -> list[Frame]:
        """Feed sound, get the frames that became ready; raises `StreamError` as `audio.timeline.Timeline` does."""
        frames = self._restart() if self._due is not None and x.pts - self._due > FILL_TICKS else []
        with self.meter.span("resample"):
            chunks = self._resampler.push(x)
        self._due = x.end
        for chunk in chunks:
            frames += self._hear(chunk)
        self.meter.frames(len(frames))
        return frames

    def flush(self) -> list[Frame]:
        """End of the sound; the frames still owed."""
        frames: list[Frame] = []
        for chunk in self._resampler.flush():
            frames += self._hear(chunk)
        if self._vad is not None:
            for window in self._vad.flush():
                self._tell(self._speech.push(window))
            self._tell(self._speech.flush())
        if len(self._held):
            frames += self._feed(len(self._held))
        with self.meter.span("face"):
            frames += self._face.flush()
        self._ask_face()
        self.meter.frames(len(frames))
        return frames

    def hush(self) -> int:
        """Sound that was heard and is not shown yet becomes silence.

        Returns the tick from which pictures show none of it: the next frame's, or the end of the sound where the
        engine cannot forget. Who speaks is told a little later, as after any silence.
        """
        self._held = np.zeros_like(self._held)
        self._silent_until = (self._due or 0) + self._resampler.latency
        if isinstance(self._face, Hushing):
            return self._face.hush()
        return self._due or 0

    def reset(self) -> None:
        """As newly made: first avatar and style, full effort; the meter starts again too."""
        self.avatar, self.style = self._first
        self.addressed = False
        self._clear()
        self.meter.reset()

    def _clear(self) -> None:
        for stage in (self._resampler, self._speech, self._face):
            stage.reset()
        if self._vad is not None:
            self._vad.reset()
        self._begin()

    def _restart(self) -> list[Frame]:
        """The sound stopped for long: give what is owed and begin again with the controls as they are."""
        frames = self.flush()
        states, effort = self.take_states(), self.effort
        self._clear()
        self._states.extend(states)
        self._face.set_avatar(self.avatar)
        self._face.set_style(self.style)
        self.attend(self.addressed)
        self.effort = effort
        return frames

    def _hear(self, chunk: AudioChunk) -> list[Frame]:
        rest = -(-(self._silent_until - chunk.pts) // _STEP)
        if rest > 0:  # what the resampler still held when its sound was to be forgotten
            chunk = replace(chunk, samples=np.where(np.arange(len(chunk.samples)) < rest, 0.0, chunk.samples))
        if self._vad is not None:
            with self.meter.span("vad"):
                windows = self._vad.push(chunk)
            with self.meter.span("speech"):
                for window in windows:
                    self._tell(self._speech.push(window))
        if not len(self._held):
            self._held_pts = chunk.pts
        self._held = np.concatenate([self._held, chunk.samples])
        return self._feed(len(self._held) - self._wait)

    def _tell(self, states: list[SpeechState]) -> None:
        for state in states:
            self._face.hear(state)
            self._states.append(state)

    def _feed(self, samples: int) -> list[Frame]:
        """Give the face the first `samples` of the sound held back."""
        if samples <= 0:
            return []
        chunk = AudioChunk(self._held_pts, self._held[:samples], MODEL_RATE_HZ)
        self._held, self._held_pts = self._held[samples:], chunk.end
        with self.meter.span("face"):
            frames = self._face.push(chunk)
        self._ask_face()
        return frames

    def _ask_face(self) -> None:
        """Where the face's time went, if it can say."""
        if isinstance(self._face, Timed):
            for stage, ms in self._face.take_times().items():
                self.meter.add(f"face.{stage}", ms)

