"""Writes a small head made of formulas, in the format of the baked heads: tests of pictures run without any asset.

In: a folder and a name. Out: `<name>.npz` and WebP textures: skin with slits for mouth and eyes, eyeballs, teeth, hair
with soft strands, shoulders, and ARKit morphs. About 3,000 triangles. Remembers: nothing.

Lengths are millimetres from the point between the eyes (x to the person's left, y up, z to the front) until written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]

HEIGHT = 1500.0  # of the eyes above the floor
EYE_X, EYE_Z, EYE_R = 30.0, 69.5, 14.0
MOUTH_Y, MOUTH_X = -65.0, 22.0
ROWS = np.array([124, 118, 108, 92, 72, 52, 37, 26, 18, 11, 0, -11, -18, -26, -33, -40, -46, -51, -55, -58, -61,
                 MOUTH_Y, -69, -73, -77, -81, -87, -94, -102, -109, -114, -118, -124, -140, -165, -190], float)
FRONT = np.array([0, 5, 11, 15, 18, MOUTH_X, 26, 30, 34, 38, 42, 49, 57, 65, 71], float)
EYE_COLUMNS, MOUTH_COLUMNS = (18.0, 42.0), (-MOUTH_X, MOUTH_X)
# Smooth displacement fields: centre x, centre y, radius, displacement. "R" mirrors are made from these.
BUMPS: dict[str, tuple[tuple[float, float, float, tuple[float, float, float]], ...]] = {
    "mouthSmileLeft": ((22, -65, 13, (6, 5, -2)),),
    "mouthFrownLeft": ((22, -65, 13, (1, -5, 0)),),
    "mouthStretchLeft": ((22, -65, 13, (6, -1, -2)),),
    "mouthUpperUpLeft": ((8, -61, 8, (0, 5, 1)),),
    "mouthLowerDownLeft": ((8, -71, 8, (0, -5, 1)),),
    "mouthPressLeft": ((10, -65, 8, (0, 0, -2)),),
    "mouthPucker": ((22, -65, 12, (-8, 0, 5)), (-22, -65, 12, (8, 0, 5)), (0, -65, 9, (0, 0, 7))),
    "mouthFunnel": ((22, -65, 12, (-6, 0, 4)), (-22, -65, 12, (6, 0, 4)), (0, -65, 9, (0, 0, 9))),
    "browInnerUp": ((13, 17, 11, (0, 7, 0)), (-13, 17, 11, (0, 7, 0))),
    "browDownLeft": ((22, 18, 14, (-1, -5, 1)),),
    "browOuterUpLeft": ((42, 18, 12, (0, 6, 0)),),
    "cheekSquintLeft": ((36, -24, 14, (0, 4, 3)),),
    "noseSneerLeft": ((10, -34, 9, (0, 4, 0)),),
}


@dataclass
class _Mesh:
    """A part in the making: points in millimetres; morphs [V, 3] by name."""

    name: str
    kind: int
    points: Array
    triangles: NDArray[np.int64]
    uv: Array
    texture: str
    look: dict[str, Any] = field(default_factory=dict)
    morphs: dict[str, Array] = field(default_factory=dict)
    stiff: bool = False


def write_procedural_head(folder: Path, name: str = "tiny") -> None:
    """Write head `name` into `folder` (made if missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    for texture, pixels in _textures().items():
        Image.fromarray(pixels).save(folder / f"{name}_{texture}.webp", lossless=True)
    meshes = [_skin(), *_eyes(), *_teeth(), _cap(), *_strands(), _shoulders()]
    targets = sorted({t for m in meshes for t in m.morphs})
    arrays: dict[str, NDArray[Any]] = {}
    for i, mesh in enumerate(meshes):
        arrays |= _arrays(i, mesh, targets)
    joints = {"neck": (0, -150, -10), "head": (0, -95, 0), "LeftEye": (EYE_X, 0, EYE_Z), "RightEye": (-EYE_X, 0, EYE_Z)}
    meta = {
        "joints": {k: [x / 1e3, (y + HEIGHT) / 1e3, z / 1e3] for k, (x, y, z) in joints.items()},
        "targets": targets,
        "parts": [{"name": m.name, "kind": m.kind, "tex": f"{name}_{m.texture}.webp", "nm": None, "nms": 0.0,
                   "cut": 0.0, "tint": [1, 1, 1], "gloss": 1.0, "sat": 1.0, "cull": False, "cast": True, **m.look}
                  for m in meshes],
    }
    np.savez(folder / f"{name}.npz", meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]


def _arrays(i: int, mesh: _Mesh, targets: list[str]) -> dict[str, NDArray[Any]]:
    p = mesh.points
    head = np.zeros(len(p)) if mesh.stiff else np.clip((p[:, 1] + 160.0) / 35.0, 0.0, 1.0)
    neck = np.zeros(len(p)) if mesh.stiff else np.clip((p[:, 1] + 190.0) / 35.0, 0.0, 1.0) - head
    runs = [(targets.index(t), np.flatnonzero(np.abs(d).max(1) > 0.02), d) for t, d in sorted(mesh.morphs.items())]
    starts = np.cumsum([0, *(len(v) for _, v, _ in runs)])
    return {
        f"p{i}_pos": ((p + [0.0, HEIGHT, 0.0]) / 1e3).astype(np.float32), f"p{i}_uv": mesh.uv.astype(np.float32),
        f"p{i}_idx": mesh.triangles.astype(np.uint16), f"p{i}_ao": np.full(len(p), 255, np.uint8),
        f"p{i}_hw": head.astype(np.float16), f"p{i}_nw": neck.astype(np.float16),
        f"p{i}_mt": np.array([t for t, _, _ in runs], np.uint16), f"p{i}_mo": starts.astype(np.uint32),
        f"p{i}_mi": np.concatenate([np.empty(0, int), *(v for _, v, _ in runs)]).astype(np.uint16),
        f"p{i}_md": np.concatenate([np.empty((0, 3)), *(d[v] for _, v, d in runs)]).astype(np.float16),
    }


def _radius(y: Array) -> Array:
    """Size of the head at height `y`, 1 at the eyes: round above, narrow at the chin, a neck below."""
    above = np.sqrt(np.clip(1.0 - (np.maximum(y, 0.0) / 125.0) ** 2, 0.0, 1.0))
    below = 1.0 - 0.30 * (np.clip(-y, 0.0, 110.0) / 110.0) ** 2.5
    return above * below


def _surface(angle: Array, y: Array) -> Array:
    """Skin at `angle` around the vertical (0 is the front), height `y`: ellipses, a nose, lips with a groove below."""
    r = _radius(y)
    x, z = 75.0 * np.sin(angle) * r, 95.0 * np.cos(angle) * r
    chin = np.clip((-y - 110.0) / 14.0, 0.0, 1.0)
    x, z = x * (1.0 - 0.15 * chin), z * (1.0 - 0.42 * chin)

    def bump(cx: float, cy: float, wx: float, wy: float) -> Array:
        return np.where(z > 0, np.exp(-(((x - cx) / wx) ** 2) - ((y - cy) / wy) ** 2), 0.0)

    z = z + 18.0 * bump(0, -36, 9, 12) + 6.0 * (bump(11, -38, 5, 6) + bump(-11, -38, 5, 6))
    z = z + 4.0 * (bump(0, -60, 20, 4.0) + bump(0, -70, 18, 4.5)) + 4.0 * bump(0, -95, 22, 14)
    return np.stack([x, np.broadcast_to(y, x.shape), z], -1)


def _skin() -> _Mesh:
    side = np.arcsin(FRONT / 75.0)
    back = np.linspace(side[-1], np.pi, 6)[1:-1]
    half = np.concatenate([side, back])
    angles = np.concatenate([-half[:0:-1], half, [np.pi]])
    columns = np.concatenate([-FRONT[:0:-1], FRONT])
    first = int(np.argmin(np.abs(angles + side[-1])))
    flat = np.full(len(angles), 999.0)
    flat[first:first + len(columns)] = columns
    points = _surface(*np.meshgrid(angles, ROWS)).reshape(-1, 3)
    lower = np.zeros(len(points), bool)
    count = len(angles)
    below = np.arange(len(points)).reshape(len(ROWS), count).copy()
    extra: list[Array] = []
    for y, (left, right), up, down in ((0.0, EYE_COLUMNS, 4.5, 3.5), (0.0, (-42.0, -18.0), 4.5, 3.5),
                                       (MOUTH_Y, MOUTH_COLUMNS, 0.25, 0.25)):
        row = int(np.argmin(np.abs(ROWS - y)))
        for c in map(int, np.flatnonzero((flat > left + 0.1) & (flat < right - 0.1))):
            arch = 1.0 - ((flat[c] - (left + right) / 2.0) / ((right - left) / 2.0)) ** 2
            v = row * count + c
            below[row, c] = len(points) + len(extra)
            extra.append(points[v] - [0.0, down * arch, 0.0])
            points[v, 1] += up * arch
    points = np.concatenate([points, np.array(extra)])
    lower = np.concatenate([lower, np.ones(len(extra), bool)])
    above = np.arange(len(ROWS) * count).reshape(len(ROWS), count)
    quads = []
    after = np.roll(np.arange(count), -1)
    for r in range(len(ROWS) - 1):
        a, b, e, f = below[r], below[r, after], above[r + 1], above[r + 1, after]
        quads += [np.stack([a, e, b], 1), np.stack([b, e, f], 1)]
    uv = np.stack([0.5 + points[:, 0] / 200.0, 0.5 - (points[:, 1] + 20.0) / 360.0], 1)
    mesh = _Mesh("skin", 0, points, np.concatenate(quads), uv, "skin")
    mesh.morphs = _skin_morphs(points, lower)
    return mesh


def _skin_morphs(p: Array, lower: NDArray[np.bool_]) -> dict[str, Array]:
    x, y, z = p.T
    front = z > 0.0
    morphs: dict[str, Array] = {}
    lip = (np.abs(x) < MOUTH_X + 1.0) & ((y < MOUTH_Y - 0.5) | (lower & (y < -50.0)))
    ramp = np.clip((-50.0 - y) / 40.0, 0.0, 1.0)
    carried = np.where(lip, np.maximum(ramp, 1.0 - 0.5 * (x / MOUTH_X) ** 2), np.where(y < MOUTH_Y + 0.1, ramp, 0.0))
    corner = (np.abs(np.abs(x) - MOUTH_X) < 1.0) & (np.abs(y - MOUTH_Y) < 0.3)
    carried = np.where(corner, 0.4, carried) * np.clip((62.0 - np.abs(x)) / 30.0, 0.0, 1.0) * front
    carried *= np.clip((y + 145.0) / 25.0, 0.0, 1.0)
    jaw = carried[:, None] * np.array([0.0, -26.0, -5.0])
    near = np.exp(-(((y - MOUTH_Y) / 14.0) ** 2))[:, None]
    morphs["jawOpen"] = jaw
    upper = ((y > MOUTH_Y - 0.5) & ~lower & (np.abs(x) < MOUTH_X) & front)[:, None]
    arch = (1.0 - (x / MOUTH_X) ** 2)[:, None]
    morphs["mouthClose"] = -0.8 * jaw * near + np.where(upper, arch * near * np.array([0.0, -5.2, 0.0]), 0.0)
    for side, sign in (("Left", 1.0), ("Right", -1.0)):
        arch_eye = np.clip(1.0 - ((x - sign * EYE_X) / 12.0) ** 2, 0.0, 1.0) * front
        lid = (y > 0.0) & (y < 5.0) & ~lower
        fold = (y > 5.0) & (y < 12.0)
        travel = arch_eye * (np.where(lid, 8.0, 0.0) + np.where(fold, 3.0, 0.0))
        morphs[f"eyeBlink{side}"] = travel[:, None] * np.array([0.0, -1.0, 0.0])
        morphs[f"eyeWide{side}"] = np.where(lid, arch_eye * 2.0, 0.0)[:, None] * np.array([0.0, 1.0, 0.0])
    for name, bumps in BUMPS.items():
        mirrored = [(name, 1.0)] + ([(name.replace("Left", "Right"), -1.0)] if name.endswith("Left") else [])
        for target, sign in mirrored:
            total = np.zeros_like(p)
            for cx, cy, radius, push in bumps:
                near_by = np.exp(-((x - sign * cx) ** 2 + (y - cy) ** 2) / radius ** 2) * front
                total += near_by[:, None] * np.array([sign * push[0], push[1], push[2]])
            morphs[target] = total
    return morphs


def _sheet(points: Array) -> tuple[Array, NDArray[np.int64]]:
    """A grid of points [R, C, 3] as a mesh that faces the front when columns run to +x and rows down."""
    rows, columns = points.shape[:2]
    v = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (q.ravel() for q in (v[:-1, :-1], v[:-1, 1:], v[1:, :-1], v[1:, 1:]))
    return points.reshape(-1, 3), np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def _eyes() -> list[_Mesh]:
    meshes = []
    for name, sign in (("eye_left", 1.0), ("eye_right", -1.0)):
        around, down = np.meshgrid(np.linspace(-np.pi, np.pi, 17), np.linspace(0.001, np.pi - 0.001, 11))
        ball = np.stack([np.sin(around) * np.sin(down), np.cos(down), np.cos(around) * np.sin(down)], -1)
        points, triangles = _sheet(ball * EYE_R)
        uv = np.where(points[:, 2:] > 0.0, 0.5 + points[:, :2] * [1.0, -1.0] / (2.2 * EYE_R), 0.02)
        meshes.append(_Mesh(name, 1, points + [sign * EYE_X, 0.0, EYE_Z], triangles, uv, "eye"))
    return meshes


def _teeth() -> list[_Mesh]:
    meshes = []
    for name, top, bottom, front in (("teeth_up", -56.0, -70.0, 81.0), ("teeth_down", -64.0, -74.0, 79.0)):
        x, y = np.meshgrid(np.linspace(-19.0, 19.0, 9), np.array([top, bottom]))
        points, triangles = _sheet(np.stack([x, y, front - (x / 7.0) ** 2], -1))
        uv = np.stack([(points[:, 0] + 19.0) / 38.0, (top - points[:, 1]) / (top - bottom)], 1)
        mesh = _Mesh(name, 2, points, triangles, uv, "teeth", {"cast": False})
        if name == "teeth_down":
            mesh.morphs["jawOpen"] = np.broadcast_to(np.array([0.0, -19.0, -5.0]), points.shape).copy()
        meshes.append(mesh)
    return meshes


def _cap() -> _Mesh:
    around, level = np.meshgrid(np.linspace(-np.pi, np.pi, 25), np.linspace(0.0, 1.0, 6))
    hem = np.where(np.abs(around) < 1.0, 62.0, -30.0)
    y = 128.0 + (hem - 128.0) * level
    r = np.sqrt(np.clip(1.0 - (np.maximum(y, 0.0) / 130.0) ** 2, 0.0, 1.0))
    points, triangles = _sheet(np.stack([81.0 * np.sin(around) * r, y, 101.0 * np.cos(around) * r - 1.0], -1))
    uv = np.stack([around.ravel() / np.pi * 2.0, 0.55 * level.ravel()], 1)
    return _Mesh("hair", 3, points, triangles, uv, "hair", {"cut": 0.12})


def _strands() -> list[_Mesh]:
    """Cards at both sides of the head whose alpha thins out downwards: soft edges for the matte."""
    meshes = []
    for sign in (1.0, -1.0):
        x, y = np.meshgrid(sign * np.linspace(70.0, 98.0, 3), np.linspace(40.0, -60.0, 5))
        points, triangles = _sheet(np.stack([x, y, np.full_like(x, -5.0)], -1))
        uv = np.stack([np.abs(points[:, 0]) / 14.0, 0.4 + 0.6 * (40.0 - points[:, 1]) / 100.0], 1)
        meshes.append(_Mesh("strands", 3, points, triangles, uv, "hair", {"cut": 0.12}))
    return meshes


def _shoulders() -> _Mesh:
    around, level = np.meshgrid(np.linspace(-np.pi, np.pi, 25), np.linspace(0.05, 1.0, 6))
    spread = np.sin(level * np.pi / 2.0)
    points, triangles = _sheet(np.stack([230.0 * spread * np.sin(around), -140.0 - 170.0 * level ** 2,
                                         95.0 * spread * np.cos(around) - 20.0], -1))
    uv = np.stack([around.ravel() / np.pi, level.ravel()], 1)
    return _Mesh("shirt", 4, points, triangles, uv, "cloth", stiff=True)


def _textures() -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(7)
    v, u = np.mgrid[0:256, 0:256] / 255.0
    x, y = (u - 0.5) * 200.0, -(v - 0.5) * 360.0 - 20.0
    skin = np.empty((256, 256, 4))
    skin[:] = (206, 160, 136, 255)
    skin[..., :3] += rng.normal(0.0, 3.0, (256, 256, 1))
    skin[((x / 23.0) ** 2 + ((y - MOUTH_Y) / 7.5) ** 2) < 1.0] = (168, 82, 80, 255)
    skin[(np.abs(np.abs(x) - 29.0) < 17.0) & (np.abs(y - 17.0) < 2.6)] = (70, 48, 36, 255)
    eye = np.full((64, 64, 4), 235.0)
    b, a = (np.mgrid[0:64, 0:64] + 0.5) / 64.0 - 0.5
    away = np.hypot(a, b) * 2.2 * EYE_R
    eye[away < 5.6] = (60, 96, 120, 255)
    eye[away < 2.4] = (12, 12, 14, 255)
    eye[..., 3] = 255.0
    teeth = np.full((16, 64, 4), 232.0)
    teeth[:, ::8, :3] = 170.0
    teeth[..., 3] = 255.0
    hair = np.empty((64, 64, 4))
    hair[..., :3] = np.array([74.0, 50.0, 34.0]) + rng.normal(0.0, 8.0, (1, 64, 1))
    down = np.linspace(0.0, 1.0, 64)[:, None]
    streaks = 0.9 * np.sin(np.arange(64) * 0.79) * np.clip(down - 0.4, 0.0, 1.0)
    hair[..., 3] = 255.0 * np.clip(1.6 - 1.5 * down + streaks, 0.0, 1.0)
    cloth = np.full((16, 16, 4), 255.0)
    cloth[..., :3] = (64, 84, 122)
    cloth[::4, :, :3] -= 14.0
    made = {"skin": skin, "eye": eye, "teeth": teeth, "hair": hair, "cloth": cloth}
    return {k: np.clip(t, 0, 255).astype(np.uint8) for k, t in made.items()}
