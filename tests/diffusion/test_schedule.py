"""The noise table against diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS, zero_terminal


def test_table_equals_diffusers() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    oracle = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0).numpy()
    np.testing.assert_allclose(SCHEDULE.alpha, np.sqrt(oracle), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(SCHEDULE.sigma, np.sqrt(1 - oracle), rtol=1e-8, atol=1e-9)


def test_the_last_timestep_is_pure_noise() -> None:
    assert SCHEDULE.alpha[SCHEDULE.cold] == 0 and SCHEDULE.sigma[SCHEDULE.cold] == 1
    assert SCHEDULE.cold == TIMESTEPS - 1 and SCHEDULE.noise_share(SCHEDULE.cold) == 1


def test_noise_only_grows() -> None:
    assert (np.diff(SCHEDULE.alpha) < 0).all() and (np.diff(SCHEDULE.sigma) > 0).all()
    assert SCHEDULE.alpha[0] > 0.999


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_warm_timestep_has_the_share_of_noise(share: float) -> None:
    schedule = zero_terminal(share)
    assert schedule.noise_share(schedule.warm) == pytest.approx(share, abs=2e-3)
    others = [abs(schedule.noise_share(t) - share) for t in range(TIMESTEPS)]
    assert int(np.argmin(others)) == schedule.warm


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_a_share_outside_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="warm_share"):
        zero_terminal(share)


@pytest.mark.parametrize("table", [SCHEDULE.alpha, SCHEDULE.sigma], ids=["alpha", "sigma"])
def test_the_table_is_frozen(table: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        table[3] = 0.5
