"""An avatar's appearance: its reference latent as a closed-form function of attitude, eyes and expression.

Ridge regression from a few hundred features to the latent picture, fitted on an avatar's frames in seconds: radial
functions of (yaw, pitch, roll) over keyframe attitudes [what a bank of keyframes would hold, but without jumps between
neighbours], linear and rectified features of expression and eyes, and their products with the attitude. It gives the
denoiser the identity and a blurred guess at the picture in the right place; everything sharp is the denoiser's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svp_stream.packets import Float32

POSE = 3
EYES = 4


@dataclass(frozen=True)
class Appearance:
    """`attitudes` [K, 3] degrees; `projection` [P, E] random directions of rectified features of the E = 42 + 4 face
    inputs; `weights` [F, R] and `basis` [R, 4 * h * w], the map in its leading directions; `mean` [4 * h * w]; `shape`
    (4, h, w)."""

    attitudes: Float32
    width_deg: float
    projection: Float32
    weights: Float32
    basis: Float32
    mean: Float32
    shape: tuple[int, int, int]

    def reference(self, pose: Float32, face: Float32) -> Float32:
        """Reference latents [N, 4, h, w] for `pose` [N, 3] (yaw, pitch, roll in degrees) and `face` [N, 46]
        (42 speech coefficients, both eyelids, gaze x and y in units of 10 degrees)."""
        phi = features(pose, face, self.attitudes, self.width_deg, self.projection)
        flat = (phi @ self.weights) @ self.basis + self.mean
        return flat.reshape(-1, *self.shape).astype(np.float32, copy=False)


def face_vector(speech: Float32, eyes: Float32) -> Float32:
    """[N, 46] from speech coefficients [N, 42] and eyes [N, 4]: both lids in [0, 1], gaze x and y in degrees."""
    scaled = eyes * np.array([1, 1, 0.1, 0.1], dtype=np.float32)
    return np.concatenate([speech, scaled], axis=1).astype(np.float32)


def features(pose: Float32, face: Float32, attitudes: Float32, width_deg: float, projection: Float32) -> Float32:
    """[N, F]: normalised radial functions of the pose, face inputs, rectified projections, products with the pose."""
    distance = ((pose[:, None] - attitudes[None]) ** 2).sum(-1) / (2 * width_deg**2)
    radial = np.exp(-(distance - distance.min(1, keepdims=True)))
    radial /= radial.sum(1, keepdims=True)
    bent = np.maximum(np.concatenate([face, np.ones_like(face[:, :1])], 1) @ projection.T, 0)
    small = pose / np.float32(10)
    products = (small[:, :, None] * face[:, None]).reshape(len(pose), -1)
    bent_products = (small[:, :2, None] * bent[:, None, : bent.shape[1] // 2]).reshape(len(pose), -1)
    return np.concatenate([radial, face, bent, products, bent_products], axis=1).astype(np.float32)


def fit_appearance(
    pose: Float32, face: Float32, latents: Float32, *, attitudes: int = 160, bends: int = 160, rank: int = 256,
    ridge: float = 1.0, seed: int = 0,
) -> Appearance:
    """Fit to `latents` [N, 4, h, w] of one avatar. Raises ValueError for fewer frames than attitudes."""
    if len(pose) < attitudes:
        raise ValueError(f"{len(pose)} frames are too few for {attitudes} attitudes; lower `attitudes` or add frames")
    rng = np.random.default_rng(seed)
    chosen = _spread(pose, attitudes, rng)
    gaps = np.sort(((chosen[:, None] - chosen[None]) ** 2).sum(-1), axis=1)[:, 1]
    width = float(max(np.sqrt(np.median(gaps)), 0.5))
    projection = _directions(face, bends, rng)
    phi = features(pose, face, chosen, width, projection).astype(np.float64)
    flat = latents.reshape(len(latents), -1)
    mean = flat.mean(0)
    gram = phi.T @ phi + ridge * np.eye(phi.shape[1])
    solved = np.linalg.solve(gram, phi.T @ (flat - mean).astype(np.float64))
    # The leading directions of the fitted latents: right singular vectors of phi @ solved, through its small side.
    root = np.linalg.cholesky(gram).T @ solved
    _, left = np.linalg.eigh(root @ root.T)
    basis, _ = np.linalg.qr(root.T @ left[:, ::-1][:, :rank])
    weights = solved @ basis
    shape = (latents.shape[1], latents.shape[2], latents.shape[3])
    return Appearance(
        chosen, width, projection, weights.astype(np.float32), np.ascontiguousarray(basis.T, dtype=np.float32),
        mean.astype(np.float32), shape,
    )


def _spread(pose: Float32, count: int, rng: np.random.Generator) -> Float32:
    """Attitudes far from each other: farthest-point sampling over at most 4000 frames, the nearest to zero first."""
    pool = pose[rng.permutation(len(pose))[:4000]]
    chosen = [int(np.argmin((pool**2).sum(1)))]
    distance = ((pool - pool[chosen[0]]) ** 2).sum(1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((pool - pool[chosen[-1]]) ** 2).sum(1))
    return np.ascontiguousarray(pool[chosen], dtype=np.float32)


def _directions(face: Float32, count: int, rng: np.random.Generator) -> Float32:
    """[count, 47] directions through pairs of real frames with a threshold between them: bends where the data is."""
    a, b = face[rng.integers(len(face), size=count)], face[rng.integers(len(face), size=count)]
    direction = (a - b) / (np.linalg.norm(a - b, axis=1, keepdims=True) + 1e-3)
    middle = -((direction * (a + b) / 2).sum(1, keepdims=True))
    return np.concatenate([direction, middle], axis=1).astype(np.float32)
