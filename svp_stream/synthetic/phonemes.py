"""The sounds of English as this room spells them, and the mouth that each one asks for.

In: nothing. Out: `Phoneme` (a sound with its times), the ARPAbet set of flite, the mappings from espeak-ng's mnemonics
to it (other languages take the English mouth that looks most alike), and `MOUTHS`: for every sound the shape of lips
and jaw in a few symmetric controls, how firmly it insists on each group of controls (dominance: Cohen & Massaro 1993,
"Modeling coarticulation in synthetic visual speech"), and its closure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from svp_stream.packets import Float32


@dataclass(frozen=True, slots=True)
class Phoneme:
    """One sound. `symbol` is ARPAbet in lower case ('aa', 'pau'); times in seconds; `stress` 0 none, 1 weak, 2 full."""

    symbol: str
    start_s: float
    end_s: float
    stress: int


CONTROLS: Final = ("jaw", "low", "up", "funnel", "pucker", "stretch", "smile", "tongue")
"""Symmetric controls that sounds have a wish for; the rest of the face belongs to the style and to the closures."""

GROUPS: Final = ("jaw", "open", "round", "spread", "tongue")
"""Controls that move together: a sound is firm or careless about a whole group."""

CONTROL_GROUP: Final = (0, 1, 1, 2, 2, 3, 3, 4)


@dataclass(frozen=True, slots=True)
class Mouth:
    """Wish of one sound: control values, strength of each group in `GROUPS` order, closure of lips or lip-to-teeth."""

    shape: tuple[float, ...]
    firm: tuple[float, ...]
    lips_shut: bool = False
    lip_to_teeth: bool = False


def _mouth(
    firm: tuple[float, float, float, float, float],
    lips_shut: bool = False,
    lip_to_teeth: bool = False,
    **shape: float,
) -> Mouth:
    return Mouth(tuple(shape.get(c, 0.0) for c in CONTROLS), firm, lips_shut, lip_to_teeth)


_OPEN = (1.0, 1.0, 0.7, 0.6, 0.4)
_ROUND = (0.8, 0.7, 1.3, 0.8, 0.4)
_SPREAD = (0.9, 1.0, 0.8, 1.0, 0.4)
_ALVEOLAR = (0.7, 0.6, 0.25, 0.25, 0.5)
_SIBILANT = (1.3, 0.8, 0.35, 0.4, 0.5)
_VELAR = (0.3, 0.25, 0.15, 0.15, 0.5)
_FAINT = (0.1, 0.1, 0.08, 0.08, 0.1)
_SHUT = (0.7, 1.0, 0.2, 0.15, 0.6)
_REST = (0.8, 0.9, 0.6, 0.6, 0.6)

MOUTHS: Final[dict[str, Mouth]] = {
    "pau": _mouth(_REST),
    "aa": _mouth(_OPEN, jaw=0.62, low=0.30, up=0.18),
    "ae": _mouth(_OPEN, jaw=0.52, low=0.34, up=0.24, stretch=0.28, smile=0.12),
    "ah": _mouth(_OPEN, jaw=0.42, low=0.26, up=0.16),
    "ao": _mouth(_ROUND, jaw=0.50, low=0.14, up=0.06, funnel=0.45, pucker=0.20),
    "ax": _mouth((0.5, 0.5, 0.3, 0.3, 0.3), jaw=0.20, low=0.18, up=0.10),
    "eh": _mouth(_OPEN, jaw=0.38, low=0.32, up=0.22, stretch=0.24, smile=0.06),
    "er": _mouth(_ROUND, jaw=0.20, low=0.14, up=0.12, funnel=0.26, pucker=0.32),
    "ih": _mouth(_SPREAD, jaw=0.20, low=0.28, up=0.17, stretch=0.22, smile=0.05),
    "iy": _mouth(_SPREAD, jaw=0.12, low=0.34, up=0.22, stretch=0.42, smile=0.22),
    "uh": _mouth(_ROUND, jaw=0.18, low=0.08, up=0.05, funnel=0.30, pucker=0.42),
    "uw": _mouth(_ROUND, jaw=0.06, funnel=0.16, pucker=0.85),
    "m": _mouth(_SHUT, lips_shut=True, jaw=0.06),
    "b": _mouth(_SHUT, lips_shut=True, jaw=0.07),
    "p": _mouth(_SHUT, lips_shut=True, jaw=0.07),
    "f": _mouth(_SHUT, lip_to_teeth=True, jaw=0.10, up=0.29),
    "v": _mouth(_SHUT, lip_to_teeth=True, jaw=0.10, up=0.28),
    "th": _mouth((0.9, 0.8, 0.3, 0.3, 1.4), jaw=0.16, low=0.24, up=0.14, tongue=0.42),
    "dh": _mouth((0.7, 0.6, 0.25, 0.25, 1.1), jaw=0.15, low=0.22, up=0.12, tongue=0.32),
    "t": _mouth(_ALVEOLAR, jaw=0.11, low=0.26, up=0.13, stretch=0.10),
    "d": _mouth(_ALVEOLAR, jaw=0.13, low=0.26, up=0.13, stretch=0.08),
    "n": _mouth(_ALVEOLAR, jaw=0.14, low=0.24, up=0.12, stretch=0.06),
    "l": _mouth(_ALVEOLAR, jaw=0.21, low=0.24, up=0.13, tongue=0.08),
    "s": _mouth(_SIBILANT, jaw=0.06, low=0.32, up=0.18, stretch=0.20),
    "z": _mouth(_SIBILANT, jaw=0.07, low=0.30, up=0.17, stretch=0.18),
    "sh": _mouth((1.1, 1.0, 1.4, 0.9, 0.5), jaw=0.05, low=0.26, up=0.20, funnel=0.42, pucker=0.30),
    "zh": _mouth((1.1, 1.0, 1.4, 0.9, 0.5), jaw=0.05, low=0.26, up=0.20, funnel=0.42, pucker=0.30),
    "ch": _mouth((1.1, 1.0, 1.3, 0.9, 0.5), jaw=0.05, low=0.26, up=0.20, funnel=0.42, pucker=0.30),
    "jh": _mouth((1.1, 1.0, 1.3, 0.9, 0.5), jaw=0.06, low=0.26, up=0.20, funnel=0.38, pucker=0.30),
    "k": _mouth(_VELAR, jaw=0.22, low=0.18, up=0.12),
    "g": _mouth(_VELAR, jaw=0.22, low=0.18, up=0.12),
    "ng": _mouth(_VELAR, jaw=0.20, low=0.18, up=0.12),
    "hh": _mouth(_FAINT, jaw=0.24, low=0.18, up=0.12),
    "r": _mouth((0.5, 0.5, 0.9, 0.6, 0.4), jaw=0.12, low=0.14, up=0.10, funnel=0.24, pucker=0.42),
    "w": _mouth((0.8, 0.9, 1.6, 0.9, 0.4), jaw=0.05, funnel=0.12, pucker=0.95),
    "y": _mouth(_SPREAD, jaw=0.10, low=0.28, up=0.17, stretch=0.30, smile=0.10),
}

GLIDES: Final[dict[str, tuple[str, str]]] = {
    "aw": ("aa", "uh"), "ay": ("aa", "ih"), "ey": ("eh", "iy"), "ow": ("ao", "uw"), "oy": ("ao", "ih"),
}
"""Diphthongs: the mouth travels from the first vowel to the second."""

VOWELS: Final = frozenset(
    {"aa", "ae", "ah", "ao", "ax", "eh", "er", "ih", "iy", "uh", "uw", *GLIDES}
)
SYMBOLS: Final = frozenset({*MOUTHS, *GLIDES})

SHAPES: Final[Float32] = np.array([m.shape for m in MOUTHS.values()], dtype=np.float32)
FIRMNESS: Final[Float32] = np.array([m.firm for m in MOUTHS.values()], dtype=np.float32)
ROW: Final = {symbol: row for row, symbol in enumerate(MOUTHS)}
"""Row of each mouth in `SHAPES` [S, 8] and `FIRMNESS` [S, 5]."""

FLITE_ALIASES: Final = {"axr": "er", "dx": "d", "el": "l", "em": "m", "en": "n", "nx": "n", "hv": "hh", "ssil": "pau"}

_ESPEAK: Final[dict[str, tuple[str, ...]]] = {
    "@": ("ax",), "3": ("er",), "3:": ("er",), "@L": ("ax", "l"), "@2": ("ax",), "@5": ("ax",), "a": ("ae",),
    "aa": ("ae",), "a#": ("ax",), "A:": ("aa",), "A@": ("aa", "r"), "A#": ("aa",), "E": ("eh",), "E#": ("eh",),
    "e@": ("eh", "r"), "I": ("ih",), "I#": ("ih",), "I2": ("ih",), "i": ("iy",), "i:": ("iy",), "i@": ("ih", "r"),
    "i@3": ("ih", "r"), "0": ("aa",), "0#": ("aa",), "V": ("ah",), "U": ("uh",), "U@": ("uh", "r"), "u:": ("uw",),
    "O:": ("ao",), "O": ("ao",), "O@": ("ao", "r"), "o@": ("ao", "r"), "aI": ("ay",), "aI@": ("ay", "ax"),
    "aI3": ("ay", "er"), "eI": ("ey",), "OI": ("oy",), "aU": ("aw",), "aU@": ("aw", "ax"), "oU": ("ow",),
    "oU#": ("ow",), "l#": ("l",), "n-": ("n",), "m-": ("m",), "l-": ("ax", "l"), "t#": ("d",), "t2": ("t",),
    "d#": ("d",), "z#": ("z",), "s#": ("s",), "tS": ("ch",), "dZ": ("jh",), "S": ("sh",), "Z": ("zh",), "T": ("th",),
    "D": ("dh",), "N": ("ng",), "h": ("hh",), "j": ("y",), "r-": ("r",), "R": ("r",), "R2": ("r",), "*": ("d",),
    "?": (), "w#": ("w",), "x": ("k",), "C": ("hh",), "_": ("pau",), "_:": ("pau",), "_|": (), "_^_": ("pau",),
    "_!": ("pau",), ";": (), "-": (), "|": (), "||": (), ":": (),
}


def from_flite(symbol: str) -> str:
    """The ARPAbet symbol of this room for what flite prints; raises KeyError for an unknown one."""
    symbol = FLITE_ALIASES.get(symbol.lower(), symbol.lower())
    if symbol not in SYMBOLS:
        raise KeyError(symbol)
    return symbol


def from_espeak(mnemonic: str) -> tuple[str, ...]:
    """ARPAbet symbols for one espeak-ng mnemonic (several for an r-coloured vowel, none for a mark that has no sound).

    Raises KeyError for a mnemonic that is no English sound.
    """
    bare = mnemonic.strip("',%=")
    if bare in _ESPEAK:
        return _ESPEAK[bare]
    if bare in SYMBOLS:
        return (bare,)
    trimmed = bare.rstrip("#-2345;:")
    if trimmed in _ESPEAK:
        return _ESPEAK[trimmed]
    if trimmed in SYMBOLS:
        return (trimmed,)
    raise KeyError(mnemonic)


_ABROAD: Final[dict[str, tuple[str, ...]]] = {
    "a": ("aa",), "A": ("aa",), "A~": ("aa",), "e": ("eh",), "E~": ("eh",), "o": ("ao",), "O~": ("ao",), "u": ("uw",),
    "y": ("uw",), "Y": ("uh",), "8": ("uh",), "W": ("er",), "W~": ("er",), "OY": ("oy",), "oI": ("oy",), "EI": ("ey",),
    "VU": ("ah", "uh"), "Wy": ("er", "uw"), "yU": ("uw",), "B": ("b",), "Q": ("g",), "R": ("g",), "J^": ("y",),
    "l^": ("l", "y"), "n^": ("n",), "**": ("d",), "pF": ("p", "f"), "ts": ("t", "s"), "dz": ("d", "z"), "ts;": ("ch",),
    "dz;": ("jh",), "s;": ("sh",), "z;": ("zh",), "ss": ("s",), "!": (),
}


def from_abroad(mnemonic: str) -> tuple[str, ...]:
    """The same for German, French, Spanish, Italian, Dutch and Polish, by how the mouth looks: a rounded front vowel
    counts as its rounded neighbour, a nasal one as its oral twin, a uvular r as g. Raises KeyError for the unknown."""
    bare = mnemonic.strip("',%=")
    for spelling in (bare, bare.rstrip("#-2345;:")):
        if spelling in _ABROAD:
            return _ABROAD[spelling]
    return from_espeak(mnemonic)
