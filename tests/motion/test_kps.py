"""HEAD-Kps: the fit recovers a head, the picture shows pose and lids and nothing of a mouth."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.motion import kps
from svp_stream.packets import Float32, Pose

HEAD = kps.HeadGeometry(
    points=np.array([[-0.11, -0.08, 0.20], [0.11, -0.08, 0.20], [0.0, 0.05, 0.28]], dtype=np.float32),
    neck=np.array([0.0, -0.2, 0.03], dtype=np.float32), pivot=np.array([0.5, 0.75], dtype=np.float32), neck_share=0.4)


def poses(n: int, seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    spread = np.array([5, 4, 3, 0.01, 0.01, 0.3, 0.3, 4, 3])
    made: Float32 = (rng.standard_normal((n, 9)) * spread).astype(np.float32)
    return made


def test_signs_follow_the_packet() -> None:
    rest = kps.project(HEAD, Pose(0))
    assert rest[1, 0] > rest[0, 0], "the person's left eye is on the right in the picture"
    assert kps.project(HEAD, Pose(0, yaw=10))[2, 0] > rest[2, 0] + 0.02
    assert kps.project(HEAD, Pose(0, pitch=8))[2, 1] > rest[2, 1] + 0.02
    rolled = kps.project(HEAD, Pose(0, roll=6))
    assert rolled[1, 1] > rolled[0, 1] + 0.01, "clockwise lowers what is on the right"
    np.testing.assert_allclose(kps.project(HEAD, Pose(0, dx=0.02, dy=-0.01)) - rest, [[0.02, -0.01]] * 3, atol=1e-6)


def test_rotations_are_rotations() -> None:
    r = kps.rotations(poses(20)[:, :3].astype(np.float64))
    np.testing.assert_allclose(r @ r.transpose(0, 2, 1), np.broadcast_to(np.eye(3), r.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(r), 1.0)


def test_fit_recovers_unseen_views_under_noise() -> None:
    seen, unseen = poses(200), poses(50, seed=1)
    noise = np.random.default_rng(2).normal(0, 0.3, (200, 3, 2))
    fit = kps.fit_geometry(seen, (kps.project_batch(HEAD, seen) * 256 + noise).astype(np.float32), 256)
    assert kps.residual_px(fit, unseen, kps.project_batch(HEAD, unseen) * 256, 256) < 0.3
    back = kps.HeadGeometry.from_vector(fit.vector())
    np.testing.assert_array_equal(kps.project_batch(back, unseen), kps.project_batch(fit, unseen))


def test_fit_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(ValueError, match="must vary"):
        kps.fit_geometry(np.zeros((20, 5), np.float32), np.zeros((20, 3, 2), np.float32), 256)
    with pytest.raises(ValueError, match="expected poses"):
        kps.fit_geometry(poses(20), np.zeros((19, 3, 2), np.float32), 256)
    with pytest.raises(ValueError, match="15 finite"):
        kps.HeadGeometry.from_vector(np.zeros(14, np.float32))


@pytest.mark.parametrize("cells", [16, 32, 64])
def test_raster_shows_points_lids_and_gaze(cells: int) -> None:
    points = kps.project(HEAD, Pose(0))
    field = kps.raster(points, 0.25, 1.0, 10.0, -5.0, cells)
    assert field.shape == (kps.KPS_CHANNELS, cells, cells) and field.dtype == np.float32
    assert np.abs(field[:6]).max() < 1
    row, column = np.unravel_index(field[6].argmax(), (cells, cells))
    assert abs((column + 0.5) / cells - points[0, 0]) <= 0.5 / cells + 1e-6
    assert abs((row + 0.5) / cells - points[0, 1]) <= 0.5 / cells + 1e-6
    assert field[7].max() == pytest.approx(0.25, rel=0.3)
    assert field[8].max() > 0 > field[9].min()
    np.testing.assert_allclose(field[9], field[8] * -0.5, atol=1e-6)
    # The sign of the offset changes at the point itself.
    assert field[0, 0, 0] > 0 > field[0, 0, -1]
    assert field[5, 0, 0] > 0 > field[5, -1, 0]


def test_batch_equals_single_and_open_eyes_leave_lids_empty() -> None:
    p = poses(5)
    p[:, 5:7] = np.abs(p[:, 5:7])
    points = kps.project_batch(HEAD, p)
    batch = kps.raster_batch(points, p[:, 5:9])
    for i in range(5):
        one = kps.raster(points[i], float(p[i, 5]), float(p[i, 6]), float(p[i, 7]), float(p[i, 8]))
        np.testing.assert_array_equal(batch[i], one)
    still = kps.raster_pose(HEAD, Pose(0))
    assert not still[6:10].any()
    assert kps.raster(np.zeros((3, 2), np.float32), 0, 0, 0, 0).max() < 10, "points on one another stay finite"
