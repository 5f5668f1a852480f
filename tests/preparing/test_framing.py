"""Framing: the box, the crop, the numbers inside it."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.arkit import ARKIT
from svp_stream.motion.kps import HeadGeometry, project_batch
from svp_stream.packets import Float32
from svp_stream.preparing import framing
from svp_stream.preparing.config import PrepareConfig

HEAD = HeadGeometry(np.array([[-0.11, 0, 0.1], [0.11, 0, 0.1], [0, 0.12, 0.2]], np.float32),
                    np.array([0, -0.2, 0.02], np.float32), np.array([0.5, 0.63], np.float32), 0.45)
CONFIG = PrepareConfig()


def course(frames: int = 60) -> Float32:
    """Poses [T, 9] that turn and shift."""
    t = np.arange(frames)
    pose = np.zeros((frames, 9), np.float32)
    pose[:, :3] = np.stack([8 * np.sin(t / 5), 5 * np.sin(t / 7), 4 * np.sin(t / 9)], 1)
    pose[:, 3:5] = 0.02 * np.stack([np.sin(t / 11), np.cos(t / 13)], 1)
    return pose


def test_the_eyes_stand_where_the_renderer_has_them() -> None:
    kps = np.tile(np.array([[100, 80], [140, 80], [120, 104]], np.float32), (30, 1, 1))
    box = framing.boxes(kps, np.zeros((30, 3), np.float32), CONFIG)
    seen = framing.into(kps, box, 256)[0]
    assert np.allclose(seen[0], [100, 110.08], atol=0.01) and np.allclose(seen[1] - seen[0], [56, 0], atol=0.01)


def test_a_turn_does_not_change_the_scale() -> None:
    pose = course()
    kps = project_batch(HEAD, pose) * 500
    straight = framing.boxes(kps[:1], pose[:1, :3], CONFIG)[0, 2]
    turned = framing.eye_distance(kps, pose[:, :3]) / CONFIG.inter_ocular
    assert np.abs(turned / straight - 1).max() < 0.02


def test_a_constant_box_stands_and_a_following_one_is_calm() -> None:
    rng = np.random.default_rng(0)
    walk = np.linspace(0, 200, 100)[:, None, None] * np.array([1.0, 0.0]) + rng.normal(0, 2, (100, 1, 2))
    kps = (np.array([[100, 80], [140, 80], [120, 104]]) + walk).astype(np.float32)
    angles = np.zeros((100, 3), np.float32)
    still = framing.boxes(kps, angles, CONFIG)
    assert np.ptp(still, axis=0).max() == 0
    following = framing.boxes(kps, angles, CONFIG.model_copy(update={"framing": "follow", "follow_s": 0.5}))
    assert np.ptp(following[:, 2]) == 0 and np.ptp(following[:, 0]) > 150
    raw, calm = (np.abs(np.diff(x, 2)).mean() for x in (kps[:, 0, 0], following[:, 0]))
    assert calm < raw / 10


@pytest.mark.parametrize(("left", "share"), [(0, 0.0), (-50, 0.5), (-200, 1.0), (350, 0.5)])
def test_how_much_lies_outside(left: float, share: float) -> None:
    box = np.array([[left, 100, 100]], np.float32)
    assert framing.outside(box, 400, 300)[0] == pytest.approx(share)


def test_a_crop_shows_the_box_and_goes_on_beyond_the_edge() -> None:
    x = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (100, 1, 3))
    inside = framing.crop(x, np.array([50, 20, 64], np.float32), 32)
    assert inside.shape == (32, 32, 3) and abs(float(inside[16, 16, 0]) - 82.5) < 2
    over = framing.crop(x, np.array([-30, -30, 64], np.float32), 32)
    assert over[0, 0, 0] <= 1 and over.max() < 40
    far = framing.crop(x, np.array([180, 60, 64], np.float32), 32)
    assert far.min() >= 178


def test_the_pose_of_a_crop_is_that_of_the_head() -> None:
    pose = course(600)
    kps = project_batch(HEAD, pose) * 256
    face = np.zeros((len(pose), len(ARKIT)), np.float32)
    made = framing.pose(pose[:, :3], kps.astype(np.float32), face, 256)
    assert made.shape == (600, 9) and np.allclose(made[:, :3], pose[:, :3])
    gap = (made - pose)[:, 3:5]
    assert (gap - gap.mean(0)).std() < 0.004, "shifts come back up to a constant"


def test_a_head_that_hardly_turns_still_has_a_shift() -> None:
    kps = np.tile(np.array([[100, 80], [140, 80], [120, 104]], np.float32), (20, 1, 1))
    kps[10:, :, 0] += 25.6
    made = framing.pose(np.zeros((20, 3), np.float32), kps, np.zeros((20, len(ARKIT)), np.float32), 256)
    assert made[15, 3] - made[5, 3] == pytest.approx(0.1, abs=1e-3)


def test_manner_is_what_the_clip_shows() -> None:
    pose = course(100)
    pose[:, 1] += 5
    pose[20:23, 5:7] = pose[60:63, 5:7] = 1.0
    told = framing.manner(pose)
    assert told.pitch_deg == pytest.approx(float(pose[:, 1].mean()), abs=0.01)
    assert told.blink_rate_hz == pytest.approx(0.5, abs=0.01) and told.lid_rest == 0
