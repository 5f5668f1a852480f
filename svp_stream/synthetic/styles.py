"""Speaking styles: how one person forms the same words with another face.

In: a name, or a random generator. Out: `SpeakingStyle`, numbers that bend the articulation (width, jaw against lips,
crispness, resting face, accents of the brow, asymmetry) and a `Manner` for what is not lips. The named styles are drawn
to be told apart by eye. Each but the plain one is a family with three intensities (`CAST`: `warm-soft`, `warm`,
`warm-strong`); `sample` fills the space between them for training, from training styles only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

import numpy as np

from svp_stream.motion.manner import MANNER_DIM, Manner
from svp_stream.packets import Float32


@dataclass(frozen=True, slots=True)
class SpeakingStyle:
    """Gains multiply the wishes of the sounds (1 is plain); biases are ARKit coefficients of the resting face."""

    name: str
    jaw: float = 1.0
    """Gain of the jaw."""
    lips: float = 1.0
    """Gain of lips parting (lowerDown, upperUp)."""
    rounding: float = 1.0
    spread: float = 1.0
    crispness: float = 1.0
    """Speed of the articulators: 0.5 slurs, 1.5 hits every target."""
    lead_ms: float = 70.0
    """How far the lips run ahead of the sound."""
    stress_gain: float = 0.35
    """How much vocal stress widens the mouth."""
    upper_show: float = 0.0
    """Upper lip raised while speaking: teeth show."""
    lower_show: float = 0.0
    tension: float = 0.0
    """Lips pressed and rolled in, at rest and between words."""
    smile: float = 0.15
    frown: float = 0.0
    dimple: float = 0.0
    pout: float = 0.0
    """Lips pushed forward at rest."""
    chin: float = 0.0
    """Chin raised (mouthShrugLower)."""
    jaw_forward: float = 0.0
    asymmetry: float = 0.0
    """-1 all on the right side of the face, +1 all on the left."""
    mouth_shift: float = 0.0
    """Mouth and jaw drawn to one side: positive to the left."""
    brow_inner: float = 0.0
    brow_outer: float = 0.0
    brow_down: float = 0.0
    brow_tilt: float = 0.0
    """One brow higher than the other: positive the left."""
    brow_accent: float = 0.15
    """Brows raised on vocal stress; negative draws them together."""
    squint: float = 0.0
    wide: float = 0.0
    cheek: float = 0.06
    sneer: float = 0.0
    liveliness: float = 0.5
    """How much the resting face wanders by itself."""
    manner: Manner = field(default_factory=Manner)

    def vector(self) -> Float32:
        """float32 [P]: every number in the order of the fields, the manner last; for probes."""
        return np.concatenate([self.numbers(), self.manner.vector()]).astype(np.float32)

    def numbers(self) -> Float32:
        """float32 [P - MANNER_DIM]: the articulation alone."""
        return np.array([getattr(self, name) for name in PARAMETERS], dtype=np.float32)

    @classmethod
    def from_vector(cls, name: str, v: Float32) -> SpeakingStyle:
        """Inverse of `vector`, clipped to what a face can do. Raises ValueError for a wrong length."""
        if v.shape != (STYLE_DIM,):
            raise ValueError(f"a speaking style has {STYLE_DIM} numbers, got shape {v.shape}")
        clipped = np.clip(v[: len(PARAMETERS)], _LOW, _HIGH)
        values = {parameter: float(x) for parameter, x in zip(PARAMETERS, clipped, strict=True)}
        return cls(name=name, manner=Manner.from_vector(v[len(PARAMETERS):]), **values)


PARAMETERS: Final = tuple(f.name for f in fields(SpeakingStyle) if f.name not in ("name", "manner"))
STYLE_DIM: Final = len(PARAMETERS) + MANNER_DIM

_RANGES: Final = {
    "jaw": (0.2, 1.7), "lips": (0.2, 1.7), "rounding": (0.3, 1.6), "spread": (0.3, 1.7), "crispness": (0.45, 1.6),
    "lead_ms": (50.0, 110.0), "stress_gain": (0.0, 0.9), "asymmetry": (-0.9, 0.9), "mouth_shift": (-0.5, 0.5),
    "brow_tilt": (-1.0, 1.0), "brow_accent": (-0.6, 0.9), "liveliness": (0.0, 1.0), "upper_show": (0.0, 0.35),
    "lower_show": (0.0, 0.35), "tension": (0.0, 0.8), "pout": (0.0, 0.4), "jaw_forward": (0.0, 0.5), "wide": (0.0,
    0.7), "frown": (0.0, 0.8),
}
_LOW: Final = np.array([_RANGES.get(p, (0.0, 1.0))[0] for p in PARAMETERS], dtype=np.float32)
_HIGH: Final = np.array([_RANGES.get(p, (0.0, 1.0))[1] for p in PARAMETERS], dtype=np.float32)

_STYLES: Final = (
    SpeakingStyle("neutral", smile=0.16, manner=Manner(head_size_deg=1.4, nod_deg=1.5)),
    SpeakingStyle(
        "warm", jaw=0.95, smile=0.60, cheek=0.42, squint=0.30, dimple=0.18, brow_inner=0.30, brow_accent=0.30,
        manner=Manner(head_size_deg=2.2, head_tempo_hz=0.3, nod_deg=3.0, roll_deg=2.5, pitch_deg=1.0,
                      gaze_size_deg=2.0),
    ),
    SpeakingStyle(
        "cheerful", jaw=1.15, lips=1.15, spread=1.3, smile=0.95, cheek=0.65, squint=0.10, upper_show=0.14,
        brow_outer=0.45,
        brow_inner=0.45, brow_accent=0.55, stress_gain=0.5, crispness=1.15, liveliness=0.8,
        manner=Manner(head_size_deg=3.2, head_tempo_hz=0.6, nod_deg=4.0, pitch_deg=-1.5, blink_rate_hz=0.4),
    ),
    SpeakingStyle(
        "serious", jaw=0.85, lips=0.9, spread=0.8, smile=0.0, frown=0.16, cheek=0.0, brow_down=0.65, brow_accent=-0.30,
        squint=0.20, tension=0.15, liveliness=0.25,
        manner=Manner(head_size_deg=0.8, head_tempo_hz=0.25, nod_deg=1.8, pitch_deg=1.5, blink_rate_hz=0.15,
                      gaze_size_deg=1.0, gaze_rate_hz=0.25),
    ),
    SpeakingStyle(
        "tight", jaw=0.40, lips=0.62, rounding=0.6, spread=0.7, tension=0.70, smile=0.10, dimple=0.45, squint=0.30,
        crispness=1.25, stress_gain=0.12, brow_inner=0.08, brow_accent=0.06, liveliness=0.2,
        manner=Manner(head_size_deg=0.7, head_tempo_hz=0.5, nod_deg=0.6, blink_rate_hz=0.5, gaze_size_deg=2.0),
    ),
    SpeakingStyle(
        "mumble", jaw=0.42, lips=0.42, rounding=0.55, spread=0.45, crispness=0.58, lead_ms=60.0, stress_gain=0.12,
        smile=0.05, pout=0.10, lower_show=0.05, brow_accent=0.04, liveliness=0.4,
        manner=Manner(head_size_deg=2.0, head_tempo_hz=0.15, nod_deg=0.6, pitch_deg=5.0, blink_rate_hz=0.25,
                      lid_rest=0.18, gaze_size_deg=5.0),
    ),
    SpeakingStyle(
        "dramatic", jaw=1.55, lips=1.35, rounding=1.45, spread=1.3, crispness=1.25, stress_gain=0.8, smile=0.10,
        brow_inner=0.50, brow_outer=0.25, brow_accent=0.80, wide=0.30, liveliness=0.9, lead_ms=90.0,
        manner=Manner(head_size_deg=4.5, head_tempo_hz=0.45, nod_deg=6.0, gaze_size_deg=5.0, blink_rate_hz=0.25),
    ),
    SpeakingStyle(
        "newsreader", jaw=1.05, lips=1.15, crispness=1.4, stress_gain=0.30, smile=0.24, cheek=0.10, lower_show=0.08,
        brow_accent=0.45, brow_outer=0.05, liveliness=0.2,
        manner=Manner(head_size_deg=1.0, head_tempo_hz=0.5, nod_deg=3.2, blink_rate_hz=0.35, gaze_size_deg=0.8,
                      gaze_rate_hz=0.2, pitch_deg=-0.5),
    ),
    SpeakingStyle(
        "shy", cheek=0.15, jaw=0.60, lips=0.65, rounding=0.8, spread=0.75, crispness=0.85, stress_gain=0.15, smile=0.38,
        tension=0.30,
        chin=0.25, brow_inner=0.70, brow_accent=0.12, asymmetry=0.35, liveliness=0.6,
        manner=Manner(head_size_deg=1.6, nod_deg=1.0, pitch_deg=5.5, yaw_deg=4.0, roll_deg=-3.0, blink_rate_hz=0.65,
                      double_blink=0.3, gaze_size_deg=7.0, gaze_rate_hz=1.0),
    ),
    SpeakingStyle(
        "angry", jaw=1.10, lips=1.35, spread=1.3, crispness=1.4, stress_gain=0.65, smile=0.0, frown=0.36, cheek=0.0,
        brow_down=1.0, sneer=0.65, squint=0.38, upper_show=0.14, lower_show=0.20, jaw_forward=0.22, brow_accent=-0.40,
        tension=0.12,
        manner=Manner(head_size_deg=2.4, head_tempo_hz=0.9, nod_deg=5.0, pitch_deg=3.0, blink_rate_hz=0.12,
                      gaze_size_deg=1.0, gaze_rate_hz=0.2),
    ),
    SpeakingStyle(
        "sad", jaw=0.65, lips=0.65, spread=0.6, crispness=0.72, stress_gain=0.15, smile=0.0, frown=0.58, cheek=0.0,
        chin=0.40, brow_inner=1.0, brow_accent=0.12, pout=0.06, liveliness=0.3,
        manner=Manner(head_size_deg=1.0, head_tempo_hz=0.15, nod_deg=1.0, pitch_deg=5.0, roll_deg=2.0,
                      blink_rate_hz=0.25,
                      lid_rest=0.20, gaze_size_deg=4.0),
    ),
    SpeakingStyle(
        "excited", jaw=1.40, lips=1.25, spread=1.35, crispness=1.35, stress_gain=0.70, smile=0.75, cheek=0.30,
        wide=0.55,
        brow_outer=0.75, brow_inner=0.65, upper_show=0.10, brow_accent=0.60, liveliness=1.0, lead_ms=80.0,
        manner=Manner(head_size_deg=4.5, head_tempo_hz=1.1, nod_deg=5.0, pitch_deg=-2.0, blink_rate_hz=0.6,
                      gaze_rate_hz=0.8),
    ),
    SpeakingStyle(
        "bored", pout=0.12, jaw=0.68, lips=0.55, rounding=0.7, spread=0.5, crispness=0.65, stress_gain=0.08,
        smile=0.0, frown=0.22,
        cheek=0.0, brow_outer=0.10, brow_accent=0.02, lower_show=0.10, liveliness=0.15,
        manner=Manner(head_size_deg=1.2, head_tempo_hz=0.12, nod_deg=0.3, roll_deg=4.0, pitch_deg=-2.0, lid_rest=0.34,
                      blink_rate_hz=0.2, gaze_size_deg=6.0, gaze_rate_hz=0.3),
    ),
    SpeakingStyle(
        "sly", jaw=0.75, lips=0.85, spread=1.1, smile=0.85, dimple=0.35, cheek=0.40, asymmetry=0.85, mouth_shift=0.25,
        brow_tilt=0.85, brow_outer=0.45, brow_down=0.40, squint=0.45, brow_accent=0.25, stress_gain=0.25,
        manner=Manner(head_size_deg=1.8, head_tempo_hz=0.25, nod_deg=1.5, yaw_deg=-5.0, pitch_deg=2.5, roll_deg=-2.0,
                      blink_rate_hz=0.15, gaze_size_deg=2.0, lid_rest=0.10),
    ),
    SpeakingStyle(
        "sceptical", jaw=0.85, lips=0.95, smile=0.06, frown=0.24, asymmetry=-0.60, mouth_shift=-0.35, brow_tilt=-0.85,
        brow_outer=0.55, brow_down=0.45, squint=0.30, sneer=0.20, pout=0.15, brow_accent=0.30, cheek=0.03,
        manner=Manner(head_size_deg=1.5, nod_deg=1.0, yaw_deg=4.0, roll_deg=3.5, pitch_deg=-2.5, blink_rate_hz=0.2),
    ),
    SpeakingStyle(
        "teacher", jaw=1.25, lips=1.2, rounding=1.35, spread=1.25, crispness=1.5, stress_gain=0.5, smile=0.40,
        cheek=0.20,
        brow_outer=0.35, brow_inner=0.30, brow_accent=0.60, lead_ms=85.0,
        manner=Manner(head_size_deg=2.5, head_tempo_hz=0.4, nod_deg=4.5, blink_rate_hz=0.35, gaze_size_deg=4.0),
    ),
    SpeakingStyle(
        "tender", jaw=0.75, lips=0.75, rounding=1.15, crispness=0.8, stress_gain=0.20, smile=0.48, cheek=0.30,
        pout=0.12,
        brow_inner=0.75, brow_accent=0.15, squint=0.12,
        manner=Manner(head_size_deg=1.5, head_tempo_hz=0.2, nod_deg=1.5, roll_deg=5.0, pitch_deg=2.0, lid_rest=0.12,
                      blink_rate_hz=0.25, gaze_size_deg=1.5),
    ),
    SpeakingStyle(
        "worried", jaw=0.90, lips=1.05, spread=1.25, crispness=1.1, stress_gain=0.35, smile=0.0, frown=0.36, cheek=0.0,
        brow_inner=1.0, wide=0.32, lower_show=0.14, brow_accent=0.20, tension=0.10, liveliness=0.7,
        manner=Manner(head_size_deg=2.0, head_tempo_hz=0.9, nod_deg=1.5, blink_rate_hz=0.8, double_blink=0.35,
                      gaze_size_deg=6.0, gaze_rate_hz=1.3),
    ),
)

NAMED: Final[dict[str, SpeakingStyle]] = {style.name: style for style in _STYLES}
HELD_OUT_STYLES: Final = ("teacher", "worried")
"""Named styles that no training utterance is spoken in, and that `sample` does not draw from."""

TRAINING_STYLES: Final = tuple(name for name in NAMED if name not in HELD_OUT_STYLES)
_SPREAD: Final = np.std([NAMED[name].vector() for name in TRAINING_STYLES], axis=0).astype(np.float32)
JITTER: Final = 0.2
"""Noise on a sampled style, in standard deviations between the named ones."""
DAILY_INTENSITY: Final = 0.1
DAILY_JITTER: Final = 0.08
"""How far one manner is off itself from day to day: in intensity, and in standard deviations between the named."""


def intensify(style: SpeakingStyle, intensity: float, name: str) -> SpeakingStyle:
    """The style drawn out from the plain one by `intensity`: 0 plain, 1 as it is, above 1 a caricature, within what a
    face can do. Manner goes along."""
    plain = NAMED[PLAIN].vector()
    return SpeakingStyle.from_vector(name, plain + np.float32(intensity) * (style.vector() - plain))


def grades(family: str) -> tuple[str, ...]:
    """Names of a family's members in `CAST`, the softest first; the plain style is alone."""
    return (family,) if family == PLAIN else (f"{family}-soft", family, f"{family}-strong")


PLAIN: Final = "neutral"
INTENSITIES: Final = {"soft": 0.6, "strong": 1.4}
"""What the suffix of a name stands for."""
CAST: Final[dict[str, SpeakingStyle]] = NAMED | {
    f"{name}-{suffix}": intensify(style, intensity, f"{name}-{suffix}")
    for name, style in NAMED.items() if name != PLAIN for suffix, intensity in INTENSITIES.items()
}
"""Every family in every intensity."""
TRAINING_CAST: Final = tuple(name for family in TRAINING_STYLES for name in grades(family))
HELD_OUT_CAST: Final = tuple(name for family in HELD_OUT_STYLES for name in grades(family))
"""A family is held out in all its intensities."""


def vary(style: SpeakingStyle, rng: np.random.Generator) -> SpeakingStyle:
    """The same manner on another day: a little more or less of it, and a little off it in every number."""
    own = intensify(style, float(rng.normal(1.0, DAILY_INTENSITY)), style.name).vector()
    return SpeakingStyle.from_vector(style.name, own + DAILY_JITTER * _SPREAD * rng.standard_normal(STYLE_DIM)
                                     .astype(np.float32))


def sample(rng: np.random.Generator) -> SpeakingStyle:
    """A random convex mix of two or three training styles plus noise, named 'sampled-XXXX'.

    Mirrored left to right half the time, so that neither side of the face is special.
    """
    chosen = rng.choice(len(TRAINING_STYLES), size=int(rng.integers(2, 4)), replace=False)
    weights = rng.dirichlet(np.full(len(chosen), 0.5))
    mix = weights @ np.stack([NAMED[TRAINING_STYLES[i]].vector() for i in chosen])
    noisy = mix + JITTER * _SPREAD * rng.standard_normal(STYLE_DIM)
    if rng.random() < 0.5:
        noisy[_SIDED] *= -1
    return SpeakingStyle.from_vector(f"sampled-{int(rng.integers(0x10000)):04x}", noisy.astype(np.float32))


_SIDED: Final = [
    *(PARAMETERS.index(name) for name in ("asymmetry", "mouth_shift", "brow_tilt")),
    *(len(PARAMETERS) + [f.name for f in fields(Manner)].index(name) for name in ("yaw_deg", "roll_deg")),
]
