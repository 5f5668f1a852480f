"""Held-out clips as trials: what was said, what the renderer drew, and a way to let an engine say it.

In: a corpus folder; an engine. Out: `Trial`s with pictures and truth; `play`, the pictures that an engine makes of the
same sound through the very same `Session` as the server. Remembers: nothing.
With a script the engine takes the renderer's poses, so that its pictures can be laid over the renderer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from scipy.signal import resample_poly

from svp_stream.audio.vad import Vad
from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS, MODEL_RATE_HZ, WIRE_RATE_HZ
from svp_stream.errors import EngineError, MediaError
from svp_stream.evaluation.measure import truth
from svp_stream.evaluation.metrics import Mask
from svp_stream.packets import AudioChunk, Bytes, Float32, Pose
from svp_stream.pipeline.engine import Engine, FaceStream, StyleRequest
from svp_stream.pipeline.session import Session
from svp_stream.synthetic.speech import HELD_OUT_VOICES
from svp_stream.training.clips import Clip, Clips, read_frames
from svp_stream.training.frames import face_boxes

SILENCE_S: Final = 0.2
"""A frame counts as silent when it is at least this far from every sound."""


class Subject(Engine, Protocol):
    """An engine that can also be told where the head goes."""

    def stream(
        self, *, avatar: str, style: StyleRequest, seed: int, script: Sequence[Pose] | None = None
    ) -> FaceStream:
        """As `Engine.stream`; with `script`, frame n shows pose `script[n]`."""
        ...


@dataclass(frozen=True)
class Trial:
    """A held-out clip with a picture."""

    clip: Clip

    @cached_property
    def rgb(self) -> Bytes:
        """What the renderer drew, uint8 [T, H, W, 3]."""
        return read_frames(self.clip)[0]

    @cached_property
    def readings(self) -> Float32:
        """The truth of what the gauge reads, [T, 49]."""
        c = self.clip
        return truth(c.landmarks, c.kps, c.expression, c.pose)

    @cached_property
    def boxes(self) -> Float32:
        """Face boxes [T, 4] in pixels."""
        return face_boxes(self.clip.kps, self.rgb.shape[1])

    @cached_property
    def poses(self) -> list[Pose]:
        """Where the renderer's head went."""
        return [Pose(n * FRAME_TICKS, *(float(x) for x in row)) for n, row in enumerate(self.clip.pose)]

    @cached_property
    def speaking(self) -> Mask:
        """[T], false where nobody speaks."""
        at = (np.arange(self.clip.frames) + 0.5) / FRAME_RATE_HZ
        voiced = np.zeros(self.clip.frames, np.bool_)
        for p in self.clip.phonemes:
            if p.symbol != "pau":
                voiced |= (at > p.start_s - SILENCE_S) & (at < p.end_s + SILENCE_S)
        return voiced

    @cached_property
    def sound(self) -> Float32:
        """What a caller would send: float32 [T * 1920] at 48 kHz."""
        up = WIRE_RATE_HZ // MODEL_RATE_HZ
        return np.asarray(resample_poly(self.clip.audio.astype(np.float32) / 32768, up, 1), np.float32)


def open_trials(corpus: Path, avatars: Sequence[str]) -> list[Trial]:
    """The clips of `corpus` that nobody trained on, in a held-out voice, of people whom the engine knows.

    Raises MediaError when there is none.
    """
    held = [c for c in Clips.open(corpus).where(split="heldout", has_video=True)
            if c.voice in HELD_OUT_VOICES and c.avatar in avatars]
    if not held:
        raise MediaError(f"{corpus} holds no held-out clip with a picture in voice {', '.join(HELD_OUT_VOICES)} of "
                         f"{', '.join(avatars)}; make some with `svp corpus`")
    return [Trial(clip) for clip in held]


@dataclass(frozen=True)
class Scripted:
    """An engine whose streams follow a script, as `Session` wants it."""

    engine: Subject
    script: Sequence[Pose] | None

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def size(self) -> int:
        return self.engine.size

    @property
    def avatars(self) -> tuple[str, ...]:
        return self.engine.avatars

    @property
    def prior(self) -> str | None:
        return self.engine.prior

    @property
    def style_dim(self) -> int:
        return self.engine.style_dim

    def warm(self) -> None:
        self.engine.warm()

    def stream(self, *, avatar: str, style: StyleRequest, seed: int) -> FaceStream:
        return self.engine.stream(avatar=avatar, style=style, seed=seed, script=self.script)


def play(
    engine: Subject, vad: Vad | None, sound: Float32, *, avatar: str, style: StyleRequest, seed: int,
    script: Sequence[Pose] | None = None, chunk: int = FRAME_TICKS,
) -> Bytes:
    """Pictures uint8 [T, H, W, 3] of `sound` (48 kHz), pushed `chunk` samples at a time; picture n is that of frame n.

    Raises EngineError when the engine leaves one out.
    """
    session = Session(Scripted(engine, script), vad, avatar=avatar, style=style, seed=seed)
    frames = []
    for start in range(0, len(sound), chunk):
        frames += session.push(AudioChunk(start, sound[start : start + chunk], WIRE_RATE_HZ))
    frames += session.flush()
    shown = {round(f.pts / FRAME_TICKS): f.rgb for f in frames}
    wanted = len(sound) // FRAME_TICKS
    missing = [n for n in range(wanted) if n not in shown]
    if missing:
        raise EngineError(f"engine {engine.name} left out picture {missing[0]} of {wanted}")
    return np.stack([shown[n] for n in range(wanted)])
