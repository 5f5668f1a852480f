"""Mixing, gliding, drawing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp_stream.errors import PresetError
from svp_stream.style.blend import GLIDE_TICKS, Glide, StylePoint, mix, sample, smoothstep


def point(seed: int, dim: int = 8) -> StylePoint:
    rng = np.random.default_rng(seed)
    return StylePoint(rng.standard_normal(dim).astype(np.float32), rng.uniform(-4, 1, dim).astype(np.float32),
                      float(rng.random()), float(rng.random() * 2))


def flat(p: StylePoint) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([p.mu, np.exp(p.log_var / 2), [p.temperature, p.strength]]).astype(np.float64)


def test_means_and_deviations_mix_linearly() -> None:
    a, b, c = point(1), point(2), point(3)
    mu, log_var = mix([a, b, c], [1, 2, 1])
    np.testing.assert_allclose(mu, (a.mu + 2 * b.mu + c.mu) / 4, rtol=1e-5)
    sigmas = [np.exp(p.log_var / 2) for p in (a, b, c)]
    np.testing.assert_allclose(np.exp(log_var / 2), (sigmas[0] + 2 * sigmas[1] + sigmas[2]) / 4, rtol=1e-5)
    assert mu.dtype == log_var.dtype == np.float32


def test_half_way_lies_on_the_w2_geodesic() -> None:
    a, b = point(1), point(2)

    def w2(p: StylePoint, q: StylePoint) -> float:
        return float(np.sqrt(((flat(p) - flat(q))[:-2] ** 2).sum()))

    middle = StylePoint(*mix([a, b], [0.25, 0.75]))
    assert w2(a, middle) + w2(middle, b) == pytest.approx(w2(a, b), rel=1e-5)
    assert w2(a, middle) == pytest.approx(0.75 * w2(a, b), rel=1e-5)


@pytest.mark.parametrize(("weights", "says"), [
    ([1.0], "2 styles, 1 weights"), ([0.0, 0.0], "not all 0"), ([1.0, -0.1], "0 or more"), ([1.0, float("nan")], "nan"),
])
def test_bad_weights_are_named(weights: list[float], says: str) -> None:
    with pytest.raises(PresetError, match=says):
        mix([point(1), point(2)], weights)


def test_styles_of_two_priors_do_not_mix() -> None:
    with pytest.raises(PresetError, match=r"\(8,\).*\(9,\)"):
        mix([point(1), point(2, 9)], [1, 1])
    with pytest.raises(PresetError, match="do not mix"):
        Glide.rest(point(1)).toward(point(2, 9), 0)
    with pytest.raises(PresetError, match="0 styles"):
        mix([], [])


def test_a_glide_takes_0_3_s_with_flat_ends() -> None:
    a, b = point(1), point(2)
    glide = Glide(a, b, pts=100)
    assert GLIDE_TICKS == 14_400
    assert glide.at(-5) is a and glide.at(100) is a and glide.at(100 + GLIDE_TICKS) is b
    np.testing.assert_allclose(flat(glide.at(100 + GLIDE_TICKS // 2)), (flat(a) + flat(b)) / 2, rtol=1e-5)
    speed = [np.abs(flat(glide.at(100 + t + 48)) - flat(glide.at(100 + t))).max() for t in (0, 7000, 14_352)]
    assert speed[0] < speed[1] / 20 and speed[2] < speed[1] / 20


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(turns=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20_000)), min_size=1, max_size=5))
def test_however_often_the_goal_changes_nothing_jumps(turns: list[tuple[int, int]]) -> None:
    glide, pts, last = Glide.rest(point(0)), 0, flat(point(0))
    for seed, wait in turns:
        glide = glide.toward(point(seed), pts)
        for t in range(pts, pts + wait + 1, 480):
            here = flat(glide.at(t))
            # Smoothstep's steepest slope is 1.5 spans a glide; a span here is at most 8.
            assert np.abs(here - last).max() <= 1.6 * 8 * 480 / GLIDE_TICKS
            last = here
        pts += wait
        last = flat(glide.at(pts))
    assert glide.at(pts + GLIDE_TICKS) is glide.goal


def test_a_glide_is_a_function_of_pts_alone() -> None:
    glide = Glide(point(1), point(2)).toward(point(3), 5000)
    order = np.random.default_rng(0).permutation(np.arange(0, 25_000, 500))
    first = {int(t): flat(glide.at(int(t))) for t in order}
    assert all(np.array_equal(flat(glide.at(t)), v) for t, v in first.items())
    assert not glide.still(15_000) and glide.still(19_400) and Glide.rest(point(1)).still(-1)


def test_a_glide_of_no_time_is_a_step() -> None:
    glide = Glide(point(1), point(2), 10, 0)
    assert glide.at(9) is glide.start and glide.at(10) is glide.goal
    with pytest.raises(ValueError, match="0 or more"):
        Glide(point(1), point(2), 10, -1)


def test_a_sample_spreads_with_temperature() -> None:
    p, eps = point(1), np.random.default_rng(0).standard_normal((4000, 8)).astype(np.float32)
    assert np.array_equal(sample(p.mu, p.log_var, 0.0, eps[0]), p.mu)
    draws = np.stack([sample(p.mu, p.log_var, 0.5, e) for e in eps])
    np.testing.assert_allclose(draws.std(0), 0.5 * np.exp(p.log_var / 2), rtol=0.05)
    assert draws.dtype == np.float32
    with pytest.raises(ValueError, match="one shape"):
        sample(p.mu, p.log_var, 1.0, eps)


def test_smoothstep() -> None:
    assert [smoothstep(u) for u in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
