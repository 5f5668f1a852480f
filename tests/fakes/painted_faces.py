"""Faces painted with ellipses, with all of their truth: what pixel training and avatars are tried on.

In: pose and expression. Out: pictures with matte, and `Frames` as packed clips give them. Remembers: nothing.
"""

from __future__ import annotations

import numpy as np

from svp_stream.arkit import INDEX
from svp_stream.motion import kps
from svp_stream.packets import Bytes, Float32
from svp_stream.training.frames import Frames

HEAD = kps.HeadGeometry(
    points=np.array([[-0.11, -0.08, 0.20], [0.11, -0.08, 0.20], [0.0, 0.05, 0.28]], dtype=np.float32),
    neck=np.array([0.0, -0.2, 0.03], dtype=np.float32), pivot=np.array([0.5, 0.75], dtype=np.float32), neck_share=0.4)
"""The same head in every picture."""

JAW = INDEX["jawOpen"]


def course(frames: int, seed: int) -> tuple[Float32, Float32]:
    """Pose [F, 9] and expression [F, 52] that wander smoothly; the jaw opens and shuts a few times a second."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None] / 25
    slow = np.sin(2 * np.pi * rng.uniform(0.2, 0.7, 9) * t + rng.uniform(0, 6, 9))
    pose = slow * np.array([7, 5, 4, 0.01, 0.01, 0, 0, 4, 4])
    pose[:, 5:7] = np.clip(4 * np.sin(2 * np.pi * 0.5 * t + rng.uniform(0, 6)) - 3, 0, 1)
    expression = np.zeros((frames, 52))
    expression[:, JAW] = 0.35 + 0.35 * np.sin(2 * np.pi * 1.7 * t[:, 0] + rng.uniform(0, 6))
    return pose.astype(np.float32), expression.astype(np.float32)


def paint(pose: Float32, expression: Float32, size: int, tint: int = 0) -> Bytes:
    """uint8 [F, size, size, 4]: a head that turns and shifts with `pose` [F, 9], lids that shut, a mouth that opens
    with `expression` [F, 52]. `tint` sets people apart."""
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    points = kps.project_batch(HEAD, pose)
    pictures = np.empty((len(pose), size, size, 4), np.uint8)
    back = np.broadcast_to(np.array([60, 80 + tint, 100, 0], np.float32), (size, size, 4)).copy()
    back[..., :2] += 60 * axis[:, None, None]

    def spot(layer: Float32, cx: float, cy: float, rx: float, ry: float, colour: tuple[float, ...]) -> None:
        """An ellipse with soft edges, painted into the box that holds it."""
        rows, columns = (slice(*np.searchsorted(axis, (c - r, c + r))) for c, r in ((cy, ry), (cx, rx)))
        u, v = (axis[columns] - cx) / rx, (axis[rows] - cy) / ry
        inside = np.clip((1 - u[None] ** 2 - v[:, None] ** 2) * min(rx, ry) * size / 6, 0, 1)[..., None]
        layer[rows, columns] += (np.array(colour, np.float32) - layer[rows, columns]) * inside

    for picture, (right, left, nose), p, e in zip(pictures, points, pose, expression, strict=True):
        middle, d = (right + left) / 2, float(np.linalg.norm(left - right))
        layer = back.copy()
        spot(layer, middle[0], middle[1] + 0.55 * d, 1.1 * d, 1.5 * d, (225, 180 - tint, 150, 255))
        for eye, lid in ((right, p[6]), (left, p[5])):
            spot(layer, eye[0], eye[1], 0.3 * d, (0.04 + 0.14 * (1 - lid)) * d, (245, 245, 245, 255))
            shift = p[7:9] * 0.004
            spot(layer, eye[0] + shift[0], eye[1] + shift[1], 0.1 * d, (0.03 + 0.1 * (1 - lid)) * d, (40, 40, 60, 255))
        spot(layer, nose[0], nose[1], 0.12 * d, 0.16 * d, (190, 140, 120, 255))
        spot(layer, middle[0], middle[1] + 1.1 * d, 0.4 * d, (0.06 + 0.4 * e[JAW]) * d, (110, 20 + tint, 30, 255))
        picture[:] = np.clip(np.round(layer), 0, 255)
    return pictures


def painted_frames(clips: int = 4, frames: int = 40, size: int = 128, held_out: int = 1) -> Frames:
    """Clips of one person, the last `held_out` of them held out."""
    courses = [course(frames, seed) for seed in range(clips)]
    pose, expression = (np.concatenate(part) for part in zip(*courses, strict=True))
    names = np.repeat([f"clip{i}" for i in range(clips)], frames)
    split = np.repeat(["train"] * (clips - held_out) + ["heldout"] * held_out, frames)
    return Frames(
        pixels=paint(pose, expression, size), expression=expression, pose=pose,
        kps=(kps.project_batch(HEAD, pose) * size).astype(np.float32), avatar=np.full(len(pose), "pat"), clip=names,
        style=np.full(len(pose), "plain"), split=split, number=np.tile(np.arange(frames, dtype=np.int64), clips),
    )
