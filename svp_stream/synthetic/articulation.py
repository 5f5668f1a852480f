"""Articulation: phonemes and a speaking style become the 42 speech coefficients of a face, 25 times a second.

In: `Utterance`, `SpeakingStyle`. Out: float32 [T, 42] in the order of `arkit.SPEECH`; frame n shows the instant
(n + 0.5) / 25 s. Coarticulation is by dominance functions (Cohen & Massaro 1993): every sound pulls each group of
controls towards its wish with a strength that decays exponentially around it, and the face is the weighted mean. On top
stand hard constraints that no speed of speech may break: lips meet on m, b, p; the lower lip touches the teeth on f, v.
Lips part for a breath, and brows flash on a word that is singled out. Left and right are the person's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from svp_stream.arkit import SPEECH, SPEECH_INDEX
from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.packets import Float32
from svp_stream.synthetic.phonemes import (
    CONTROL_GROUP,
    CONTROLS,
    FIRMNESS,
    GLIDES,
    MOUTHS,
    ROW,
    SHAPES,
    Phoneme,
)
from svp_stream.synthetic.speech import Utterance
from svp_stream.synthetic.styles import SpeakingStyle

ROUND_LEAD_S: Final = 0.03
"""Rounding runs ahead of the other lip movements by this much."""
JAW_LAG_S: Final = 0.02
GROUP_LEAD_S: Final = np.array([-JAW_LAG_S, 0.0, ROUND_LEAD_S, 0.0, 0.0])
GROUP_DECAY_S: Final = np.array([0.042, 0.034, 0.050, 0.050, 0.026])
"""How fast each group of controls, in the order of `GROUPS`, forgets a sound at crispness 1."""
CLOSURE_LEADS_S: Final = (0.040, 0.012)
"""Lips meet this much before the sound and begin to part this much before it ends."""
CLOSURE_LEAST_S: Final = 1 / FRAME_RATE_HZ + 0.002
"""A closure is held a little longer than a frame, so that at least one frame shows it whole."""
CLOSURE_RAMP_S: Final = 0.055
"""Time that lips need to meet or part at crispness 1."""
TEETH_SHOW: Final = 0.28
"""Raising of the upper lip that uncovers the teeth on f and v, in every style."""
BREATH: Final = {"jaw": 0.09, "low": 0.07, "up": 0.04}
"""How far the mouth opens for a breath."""
FLASH_LEAD_S: Final = 0.04
"""The brows are up this much before the middle of the accented vowel."""
FLASH_RISE_S: Final = 0.12
FLASH_FALL_S: Final = 0.30
_REST_PULL: Final = 1e-12

_Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class _Course:
    """The free course of a sentence before the style's face is laid over it; every track is [T]."""

    controls: dict[str, _Floats]
    shut: _Floats
    teeth: _Floats
    speaking: _Floats
    stress: _Floats
    mood: _Floats
    brows: _Floats
    flash: _Floats


def articulate(utterance: Utterance, style: SpeakingStyle, n_frames: int, rng: np.random.Generator) -> Float32:
    """float32 [n_frames, 42] in [0, 1]. Past the end of the sound the face rests. `rng` moves what words leave free.

    Raises ValueError for a negative `n_frames`.
    """
    if n_frames < 0:
        raise ValueError(f"n_frames is {n_frames}; it counts frames")
    times = (np.arange(n_frames) + 0.5) / FRAME_RATE_HZ
    stress = stress_track(utterance, n_frames)
    controls, speaking = _coarticulate(utterance.phonemes, times, style)
    widen = (1 + style.stress_gain * (stress - 0.4)) * rng.normal(1.0, 0.03)
    gains = _gains(style)
    breath = _breath(utterance, times)
    course = _Course(
        controls={c: controls[:, i] * gains[i] * (1 if c == "tongue" else widen) + BREATH.get(c, 0.0) * breath
                  for i, c in enumerate(CONTROLS)},
        shut=_closure(utterance.phonemes, times, style, {s for s, m in MOUTHS.items() if m.lips_shut}),
        teeth=_closure(utterance.phonemes, times, style, {s for s, m in MOUTHS.items() if m.lip_to_teeth}),
        speaking=speaking,
        stress=stress.astype(np.float64),
        mood=1 + 0.30 * style.liveliness * _wander(times, rng),
        brows=1 + 0.45 * style.liveliness * _wander(times, rng),
        flash=_flash(utterance, times),
    )
    face = {**_mouth(course, style), **_upper(course, style)}
    out = np.zeros((n_frames, len(SPEECH)), dtype=np.float32)
    for name, track in face.items():
        out[:, SPEECH_INDEX[name]] = track
    return np.clip(out, 0.0, 1.0)


def stress_track(utterance: Utterance, n_frames: int) -> Float32:
    """Vocal emphasis float32 [n_frames] in [0, 1]: stressed vowels as soft bumps over the loudness of the voice."""
    times = (np.arange(n_frames) + 0.5) / FRAME_RATE_HZ
    hop = MODEL_RATE_HZ // FRAME_RATE_HZ
    padded = np.zeros(n_frames * hop, dtype=np.float32)
    count = min(len(padded), len(utterance.samples))
    padded[:count] = utterance.samples[:count]
    level = np.sqrt(np.mean(padded.reshape(n_frames, hop) ** 2, axis=1)) if n_frames else np.zeros(0)
    top = float(np.quantile(level, 0.95)) if n_frames else 0.0
    loud = np.clip(level / top, 0.0, 1.0) if top > 1e-5 else np.zeros(n_frames)
    bumps = np.zeros(n_frames)
    for sound in utterance.phonemes:
        if sound.stress:
            middle, width = (sound.start_s + sound.end_s) / 2, max(sound.end_s - sound.start_s, 0.09)
            bumps = np.maximum(bumps, (0.55 if sound.stress == 1 else 1.0) * np.exp(-(((times - middle) / width) ** 2)))
    return np.asarray(np.clip(0.35 * _smooth(loud) + 0.65 * bumps, 0.0, 1.0), dtype=np.float32)


def _smooth(track: _Floats) -> _Floats:
    """Three-frame binomial mean."""
    if len(track) < 3:
        return track
    padded: NDArray[np.float64] = np.pad(track.astype(np.float64), 1, mode="edge")
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]


def _gains(style: SpeakingStyle) -> tuple[float, ...]:
    """Gain of each control in `CONTROLS`."""
    return (style.jaw, style.lips, style.lips, style.rounding, style.rounding, style.spread, style.spread, 1.0)


def _coarticulate(
    phonemes: tuple[Phoneme, ...], times: _Floats, style: SpeakingStyle
) -> tuple[_Floats, _Floats]:
    """Controls [T, 8] and how much of the mouth speaks rather than rests [T], in [0, 1]."""
    pieces: list[tuple[int, float, float]] = []
    for sound in phonemes:
        if sound.symbol in GLIDES:
            bend = sound.start_s + 0.55 * (sound.end_s - sound.start_s)
            first, second = GLIDES[sound.symbol]
            pieces += [(ROW[first], sound.start_s, bend), (ROW[second], bend, sound.end_s)]
        else:
            pieces.append((ROW[sound.symbol], sound.start_s, sound.end_s))
    rows = np.array([row for row, _, _ in pieces])
    start, end = (np.array([piece[i] for piece in pieces]) for i in (1, 2))
    middle, half = (start + end) / 2, (end - start) / 2
    lead = style.lead_ms / 1000 + GROUP_LEAD_S
    away = np.abs(times[:, None, None] + lead - middle[:, None]) - 0.6 * half[:, None]
    pull = FIRMNESS[rows] * np.exp(-np.maximum(away, 0.0) * (style.crispness / GROUP_DECAY_S))
    total = pull.sum(axis=1) + _REST_PULL
    controls = np.einsum("tpc,pc->tc", pull[:, :, CONTROL_GROUP], SHAPES[rows]) / total[:, CONTROL_GROUP]
    rest = pull[:, rows == ROW["pau"], 1].sum(axis=1) + _REST_PULL
    return controls, 1 - rest / total[:, 1]


def _closure(phonemes: tuple[Phoneme, ...], times: _Floats, style: SpeakingStyle, symbols: set[str]) -> _Floats:
    """Track [T] in [0, 1] that reaches 1 in at least one frame of every sound among `symbols`."""
    spans = [(sound.start_s, sound.end_s) for sound in phonemes if sound.symbol in symbols]
    if not spans:
        return np.zeros(len(times))
    edges = np.array(spans)
    late = edges[:, 1] - CLOSURE_LEADS_S[1]
    early = np.minimum(edges[:, 0] - CLOSURE_LEADS_S[0], late - CLOSURE_LEAST_S)
    ramp = CLOSURE_RAMP_S / style.crispness
    away = np.maximum(np.maximum(early - times[:, None], times[:, None] - late), 0.0)
    shut: _Floats = (0.5 + 0.5 * np.cos(np.pi * np.clip(away / ramp, 0.0, 1.0))).max(axis=1)
    return shut


def _wander(times: _Floats, rng: np.random.Generator) -> _Floats:
    """A slow smooth track [T] in about [-1, 1]: four sinusoids between 0.05 and 0.6 Hz."""
    rates, phases = rng.uniform(0.05, 0.6, 4), rng.uniform(0, 2 * np.pi, 4)
    return np.asarray(np.sin(2 * np.pi * times[:, None] * rates + phases).mean(axis=1) * 1.4)


def _breath(utterance: Utterance, times: _Floats) -> _Floats:
    """Track [T] in [0, 1]: the mouth opens with the breath and closes after it."""
    track = np.zeros(len(times))
    for start, end in utterance.breaths:
        track = np.maximum(track, np.sin(np.pi * np.clip((times - start) / (end - start), 0.0, 1.0)) ** 2)
    return track


def _flash(utterance: Utterance, times: _Floats) -> _Floats:
    """Track [T] in [0, 1]: up fast before every accent, down more slowly after it."""
    track = np.zeros(len(times))
    for accent in utterance.accents:
        away = times - (accent - FLASH_LEAD_S)
        share = np.where(away < 0, -away / FLASH_RISE_S, away / FLASH_FALL_S)
        track = np.maximum(track, 0.5 + 0.5 * np.cos(np.pi * np.clip(share, 0.0, 1.0)))
    return track


def _sides(style: SpeakingStyle, share: float) -> tuple[float, float]:
    """Gains of left and right for movements that follow the asymmetry by `share`."""
    lean = style.asymmetry * share
    return 1 + min(0.0, lean), 1 - max(0.0, lean)


def _mouth(course: _Course, style: SpeakingStyle) -> dict[str, _Floats]:
    """The lower face. Rounding drives out smiling and stretching; lips that meet may neither part nor protrude much."""
    c, shut, teeth, mood = course.controls, course.shut, course.teeth, course.mood
    free, bite = 1 - shut, np.minimum(teeth, 1 - shut)
    jaw = c["jaw"] * free + np.minimum(c["jaw"], 0.08) * shut
    jaw = jaw * (1 - bite) + np.minimum(jaw, 0.10) * bite
    low = (c["low"] + style.lower_show * course.speaking) * free * (1 - bite)
    up = np.maximum(c["up"] + style.upper_show * course.speaking, TEETH_SHOW * bite) * free
    rounded = np.clip(c["funnel"] + c["pucker"], 0.0, 1.0)
    parted = np.clip(2.5 * jaw + low + rounded, 0.0, 1.0) * free
    smile = style.smile * mood * (1 - 0.55 * rounded) * (1 - 0.2 * np.minimum(jaw, 1.0)) + c["smile"] * free
    stretch = c["stretch"] * (1 - 0.7 * rounded) * (1 - 0.6 * shut)
    press = (0.08 + 0.62 * style.tension) * (1 - parted) + 0.14 * shut
    left, right = _sides(style, 0.45)
    full_left, full_right = _sides(style, 1.0)
    shift = style.mouth_shift * (0.55 + 0.45 * course.speaking)
    return {
        "jawOpen": jaw, "mouthClose": shut * jaw, "jawForward": style.jaw_forward + 0.10 * c["funnel"],
        "jawLeft": 0.4 * np.maximum(shift, 0), "jawRight": 0.4 * np.maximum(-shift, 0),
        "mouthLeft": np.maximum(shift, 0), "mouthRight": np.maximum(-shift, 0),
        "mouthLowerDownLeft": low * left, "mouthLowerDownRight": low * right,
        "mouthUpperUpLeft": up * left, "mouthUpperUpRight": up * right,
        "mouthFunnel": c["funnel"] * (1 - 0.95 * shut) * (1 - 0.5 * bite),
        "mouthPucker": c["pucker"] * (1 - 0.6 * shut) * (1 - 0.5 * bite) + style.pout * (1 - 0.5 * course.speaking),
        "mouthSmileLeft": smile * full_left, "mouthSmileRight": smile * full_right,
        "mouthFrownLeft": style.frown * mood * full_left, "mouthFrownRight": style.frown * mood * full_right,
        "mouthDimpleLeft": style.dimple * mood * full_left, "mouthDimpleRight": style.dimple * mood * full_right,
        "mouthStretchLeft": stretch * left, "mouthStretchRight": stretch * right,
        "mouthPressLeft": press, "mouthPressRight": press,
        "mouthRollLower": 0.45 * style.tension * (1 - parted) + 0.10 * shut + 0.62 * bite,
        "mouthRollUpper": 0.35 * style.tension * (1 - parted) + 0.08 * shut,
        "mouthShrugLower": style.chin * (1 - 0.6 * jaw) + 0.12 * bite,
        "mouthShrugUpper": 0.3 * style.chin * (1 - parted),
        "tongueOut": c["tongue"] * free * (1 - bite),
    }


def _upper(course: _Course, style: SpeakingStyle) -> dict[str, _Floats]:
    """Brows, lids and cheeks: the style's resting face, moved by vocal stress with the slowness of the forehead."""
    accent = np.clip(course.stress - 0.45, 0.0, 1.0) * 1.8
    for _ in range(3):
        accent = _smooth(accent)
    raised, knit = max(style.brow_accent, 0.0) * accent, max(-style.brow_accent, 0.0) * accent
    flash = (0.25 + 0.5 * style.liveliness) * course.flash
    raised, knit = (raised + flash, knit) if style.brow_accent >= 0 else (raised, knit + flash)
    tilt_left, tilt_right = max(style.brow_tilt, 0.0), max(-style.brow_tilt, 0.0)
    full_left, full_right = _sides(style, 1.0)
    outer, down = style.brow_outer * course.brows + raised, style.brow_down * course.brows + knit
    inner = style.brow_inner * course.brows + 0.8 * raised
    squint = style.squint * course.mood
    wide = style.wide * course.brows + 0.25 * raised * (style.wide > 0.1)
    sneer = style.sneer * course.mood * (0.8 + 0.5 * course.stress)
    cheek = style.cheek * course.mood
    return {
        "browInnerUp": inner, "browOuterUpLeft": outer * (1 - tilt_right) + 0.6 * tilt_left,
        "browOuterUpRight": outer * (1 - tilt_left) + 0.6 * tilt_right,
        "browDownLeft": down * (1 - tilt_left) + 0.4 * tilt_right,
        "browDownRight": down * (1 - tilt_right) + 0.4 * tilt_left,
        "eyeSquintLeft": squint, "eyeSquintRight": squint, "eyeWideLeft": wide, "eyeWideRight": wide,
        "cheekSquintLeft": cheek * full_left, "cheekSquintRight": cheek * full_right,
        "noseSneerLeft": sneer * full_left, "noseSneerRight": sneer * full_right,
    }
