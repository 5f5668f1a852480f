"""Makes one expression mean the same on every head: even sizes of the main shapes, stand-ins for missing ones.

In: the morphs of the parts of a head and its landmarks. Out: morphs of the same layout. Remembers: nothing.

- jawOpen at 1 parts the lips by `JAW_OPENS` (as far as `JAW_GAIN` allows), and mouthClose at 1 closes just that gap, as
  ARKit defines it: a correction on top of an open jaw.
- eyeBlink at 1 brings the lids together, neither short of each other nor far past.
- mouthLeft, mouthRight and mouthShrugUpper are smooth fields over the lips where a head has none.
Lengths are in the units of `landmarks`: 60 are the distance between the eyes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_matrix, diags

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.packets import Float32
from svp_stream.synthetic.landmarks import LANDMARKS, Mark, MovingPart

JAW_OPENS: Final = 26.0
JAW_GAIN: Final = (0.65, 1.6)
BLINK_GAIN: Final = (0.6, 1.3)
LAP: Final = 0.8  # how far the upper lid of a closed eye comes over the lower one, so that no white shows between
UPPER_SHARE: Final = 0.22  # of the gap of an open jaw, what the upper lip comes down in mouthClose
REACH: Final = 15.0  # units from the rim of the lips in which a made shape fades
SHIFT: Final = 7.0  # sideways travel of mouthLeft and mouthRight
SHRUG: Final = 4.0  # rise of the upper lip in mouthShrugUpper
LIP_RIM: Final = ("inner_lip_top", "inner_lip_top_left", "inner_lip_top_right", "inner_lip_left", "inner_lip_right",
                  "inner_lip_bottom", "inner_lip_bottom_left", "inner_lip_bottom_right")


def calibrated(parts: Sequence[MovingPart], marks: Sequence[Mark], joints: Mapping[str, Float32],
               lacks: frozenset[str]) -> list[Any]:
    """Morphs [3V, 52] in metres (None: stiff) for each of `parts`; `lacks` are the ARKit names the head has not."""
    mouth = _Mouth(parts, dict(zip(LANDMARKS, marks, strict=True)), joints)
    gains = np.ones(len(ARKIT), np.float32)
    gains[INDEX["jawOpen"]] = gains[INDEX["mouthClose"]] = mouth.jaw_gain()
    for side in ("Left", "Right"):
        gains[INDEX[f"eyeBlink{side}"]] = mouth.blink_gain(side.lower(), f"eyeBlink{side}")
    made = mouth.made(lacks)
    out: list[Any] = []
    for i, part in enumerate(parts):
        if part.morphs is None:
            out.append(None)
            continue
        kept = gains.copy()
        if i == mouth.skin:
            kept[[INDEX[n] for n in made]] = 0.0
        elif "mouthClose" in made:
            kept[INDEX["mouthClose"]] = 0.0
        morphs = part.morphs @ diags(kept, format="csr", dtype=np.float32)
        if i == mouth.skin:
            for name, field in made.items():
                morphs = morphs + _column(field * gains[INDEX[name]], INDEX[name])
        morphs = morphs.tocsr()
        morphs.eliminate_zeros()
        out.append(morphs)
    return out


def _column(field: Float32, number: int) -> Any:
    flat = np.where(np.abs(field) > 2e-5, field, 0.0).astype(np.float32).ravel()
    rows = np.flatnonzero(flat)
    return csr_matrix((flat[rows], (rows, np.full(len(rows), number))), shape=(len(flat), len(ARKIT)))


class _Mouth:
    """The skin around the lips and lids, with the measures that the gains are made from."""

    def __init__(self, parts: Sequence[MovingPart], marks: Mapping[str, Mark], joints: Mapping[str, Float32]) -> None:
        self.skin = marks["inner_lip_top"].part
        self._marks = marks
        self._at = parts[self.skin].file.positions
        self._morphs = parts[self.skin].morphs
        self._unit = float(np.linalg.norm(joints["LeftEye"] - joints["RightEye"])) / 60.0

    def _delta(self, shape: str) -> Float32:
        column: Float32 = self._morphs[:, [INDEX[shape]]].toarray().reshape(-1, 3)
        return column

    def _gap(self, shape: str, above: str, below: str) -> Float32:
        """How far `shape` at 1 moves landmark `above` from `below`, metres [3]."""
        delta = self._delta(shape)
        gap: Float32 = delta[self._marks[above].vertex] - delta[self._marks[below].vertex]
        return gap

    def jaw_gain(self) -> float:
        opens = float(np.linalg.norm(self._gap("jawOpen", "inner_lip_top", "inner_lip_bottom"))) / self._unit
        return float(np.clip(JAW_OPENS / max(opens, 1e-3), *JAW_GAIN))

    def blink_gain(self, side: str, shape: str) -> float:
        top, bottom = (self._at[self._marks[f"{side}_eye_{e}"].vertex] for e in ("top", "bottom"))
        closes = float(-self._gap(shape, f"{side}_eye_top", f"{side}_eye_bottom")[1])
        return float(np.clip(((top - bottom)[1] + LAP * self._unit) / max(closes, 1e-5), *BLINK_GAIN))

    def made(self, lacks: frozenset[str]) -> dict[str, Float32]:
        """Fields [V, 3] in metres for the shapes that the head lacks or means otherwise."""
        opens = self._gap("jawOpen", "inner_lip_top", "inner_lip_bottom")
        closes = self._gap("mouthClose", "inner_lip_top", "inner_lip_bottom")
        fields: dict[str, Float32] = {}
        near = self._nearness(REACH)
        carried = self._carried()
        if float(closes @ opens) > -0.6 * float(opens @ opens):
            lower = -(1.0 - UPPER_SHARE) * self._delta("jawOpen") * (near * carried)[:, None]
            fields["mouthClose"] = lower - UPPER_SHARE * opens * (near * (1.0 - carried) * self._middle())[:, None]
        aside = np.array([SHIFT * self._unit, 0.0, 0.0], np.float32)
        for name, sign in (("mouthLeft", 1.0), ("mouthRight", -1.0)):
            if name in lacks:
                fields[name] = sign * self._nearness(1.4 * REACH)[:, None] * aside
        if "mouthShrugUpper" in lacks:
            rise = np.array([0.0, SHRUG, 0.25 * SHRUG], np.float32) * self._unit
            fields["mouthShrugUpper"] = (self._nearness(0.6 * REACH) * (1.0 - carried) * self._middle())[:, None] * rise
        return fields

    def _nearness(self, reach: float) -> Float32:
        """1 on the rim of the lips, falling off smoothly over `reach` units, [V]."""
        rim = self._at[[self._marks[n].vertex for n in LIP_RIM]]
        steps = np.linspace(0.0, 1.0, 5, dtype=np.float32)[:, None]
        order = [3, 1, 0, 2, 4, 7, 5, 6, 3]
        line = np.concatenate([rim[a] + (rim[b] - rim[a]) * steps for a, b in zip(order, order[1:], strict=False)])
        away = np.min([np.linalg.norm(self._at - p, axis=1) for p in line], axis=0) / (reach * self._unit)
        fade: Float32 = np.exp(-(away ** 2)).astype(np.float32)
        return fade

    def _carried(self) -> Float32:
        """1 where the skin goes all the way with the lower lip when the jaw opens, 0 where it stands, [V]."""
        jaw = np.linalg.norm(self._delta("jawOpen"), axis=1)
        part: Float32 = np.clip(jaw / max(float(jaw[self._marks["inner_lip_bottom"].vertex]), 1e-6), 0.0, 1.0)
        return part

    def _middle(self) -> Float32:
        """1 in the middle of the mouth, 0 at its corners and beyond, [V]: the upper lip moves as an arch."""
        left, right = (self._at[self._marks[f"inner_lip_{s}"].vertex, 0] for s in ("left", "right"))
        x = (self._at[:, 0] - (left + right) / 2.0) / max(float(left - right) / 2.0, 1e-6)
        arch: Float32 = np.clip(1.0 - x * x, 0.0, 1.0)
        return arch
