"""Landmarks of a head: which vertices follow the lips, lids, irises, nose, brows and jaw.

In: the parts of a rig and its joints. Out: for each name in `LANDMARKS` a `Mark` (part and vertex). Remembers: nothing.

They are found from how the head moves and what can be seen of it, never from vertex numbers, so that heads of any
topology do: the lips from what jawOpen carries along and the hole that it opens, the lids from the hole in the skin
before the eyeball, the brows from what lifts them. Lengths are in eyes: 60 units are the distance between the eyes,
about one millimetre each; x to the person's left, y up, z to the front, from the point between the eyes.
"Left" and "right" are the person's, as in ARKit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from svp_stream.arkit import INDEX
from svp_stream.errors import MediaError
from svp_stream.packets import Float32, Floats
from svp_stream.synthetic.headfile import Kind, PartFile

LANDMARKS: Final = (
    "inner_lip_top", "inner_lip_bottom", "inner_lip_left", "inner_lip_right",
    "inner_lip_top_left", "inner_lip_top_right", "inner_lip_bottom_left", "inner_lip_bottom_right",
    "outer_lip_top", "outer_lip_bottom", "outer_lip_left", "outer_lip_right",
    "outer_lip_top_left", "outer_lip_top_right", "outer_lip_bottom_left", "outer_lip_bottom_right",
    "left_eye_inner", "left_eye_outer", "left_eye_top", "left_eye_bottom", "left_iris",
    "right_eye_inner", "right_eye_outer", "right_eye_top", "right_eye_bottom", "right_iris",
    "nose_tip", "nose_wing_left", "nose_wing_right",
    "left_brow_inner", "left_brow_mid", "left_brow_outer", "right_brow_inner", "right_brow_mid", "right_brow_outer",
    "chin", "jaw_left", "jaw_right",
)
CELL: Final = 0.6  # units: grid of the pictures in which holes are looked for
BEHIND: Final = -1e3  # units: depth of a place with nothing in front
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Mark:
    """Vertex number `vertex` of part number `part`."""

    part: int
    vertex: int


class MovingPart(Protocol):
    """What is needed of a part: see `rig.Part`."""

    @property
    def file(self) -> PartFile: ...
    @property
    def morphs(self) -> Any: ...
    @property
    def rest_normals(self) -> Float32: ...


def choose(parts: Sequence[MovingPart], joints: Mapping[str, Float32]) -> tuple[Mark, ...]:
    """One mark for each name in `LANDMARKS`, in that order.

    Raises:
        MediaError: the head has no skin or eyeball, or a feature cannot be found on it.
    """
    face = _Face(parts, joints)
    found = {**face.lips(), **face.eyes(), **face.nose(), **face.brows(), **face.jaw()}
    return tuple(found[name] for name in LANDMARKS)


class _Face:
    """The skin in units around the point between the eyes, with the questions that landmarks answer to."""

    def __init__(self, parts: Sequence[MovingPart], joints: Mapping[str, Float32]) -> None:
        skins = [i for i, p in enumerate(parts) if p.file.kind is Kind.SKIN and p.morphs is not None]
        self._balls = [i for i, p in enumerate(parts) if p.file.kind is Kind.EYE]
        if not skins or not self._balls:
            raise MediaError("the head has no skin with morphs or no eyeballs (kinds 0 and 1): no landmarks")
        self._skin = max(skins, key=lambda i: len(parts[i].file.positions))
        self._parts = parts
        left, right = joints["LeftEye"], joints["RightEye"]
        self._unit = float(np.linalg.norm(left - right)) / 60.0
        self._origin = (left + right) / 2.0
        self._centres = {"left": (left - self._origin) / self._unit, "right": (right - self._origin) / self._unit}
        skin = parts[self._skin]
        self.p = (skin.file.positions - self._origin) / self._unit
        self.n = skin.rest_normals
        self._front = (self.n[:, 2] > -0.3) & (self.p[:, 2] > -60.0)

    def delta(self, shape: str) -> Float32:
        """Displacement [V, 3] of the skin by `shape` at 1, in units."""
        column: Float32 = self._parts[self._skin].morphs[:, [INDEX[shape]]].toarray().reshape(-1, 3) / self._unit
        return column

    def _pick(self, among: Flags, score: Floats, what: str) -> int:
        """The vertex of `among` with the least `score`."""
        where = np.flatnonzero(among)
        if not len(where):
            raise MediaError(f"the head shows no {what}: its morphs or its shape are unlike a face")
        return int(where[np.argmin(score[where])])

    def _near(self, place: Floats, among: Flags, what: str) -> int:
        return self._pick(among, np.linalg.norm(self.p - place, axis=1), what)

    def _mark(self, vertex: int) -> Mark:
        return Mark(self._skin, vertex)

    def lips(self) -> dict[str, Mark]:
        """Inner rims where the lips touch at rest, in three slices of the face; then corners and outer edges."""
        jaw = np.linalg.norm(self.delta("jawOpen"), axis=1)
        middle = self._front & (np.abs(self.p[:, 0]) < 3.0) & (self.p[:, 1] < -25.0) & (self.p[:, 1] > -105.0)
        carried = jaw > 0.5 * jaw[middle].max(initial=0.0)
        middle &= self.p[:, 2] > self.p[middle & carried, 2].max(initial=BEHIND) - 14.0
        seam = self.p[list(self._contact(middle & ~carried, middle & carried))].mean(0)
        mouth = self._front & (np.abs(self.p - seam)[:, 1] < 16.0) & (self.p[:, 2] > seam[2] - 30.0)
        corners = self._corners(seam, mouth)

        def rims(x: float) -> tuple[int, int]:
            off = np.abs(self.p[:, 0] - x)
            lips = mouth & (self.p[:, 2] > seam[2] - 6.0 - abs(x) * 0.5)
            width = max(1.2, *(float(off[s].min(initial=9.0)) + 0.2 for s in (lips & ~carried, lips & carried)))
            return self._contact(lips & ~carried & (off < width), lips & carried & (off < width))

        tops, bottoms = {}, {}
        for side, x in (("", 0.0), ("_left", self.p[corners[0], 0] * 0.5), ("_right", self.p[corners[1], 0] * 0.5)):
            tops[side], bottoms[side] = rims(float(x))
        found = {f"inner_lip_top{s}": v for s, v in tops.items()}
        found |= {f"inner_lip_bottom{s}": v for s, v in bottoms.items()}
        found |= {"inner_lip_left": corners[0], "inner_lip_right": corners[1]}
        return {k: self._mark(v) for k, v in {**found, **self._borders(found, carried, mouth)}.items()}

    def _contact(self, upper: Flags, lower: Flags) -> tuple[int, int]:
        """The closest pair at rest of a vertex on the lower rim of `upper` and one on the upper rim of `lower`."""
        above, below = np.flatnonzero(upper), np.flatnonzero(lower)
        if not len(above) or not len(below):
            raise MediaError("jawOpen moves no lower lip away from an upper one: no lips on this head")
        above = above[self.p[above, 1] < self.p[above, 1].min() + 1.2]
        below = below[self.p[below, 1] > self.p[below, 1].max() - 1.2]
        apart = np.linalg.norm(self.p[above, None] - self.p[None, below], axis=2) - 0.1 * self.p[None, below, 2]
        u, w = np.unravel_index(int(apart.argmin()), apart.shape)
        return int(above[u]), int(below[w])

    def _corners(self, seam: Float32, mouth: Flags) -> tuple[int, int]:
        """Ends of the hole that an open jaw makes, person's left and right."""
        jaw = self.delta("jawOpen")
        opened = self.p + jaw * (12.0 / float(np.abs(jaw[mouth, 1]).max(initial=1e-3)))
        grid = _Grid((-40.0, 40.0), (float(seam[1]) - 10.0, float(seam[1]) + 6.0))
        triangles = self._parts[self._skin].file.triangles
        fallen = grid.depth(self.p, triangles, towards=True) - grid.depth(opened, triangles, towards=True)
        hole = grid.blob(fallen > 6.0, (0.0, float(seam[1]) - 2.5))
        if not hole.any():
            raise MediaError("jawOpen opens no hole between the lips: no mouth on this head")
        ends = []
        for column in (np.flatnonzero(hole.any(0)).max(), np.flatnonzero(hole.any(0)).min()):
            at = np.array([grid.x[column], grid.y[np.flatnonzero(hole[:, column])].mean()])
            ends.append(self._pick(mouth, np.linalg.norm(opened[:, :2] - at, axis=1), "corner of the mouth"))
        return ends[0], ends[1]

    def _borders(self, inner: Mapping[str, int], carried: Flags, mouth: Flags) -> dict[str, int]:
        """The red of the lips ends where the profile turns: found in the middle, carried over to the sides."""
        top, bottom = self.p[inner["inner_lip_top"]], self.p[inner["inner_lip_bottom"]]
        slim = self._front & (np.abs(self.p[:, 0]) < max(1.3, float(np.abs(self.p[mouth, 0]).min(initial=9.0)) + 0.2))
        ny = self.n[:, 1]
        above = slim & ~carried & (self.p[:, 1] > top[1] + 2.0) & (self.p[:, 1] < top[1] + 15.0)
        above &= self.p[:, 2] > top[2] - 3.0
        steep = self._pick(above, -ny, "groove above the upper lip")
        edge = above & (self.p[:, 1] <= self.p[steep, 1]) & (ny <= 0.5 * ny[steep])
        upper = self._pick(edge, -self.p[:, 1], "edge of the upper lip") if edge.any() else steep
        below = slim & carried & (self.p[:, 1] < bottom[1] - 4.0) & (self.p[:, 1] > bottom[1] - 17.0)
        below &= self.p[:, 2] > bottom[2] - 12.0
        under = self._pick(below, ny, "edge of the lower lip")
        edge = below & (self.p[:, 1] >= self.p[under, 1]) & (ny <= 0.85 * ny[under])
        lower = self._pick(edge, -self.p[:, 1], "edge of the lower lip")
        found = {"outer_lip_top": upper, "outer_lip_bottom": lower}
        for side, sign in (("left", 1.0), ("right", -1.0)):
            corner = self.p[inner[f"inner_lip_{side}"]]
            beyond = mouth & ((self.p[:, 0] - corner[0]) * sign > 1.0)
            found[f"outer_lip_{side}"] = self._near(corner + [2.6 * sign, 0.0, -1.0], beyond, "corner of the mouth")
            for level, centre, edge_at in (("top", top, upper), ("bottom", bottom, lower)):
                rim = self.p[inner[f"inner_lip_{level}_{side}"]]
                reach = (self.p[edge_at] - centre) * np.array([0.0, 0.9, 0.0], np.float32)
                found[f"outer_lip_{level}_{side}"] = self._near(rim + reach, mouth, "edge of the lips")
        return found

    def eyes(self) -> dict[str, Mark]:
        """Lids and corners around the part of the eyeball that shows; iris straight before the centre of the ball."""
        found = {}
        for side, outward in (("left", 1.0), ("right", -1.0)):
            centre = self._centres[side]
            grid = _Grid((centre[0] - 24.0, centre[0] + 24.0), (centre[1] - 14.0, centre[1] + 14.0))
            skin = grid.depth(self.p, self._parts[self._skin].file.triangles, towards=False)
            ball = np.full_like(skin, BEHIND)
            for i in self._balls:
                file = self._parts[i].file
                at = (file.positions - self._origin) / self._unit
                ball = np.maximum(ball, grid.depth(at, file.triangles, towards=False))
            hole = grid.blob(ball > skin, (float(centre[0]), float(centre[1])))
            if not hole.any():
                raise MediaError(f"no {side} eyeball shows between the lids of this head")
            lids = self._front & (np.linalg.norm(self.p - centre, axis=1) < 26.0)
            columns = np.flatnonzero(hole.any(0))
            ends = {"inner": columns.min(), "outer": columns.max()} if outward > 0 else {
                "inner": columns.max(), "outer": columns.min()}
            places = {k: (grid.x[c], grid.y[np.flatnonzero(hole[:, c])].mean()) for k, c in ends.items()}
            middle = int((columns.min() + columns.max()) / 2)
            rows = np.flatnonzero(hole[:, middle])
            places |= {"top": (grid.x[middle], grid.y[rows.max()]), "bottom": (grid.x[middle], grid.y[rows.min()])}
            falls = -self.delta(f"eyeBlink{side.capitalize()}")[:, 1]
            falling = falls > 0.6 * falls[lids].max(initial=0.0)
            for name, place in places.items():
                off = np.linalg.norm(self.p[:, :2] - np.array(place), axis=1)
                among = lids & falling if name == "top" else lids & ~falling
                found[f"{side}_eye_{name}"] = self._mark(self._pick(among, off - 0.05 * self.p[:, 2], "eyelid"))
            found[f"{side}_iris"] = self._iris(centre)
        return found

    def _iris(self, centre: Floats) -> Mark:
        best: tuple[float, Mark] | None = None
        for i in self._balls:
            away = (self._parts[i].file.positions - self._origin) / self._unit - centre
            angle = np.linalg.norm(away[:, :2], axis=1) - 0.2 * away[:, 2]
            v = int(angle.argmin())
            if best is None or angle[v] < best[0]:
                best = float(angle[v]), Mark(i, v)
        assert best is not None
        return best[1]

    def nose(self) -> dict[str, Mark]:
        """The tip is the front-most point of the face; the wings look most sideways beside it."""
        centre = self._front & (np.abs(self.p[:, 0]) < 4.0) & (self.p[:, 1] < -10.0) & (self.p[:, 1] > -60.0)
        tip = self._pick(centre, -self.p[:, 2], "nose")
        found = {"nose_tip": self._mark(tip)}
        away = self.p - self.p[tip]
        for side, sign in (("left", 1.0), ("right", -1.0)):
            x = away[:, 0] * sign
            flank = self._front & (x > 6.0) & (x < 24.0) & (np.abs(away[:, 1] + 1.0) < 5.0) & (away[:, 2] > -28.0)
            score = -self.n[:, 0] * sign - 0.02 * x
            found[f"nose_wing_{side}"] = self._mark(self._pick(flank, score, "wing of the nose"))
        return found

    def brows(self) -> dict[str, Mark]:
        """Under the hairs of the brow where the head has a part of that name, else a usual height above the eye."""
        hairs = [p.file.positions for p in self._parts if p.file.kind is Kind.HAIR and "brow" in p.file.name.lower()]
        painted = (np.concatenate(hairs) - self._origin) / self._unit if hairs else np.empty((0, 3), np.float32)
        found = {}
        for side, sign in (("left", 1.0), ("right", -1.0)):
            centre = self._centres[side]
            for name, x, height in (("inner", 13.0, 14.5), ("mid", 29.0, 17.5), ("outer", 45.0, 15.5)):
                close = painted[np.abs(painted[:, 0] - sign * x) < 4.0]
                level = float(close[:, 1].mean()) if len(close) else float(centre[1]) + height
                off = np.linalg.norm(self.p[:, :2] - np.array([sign * x, level], np.float32), axis=1)
                band = self._front & (self.p[:, 2] > centre[2] - 15.0)
                found[f"{side}_brow_{name}"] = self._mark(self._pick(band, off, "brow"))
        return found

    def jaw(self) -> dict[str, Mark]:
        """Chin: where its front turns under. Corners of the jaw: the widest points at the height of the mouth."""
        jaw = np.linalg.norm(self.delta("jawOpen"), axis=1)
        middle = self._front & (np.abs(self.p[:, 0]) < 3.0) & (self.p[:, 1] < -75.0) & (jaw > 0.4 * jaw.max())
        found = {}
        tip = self._pick(middle, self.p[:, 1] - 0.8 * self.p[:, 2], "chin")
        found["chin"] = self._mark(tip)
        height = self.p[tip, 1] * 0.72
        for side, sign in (("left", 1.0), ("right", -1.0)):
            band = (np.abs(self.p[:, 1] - height) < 4.0) & (self.p[:, 2] > -45.0) & (self.n[:, 0] * sign > 0.4)
            found[f"jaw_{side}"] = self._mark(self._pick(band, -self.p[:, 0] * sign, "corner of the jaw"))
        return found


class _Grid:
    """A small orthographic picture of the face from the front: `x` [W] and `y` [H] are the cell centres in units."""

    def __init__(self, across: tuple[float, float], along: tuple[float, float]) -> None:
        self.x = np.arange(across[0], across[1], CELL, dtype=np.float32)
        self.y = np.arange(along[0], along[1], CELL, dtype=np.float32)

    def depth(self, points: Floats, triangles: NDArray[np.int32], towards: bool) -> Float32:
        """Front-most z [H, W] of the mesh (BEHIND where there is none); `towards` skips triangles that face away."""
        out = np.full((len(self.y), len(self.x)), BEHIND, np.float32)
        low, high = np.array([self.x[0], self.y[0]]), np.array([self.x[-1], self.y[-1]])
        corners = points[triangles]
        flat = corners[..., :2]
        kept = (flat.max(1) > low).all(1) & (flat.min(1) < high).all(1) & (corners[..., 2].max(1) > -60.0)
        corners, flat = corners[kept], flat[kept]
        (ax, ay), (bx, by) = (flat[:, 1] - flat[:, 0]).T, (flat[:, 2] - flat[:, 0]).T
        area = ax * by - ay * bx
        solid = (area > 1e-6) if towards else (np.abs(area) > 1e-6)
        first = np.ceil((flat.min(1) - low) / CELL).astype(int)
        span = np.floor((flat.max(1) - low) / CELL).astype(int) - first + 1
        for j in range(int(span[:, 1].max(initial=0))):
            for i in range(int(span[:, 0].max(initial=0))):
                t = np.flatnonzero(solid & (i < span[:, 0]) & (j < span[:, 1]))
                column, row = first[t, 0] + i, first[t, 1] + j
                t, column, row = (a[(column >= 0) & (row >= 0) & (column < len(self.x)) & (row < len(self.y))]
                                  for a in (t, column, row))
                px, py = self.x[column] - flat[t, 0, 0], self.y[row] - flat[t, 0, 1]
                u = (px * by[t] - py * bx[t]) / area[t]
                v = (py * ax[t] - px * ay[t]) / area[t]
                hit = (u >= -1e-4) & (v >= -1e-4) & (u + v <= 1.0001)
                z = corners[t, 0, 2] + u * (corners[t, 1, 2] - corners[t, 0, 2]) + v * (
                    corners[t, 2, 2] - corners[t, 0, 2])
                np.maximum.at(out, (row[hit], column[hit]), z[hit])
        return out

    def blob(self, flags: Flags, seed: tuple[float, float]) -> Flags:
        """The connected region of `flags` nearest to `seed` (x, y) in units."""
        from scipy.ndimage import label
        regions, count = label(flags)
        if not count:
            return np.zeros_like(flags)
        away = np.hypot(self.x[None, :] - seed[0], self.y[:, None] - seed[1])
        nearest = np.unravel_index(int(np.where(flags, away, np.inf).argmin()), flags.shape)
        region: Flags = regions == regions[nearest]
        return region

