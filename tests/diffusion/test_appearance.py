"""The closed-form appearance recovers a smooth picture of pose and expression on frames it has not seen."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from svp_stream.diffusion.appearance import Appearance, face_vector, fit_appearance
from svp_stream.packets import Float32

SHAPE = (4, 3, 3)
TRAIN = 600


@cache
def people() -> tuple[Float32, Float32, Float32]:
    """Pose [N, 3], face [N, 46], latents [N, 4, 3, 3]: smooth in the pose, bent in the expression, and both at once."""
    rng = np.random.default_rng(0)
    pose = rng.uniform(-1, 1, (TRAIN + 200, 3)) * [15, 10, 8]
    face = np.zeros((len(pose), 46))
    face[:, [3, 17, 40, 44]] = rng.random((len(pose), 4))
    turn, move = rng.standard_normal((3, 36)), rng.standard_normal((46, 36))
    flat = np.sin(pose / 15 @ turn) + np.maximum(face @ move - 0.3, 0) + 0.3 * (pose[:, :1] / 15) * (face @ move)
    return pose.astype(np.float32), face.astype(np.float32), flat.reshape(-1, *SHAPE).astype(np.float32)


def fitted(rank: int = 256, seed: int = 0) -> Appearance:
    pose, face, latents = people()
    return fit_appearance(pose[:TRAIN], face[:TRAIN], latents[:TRAIN], attitudes=60, bends=40, rank=rank, seed=seed,
                          ridge=0.1)


def share_missed(appearance: Appearance, pose: Float32, face: Float32, latents: Float32) -> float:
    """Squared error over that of the mean predictor."""
    error = ((appearance.reference(pose, face) - latents) ** 2).mean()
    return float(error / ((latents - latents.mean(0)) ** 2).mean())


def test_held_out_frames() -> None:
    pose, face, latents = (x[TRAIN:] for x in people())
    assert share_missed(fitted(), pose, face, latents) < 0.1


@pytest.mark.parametrize("blind", ["pose", "face"])
def test_it_needs_both_inputs(blind: str) -> None:
    pose, face, latents = (x[TRAIN:] for x in people())
    pose, face = (pose * 0, face) if blind == "pose" else (pose, face * 0)
    assert share_missed(fitted(), pose, face, latents) > 0.3


def test_shapes_and_types() -> None:
    pose, face, _ = people()
    out = fitted().reference(pose[:5], face[:5])
    assert out.shape == (5, *SHAPE) and out.dtype == np.float32
    np.testing.assert_allclose(out[2:3], fitted().reference(pose[2:3], face[2:3]), atol=1e-4)


def test_low_rank() -> None:
    small = fitted(rank=6)
    assert small.weights.shape[1] == 6 and small.basis.shape == (6, 36)
    np.testing.assert_allclose(small.basis @ small.basis.T, np.eye(6), atol=1e-4)
    pose, face, latents = (x[TRAIN:] for x in people())
    misses = [share_missed(fitted(rank=r), pose, face, latents) for r in (2, 6, 36)]
    assert misses[0] > misses[1] > misses[2]


def test_leading_directions_are_those_of_the_fitted_latents() -> None:
    pose, face, _ = people()
    full, small = (fitted(rank=r).reference(pose[:TRAIN], face[:TRAIN]).reshape(TRAIN, -1) for r in (36, 4))
    centred = full - fitted().mean
    kept = ((small - fitted().mean) ** 2).sum() / (centred**2).sum()
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    assert kept == pytest.approx(values[:4].sum() / values.sum(), abs=0.02)


def test_same_seed_same_fit() -> None:
    a, b = fitted(), fitted()
    np.testing.assert_array_equal(a.weights, b.weights)
    assert not np.array_equal(a.projection, fitted(seed=1).projection)


def test_far_outside_the_data_it_stays_finite() -> None:
    out = fitted().reference(np.array([[170, -90, 80]], np.float32), np.ones((1, 46), np.float32))
    assert np.isfinite(out).all()


def test_too_few_frames_are_refused() -> None:
    pose, face, latents = (x[:50] for x in people())
    with pytest.raises(ValueError, match="50 frames are too few for 60 attitudes"):
        fit_appearance(pose, face, latents, attitudes=60)


def test_face_vector_scales_gaze() -> None:
    speech, eyes = np.full((2, 42), 0.3, np.float32), np.array([[0.5, 1, 10, -20]] * 2, np.float32)
    face = face_vector(speech, eyes)
    assert face.shape == (2, 46) and face.dtype == np.float32
    np.testing.assert_allclose(face[1, 42:], [0.5, 1, 1, -2])
