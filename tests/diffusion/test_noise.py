"""A session's noise: unit variance, one texture, any frame again."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.diffusion.noise import SessionNoise
from svp_stream.packets import Float32

SHAPE = (4, 64, 64)


def correlation(a: Float32, b: Float32) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 1.0])
def test_unit_variance_and_the_declared_correlation(rho: float) -> None:
    noise = SessionNoise(3, SHAPE, rho)
    frames = [noise.frame(n) for n in (0, 1, 500)]
    for frame in frames:
        assert frame.shape == SHAPE and frame.dtype == np.float32
        assert float(frame.var()) == pytest.approx(1, abs=0.06) and abs(float(frame.mean())) < 0.04
    assert correlation(frames[0], frames[1]) == pytest.approx(rho, abs=0.04)
    assert correlation(frames[0], frames[2]) == pytest.approx(rho, abs=0.04), "the texture does not wear off"


def test_any_frame_can_be_made_again() -> None:
    noise = SessionNoise(3, SHAPE)
    late = noise.frame(77)
    noise.frame(1)
    np.testing.assert_array_equal(SessionNoise(3, SHAPE).frame(77), late)


def test_sessions_differ() -> None:
    assert abs(correlation(SessionNoise(1, SHAPE).frame(0), SessionNoise(2, SHAPE).frame(0))) < 0.04


def test_fresh_noise_is_not_the_texture_of_a_neighbouring_seed() -> None:
    """Seeds and frame numbers span a plane: no two of them meet on one stream."""
    frames = [SessionNoise(s, SHAPE, rho).frame(n) for s in (0, 1, 2) for n in (0, 1) for rho in (0.0, 1.0)]
    distinct = {f.tobytes() for f in frames}
    assert len(distinct) == 9, "six fresh frames and three textures"


@pytest.mark.parametrize("rho", [-0.1, 1.1, float("nan")])
def test_a_share_outside_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="rho"):
        SessionNoise(0, SHAPE, rho)
