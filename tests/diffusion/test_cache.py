"""The latent cache: what it keeps, what it refuses, when it starts again."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.diffusion.cache import LatentCache

LATENT = np.ones((4, 2, 2), np.float32)
DEEP = np.full((8, 2, 2), 3, np.float32)


def test_born_cold() -> None:
    assert LatentCache().cold(0) and LatentCache().cold(100)


def test_a_kept_frame_makes_it_warm() -> None:
    cache = LatentCache()
    cache.keep(LATENT, DEEP, was_cold=True)
    assert not cache.cold(0)
    assert cache.previous is LATENT and cache.deep is DEEP and cache.age == 1


def test_deep_features_outlast_frames_without() -> None:
    cache = LatentCache()
    cache.keep(LATENT, DEEP, was_cold=True)
    cache.keep(2 * LATENT, None, was_cold=False)
    assert cache.deep is DEEP and cache.age == 2


@pytest.mark.parametrize("refresh", [1, 3, 10])
def test_refresh_comes_round(refresh: int) -> None:
    cache, cold = LatentCache(), []
    for _ in range(3 * refresh):
        cold.append(cache.cold(refresh))
        cache.keep(LATENT, DEEP, was_cold=cold[-1])
    assert cold == [n % refresh == 0 for n in range(3 * refresh)]


def test_zero_never_refreshes() -> None:
    cache = LatentCache()
    for n in range(500):
        assert cache.cold(0) is (n == 0)
        cache.keep(LATENT, None, was_cold=n == 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_forgets_the_past(bad: float) -> None:
    cache = LatentCache()
    cache.keep(LATENT, DEEP, was_cold=True)
    spoiled = LATENT.copy()
    spoiled[1, 0, 1] = bad
    cache.keep(spoiled, DEEP, was_cold=False)
    assert cache == LatentCache()


def test_reset_equals_fresh() -> None:
    cache = LatentCache()
    cache.keep(LATENT, DEEP, was_cold=True)
    cache.reset()
    assert cache == LatentCache()
