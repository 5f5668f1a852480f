"""HEAD-Kps: the picture of head pose, lids and gaze that the denoiser is led by.

What it is: three points, both eyes and the tip of the nose, and nothing below them: the picture says where the head is
and leaks no mouth (after the V-Kps guider of V-Express, arXiv 2406.02511). The points come from a `Pose` through a
rigid `HeadGeometry` fitted once to an avatar; they are drawn as smooth fields that keep sub-cell position at any
grid size.

Channels, float32 [11, cells, cells], in units of the distance d between the eyes in this frame:
  0..5   for right eye, left eye, nose: u / (1 + |u|) of u = (point - cell centre) / d, along x, then along y
  6, 7   a Gaussian (deviation 0.2 d) at the right, left eye times that lid's closure
  8, 9   the sum of both eyes' Gaussians times gaze_x, gaze_y in tens of degrees
  10     the sum of the Gaussians at both eyes and the nose

In: `Pose`, `HeadGeometry`. Out: points in [0, 1] picture units, fields. Remembers: nothing.
"Left" is the person's own left, on the right in the picture. Angles and shifts are as in `packets.Pose`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from svp_stream.packets import Float32, Floats, Pose

KPS_CHANNELS: Final = 11
POINTS: Final = ("right eye", "left eye", "nose tip")
CELLS: Final = 32
_SIGMA = 0.2
_MIN_EYES = 0.02


@dataclass(frozen=True, slots=True)
class HeadGeometry:
    """A rigid head seen under weak perspective.

    `points` float32 [3, 3]: right eye, left eye, nose tip relative to the pivot at zero pose, in picture widths,
    x right, y down, z towards the viewer. `neck` float32 [3]: from the neck's joint to the pivot, which is carried
    along by the neck's share of the turn. `pivot` float32 [2]: where the neck's joint is seen at zero pose, in [0, 1].
    `neck_share`: the part of each angle that the neck takes.
    """

    points: Float32
    neck: Float32
    pivot: Float32
    neck_share: float

    def vector(self) -> Float32:
        """float32 [15]: points, neck, pivot, neck_share, for files."""
        return np.concatenate([self.points.ravel(), self.neck, self.pivot, [self.neck_share]]).astype(np.float32)

    @classmethod
    def from_vector(cls, v: Float32) -> HeadGeometry:
        """Inverse of `vector`; raises ValueError for another shape or numbers that are not finite."""
        if v.shape != (15,) or not np.isfinite(v).all():
            raise ValueError(f"a head geometry is 15 finite numbers, got shape {v.shape}")
        f = v.astype(np.float32)
        return cls(f[:9].reshape(3, 3), f[9:12], f[12:14], float(f[14]))


def pose_vector(pose: Pose) -> Float32:
    """float32 [9]: yaw, pitch, roll, dx, dy, blink_left, blink_right, gaze_x, gaze_y."""
    return np.array([pose.yaw, pose.pitch, pose.roll, pose.dx, pose.dy, pose.blink_left, pose.blink_right, pose.gaze_x,
                     pose.gaze_y], dtype=np.float32)


def rotations(degrees: Floats) -> Floats:
    """Rotations [N, 3, 3] of yaw, pitch, roll in degrees [N, 3]: first roll, then pitch, then yaw, about fixed axes."""
    yaw, pitch, roll = np.deg2rad(degrees[:, 0]), np.deg2rad(degrees[:, 1]), np.deg2rad(degrees[:, 2])
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    # Yaw carries z towards +x, pitch carries z towards +y (down), roll carries x towards +y (clockwise).
    row = [cy * cr - sy * sp * sr, -cy * sr - sy * sp * cr, sy * cp,
           cp * sr, cp * cr, sp,
           -sy * cr - cy * sp * sr, sy * sr - cy * sp * cr, cy * cp]
    return np.stack(row, axis=-1).reshape(-1, 3, 3)


def project_batch(geometry: HeadGeometry, poses: Float32) -> Float32:
    """Where the points are seen: float32 [N, 3, 2] in [0, 1] for poses [N, 5 or more] (see `pose_vector`)."""
    turn = rotations(poses[:, :3])
    neck = rotations(poses[:, :3] * np.float32(geometry.neck_share))
    base = geometry.pivot + poses[:, 3:5] + (neck @ geometry.neck)[:, :2]
    seen: Float32 = (base[:, None] + np.einsum("nij,pj->npi", turn, geometry.points)[:, :, :2]).astype(np.float32)
    return seen


def project(geometry: HeadGeometry, pose: Pose) -> Float32:
    """Where the points are seen in one pose: float32 [3, 2] in [0, 1]."""
    seen: Float32 = project_batch(geometry, pose_vector(pose)[None])[0]
    return seen


def fit_geometry(poses: Float32, kps_px: Float32, size: int) -> HeadGeometry:
    """Least-squares geometry of one avatar.

    poses [N, 5 or more] and kps_px [N, 3, 2] in pixels of a square picture of `size`, N >= 8 different poses. For a
    given share of the neck the model is linear in everything else, so the share is scanned and the rest solved.
    Raises ValueError for shapes that do not fit together or for poses that hardly differ.
    """
    if kps_px.shape != (len(poses), 3, 2) or poses.ndim != 2 or poses.shape[1] < 5 or len(poses) < 8:
        raise ValueError(f"expected poses [N >= 8, 5+] and kps [N, 3, 2], got {poses.shape} and {kps_px.shape}")
    spread = poses[:, :3].std(axis=0)
    if float(spread.min()) < 0.3:
        raise ValueError(f"yaw, pitch and roll must vary to fit a head; their deviations are {spread.round(2)} degrees")
    target = kps_px.astype(np.float64) / size - poses[:, None, 3:5]
    fits = [_solve(poses.astype(np.float64), target, share) for share in np.linspace(0.0, 0.9, 19)]
    return min(fits, key=lambda fit: fit[0])[1]


def residual_px(geometry: HeadGeometry, poses: Float32, kps_px: Float32, size: int) -> float:
    """Root mean square distance in pixels between the projected and the given points."""
    gap = project_batch(geometry, poses) * size - kps_px
    return float(np.sqrt(np.mean(np.sum(gap * gap, axis=-1))))


def _solve(poses: Floats, target: Floats, share: float) -> tuple[float, HeadGeometry]:
    """Squared error and geometry for one `share`; the unknowns are nine point numbers, three of the neck, the pivot."""
    n = len(poses)
    turn, neck = rotations(poses[:, :3])[:, :2], rotations(poses[:, :3] * share)[:, :2]
    a = np.zeros((n, 3, 2, 14))
    for p in range(3):
        a[:, p, :, 3 * p : 3 * p + 3] = turn
    a[:, :, :, 9:12] = neck[:, None]
    a[:, :, 0, 12] = a[:, :, 1, 13] = 1.0
    # A light ridge decides what the views leave open (a shift between neck and points when the share is near 0 or 1).
    ridge = np.diag(np.r_[np.full(9, 1e-4), np.full(3, 1e-3), np.zeros(2)]) * np.sqrt(n)
    rows = np.concatenate([a.reshape(-1, 14), ridge])
    x, *_ = np.linalg.lstsq(rows, np.concatenate([target.reshape(-1), np.zeros(14)]), rcond=None)
    error = float(np.sum((a.reshape(-1, 14) @ x - target.reshape(-1)) ** 2))
    f = x.astype(np.float32)
    return error, HeadGeometry(f[:9].reshape(3, 3), f[9:12], f[12:14], float(share))


@lru_cache(maxsize=8)
def _centres(cells: int) -> Float32:
    return ((np.arange(cells, dtype=np.float32) + np.float32(0.5)) / np.float32(cells)).astype(np.float32)


def raster_batch(kps: Float32, lids_gaze: Float32, cells: int = CELLS) -> Float32:
    """The fields of the card, float32 [B, 11, cells, cells].

    kps float32 [B, 3, 2] in [0, 1]; lids_gaze float32 [B, 4]: blink_left, blink_right in [0, 1], gaze_x, gaze_y in
    degrees (the last four columns of `pose_vector`).
    """
    eyes = kps[:, 0] - kps[:, 1]
    d = np.maximum(np.sqrt(np.sum(eyes * eyes, axis=-1)), np.float32(_MIN_EYES))[:, None, None]
    # Everything is separable: offsets depend on one axis, Gaussians are an outer product of two rows.
    u = (kps[..., None] - _centres(cells)) / d[..., None]
    fall = np.exp(u * u * np.float32(-0.5 / _SIGMA**2))
    bent = u / (1 + np.abs(u))
    out = np.empty((len(kps), KPS_CHANNELS, cells, cells), dtype=np.float32)
    out[:, 0:6:2] = bent[:, :, 0, None, :]
    out[:, 1:6:2] = bent[:, :, 1, :, None]
    blobs = fall[:, :, 1, :, None] * fall[:, :, 0, None, :]
    both = blobs[:, 0] + blobs[:, 1]
    out[:, 6:8] = blobs[:, :2] * lids_gaze[:, 1::-1, None, None]
    out[:, 8:10] = both[:, None] * (lids_gaze[:, 2:4, None, None] * np.float32(0.1))
    out[:, 10] = both + blobs[:, 2]
    return out


def raster(kps: Float32, blink_left: float, blink_right: float, gaze_x: float, gaze_y: float,
           cells: int = CELLS) -> Float32:
    """One frame of `raster_batch`: float32 [11, cells, cells]."""
    lids_gaze = np.array([[blink_left, blink_right, gaze_x, gaze_y]], dtype=np.float32)
    fields: Float32 = raster_batch(kps[None].astype(np.float32), lids_gaze, cells)[0]
    return fields


def raster_pose(geometry: HeadGeometry, pose: Pose, cells: int = CELLS) -> Float32:
    """The fields of `pose` for an avatar of this geometry: float32 [11, cells, cells]."""
    return raster(project(geometry, pose), pose.blink_left, pose.blink_right, pose.gaze_x, pose.gaze_y, cells)
