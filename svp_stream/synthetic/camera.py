"""The portrait camera: framing, projection, and how a head turns.

In: eye positions of a head (metres), `Framing`, `Pose`. Out: 4x4 matrices (column vectors, world to clip space) and the
two bone matrices. Remembers: nothing.

World: metres, x to the person's left (picture right), y up, z towards the camera. Angles and signs follow
`svp_stream.packets.Pose`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svp_stream.packets import Float32, Pose

DISTANCE = 1.25  # metres from the eyes to the camera: a portrait lens, little perspective in the nose
NEAR, FAR = 0.2, 4.0
NECK_SHARE = 0.45  # how much of a turn of the head the neck takes


@dataclass(frozen=True, slots=True)
class Framing:
    """Where the resting face sits in the picture, all as fractions of its side: distance between the eye centres,
    height of the eye line below the top edge, horizontal place of the point between the eyes."""

    inter_ocular: float = 56.0 / 256.0
    eye_line: float = 0.43
    centre: float = 0.5

    def __post_init__(self) -> None:
        if not 0.02 <= self.inter_ocular <= 1.0:
            raise ValueError(f"Framing.inter_ocular is a fraction of the picture in [0.02, 1], not {self.inter_ocular}")


@dataclass(frozen=True)
class Camera:
    """World-to-clip matrix float32 [4, 4] and the place of the eye float32 [3] (metres)."""

    matrix: Float32
    place: Float32

    def pixels(self, points: Float32, size: int) -> Float32:
        """Project world `points` [N, 3] to pixels [N, 2] (x right, y down; pixel centres at .5) of a `size` picture."""
        clip = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        ndc = clip[:, :2] / clip[:, 3:4]
        return ((ndc * np.array([0.5, -0.5], np.float32) + 0.5) * size).astype(np.float32)


def turn(axis: int, degrees: float) -> Float32:
    """Right-handed rotation [3, 3] about world axis 0, 1 or 2."""
    a = np.radians(degrees)
    c, s = np.cos(a), np.sin(a)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    m = np.eye(3, dtype=np.float32)
    m[i, i] = m[j, j] = c
    m[i, j], m[j, i] = -s, s
    return m


def look_at(place: Float32, target: Float32) -> Float32:
    """View matrix [4, 4] of a camera at `place` that looks at `target`, y up."""
    forward = (target - place) / np.linalg.norm(target - place)
    side = np.cross(forward, np.array([0.0, 1.0, 0.0]))
    side /= np.linalg.norm(side)
    view = np.eye(4, dtype=np.float32)
    view[0, :3], view[1, :3], view[2, :3] = side, np.cross(side, forward), -forward
    view[:3, 3] = -view[:3, :3] @ place
    return view


def orthographic(half: float, near: float, far: float) -> Float32:
    """Parallel projection of a cube of half width `half`."""
    m = np.eye(4, dtype=np.float32)
    m[0, 0] = m[1, 1] = 1.0 / half
    m[2, 2], m[2, 3] = -2.0 / (far - near), -(far + near) / (far - near)
    return m


def portrait(left_eye: Float32, right_eye: Float32, framing: Framing, pose: Pose) -> Camera:
    """The camera that puts the resting eyes where `framing` says, shifted by the `dx, dy` of `pose`.

    The shift is one of the lens (an off-centre frustum), so perspective does not change with it.
    """
    middle = (left_eye + right_eye) / 2.0
    place = middle + np.array([0.0, 0.0, DISTANCE], np.float32)
    focal = 2.0 * framing.inter_ocular * DISTANCE / float(np.linalg.norm(left_eye - right_eye))
    m = np.zeros((4, 4), np.float32)
    m[0, 0] = m[1, 1] = focal
    m[0, 2] = -(2.0 * (framing.centre + pose.dx) - 1.0)
    m[1, 2] = -(1.0 - 2.0 * (framing.eye_line + pose.dy))
    m[2, 2], m[2, 3] = (FAR + NEAR) / (NEAR - FAR), 2.0 * FAR * NEAR / (NEAR - FAR)
    m[3, 2] = -1.0
    view = np.eye(4, dtype=np.float32)
    view[:3, 3] = -place
    return Camera(m @ view, place.astype(np.float32))


def _about(joint: Float32, rotation: Float32, lands: Float32) -> Float32:
    m = np.eye(4, dtype=np.float32)
    m[:3, :3] = rotation
    m[:3, 3] = lands - rotation @ joint
    return m


def bones(neck: Float32, head: Float32, pose: Pose) -> Float32:
    """Bone matrices [2, 4, 4] (head, neck) for yaw, pitch and roll of `pose`, about the joints `neck` and `head`."""

    def rotation(share: float) -> Float32:
        turned = turn(1, pose.yaw * share) @ turn(0, pose.pitch * share) @ turn(2, -pose.roll * share)
        return turned.astype(np.float32)

    bent = rotation(NECK_SHARE)
    carried = neck + bent @ (head - neck)
    return np.stack([_about(head, rotation(1.0), carried), _about(neck, bent, neck)]).astype(np.float32)
