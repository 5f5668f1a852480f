"""A head that can be driven: expression and gaze in, deformed meshes and landmarks out.

In: ARKit coefficients float32 [52] and a `Pose`. Out: `Shape`, for each part its positions and normals before the turn
of the head (the renderer skins on the way to the picture), and landmarks after it. Remembers: the head's data.

Shapes that a head lacks are made from what it has: gaze turns the eyeballs and lets the lids follow; the mouth moves
sideways by a smooth field over the lips (`calibration`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix, hstack

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.errors import MediaError
from svp_stream.packets import Float32, Pose
from svp_stream.synthetic import calibration, camera, landmarks
from svp_stream.synthetic.headfile import HeadFile, Kind, PartFile, heads, read_head

__all__ = ["LANDMARKS", "Part", "Rig", "Shape", "heads"]

LANDMARKS: Final = landmarks.LANDMARKS
LOOK_DEGREES: Final = (30.0, 25.0)  # turn of an eyeball for eyeLook* = 1: sideways, up and down
LID_FOLLOWS: Final = 0.3  # closing of the lid when the eye looks fully down, on heads without eyeLook* shapes
LOOKS: Final = tuple(n for n in ARKIT if n.startswith("eyeLook"))


class Surface:
    """Smooth normals of a mesh, summed over triangles around each place (seams of the texture do not show).

    Only triangles that a morph can move are summed again for each frame.
    """

    def __init__(self, part: PartFile, moving: NDArray[np.bool_]) -> None:
        grid = np.round(part.positions / 1e-5).astype(np.int64)
        place = np.unique(grid, axis=0, return_inverse=True)[1].ravel()
        corners = place[part.triangles]
        self.rest = self._normals(part.positions, part.triangles, self._sums(corners, place.max() + 1))[place]
        stirred = np.zeros(place.max() + 1, bool)
        stirred[place[moving]] = True
        touched = np.zeros_like(stirred)
        touched[corners[stirred[corners].any(1)]] = True
        near = touched[corners].any(1)
        self._triangles = part.triangles[near]
        self._matrix = self._sums(corners[near], len(touched))[np.flatnonzero(touched)]
        self._vertices = np.flatnonzero(touched[place])
        self._rows = (np.cumsum(touched) - 1)[place[self._vertices]]

    @staticmethod
    def _sums(corners: NDArray[np.int64], places: int) -> Any:
        k = len(corners)
        ones = np.ones(3 * k, np.float32)
        return csr_matrix((ones, (corners.ravel(), np.repeat(np.arange(k), 3))), shape=(places, k))

    @staticmethod
    def _normals(positions: Float32, triangles: NDArray[np.int32], sums: Any) -> Float32:
        a, b, c = (positions[triangles[:, i]] for i in range(3))
        p, q = b - a, c - a
        x, y, z = p.T
        u, v, w = q.T
        normals: Float32 = sums @ np.stack([y * w - z * v, z * u - x * w, x * v - y * u], 1)
        normals /= np.sqrt(np.einsum("ij,ij->i", normals, normals))[:, None] + 1e-12
        return normals

    def normals(self, positions: Float32) -> Float32:
        """Normals [V, 3] of the deformed `positions` [V, 3]."""
        out = self.rest.copy()
        out[self._vertices] = self._normals(positions, self._triangles, self._matrix)[self._rows]
        return out


@dataclass(frozen=True, eq=False)
class Part:
    """A mesh ready to draw: its file, its morphs by ARKIT order [3V, 52] (None: stiff), its surface."""

    file: PartFile
    morphs: Any
    surface: Surface

    @property
    def rest_normals(self) -> Float32:
        """Unit normals [V, 3] at rest."""
        return self.surface.rest

    @property
    def moves(self) -> bool:
        """True where an expression or the gaze changes the mesh."""
        return self.morphs is not None or self.file.kind is Kind.EYE


@dataclass(frozen=True)
class Shape:
    """One instant of a head: for each part positions and normals [V, 6] in metres, or None where it is as at rest;
    bone matrices [2, 4, 4] (head, neck); landmarks [L, 3], eye centres and nose tip [3, 3] in the world."""

    parts: tuple[Float32 | None, ...]
    bones: Float32
    landmarks: Float32
    keypoints: Float32


class Rig:
    """Immutable data of one head."""

    def __init__(self, file: HeadFile) -> None:
        self.name: str = file.name
        self.joints = file.joints
        self.lacks = frozenset(ARKIT) - frozenset(file.targets)
        stored = tuple(_part(p, _arkit(p, file)) for p in file.parts)
        self.landmarks = landmarks.choose(stored, file.joints)
        even = calibration.calibrated(stored, self.landmarks, file.joints, self.lacks)
        self.parts = tuple(_part(p, m) for p, m in zip(file.parts, even, strict=True))

    @classmethod
    def load(cls, folder: Path, name: str) -> Rig:
        """Read head `name` from `folder` (see `headfile.read_head`).

        Raises:
            MediaError: the head is missing or malformed, or landmarks cannot be found on it.
        """
        file = read_head(folder, name)
        try:
            return cls(file)
        except MediaError as error:
            raise MediaError(f"{folder / name}.npz: {error}") from error

    def weights(self, expression: Float32, pose: Pose) -> Float32:
        """Coefficients [52] that the meshes see: `expression` in [0, 1] with the blink and gaze of `pose` added."""
        if expression.shape != (len(ARKIT),):
            raise ValueError(f"expression must have shape ({len(ARKIT)},) in the order of arkit.ARKIT, "
                             f"not {expression.shape}")
        w = np.clip(expression, 0.0, 1.0).astype(np.float32)
        sideways, down = pose.gaze_x / LOOK_DEGREES[0], pose.gaze_y / LOOK_DEGREES[1]
        for side, outward in (("Left", 1.0), ("Right", -1.0)):
            w[INDEX[f"eyeLookOut{side}"]] += max(0.0, outward * sideways)
            w[INDEX[f"eyeLookIn{side}"]] += max(0.0, -outward * sideways)
            w[INDEX[f"eyeLookDown{side}"]] += max(0.0, down)
            w[INDEX[f"eyeLookUp{side}"]] += max(0.0, -down)
        w[INDEX["eyeBlinkLeft"]] += pose.blink_left
        w[INDEX["eyeBlinkRight"]] += pose.blink_right
        w = np.clip(w, 0.0, 1.0)
        if self.lacks.issuperset(LOOKS):
            for side in ("Left", "Right"):
                blink = INDEX[f"eyeBlink{side}"]
                w[blink] = min(1.0, w[blink] + LID_FOLLOWS * w[INDEX[f"eyeLookDown{side}"]] * (1.0 - w[blink]))
                w[INDEX[f"eyeWide{side}"]] += LID_FOLLOWS * w[INDEX[f"eyeLookUp{side}"]]
        return w

    def shape(self, expression: Float32, pose: Pose) -> Shape:
        """Deform the head: `expression` float32 [52] in ARKIT order (clipped to [0, 1]) and a `pose`."""
        w = self.weights(expression, pose)
        turns = [_eyeball(w, side) for side in ("Left", "Right")]
        parts = tuple(self._deform(p, w, turns) if p.moves else None for p in self.parts)
        turned = camera.bones(self.joints["neck"], self.joints["head"], pose)
        marks = np.stack([self._skinned(m.part, m.vertex, parts, turned) for m in self.landmarks])
        eyes = [turned[0, :3, :3] @ self.joints[j] + turned[0, :3, 3] for j in ("RightEye", "LeftEye")]
        keypoints = np.stack([*eyes, marks[LANDMARKS.index("nose_tip")]])
        return Shape(parts, turned, marks, keypoints)

    def _deform(self, part: Part, w: Float32, turns: list[Float32]) -> Float32:
        rest = part.file.positions
        out = np.empty((len(rest), 6), np.float32)
        positions, normals = out[:, :3], out[:, 3:]
        positions[:] = rest if part.morphs is None else rest + (part.morphs @ w).reshape(-1, 3)
        normals[:] = part.surface.rest
        if part.file.kind in (Kind.SKIN, Kind.TEETH):
            normals[:] = part.surface.normals(positions)
        elif part.file.kind is Kind.EYE:
            left = rest[:, 0] > 0.0
            for side, joint, rotation in ((left, "LeftEye", turns[0]), (~left, "RightEye", turns[1])):
                centre = self.joints[joint]
                positions[side] = (positions[side] - centre) @ rotation.T + centre
                normals[side] = normals[side] @ rotation.T
        return out

    def _skinned(self, part: int, vertex: int, shapes: tuple[Float32 | None, ...], turned: Float32) -> Float32:
        file, shape = self.parts[part].file, shapes[part]
        p = file.positions[vertex] if shape is None else shape[vertex, :3]
        h, n = file.weights[vertex]
        m = np.eye(4, dtype=np.float32) * (1.0 - h - n) + turned[0] * h + turned[1] * n
        moved: Float32 = m[:3, :3] @ p + m[:3, 3]
        return moved


def _eyeball(w: Float32, side: str) -> Float32:
    outward = 1.0 if side == "Left" else -1.0
    yaw = outward * (w[INDEX[f"eyeLookOut{side}"]] - w[INDEX[f"eyeLookIn{side}"]]) * LOOK_DEGREES[0]
    pitch = (w[INDEX[f"eyeLookDown{side}"]] - w[INDEX[f"eyeLookUp{side}"]]) * LOOK_DEGREES[1]
    return camera.turn(1, float(yaw)) @ camera.turn(0, float(pitch))


def _part(part: PartFile, morphs: Any) -> Part:
    moving = np.zeros(len(part.positions), bool)
    if morphs is not None:
        moving[np.unique(morphs.nonzero()[0] // 3)] = True
    return Part(part, morphs, Surface(part, moving))


def _arkit(part: PartFile, head: HeadFile) -> Any:
    """Morphs [3V, 52] in ARKIT order (None: stiff). Eyeballs turn as rigid bodies: eyeLook* is left out of them."""
    if part.morphs is None:
        return None
    stored: csc_matrix = part.morphs.tocsc()
    number = {name: i for i, name in enumerate(head.targets)}
    empty = csc_matrix((stored.shape[0], 1), dtype=np.float32)

    def column(name: str) -> Any:
        if name not in number or (part.kind is Kind.EYE and name in LOOKS):
            return empty
        return stored[:, number[name]]

    morphs = hstack([column(n) for n in ARKIT], format="csr", dtype=np.float32)
    return morphs if morphs.nnz else None
