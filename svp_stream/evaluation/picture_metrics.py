"""How like two films are, and how like two heaps of films: SSIM, landmark distances, Frechet distances, StyleSim.

In: pictures, landmarks, features. Out: numbers. Remembers: nothing. What is not defined is NaN.

SSIM is Wang et al. 2004 (Gaussian window of 11 with deviation 1.5, K1 0.01, K2 0.03, L 255, on luma, borders left out).
LMD after its use in talking-head papers: mean Euclidean distance over landmarks, here in hundredths of the distance
between the eyes; M-LMD over the mouth after a Procrustes fit a frame, so that pose does not count; F-LMD over all.
The Frechet distance is Dowson and Landau 1982 between Gaussians, as FID and FVD take it; over features of our own
networks it is ours alone: FD-own, FVD-own. It falls with the number of features: compare equal numbers only.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.optimize import linear_sum_assignment

from svp_stream.evaluation.face_reader import key_points
from svp_stream.evaluation.metrics import luma
from svp_stream.packets import Bytes, Float32, Floats
from svp_stream.synthetic.landmarks import LANDMARKS

MOUTH: Final = [i for i, name in enumerate(LANDMARKS) if "_lip_" in name]
WINDOW: Final = 11
SIGMA: Final = 1.5
C1: Final = (0.01 * 255) ** 2
C2: Final = (0.03 * 255) ** 2


def ssim(made: Bytes, true: Bytes) -> Floats:
    """SSIM of each picture of uint8 [T, H, W, 3], float64 [T] in [-1, 1]. Raises ValueError for pictures of another
    shape, or under 11 pixels."""
    if made.shape != true.shape or made.ndim != 4 or min(made.shape[1:3]) < WINDOW:
        raise ValueError(f"SSIM takes two films of one shape [T, H >= 11, W >= 11, 3], got {made.shape}, {true.shape}")
    return np.array([_ssim(luma(a[None])[0].astype(np.float64), luma(b[None])[0].astype(np.float64))
                     for a, b in zip(made, true, strict=True)])


def _ssim(x: Floats, y: Floats) -> float:
    mx, my = _blur(x), _blur(y)
    vx, vy, vxy = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    score = (2 * mx * my + C1) * (2 * vxy + C2) / ((mx * mx + my * my + C1) * (vx + vy + C2))
    edge = WINDOW // 2
    return float(score[edge : score.shape[0] - edge, edge : score.shape[1] - edge].mean())


def _blur(x: Floats) -> Floats:
    at = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-0.5 * (at / SIGMA) ** 2)
    kernel /= kernel.sum()
    out: Floats = correlate1d(correlate1d(x, kernel, axis=0), kernel, axis=1)
    return out


def lmd(made: Floats, true: Floats, unit: Floats, *, fit: bool) -> Floats:
    """Mean distance of landmarks [T, N, 2] in hundredths of `unit` [T] (the distance between the eyes), [T]; with `fit`
    after the similarity (turn, scale, shift) that lays each frame's points best on the truth's."""
    if made.shape != true.shape or len(unit) != len(true):
        raise ValueError(f"landmarks of one shape are compared, got {made.shape}, {true.shape} and {len(unit)} units")
    laid = np.stack([procrustes(a, b) for a, b in zip(made, true, strict=True)]) if fit else made
    far = np.linalg.norm(np.asarray(laid, np.float64) - true, axis=2).mean(1)
    return np.asarray(100 * far / np.maximum(unit, 1e-6), np.float64)


def landmark_distances(made: Float32, true: Float32) -> tuple[float, float]:
    """(M-LMD, F-LMD) over the frames of landmarks [T, 38, 2] that both have (NaN where no face was found): the 16 of
    the mouth after the fit of each frame, and all 38 as they lie. NaN when there is no such frame."""
    both = ~np.isnan(made).any((1, 2)) & ~np.isnan(true).any((1, 2))
    if not both.any():
        return float("nan"), float("nan")
    a, b = made[both], true[both]
    kps = key_points(b)
    unit = np.linalg.norm(kps[:, 0] - kps[:, 1], axis=1)
    return (float(lmd(a[:, MOUTH], b[:, MOUTH], unit, fit=True).mean()), float(lmd(a, b, unit, fit=False).mean()))


def procrustes(points: Floats, onto: Floats) -> Floats:
    """`points` [N, 2] under the similarity without mirror that brings them nearest to `onto` (Schoenemann 1966)."""
    p, q = np.asarray(points, np.float64), np.asarray(onto, np.float64)
    a, b = p - p.mean(0), q - q.mean(0)
    spread = float((a * a).sum())
    if spread < 1e-12:
        return np.broadcast_to(q.mean(0), p.shape)
    u, s, vt = np.linalg.svd(a.T @ b)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    turned: Floats = (a @ (u * sign) @ vt) * ((s * sign).sum() / spread) + q.mean(0)
    return turned


def frechet(a: Floats, b: Floats) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of features [N, d] and [M, d]; NaN for fewer than two.

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which are real.
    """
    if len(a) < 2 or len(b) < 2:
        return float("nan")
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    gap = x.mean(0) - y.mean(0)
    c1, c2 = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ c2 @ root), 0, None)).sum()
    return float(max(gap @ gap + np.trace(c1) + np.trace(c2) - 2 * cross, 0.0))


def style_similarity(made: Floats, true: Floats, centre: Floats) -> Floats:
    """Cosine of what two clips show of style beyond the usual: embeddings [N, d] against [N, d] less `centre` [d], [N].

    Without the centre every two clips are alike (the space is anisotropic) and the figure says nothing.
    """
    a, b = np.asarray(made, np.float64) - centre, np.asarray(true, np.float64) - centre
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    told = np.minimum(*lengths) > 1e-7
    return np.where(told, (a * b).sum(1) / np.where(told, lengths[0] * lengths[1], 1.0), np.nan)


def deranged(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation of `count` that leaves nobody in place: the shuffled control. `count` of 1 stays."""
    if count < 2:
        return np.zeros(count, np.int64)
    cost: Any = rng.random((count, count)) + 10 * np.eye(count)
    return np.asarray(linear_sum_assignment(cost)[1], np.int64)
