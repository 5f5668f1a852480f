"""The square that a head is cut out by, and what the numbers become inside it.

In: key points [T, 3, 2] and angles [T, 3] of a shot in source pixels. Out: boxes [T, 3] (left, top, side in pixels),
crops, points in the crop, and the pose [T, 9] that training and the street speak of. Remembers: nothing.

The side is constant over a shot: the median distance between the eyes, undone of the turn (it shrinks with cos yaw),
stands at `inter_ocular` of the picture, where the renderer has it. The place is constant too, or follows the eyes
through a Gaussian of `follow_s` seconds, so that it pans like a calm cameraman and never jitters with the landmarks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.evaluation.face_reader import lids_and_gaze
from svp_stream.motion.kps import fit_geometry, project_batch
from svp_stream.motion.manner import Manner
from svp_stream.packets import Bytes, Float32
from svp_stream.preparing.config import PrepareConfig

LEAST_COS: Final = 0.5
"""A turn of more than 60 degrees is undone as if it were 60: beyond, the eyes tell nothing of the scale."""


def eye_distance(kps: Float32, angles: Float32) -> Float32:
    """Pixels between the eyes as if the head looked straight, float32 [T]."""
    seen = np.linalg.norm(kps[:, 0] - kps[:, 1], axis=1)
    return np.asarray(seen / np.maximum(np.cos(np.radians(angles[:, 0])), LEAST_COS), np.float32)


def boxes(kps: Float32, angles: Float32, config: PrepareConfig) -> Float32:
    """Boxes float32 [T, 3] of one shot: left, top, side."""
    side = float(np.median(eye_distance(kps, angles))) / config.inter_ocular
    middle = kps[:, :2].mean(1).astype(np.float64)
    if config.framing == "follow":
        middle = gaussian_filter1d(middle, config.follow_s * FRAME_RATE_HZ, axis=0, mode="nearest")
    else:
        middle = np.broadcast_to(np.median(middle, axis=0), middle.shape)
    corner = middle - side * np.array([0.5, config.eye_line])
    return np.concatenate([corner, np.full((len(kps), 1), side)], 1).astype(np.float32)


def outside(box: Float32, width: int, height: int) -> Float32:
    """Share of each box [T, 3] that lies outside a picture, float32 [T]."""
    left, top, side = box.T
    wide = np.clip(np.minimum(left + side, width) - np.maximum(left, 0), 0, None)
    high = np.clip(np.minimum(top + side, height) - np.maximum(top, 0), 0, None)
    return np.asarray(1 - wide * high / np.maximum(side * side, 1e-6), np.float32)


def crop(rgb: Bytes, box: Float32, size: int) -> Bytes:
    """uint8 [size, size, 3]: the box (left, top, side) of `rgb`; beyond its edge the edge goes on."""
    left, top, side = (float(v) for v in box)
    height, width = rgb.shape[:2]
    pad = max(0, int(np.ceil(max(-left, -top, left + side - width, top + side - height))))
    if pad:
        rgb = np.pad(rgb, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
        left, top = left + pad, top + pad
    cut = (left, top, min(left + side, rgb.shape[1]), min(top + side, rgb.shape[0]))
    return np.asarray(Image.fromarray(rgb).resize((size, size), Image.Resampling.LANCZOS, box=cut), np.uint8)


def into(points: Float32, box: Float32, size: int) -> Float32:
    """Points [T, N, 2] of the source in pixels of the crops of `box` [T, 3]."""
    return np.asarray((points - box[:, None, :2]) * (size / box[:, None, 2:]), np.float32)


def pose(angles: Float32, kps: Float32, expression: Float32, size: int) -> Float32:
    """The pose float32 [T, 9] (see `packets.Pose`) of a clip, `kps` [T, 3, 2] being in pixels of its crop.

    dx, dy are what moves the points beyond the turns of a rigid head that is fitted to this clip; where the head hardly
    turns, what moves the point between the eyes.
    """
    place = kps / np.float32(size)
    still = np.concatenate([angles, np.zeros((len(angles), 2), np.float32)], 1).astype(np.float32)
    try:
        shift = (place - project_batch(fit_geometry(still, kps, size), still)).mean(1)
    except ValueError:
        middle = place[:, :2].mean(1)
        shift = middle - middle.mean(0)
    return np.concatenate([angles, shift, lids_and_gaze(expression)], 1).astype(np.float32)


def manner(track: Float32) -> Manner:
    """How the person of a pose track [T, 9] moves: what a clip tells of it, and the defaults for the rest."""
    closed = track[:, 5:7].mean(1)
    usual = float(np.clip(np.median(closed), 0, 0.4))
    blinks = np.count_nonzero((closed[1:] > 0.6) & (closed[:-1] <= 0.6))
    moving = np.linalg.norm(np.diff(track[:, 7:9], axis=0), axis=1) > 2.0
    seconds = len(track) / FRAME_RATE_HZ
    yaw, pitch, roll = (float(v) for v in track[:, :3].mean(0))
    made = Manner(
        head_size_deg=float(track[:, 0].std()), yaw_deg=yaw, pitch_deg=pitch, roll_deg=roll,
        blink_rate_hz=blinks / seconds, lid_rest=usual, gaze_size_deg=float(track[:, 7:9].std()),
        gaze_rate_hz=float(np.count_nonzero(moving[1:] & ~moving[:-1])) / seconds,
    )  # fmt: skip
    return Manner.from_vector(made.vector())
