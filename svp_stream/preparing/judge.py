"""Which clips are fit to learn from, and what is wrong with the others.

In: what a survey says of a clip, its sound, the thresholds. Out: `Fault`s, each with what was found and what is wanted.
Remembers: nothing.

The offset of sound and picture is measured twice over: by the correlation of the mouth's opening with loudness, pooled
over all fit clips of a video, and, where the user gives one, clip by clip by a SyncNet of our own
(`evaluation.syncnet`). Loudness says little (an `m` is loud and shut): on 32 rendered clips of 7 s on average, the
peak of one clip scatters from -218 to 0 ms (5th to 95th percentile), that of four clips together from -80 to -40 ms.
So it is believed over `sync_least_s` of clips or more and from `sync_least_r` on; its usual lead of 60 ms (a mouth
opens before it is loud) is taken off. Where it is not believed, nothing is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from svp_stream.audio.level import LevelStream, dbfs
from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.evaluation.face_reader import key_points, lip_opening
from svp_stream.evaluation.metrics import FRAME_MS, pearson
from svp_stream.packets import AudioChunk, Float32, Floats
from svp_stream.preparing.config import PrepareConfig
from svp_stream.preparing.framing import eye_distance, outside
from svp_stream.synthetic.sidecar import SAMPLES_PER_FRAME

MOST_SHIFT: Final = 15
"""Frames either way in which the offset of sound and picture is looked for (600 ms)."""
QUIET_DBFS: Final = -60.0
LEAD_MS: Final = 60.0
"""By how much the opening leads loudness when nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`key` of the rule, and in words what was found and what is wanted."""

    key: str
    words: str


@dataclass(frozen=True)
class Look:
    """A clip before it is written: T frames of readings (holes filled), `lost` share of frames without face, `boxes`
    [T, 3] in a picture of `size` (width, height), `sharpness` [T], sound int16 [T * 640]."""

    landmarks: Float32
    angles: Float32
    lost: float
    boxes: Float32
    size: tuple[int, int]
    sharpness: Float32
    audio: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.boxes)


def judge(look: Look, config: PrepareConfig) -> list[Fault]:
    """Everything that is wrong, in the order in which it is worth mending."""
    seconds = len(look) / FRAME_RATE_HZ
    if seconds < config.clip_s[0]:
        return [Fault("short", f"{seconds:.1f} s; at least {config.clip_s[0]:g} s")]
    if look.lost >= 1:
        return [Fault("no face", "in no frame a face was found")]
    if look.lost > config.most_lost:
        return [Fault("face lost", f"in {look.lost:.0%} of the frames; at most {config.most_lost:.0%}")]
    kps = key_points(look.landmarks)
    eyes = float(np.median(eye_distance(kps, look.angles)))
    turned = float(np.percentile(np.abs(look.angles[:, 0]), 90))
    beyond = float(outside(look.boxes, *look.size).max())
    leap = float(_leaps(kps).max(initial=0.0))
    sharp = float(np.median(look.sharpness))
    loud = loudness(look.audio)
    found = [
        (eyes < config.least_eyes_px, "small", f"{eyes:.0f} px between the eyes; at least {config.least_eyes_px:g}"),
        (sharp < config.least_sharpness, "blurred", f"sharpness {sharp:.1f}; at least {config.least_sharpness:g}"),
        (turned > config.most_turned_deg, "turned", f"yaw of {turned:.0f} degrees; at most "
                                                    f"{config.most_turned_deg:g}"),
        (beyond > config.most_outside, "at the edge", f"{beyond:.0%} of the crop lies outside the picture; at most "
                                                      f"{config.most_outside:.0%}"),
        (leap > config.most_leap, "leap", f"the face leaps by {leap:.2f} eye distances in a frame; at most "
                                          f"{config.most_leap:g}"),
        (loud.max() < config.least_dbfs, "silent", f"never louder than {loud.max():.0f} dBFS; at least "
                                                   f"{config.least_dbfs:g}"),
    ]
    return [Fault(key, words) for wrong, key, words in found if wrong]


def offset_fault(measured: tuple[float, float] | None, least: float, config: PrepareConfig) -> Fault | None:
    """What is wrong with an offset of (confidence, ms), believed from a confidence of `least` on; None when nothing is
    wrong, or nothing can be said."""
    if measured is None or measured[0] < least or abs(measured[1]) <= config.most_offset_ms:
        return None
    r, ms = measured
    late = "picture behind" if ms > 0 else "picture ahead of"
    return Fault("offset", f"{late} the sound by {abs(ms):.0f} ms (confidence {r:.2f}); at most "
                           f"{config.most_offset_ms:g}")


def _leaps(kps: Float32) -> Floats:
    """How far the point between the eyes goes from frame to frame, in eye distances [T - 1]."""
    middle = kps[:, :2].mean(1)
    unit = np.maximum(np.median(np.linalg.norm(kps[:, 0] - kps[:, 1], axis=1)), 1e-3)
    return np.asarray(np.linalg.norm(np.diff(middle, axis=0), axis=1) / unit, np.float32)


def loudness(audio: NDArray[np.int16]) -> Float32:
    """dBFS of each whole frame of 640 samples, float32 [T]."""
    whole = len(audio) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
    frames = np.asarray(audio[:whole], np.float32).reshape(-1, SAMPLES_PER_FRAME) / 32768
    rms = np.sqrt(np.square(frames).mean(1))
    return np.array([dbfs(float(v)) for v in rms], np.float32)


def sync_curve(opening: Float32, audio: NDArray[np.int16]) -> Floats | None:
    """Correlation of the opening [T] with loudness in dB over whole-frame shifts of the picture from -15 to 15, [31];
    None for a clip that is too short or where either stands still."""
    loud = np.maximum(loudness(audio), QUIET_DBFS)
    count = min(len(loud), len(opening))
    if count < 4 * MOST_SHIFT:
        return None
    inside = slice(MOST_SHIFT, count - MOST_SHIFT)
    shifts = range(-MOST_SHIFT, MOST_SHIFT + 1)
    scores = np.array([pearson(opening[MOST_SHIFT + s : count - MOST_SHIFT + s], loud[inside]) for s in shifts])
    return None if np.isnan(scores).any() else scores


def pooled_offset(looks: Sequence[Look], config: PrepareConfig) -> tuple[float, float] | None:
    """(r, ms by which the picture is behind the sound) over all clips of a video, weighted by length: the peak of the
    mean curve with a parabola through its neighbours. None when there is less than `sync_least_s` to go by."""
    curves = [(sync_curve(lip_opening(look.landmarks), look.audio), len(look)) for look in looks]
    told = [(curve, frames) for curve, frames in curves if curve is not None]
    if sum(frames for _, frames in told) < config.sync_least_s * FRAME_RATE_HZ:
        return None
    mean = np.average([curve for curve, _ in told], axis=0, weights=[frames for _, frames in told])
    k = int(mean.argmax())
    offset = 0.0
    if 0 < k < 2 * MOST_SHIFT:
        left, middle, right = mean[k - 1 : k + 2]
        bend = left - 2 * middle + right
        offset = 0.5 * float(left - right) / float(bend) if bend < 0 else 0.0
    return float(mean[k]), float((k - MOST_SHIFT + offset) * FRAME_MS + LEAD_MS)


def stress(audio: NDArray[np.int16]) -> Float32:
    """Vocal emphasis float32 [T], as the street hears it at run time."""
    stream = LevelStream()
    chunk = AudioChunk(0, np.asarray(audio, np.float32) / np.float32(32768), MODEL_RATE_HZ)
    levels: list[Any] = [*stream.push(chunk), *stream.flush()]
    return np.array([level.stress for level in levels], np.float32)
