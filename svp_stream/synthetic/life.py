"""Real life around the words: breaths, words singled out, turns of the head, a camera that nobody set up twice alike.

In: an `Utterance`, poses, a generator. Out: the same with breaths heard in its pauses, with one vowel a sentence spoken
up, with heads that now and then look aside; a `Framing`. Remembers: nothing. What is heard is also seen: lips part for
a breath and brows flash on a word that is singled out (`articulation` reads both off the utterance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.packets import Float32, Pose
from svp_stream.synthetic.camera import Framing
from svp_stream.synthetic.speech import Utterance

BREATH_S: Final = (0.22, 0.5)
BREATH_DB: Final = (-44.0, -32.0)
"""Loudness of a breath against the peak of full scale."""
BREATH_BAND_HZ: Final = (500.0, 3500.0)
BREATH_GAP_S: Final = 0.06
"""Least silence around a breath: it ends so long before the word."""
EMPHASIS_DB: Final = (3.0, 6.0)
EMPHASIS_S: Final = 0.07
"""How far the louder stretch reaches beyond its vowel, either way."""
TURN_LEAST_DEG: Final = 9.0
TURN_RAMP_S: Final = (0.45, 0.9)
TURN_HOLD_S: Final = (0.4, 1.8)
GAZE_LIMIT_DEG: Final = 15.0


def breathe(said: Utterance, chance: float, rng: np.random.Generator) -> Utterance:
    """Before speech, in pauses that are long enough, a breath in: band-passed noise under a smooth swell."""
    samples = said.samples.copy()
    breaths = list(said.breaths)
    for sound, after in zip(said.phonemes, [*said.phonemes[1:], None], strict=True):
        length = float(rng.uniform(*BREATH_S))
        fits = sound.end_s - sound.start_s >= length + 2 * BREATH_GAP_S
        if sound.symbol != "pau" or after is None or not fits or rng.random() >= chance:
            continue
        end = sound.end_s - BREATH_GAP_S
        first, count = round((end - length) * MODEL_RATE_HZ), round(length * MODEL_RATE_HZ)
        samples[first : first + count] += _breath(count, rng)
        breaths.append((first / MODEL_RATE_HZ, (first + count) / MODEL_RATE_HZ))
    return replace(said, samples=np.clip(samples, -1, 1).astype(np.float32), breaths=tuple(breaths))


def _breath(count: int, rng: np.random.Generator) -> Float32:
    """Noise of air drawn in: float32 [count]; it swells for two thirds and breaks off."""
    band = butter(2, BREATH_BAND_HZ, "bandpass", fs=MODEL_RATE_HZ, output="sos")
    noise = sosfilt(band, rng.standard_normal(count))
    bent = np.linspace(0, 1, count) ** 1.6
    swell = np.sin(np.pi * bent) ** 2
    loud = 10 ** (rng.uniform(*BREATH_DB) / 20) / max(float(np.sqrt(np.mean(noise**2))), 1e-9)
    return np.asarray(noise * swell * loud, dtype=np.float32)


def emphasise(said: Utterance, rng: np.random.Generator) -> Utterance:
    """One fully stressed vowel spoken up by a few dB and marked as an accent; nothing where none is stressed.

    A question singles out its last stressed vowel, a statement any.
    """
    stressed = [p for p in said.phonemes if p.stress == 2]
    if not stressed:
        return said
    chosen = stressed[-1] if said.text.rstrip().endswith("?") else stressed[int(rng.integers(len(stressed)))]
    times = np.arange(len(said.samples)) / MODEL_RATE_HZ
    away = np.maximum(np.maximum(chosen.start_s - times, times - chosen.end_s), 0.0)
    lift_db = rng.uniform(*EMPHASIS_DB) * np.cos(np.pi / 2 * np.clip(away / EMPHASIS_S, 0.0, 1.0)) ** 2
    louder = said.samples * 10 ** (lift_db / 20)
    loudest = max(float(np.abs(louder).max(initial=0.0)), 1.0)
    middle = (chosen.start_s + chosen.end_s) / 2
    return replace(said, samples=(louder / loudest).astype(np.float32), accents=(*said.accents, middle))


def turn_heads(poses: Sequence[Pose], most_deg: float, chance: float, rng: np.random.Generator) -> list[Pose]:
    """Poses with deliberate turns of the head, up to `most_deg` of yaw in all; each second one may begin with `chance`.

    Half of the turns keep the eyes on the viewer as far as the sockets allow, the others take the eyes along.
    """
    aside, kept = _turns(len(poses), most_deg, chance, rng)
    out = []
    for pose, turn, share in zip(poses, aside, kept, strict=True):
        yaw = float(np.clip(pose.yaw + turn, -max(most_deg, abs(pose.yaw)), max(most_deg, abs(pose.yaw))))
        look = float(np.clip(pose.gaze_x - share * (yaw - pose.yaw), -GAZE_LIMIT_DEG, GAZE_LIMIT_DEG))
        out.append(replace(pose, yaw=yaw, gaze_x=look))
    return out


def _turns(frames: int, most_deg: float, chance: float, rng: np.random.Generator
           ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Yaw to add [T] in degrees, and how much of it the eyes undo [T]."""
    aside, kept = np.zeros(frames), np.zeros(frames)
    at = 0
    while at < frames:
        begins = rng.random() < chance and most_deg > TURN_LEAST_DEG
        ramp, hold = (round(float(rng.uniform(*span)) * FRAME_RATE_HZ) for span in (TURN_RAMP_S, TURN_HOLD_S))
        size = float(rng.uniform(TURN_LEAST_DEG, max(most_deg, TURN_LEAST_DEG)) * rng.choice([-1.0, 1.0]))
        eyes = 0.9 * float(rng.random() < 0.5)
        if begins and at + 2 * ramp + hold <= frames:
            rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 1) / (ramp + 1))
            course = np.concatenate([rise, np.ones(hold), rise[::-1]])
            aside[at : at + len(course)] = size * course
            kept[at : at + len(course)] = eyes
            at += len(course)
        at += FRAME_RATE_HZ
    return aside, kept


def frame(jitter: float, rng: np.random.Generator) -> tuple[Framing, float, float]:
    """A camera set up anew: its framing (the scale off by up to `jitter`), and where the face lands off its place, dx
    and dy as fractions of the picture, each up to `jitter`."""
    usual = Framing()
    scale, dx, dy = (float(x) for x in rng.uniform(-jitter, jitter, 3))
    return replace(usual, inter_ocular=usual.inter_ocular * (1 + scale)), dx, dy
