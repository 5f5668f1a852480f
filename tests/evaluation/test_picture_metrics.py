"""Figures of pictures and features against closed forms, slow references and the laws that they must obey."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.evaluation.picture_metrics import (
    C1,
    C2,
    SIGMA,
    WINDOW,
    deranged,
    frechet,
    lmd,
    procrustes,
    ssim,
    style_similarity,
)
from svp_stream.packets import Bytes, Floats

RNG = np.random.default_rng(0)


def film(seed: int, frames: int = 2, side: int = 24) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3)).astype(np.uint8)


def slow_ssim(x: Floats, y: Floats) -> float:
    """Straight from the definition: one window after the other."""
    at = np.arange(WINDOW) - WINDOW // 2
    weight = np.exp(-0.5 * (at[:, None] ** 2 + at[None] ** 2) / SIGMA**2)
    weight /= weight.sum()
    scores = []
    for i in range(x.shape[0] - WINDOW + 1):
        for j in range(x.shape[1] - WINDOW + 1):
            a, b = x[i : i + WINDOW, j : j + WINDOW], y[i : i + WINDOW, j : j + WINDOW]
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
            cov = (weight * (a - ma) * (b - mb)).sum()
            scores.append((2 * ma * mb + C1) * (2 * cov + C2) / ((ma**2 + mb**2 + C1) * (va + vb + C2)))
    return float(np.mean(scores))


def test_ssim_of_the_same_is_one() -> None:
    assert np.allclose(ssim(film(1), film(1)), 1)


@pytest.mark.parametrize(("a", "b"), [(0, 255), (100, 120), (30, 30), (10, 200)])
def test_ssim_of_plain_pictures_has_a_closed_form(a: int, b: int) -> None:
    one, two = (np.full((1, 16, 16, 3), level, np.uint8) for level in (a, b))
    assert ssim(one, two)[0] == pytest.approx((2 * a * b + C1) / (a * a + b * b + C1), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_ssim_equals_the_definition(seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (20, 23)).astype(np.float64)
    noise = np.clip(grey + np.random.default_rng(seed + 9).normal(0, 25, grey.shape), 0, 255).round()
    one, two = (np.repeat(g[None, ..., None], 3, 3).astype(np.uint8) for g in (grey, noise))
    assert ssim(one, two)[0] == pytest.approx(slow_ssim(grey, noise), abs=1e-4)


def test_ssim_falls_with_noise_and_refuses_other_shapes() -> None:
    clean = np.repeat(np.linspace(0, 255, 32)[None, None, :, None], 32, 1).repeat(3, 3).astype(np.uint8)
    noisy = [np.clip(clean + RNG.normal(0, s, clean.shape), 0, 255).astype(np.uint8) for s in (2, 8, 30)]
    scores = [ssim(clean, picture)[0] for picture in noisy]
    assert scores[0] > scores[1] > scores[2]
    with pytest.raises(ValueError, match="one shape"):
        ssim(film(0), film(0, side=12))


def test_lmd_has_its_unit() -> None:
    true = RNG.normal(size=(4, 6, 2)).astype(np.float32) * 10
    assert np.allclose(lmd(true + [3, 4], true, np.full(4, 50.0), fit=False), 10)
    assert np.allclose(lmd(true + [3, 4], true, np.full(4, 50.0), fit=True), 0, atol=1e-4)
    with pytest.raises(ValueError, match="one shape"):
        lmd(true, true[:2], np.ones(4), fit=False)


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (0.6, 1.4), (-2.5, 0.3), (np.pi, 2.0)])
def test_procrustes_undoes_a_similarity(angle: float, scale: float) -> None:
    points = RNG.normal(size=(7, 2))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(procrustes(points @ turn.T + [5, -2], points), points)


def test_procrustes_does_not_mirror() -> None:
    points = np.array([[0, 0], [4, 0], [0, 1], [1, 3]], float)
    assert np.abs(procrustes(points * [-1, 1], points) - points).max() > 0.3
    assert np.allclose(procrustes(np.zeros((4, 2)), points), points.mean(0))


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (3.0, 1.0), (0.0, 2.5), (-1.0, 0.5)])
def test_frechet_has_a_closed_form_in_one_dimension(mean: float, scale: float) -> None:
    x = RNG.normal(size=(500, 1))
    y = mean + scale * x
    m, s = (y.mean() - x.mean()) ** 2, (y.std(ddof=1) - x.std(ddof=1)) ** 2
    assert frechet(x, y) == pytest.approx(m + s, abs=1e-9)


def test_frechet_obeys_its_laws() -> None:
    a, b = RNG.normal(size=(300, 8)), RNG.normal(1, 2, size=(200, 8)) @ RNG.normal(size=(8, 8))
    assert frechet(a, a) == pytest.approx(0, abs=1e-8)
    assert frechet(a, b) == pytest.approx(frechet(b, a)) and frechet(a, b) > 1
    turn = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b))
    assert frechet(a, a[:40]) > frechet(a, a[:200]), "fewer features look further"
    assert np.isnan(frechet(a[:1], b))


def test_style_similarity_is_centred() -> None:
    base = np.full(16, 10.0)
    a, b = RNG.normal(size=(2, 5, 16))
    raw = style_similarity(a + base, b + base, np.zeros(16))
    assert raw.min() > 0.9, "raw cosines say that all is alike"
    assert np.abs(style_similarity(a + base, b + base, base)).max() < 0.9
    assert np.allclose(style_similarity(a + base, a + base, base), 1)
    assert np.isnan(style_similarity(base[None], base[None], base)).all()


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_derangement_leaves_nobody_in_place(count: int) -> None:
    order = deranged(count, np.random.default_rng(count))
    assert sorted(order) == list(range(count)) and (order != np.arange(count)).all()
    assert deranged(1, RNG).tolist() == [0]
