"""What the style judge learns from: the same words in every named style, seen as the gauge would see them.

In: speech-only clips (phonemes and sound). Out: tracks [T, 42] with the index of their style.
Remembers: nothing. `Mimic` is the gauge's error in numbers: coefficients that a picture hardly tells are drawn to
their usual values, each clip is off by a constant, and each frame by a little that outlasts it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svp_stream.arkit import SPEECH
from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.errors import MediaError
from svp_stream.packets import Float32
from svp_stream.synthetic.articulation import articulate
from svp_stream.synthetic.phonemes import Phoneme
from svp_stream.synthetic.speech import Utterance
from svp_stream.synthetic.styles import NAMED, TRAINING_STYLES
from svp_stream.training.clips import Clip, Clips

CLIP_S = (2.5, 6.0)
"""Shortest and longest track that the judge learns from, in seconds."""
CAUTION = 1.5
"""The gauge reads generated pictures worse than rendered ones; its error counts this much more."""


@dataclass(frozen=True)
class Mimic:
    """`weight` [42, 42] and `bias` [42] of what the gauge makes of true coefficients; deviations [42] of the error of a
    clip and of a frame."""

    weight: Float32
    bias: Float32
    clip_error: Float32
    frame_error: Float32

    @classmethod
    def measure(cls, read: Float32, true: Float32, clip: NDArray[np.str_], ridge: float = 3e-3) -> Mimic:
        """From readings and truth [N, 42] and the clip of each frame. Ridge regression towards the identity."""
        mean = true.mean(0)
        centred = (true - mean).astype(np.float64)
        gram = centred.T @ centred / len(true) + ridge * np.eye(true.shape[1])
        cross = centred.T @ (read - true) / len(true)
        weight = np.eye(true.shape[1]) + np.linalg.solve(gram, cross)
        bias = read.mean(0) - mean @ weight
        error = read - (true @ weight + bias)
        names = np.unique(clip)
        means = np.stack([error[clip == name].mean(0) for name in names])
        rest = np.stack([error[clip == name].std(0) for name in names]).mean(0)
        return cls(*(np.asarray(a, np.float32) for a in (weight, bias, means.std(0), rest)))

    def worsen(self, track: Float32, rng: np.random.Generator) -> Float32:
        """A track [T, 42] as the gauge might read it, or a better gauge: anything between its reading and the truth."""
        size, share = rng.uniform(0.0, CAUTION), rng.uniform()
        jitter = rng.standard_normal(track.shape)
        for t in range(1, len(jitter)):
            jitter[t] = 0.7 * jitter[t - 1] + 0.714 * jitter[t]
        constant = self.clip_error * rng.standard_normal(track.shape[1])
        read = track + share * (track @ self.weight + self.bias - track)
        worse = read + size * (constant + self.frame_error * jitter)
        return np.asarray(worse, np.float32)


def utterance(clip: Clip) -> Utterance:
    """What was said in a clip."""
    sounds = tuple(Phoneme(p.symbol, p.start_s, p.end_s, p.stress) for p in clip.phonemes)
    samples = np.asarray(clip.audio, np.float32) / np.float32(32768)
    return Utterance(clip.text, clip.voice, samples, sounds)


def judge_tracks(clips: Clips, takes: int, mimic: Mimic | None, *, seed: int) -> tuple[list[Float32], list[int]]:
    """Up to `takes` of the clips, each in every training style: tracks [T, 42] of random length, and style indices.

    `mimic` None leaves the coefficients true. Raises MediaError when no clip is long enough.
    """
    least, most = (round(s * FRAME_RATE_HZ) for s in CLIP_S)
    rng = np.random.default_rng([seed, 31])
    long = [c for c in clips if c.frames >= least]
    if not long:
        raise MediaError(f"no speech-only clip of {CLIP_S[0]} s or more; `svp corpus` makes them")
    chosen = [long[i] for i in rng.permutation(len(long))[:takes]]
    tracks, labels = [], []
    for clip in chosen:
        said = utterance(clip)
        frames = len(said.samples) * FRAME_RATE_HZ // MODEL_RATE_HZ
        for label, style in enumerate(TRAINING_STYLES):
            track = articulate(said, NAMED[style], frames, rng)
            length = int(rng.integers(least, most + 1))
            start = int(rng.integers(max(frames - length, 0) + 1))
            cut = track[start : start + length]
            tracks.append(cut if mimic is None else mimic.worsen(cut, rng))
            labels.append(label)
    assert all(t.shape[1] == len(SPEECH) for t in tracks)
    return tracks, labels
