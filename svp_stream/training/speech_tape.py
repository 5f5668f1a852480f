"""Hours of labelled speech as one long tape in memory: sound, phoneme spans, expression, and the style of each moment.

In: clips spoken on the spot (`speak_clips`: synthetic voices, sentences, styles) or read from a corpus. Out: `Tape`,
read at any position and speed. A tape is cached as one .npz beside the run. Expression means the 42 of `arkit.SPEECH`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svp_stream.arkit import SPEECH_SLICE
from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.errors import MediaError
from svp_stream.packets import Float32
from svp_stream.synthetic.articulation import articulate
from svp_stream.synthetic.phonemes import SYMBOLS as PHONEMES
from svp_stream.synthetic.sentences import load, split
from svp_stream.synthetic.speech import draw_voice, synthesise
from svp_stream.synthetic.styles import HELD_OUT_STYLES, NAMED, TRAINING_STYLES, SpeakingStyle, sample
from svp_stream.training import augment
from svp_stream.training.clips import Clip

logger = logging.getLogger(__name__)
SYMBOLS = tuple(sorted(PHONEMES))
SILENCE = SYMBOLS.index("pau")
FRAME_SAMPLES = MODEL_RATE_HZ // FRAME_RATE_HZ


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """One utterance in one style: `samples` [T * 640], `spans` of (symbol, end in seconds), `expression` [T, 42]."""

    samples: Float32
    spans: tuple[tuple[str, float], ...]
    expression: Float32
    voice: str
    style: str


@dataclass(frozen=True, slots=True)
class Tape:
    """Clips end to end: `sound`, `wire` (after Opus) int16 [N]; `span_ends` (samples), `span_symbols` int64 [S];
    `expression` float32 [F, 42]; `clip_of_frame` int64 [F]; `condition` float32 [clips, 84], mean and deviation."""

    sound: NDArray[np.int16]
    wire: NDArray[np.int16]
    span_ends: NDArray[np.int64]
    span_symbols: NDArray[np.int64]
    expression: Float32
    clip_of_frame: NDArray[np.int64]
    condition: Float32

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.sound) / MODEL_RATE_HZ

    def symbols_at(self, position: NDArray[np.float64]) -> NDArray[np.int64]:
        """Phoneme at each position in samples; silence outside of the tape."""
        found = np.searchsorted(self.span_ends, position, side="right")
        symbols = np.append(self.span_symbols, SILENCE)[np.minimum(found, len(self.span_ends))]
        return np.where(position < 0, SILENCE, symbols)

    def expression_at(self, position: NDArray[np.float64]) -> tuple[Float32, Float32]:
        """Expression [n, 42], linear between frames, and the condition [n, 84] of the clip, at positions in samples."""
        frame = np.clip(position / FRAME_SAMPLES - 0.5, 0, len(self.expression) - 1.001)
        whole = frame.astype(np.int64)
        part = (frame - whole)[:, None].astype(np.float32)
        face = self.expression[whole] * (1 - part) + self.expression[whole + 1] * part
        nearest = np.round(frame).astype(np.int64)
        return np.asarray(face, np.float32), self.condition[self.clip_of_frame[nearest]]

    def save(self, path: Path) -> None:
        """One .npz, written beside and renamed."""
        beside = path.with_suffix(".tmp.npz")
        np.savez(beside, **{name: getattr(self, name) for name in Tape.__slots__})
        beside.replace(path)

    @classmethod
    def open(cls, path: Path) -> Tape:
        """Raises MediaError when the file is damaged or of another version."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**{name: stored[name] for name in Tape.__slots__})
        except (OSError, KeyError, ValueError) as e:
            raise MediaError(f"speech tape {path} cannot be read ({e}); delete it to have it made again") from e


def join(clips: Iterable[LabelledClip], opus_share: float, seed: int) -> Tape:
    """Raises MediaError when there is no clip, or a phoneme that this room does not spell."""
    rng = np.random.default_rng(seed)
    sounds, wires, faces, conditions, ends, symbols, owners = [], [], [], [], [], [], []
    at = 0
    for index, clip in enumerate(clips):
        frames = len(clip.expression)
        pcm = _pcm(clip.samples)
        if len(pcm) != frames * FRAME_SAMPLES:
            raise MediaError(f"clip {index} ({clip.voice}): {len(pcm)} samples for {frames} frames of {FRAME_SAMPLES}")
        sounds.append(pcm)
        wires.append(_pcm(augment.opus(clip.samples, int(rng.integers(10, 40)))) if rng.random() < opus_share else pcm)
        for symbol, end_s in clip.spans:
            if symbol not in SYMBOLS:
                raise MediaError(f"clip {index} ({clip.voice}): unknown phoneme {symbol!r}; expected one of {SYMBOLS}")
            ends.append(at + min(round(end_s * MODEL_RATE_HZ), len(pcm)))
            symbols.append(SYMBOLS.index(symbol))
        ends.append(at + len(pcm))
        symbols.append(SILENCE)
        faces.append(clip.expression)
        conditions.append(np.concatenate([clip.expression.mean(0), clip.expression.std(0)]))
        owners.append(np.full(frames, index, np.int64))
        at += len(pcm)
    if not sounds:
        raise MediaError("no clip to train on")
    return Tape(
        np.concatenate(sounds), np.concatenate(wires), np.array(ends, np.int64), np.array(symbols, np.int64),
        np.concatenate(faces).astype(np.float32), np.concatenate(owners), np.stack(conditions).astype(np.float32),
    )


def _pcm(samples: Float32) -> NDArray[np.int16]:
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)


def speak_clips(
    minutes: float, held_out: bool, seed: int, spread: tuple[float, float] = (0.08, 0.15)
) -> Iterator[LabelledClip]:
    """Synthesise until `minutes` are full. Training: training voices with another pitch and pace (see `Voice.jitter`),
    training sentences or their words shuffled, sampled or named training styles. Held out: the held-out voices and
    sentences as they are, every style."""
    rng = np.random.default_rng([seed, int(held_out)])
    sentences = [s for s in load() if split(s) == ("heldout" if held_out else "train")]
    words = [w.strip(".,;:!?\"") for s in sentences for w in s.split()]
    spoken_s, told = 0.0, 0.0
    while spoken_s < minutes * 60:
        text = sentences[int(rng.integers(len(sentences)))]
        if not held_out and rng.random() < 0.4:
            text = shuffled(words, rng)
        voice = draw_voice(rng, held_out)
        style = _style(held_out, rng)
        try:
            utterance = synthesise(text, voice if held_out else voice.jitter(rng, *spread))
        except MediaError as e:
            logger.warning("skipped a sentence: %s", e)
            continue
        frames = -(-len(utterance.samples) // FRAME_SAMPLES) + int(rng.integers(0, 8))
        samples = np.pad(utterance.samples, (0, frames * FRAME_SAMPLES - len(utterance.samples)))
        spans = tuple((p.symbol, p.end_s) for p in utterance.phonemes)
        yield LabelledClip(samples, spans, articulate(utterance, style, frames, rng), voice.name, style.name)
        spoken_s += utterance.duration_s
        if spoken_s - told > 600:
            logger.info("spoken %.0f of %.0f minutes", spoken_s / 60, minutes)
            told = spoken_s


def corpus_clips(clips: Iterable[Clip]) -> Iterator[LabelledClip]:
    """Clips of a corpus that have their phonemes; the others (real video without alignment) are passed over."""
    for clip in clips:
        spans = tuple((p.symbol, p.end_s) for p in clip.phonemes)
        if spans:
            samples = clip.audio.astype(np.float32) / np.float32(32767)
            yield LabelledClip(samples, spans, clip.expression[:, SPEECH_SLICE], clip.voice, clip.style)


def shuffled(words: Sequence[str], rng: np.random.Generator) -> str:
    """Three to ten words in no order, with a comma now and then: transitions that no sentence has."""
    chosen = [words[int(i)] for i in rng.integers(len(words), size=int(rng.integers(3, 11)))]
    return " ".join(w + ("," if rng.random() < 0.12 else "") for w in chosen)


def _style(held_out: bool, rng: np.random.Generator) -> SpeakingStyle:
    if held_out:
        names = (*HELD_OUT_STYLES, *TRAINING_STYLES)
        return NAMED[names[int(rng.integers(len(names)))]]
    return sample(rng) if rng.random() < 0.6 else NAMED[TRAINING_STYLES[int(rng.integers(len(TRAINING_STYLES)))]]


