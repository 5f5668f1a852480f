"""One clip of the corpus: words, a voice, a style and a seed become sound, coefficients, motion and picture.

What it is: `ClipMaker`, which owns one GL context (made when first needed) and the rigs it has read. The pose comes
from the same `MotionStream` that the street runs, driven by the same two numbers, so training sees what serving shows.

In: `ClipPlan`. Out: `<id>.npz`, and for a rendered clip `<id>.mp4` and `<id>.matte.mp4`; the sidecar is written last,
so a clip that has one is complete. Remembers: the context, the last rigs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from svp_stream.arkit import ARKIT, INDEX, SPEECH_SLICE
from svp_stream.clock import FRAME_TICKS, MODEL_RATE_HZ
from svp_stream.motion.generator import MotionDrive, MotionStream
from svp_stream.motion.kps import pose_vector
from svp_stream.packets import Float32, Pose
from svp_stream.synthetic import life, sidecar
from svp_stream.synthetic.articulation import articulate, stress_track
from svp_stream.synthetic.camera import Framing
from svp_stream.synthetic.phonemes import Phoneme
from svp_stream.synthetic.render import Picture, Renderer
from svp_stream.synthetic.rig import LOOK_DEGREES, Rig
from svp_stream.synthetic.sidecar import SAMPLES_PER_FRAME
from svp_stream.synthetic.speech import ABROAD, VOICES, Utterance, synthesise
from svp_stream.synthetic.styles import CAST, SpeakingStyle, sample
from svp_stream.synthetic.video import ClipWriter, matte_path

SAMPLED: Final = "sampled"
HANGOVER_FRAMES: Final = 8
"""Speech counts as going on through pauses up to this long, as the voice detector has it."""


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """What a clip will be. `style` is one of `CAST` or 'sampled' (drawn from `seed`); `avatar` None: speech only; no
    sentences: somebody who listens."""

    id: str
    sentences: tuple[str, ...]
    voice: str
    style: str
    avatar: str | None
    seed: int
    split: str


@dataclass(frozen=True, slots=True)
class ClipLook:
    """How clips are made, apart from what is said: picture, silences in seconds, gain in dB, and what `life` adds.

    `shift`: draw the sway and breath of the pose. The street shifts the finished picture instead, which is exact and
    need not be learned, so pictures for training stand still unless asked. `framing_jitter` is constant in a clip.
    """

    size: int = 256
    supersample: int = 2
    crf: int = 8
    matte_crf: int = 12
    edge_s: tuple[float, float] = (0.2, 0.9)
    pause_s: tuple[float, float] = (0.3, 1.5)
    pause_chance: float = 0.3
    gain_db: tuple[float, float] = (-14.0, 2.0)
    voice_jitter: bool = True
    shift: bool = False
    breath_chance: float = 0.5
    emphasis_chance: float = 0.6
    turn_chance: float = 0.06
    turn_deg: float = 20.0
    framing_jitter: float = 0.01
    listen_s: tuple[float, float] = (3.0, 6.0)


class ClipMaker:
    """Makes clips into `out`, one at a time, with heads from `avatars`."""

    def __init__(self, look: ClipLook, avatars: Path, out: Path) -> None:
        self._look, self._avatars, self._out = look, avatars, out
        self._rigs: dict[str, Rig] = {}
        self._renderer: Renderer | None = None
        self._held = ExitStack()

    def __enter__(self) -> ClipMaker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._held.close()

    def make(self, plan: ClipPlan) -> int:
        """Make `plan` and return its length in frames.

        Raises MediaError when a synthesiser, the renderer or an encoder fails, or a head is missing.
        """
        style = sample(np.random.default_rng([plan.seed, 1])) if plan.style == SAMPLED else CAST[plan.style]
        rng = np.random.default_rng([plan.seed, 2])
        utterance = speak(plan, self._look, rng)
        frames = -(-len(utterance.samples) // SAMPLES_PER_FRAME)
        stress = stress_track(utterance, frames)
        poses = life.turn_heads(move(style, utterance, stress, plan.seed), self._look.turn_deg, self._look.turn_chance,
                                np.random.default_rng([plan.seed, 4]))
        framing, dx, dy = life.frame(self._look.framing_jitter, np.random.default_rng([plan.seed, 5]))
        if plan.avatar is not None:
            sway = 1.0 if self._look.shift else 0.0
            poses = [replace(pose, dx=sway * pose.dx + dx, dy=sway * pose.dy + dy) for pose in poses]
        speech = articulate(utterance, style, frames, rng)
        audio = _sixteen_bits(utterance.samples, frames, self._look, rng)
        arrays: dict[str, NDArray[Any]] = {
            "expression": with_eyes(speech, poses), "pose": np.stack([pose_vector(p) for p in poses]),
            "stress": stress.astype(np.float32), "audio": audio,
            "style_vector": style.vector(), "manner": style.manner.vector(),
        }
        if plan.avatar is not None:
            arrays |= self._render(plan, speech, poses, audio, framing)
        words = {"style": style.name, "voice": plan.voice, "text": " ".join(plan.sentences),
                 "avatar": plan.avatar or "", "split": plan.split}
        sounds = tuple(sidecar.Sound(p.symbol, p.start_s, p.end_s, p.stress) for p in utterance.phonemes)
        sidecar.write(self._out / f"{plan.id}.npz", arrays, words, plan.seed, sounds)
        return frames

    def _render(self, plan: ClipPlan, speech: Float32, poses: list[Pose],
                audio: NDArray[np.int16], framing: Framing) -> dict[str, Float32]:
        look = self._look
        landmarks, kps = [], []
        with ClipWriter(self._out / f"{plan.id}.mp4", look.size, look.crf, look.matte_crf) as writer:
            for picture in self._pictures(str(plan.avatar), speech, poses, framing):
                writer.add(picture.rgb, picture.alpha)
                landmarks.append(picture.landmarks)
                kps.append(picture.kps)
            writer.sound(audio)
        return {"landmarks": np.stack(landmarks).astype(np.float32), "kps": np.stack(kps).astype(np.float32)}

    def _pictures(self, avatar: str, speech: Float32, poses: list[Pose], framing: Framing) -> Iterator[Picture]:
        if avatar not in self._rigs:
            self._rigs[avatar] = Rig.load(self._avatars, avatar)
        if self._renderer is None:
            self._renderer = self._held.enter_context(Renderer(self._look.size, self._look.supersample))
        face = np.zeros((len(speech), len(ARKIT)), dtype=np.float32)
        face[:, SPEECH_SLICE] = speech
        # The rig adds the lids and gaze of the pose itself.
        for expression, pose in zip(face, poses, strict=True):
            yield self._renderer.draw(self._rigs[avatar], expression, pose, framing)


def finished(out: Path, plan: ClipPlan) -> bool:
    """Whether every file of `plan` is there."""
    picture = out / f"{plan.id}.mp4"
    needed = [out / f"{plan.id}.npz"] + ([] if plan.avatar is None else [picture, matte_path(picture)])
    return all(path.is_file() for path in needed)


def speak(plan: ClipPlan, look: ClipLook, rng: np.random.Generator) -> Utterance:
    """The sentences of `plan` one after another, with silence before, after, between, and sometimes inside them; some
    with a word singled out, some pauses with a breath. Without sentences, silence alone."""
    known = (VOICES | ABROAD)[plan.voice]
    voice = known.jitter(rng) if look.voice_jitter else known
    own = np.random.default_rng([plan.seed, 3])
    sounds: list[Float32] = []
    marks: list[Phoneme] = []
    accents: list[float] = []
    clock = 0

    def silence(seconds: float) -> None:
        nonlocal clock
        count = round(seconds * MODEL_RATE_HZ)
        sounds.append(np.zeros(count, dtype=np.float32))
        marks.append(Phoneme("pau", clock / MODEL_RATE_HZ, (clock + count) / MODEL_RATE_HZ, 0))
        clock += count

    for number, text in enumerate(plan.sentences):
        said = synthesise(text, voice)
        if own.random() < look.emphasis_chance:
            said = life.emphasise(said, own)
        silence(rng.uniform(*(look.pause_s if number else look.edge_s)))
        for i, p in enumerate(said.phonemes):
            first, last = round(p.start_s * MODEL_RATE_HZ), round(p.end_s * MODEL_RATE_HZ)
            sounds.append(said.samples[first:last])
            start, clock = clock, clock + len(sounds[-1])
            marks.append(Phoneme(p.symbol, start / MODEL_RATE_HZ, clock / MODEL_RATE_HZ, p.stress))
            accents += [start / MODEL_RATE_HZ + a - p.start_s for a in said.accents if p.start_s <= a < p.end_s]
            inside = 0 < i < len(said.phonemes) - 1
            if inside and p.symbol == "pau" and rng.random() < look.pause_chance:
                silence(rng.uniform(*look.pause_s))
    silence(rng.uniform(*(look.edge_s if plan.sentences else look.listen_s)))
    silence(-clock % SAMPLES_PER_FRAME / MODEL_RATE_HZ)
    said = Utterance(" ".join(plan.sentences), plan.voice, np.concatenate(sounds), _joined(marks),
                     accents=tuple(accents))
    return life.breathe(said, look.breath_chance, own)


def _joined(marks: list[Phoneme]) -> tuple[Phoneme, ...]:
    """Neighbouring silences made one, empty marks dropped."""
    out: list[Phoneme] = []
    for p in marks:
        if p.end_s <= p.start_s:
            continue
        if out and p.symbol == out[-1].symbol == "pau":
            out[-1] = Phoneme("pau", out[-1].start_s, p.end_s, 0)
        else:
            out.append(p)
    return tuple(out)


def move(style: SpeakingStyle, utterance: Utterance, stress: Float32, seed: int) -> list[Pose]:
    """The poses of a clip: the street's own motion, driven by the clip's voice."""
    stream = MotionStream(style.manner, seed)
    drives = [MotionDrive(n * FRAME_TICKS, bool(s), float(stress[n]))
              for n, s in enumerate(speaking(utterance, len(stress)))]
    return [pose for drive in drives for pose in stream.push(drive)]


def speaking(utterance: Utterance, n_frames: int) -> NDArray[np.bool_]:
    """Whether each frame is in speech [T], bridging short pauses as a voice detector does."""
    voiced = np.zeros(n_frames, dtype=bool)
    for p in utterance.phonemes:
        if p.symbol != "pau":
            first = int(p.start_s * MODEL_RATE_HZ) // SAMPLES_PER_FRAME
            voiced[first : int(p.end_s * MODEL_RATE_HZ) // SAMPLES_PER_FRAME + 1] = True
    held = voiced.copy()
    for lag in range(1, min(HANGOVER_FRAMES, n_frames)):
        held[lag:] |= voiced[:-lag]
    return held


def with_eyes(speech: Float32, poses: list[Pose]) -> Float32:
    """All 52 coefficients [T, 52]: the 42 of speech, and lids and looks as the rig reads them off the pose."""
    full = np.zeros((len(poses), len(ARKIT)), dtype=np.float32)
    full[:, SPEECH_SLICE] = speech
    p = np.stack([pose_vector(pose) for pose in poses])
    sideways, down = p[:, 7] / LOOK_DEGREES[0], p[:, 8] / LOOK_DEGREES[1]
    for side, outward, lid in (("Left", 1.0, p[:, 5]), ("Right", -1.0, p[:, 6])):
        full[:, INDEX[f"eyeBlink{side}"]] = lid
        full[:, INDEX[f"eyeLookOut{side}"]] = outward * sideways
        full[:, INDEX[f"eyeLookIn{side}"]] = -outward * sideways
        full[:, INDEX[f"eyeLookDown{side}"]] = down
        full[:, INDEX[f"eyeLookUp{side}"]] = -down
    return np.clip(full, 0.0, 1.0)


def _sixteen_bits(samples: Float32, frames: int, look: ClipLook, rng: np.random.Generator) -> NDArray[np.int16]:
    """The sound [frames * 640] at a random gain, never clipped."""
    gain = 10 ** (rng.uniform(*look.gain_db) / 20)
    loudest = float(np.abs(samples).max(initial=1e-6))
    padded = np.zeros(frames * SAMPLES_PER_FRAME, dtype=np.float32)
    padded[: len(samples)] = samples * min(gain, 0.98 / loudest)
    return np.round(padded * 32767).astype(np.int16)
