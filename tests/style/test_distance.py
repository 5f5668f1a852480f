"""The four distances against Monte Carlo, closed forms in one dimension, and their own axioms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from svp_stream.style.distance import DISTANCES, DistanceName, bhatt, elk, jeffreys, w2

NAMES: list[DistanceName] = ["bhatt", "elk", "w2", "jeffreys"]
Gaussians = tuple[Tensor, Tensor]


def gaussians(count: int, dim: int, seed: int) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=g).double(), torch.randn(count, dim, generator=g).double() - 0.5


def _density(x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    return -((x - mu).square() / log_var.exp() + log_var + math.log(2 * math.pi)).sum(-1) / 2


def test_bhattacharyya_is_minus_log_of_the_overlap() -> None:
    (mu, log_var), g = gaussians(2, 3, 0), torch.Generator().manual_seed(1)
    # Importance sampling of the integral of sqrt(p q) from the even mixture of both.
    draws = mu.repeat_interleave(200_000, 0)
    draws = draws + (log_var / 2).exp().repeat_interleave(200_000, 0) * torch.randn(draws.shape, generator=g).double()
    p, q = _density(draws, mu[0], log_var[0]), _density(draws, mu[1], log_var[1])
    overlap = ((p + q) / 2 - torch.logaddexp(p, q) + math.log(2)).exp().mean()
    assert float(bhatt(mu, log_var, mu, log_var)[0, 1]) == pytest.approx(-math.log(float(overlap)), abs=0.01)


def test_elk_is_minus_log_of_the_density_that_samples_coincide() -> None:
    (mu, log_var), g = gaussians(2, 3, 2), torch.Generator().manual_seed(3)
    draws = mu[0] + (log_var[0] / 2).exp() * torch.randn(400_000, 3, generator=g).double()
    coincide = _density(draws, mu[1], log_var[1]).exp().mean()
    assert float(elk(mu, log_var, mu, log_var)[0, 1]) == pytest.approx(-math.log(float(coincide)), abs=0.02)


def test_w2_is_the_cost_of_the_sorted_coupling() -> None:
    """In one dimension the best coupling joins equal quantiles."""
    mu, log_var = gaussians(2, 1, 4)
    u = (torch.arange(100_000).double() + 0.5) / 100_000
    a, b = (mu[i] + (log_var[i] / 2).exp() * torch.special.ndtri(u) for i in (0, 1))
    assert float(w2(mu, log_var, mu, log_var)[0, 1]) == pytest.approx(float((a - b).square().mean()), rel=1e-3)


def test_jeffreys_is_kl_both_ways() -> None:
    (mu_a, log_var_a), (mu_b, log_var_b) = gaussians(4, 8, 5), gaussians(3, 8, 6)
    out = jeffreys(mu_a, log_var_a, mu_b, log_var_b)
    for i in range(4):
        for j in range(3):
            p, q = Normal(mu_a[i], (log_var_a[i] / 2).exp()), Normal(mu_b[j], (log_var_b[j] / 2).exp())
            wanted = (kl_divergence(p, q) + kl_divergence(q, p)).sum()
            torch.testing.assert_close(out[i, j], wanted)


@pytest.mark.parametrize("name", NAMES)
def test_axioms(name: DistanceName) -> None:
    (mu_a, log_var_a), (mu_b, log_var_b) = gaussians(5, 16, 7), gaussians(3, 16, 8)
    d = DISTANCES[name]
    out = d(mu_a, log_var_a, mu_b, log_var_b)
    assert out.shape == (5, 3)
    torch.testing.assert_close(out, d(mu_b, log_var_b, mu_a, log_var_a).T)
    far = d(mu_a + 10, log_var_a, mu_b, log_var_b)
    assert bool((far > out).all())
    if name != "elk":
        own = d(mu_a, log_var_a, mu_a, log_var_a)
        torch.testing.assert_close(own.diagonal(), torch.zeros(5).double(), atol=1e-9, rtol=0)
        assert bool((own + torch.eye(5) > 1e-3).all())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_where_clips_coincide(name: DistanceName) -> None:
    mu, log_var = (torch.zeros(2, 4, requires_grad=True) for _ in range(2))
    DISTANCES[name](mu, log_var, mu, log_var).sum().backward()  # type: ignore[no-untyped-call]
    assert mu.grad is not None and log_var.grad is not None
    assert bool(mu.grad.isfinite().all()) and bool(log_var.grad.isfinite().all())


def test_one_shrinking_sigma_costs_bhattacharyya_only_its_logarithm() -> None:
    """Why it is the loss: Jeffreys explodes like 1 / sigma^2."""
    mu, wide = torch.zeros(1, 1), torch.zeros(1, 1)
    steps = [bhatt(mu, torch.full((1, 1), v), mu, wide).item() for v in (-8.0, -10.0, -12.0)]
    assert steps[2] - steps[1] == pytest.approx(0.5, abs=0.01) and steps[1] - steps[0] == pytest.approx(0.5, abs=0.01)
    assert jeffreys(mu, torch.full((1, 1), -12.0), mu, wide).item() > 1e4
