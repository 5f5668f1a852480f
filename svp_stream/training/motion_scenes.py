"""Scenes: minutes of a person who speaks, listens and idles in some style, with what the street would know of them.

In: takes of speech and styles (acted by the rule of `motion.generator`), or a folder of sidecars (as they were filmed).
Out: `Scene`s. Remembers: nothing.
A synthetic scene strings together own speech, somebody else's turns with pauses in them, and long silence. The head is
moved by the emphasis that the voice was spoken with; the network is given what the street measures: the level of the
sound, the encoder's tokens and whether anybody speaks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from svp_stream.arkit import SPEECH_SLICE
from svp_stream.audio.level import LevelStream
from svp_stream.audio.wav2vec import Wav2VecEncoder
from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS, MODEL_RATE_HZ
from svp_stream.errors import MediaError
from svp_stream.motion.attention import Attention
from svp_stream.motion.generator import MotionDrive, MotionStream
from svp_stream.motion.kps import pose_vector
from svp_stream.motion.learned import drive_vector
from svp_stream.packets import AudioChunk, Float32
from svp_stream.style.prior import StyleEncoder
from svp_stream.synthetic.articulation import stress_track
from svp_stream.synthetic.clip import speaking as in_speech
from svp_stream.synthetic.speech import Phoneme, Utterance
from svp_stream.synthetic.styles import NAMED, TRAINING_STYLES, SpeakingStyle, sample
from svp_stream.training.clips import Clip, Clips
from svp_stream.training.coefficients import Take, encode
from svp_stream.training.expression import KnownStyle, know

logger = logging.getLogger(__name__)

TURN_S: Final = (1.5, 5.0)
"""How long somebody else speaks on end."""
BREAK_S: Final = (0.3, 0.9)
SILENCE_S: Final = (1.0, 16.0)
SHARES: Final = (0.5, 0.25, 0.25)
"""Of own speech, another's turns and silence, among the pieces of a scene."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the street knows, all [T]: `voice` float16 [T, A], `stress`, `speaking`, `addressed`; and the emphasis that
    the head is moved by, where it is acted."""

    voice: NDArray[np.float16]
    stress: Float32
    speaking: NDArray[np.bool_]
    addressed: NDArray[np.bool_]
    emphasis: Float32

    def drive(self) -> Float32:
        """`learned.drive_vector` of each frame, float32 [T, DRIVE]."""
        attention, before, rows = Attention(), 0.0, []
        for stress, speaking, addressed in zip(self.stress, self.speaking, self.addressed, strict=True):
            role = attention.step(bool(speaking), bool(addressed), 1 / FRAME_RATE_HZ)
            now = float(stress) if speaking else 0.0
            rows.append(drive_vector(now, now - before, bool(speaking), bool(addressed), role))
            before = now
        return np.stack(rows).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Scene:
    """`pose` float32 [T, 9] of a person in style number `style`, with what was heard."""

    style: int
    pose: Float32
    heard: Heard


def levels(samples: Float32, frames: int) -> Float32:
    """Stress as the street measures it, float32 [frames]."""
    stream = LevelStream()
    short = max(frames * MODEL_RATE_HZ // FRAME_RATE_HZ - len(samples), 0)
    found = stream.push(AudioChunk(0, np.pad(samples, (0, short)), MODEL_RATE_HZ)) + stream.flush()
    return np.array([level.stress for level in found[:frames]], np.float32)


def hear(takes: Sequence[Take], quiet: NDArray[np.float16], frames: int, rng: np.random.Generator) -> Heard:
    """At least `frames` frames of conversation; `quiet` [N, A] are the tokens of a silent room."""
    parts: list[Heard] = [_nobody(quiet, int(rng.integers(2, 2 * FRAME_RATE_HZ)), rng)]
    while sum(len(p.stress) for p in parts) < frames:
        kind = rng.choice(3, p=SHARES)
        if kind == 0:
            parts.append(_own(takes[int(rng.integers(len(takes)))], rng))
        elif kind == 1:
            parts += _another(quiet, rng)
        else:
            parts.append(_nobody(quiet, round(rng.uniform(*SILENCE_S) * FRAME_RATE_HZ), rng))
    return Heard(*(np.concatenate([getattr(p, name) for p in parts])[:frames] for name in Heard.__dataclass_fields__))


def _own(take: Take, rng: np.random.Generator) -> Heard:
    variant = int(rng.integers(take.tokens.shape[0]))
    n = take.frames
    return Heard(take.features(variant).astype(np.float16), levels(take.utterance.samples, n),
                 in_speech(take.utterance, n), np.zeros(n, np.bool_), stress_track(take.utterance, n))


def _nobody(quiet: NDArray[np.float16], n: int, rng: np.random.Generator) -> Heard:
    at = (int(rng.integers(len(quiet))) + np.arange(n)) % len(quiet)
    zeros, never = np.zeros(n, np.float32), np.zeros(n, np.bool_)
    return Heard(quiet[at], zeros, never, never, zeros)


def _another(quiet: NDArray[np.float16], rng: np.random.Generator) -> list[Heard]:
    """Somebody else's turn: phrases with short breaks."""
    out = []
    for _ in range(int(rng.integers(1, 4))):
        for span, on in ((TURN_S, True), (BREAK_S, False)):
            part = _nobody(quiet, round(rng.uniform(*span) * FRAME_RATE_HZ), rng)
            out.append(Heard(part.voice, part.stress, part.speaking, np.full(len(part.stress), on), part.emphasis))
    return out


def act(heard: Heard, style: SpeakingStyle, seed: int) -> Float32:
    """Poses [T, 9] of the rule, in the manner of `style`."""
    stream = MotionStream(style.manner, seed)
    rows = zip(heard.speaking, heard.emphasis, heard.addressed, strict=True)
    drives = [MotionDrive(n * FRAME_TICKS, bool(s), float(e), bool(a)) for n, (s, e, a) in enumerate(rows)]
    return np.stack([pose_vector(pose) for drive in drives for pose in stream.push(drive)])


def room_tone(takes: Sequence[Take]) -> NDArray[np.float16]:
    """Tokens [N, A] of takes in which nobody speaks, or of pauses where there is no such take."""
    silent = [t for t in takes if t.silent().all()]
    if silent:
        return np.concatenate([t.features(v).astype(np.float16) for t in silent for v in range(t.tokens.shape[0])])
    return np.concatenate([t.features()[t.silent()].astype(np.float16) for t in takes])


class Cast(BaseModel):
    """Who acts, and for how long."""

    model_config = ConfigDict(extra="forbid")

    styles: int = Field(default=120, ge=len(TRAINING_STYLES), description="styles to act in, named ones first")
    named_scenes: int = Field(default=5, ge=1, description="scenes in each named style; a sampled one has one")
    scene_s: float = Field(default=26.0, ge=6)
    clips: int = Field(default=4, ge=2, description="clips that each style is known from")
    clip_frames: int = Field(default=72, ge=16)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Life:
    """Scenes of people in styles `known`, the first `named` of which have names."""

    known: list[KnownStyle]
    named: int
    scenes: list[Scene]


def acted(
    cast: Cast, known_from: Sequence[Take], takes: Sequence[Take], encoder: StyleEncoder, scenes: int, *,
    only_named: bool = False,
) -> Life:
    """Scenes by the rule over `takes`, in named and sampled training styles, each known from clips of `known_from`."""
    rng = np.random.default_rng([cast.seed, 51])
    sources, talking = ([t for t in some if not t.silent().all()] for some in (known_from, takes))
    quiet = room_tone(takes)
    styles = [NAMED[n] for n in TRAINING_STYLES]
    if not only_named:
        styles += [sample(rng) for _ in range(cast.styles - len(styles))]
    life = Life([], len(TRAINING_STYLES), [])
    frames = round(cast.scene_s * FRAME_RATE_HZ)
    for i, style in enumerate(styles):
        clips = [sources[j] for j in rng.integers(len(sources), size=cast.clips)]
        life.known.append(know(encoder, style, clips, cast.clip_frames, rng))
        for _ in range(scenes if i < life.named else 1):
            heard = hear(talking, quiet, frames, rng)
            life.scenes.append(Scene(i, act(heard, style, int(rng.integers(2**31))), heard))
    logger.info("acted %d scenes in %d styles", len(life.scenes), len(life.known))
    return life


def filmed(corpus: Path, ears: Wav2VecEncoder, encoder: StyleEncoder, least: int) -> tuple[Life, Life]:
    """Clips of `corpus` with at least `least` frames as scenes to train on, and those held out of the same styles.

    Nobody is heard but the person filmed. Raises MediaError where there are no such clips.
    """
    clips = [c for c in Clips.open(corpus) if c.frames >= least]
    names = sorted({c.style for c in clips if c.split == "train"})
    if not names:
        raise MediaError(f"{corpus}: no training clip has {least} frames; lower `frames` of the profile")
    known: dict[str, list[tuple[Float32, Float32]]] = {name: [] for name in names}
    scenes: dict[str, list[Scene]] = {"train": [], "heldout": []}
    for clip in (c for c in clips if c.style in known):
        heard = _sound_of(clip, ears)
        scenes[clip.split].append(Scene(names.index(clip.style), clip.pose, heard))
        if clip.split == "train":
            with torch.no_grad():
                mu, log_var = encoder(torch.from_numpy(clip.expression[None, :, SPEECH_SLICE]),
                                      torch.from_numpy(heard.voice[None].astype(np.float32)))
            known[clip.style].append((mu[0].numpy(), log_var[0].numpy()))
    styles = [KnownStyle(SpeakingStyle(name), *(np.stack([p[i] for p in known[name]]) for i in (0, 1)))
              for name in names]
    life, trial = (Life(styles, len(names), scenes[split]) for split in ("train", "heldout"))
    return life, trial if trial.scenes else life


def _sound_of(clip: Clip, encoder: Wav2VecEncoder) -> Heard:
    samples = np.asarray(clip.audio / 32767, np.float32)
    tokens = encode(encoder, samples)
    marks = tuple(Phoneme(p.symbol, p.start_s, p.end_s, p.stress) for p in clip.phonemes)
    stress = levels(samples, clip.frames)
    talking = in_speech(Utterance(clip.text, clip.voice, samples, marks), clip.frames) if marks else stress > 0
    voice = tokens[: 2 * clip.frames].reshape(clip.frames, 2, -1).mean(axis=1).astype(np.float16)
    return Heard(voice, stress, talking, np.zeros(clip.frames, np.bool_), clip.stress)
