"""Samplers against diffusers and against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from svp_stream.diffusion import sampler
from svp_stream.diffusion.schedule import SCHEDULE
from svp_stream.packets import Float32

WARM_ALPHA, WARM_SIGMA = float(SCHEDULE.alpha[SCHEDULE.warm]), float(SCHEDULE.sigma[SCHEDULE.warm])


def noise(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(seed))


def estimate(x: Tensor, t: int) -> Tensor:
    """A denoiser that listens to everything it is given."""
    return torch.tanh(0.7 * x + 0.3 * x.flip(1)) * (0.4 + t / 1500)


def halved(x: Float32, t: int) -> Float32:
    return 0.5 * x + np.float32(t / 1000)


def oracle(steps: int) -> DDIMScheduler:
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="sample", clip_sample=False,
        set_alpha_to_one=True,
    )
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("steps", [1, 2, 4, 10, 50])
def test_ddim_equals_diffusers(steps: int) -> None:
    scheduler, x = oracle(steps), noise()
    for t in scheduler.timesteps:
        x = scheduler.step(estimate(x, int(t)), t, x).prev_sample
    ours = sampler.ddim(estimate, noise(), SCHEDULE, sampler.trailing(steps))
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 10, 50, 1000])
def test_trailing_equals_diffusers(steps: int) -> None:
    assert sampler.trailing(steps) == oracle(steps).timesteps.tolist()


def test_cold_start_by_hand() -> None:
    eps = noise().numpy()
    first = 0.5 * eps + 0.999
    second = 0.5 * (WARM_ALPHA * first + WARM_SIGMA * eps) + SCHEDULE.warm / 1000
    np.testing.assert_allclose(sampler.cold(halved, eps, SCHEDULE, steps=1), first, rtol=1e-6)
    np.testing.assert_allclose(sampler.cold(halved, eps, SCHEDULE), second, rtol=1e-5)


def test_warm_start_by_hand() -> None:
    previous, eps = noise(1).numpy(), noise(2).numpy()
    by_hand = 0.5 * (WARM_ALPHA * previous + WARM_SIGMA * eps) + SCHEDULE.warm / 1000
    np.testing.assert_allclose(sampler.warm(halved, previous, eps, SCHEDULE), by_hand, rtol=1e-5)


def test_the_denoiser_is_called_at_the_timesteps_of_the_schedule() -> None:
    asked: list[int] = []

    def denoise(x: Float32, t: int) -> Float32:
        asked.append(t)
        return x

    eps = noise().numpy()
    sampler.cold(denoise, eps, SCHEDULE)
    sampler.warm(denoise, eps, eps, SCHEDULE)
    assert asked == [SCHEDULE.cold, SCHEDULE.warm, SCHEDULE.warm]


def test_either_kind_of_array_gives_the_same() -> None:
    def array(x: Float32, t: int) -> Float32:
        out: Float32 = estimate(torch.from_numpy(x), t).numpy()
        return out

    from_torch = sampler.ddim(estimate, noise(), SCHEDULE, sampler.trailing(4)).numpy()
    from_numpy = sampler.ddim(array, noise().numpy(), SCHEDULE, sampler.trailing(4))
    assert from_numpy.dtype == np.float32
    np.testing.assert_allclose(from_numpy, from_torch, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_cold_start_takes_one_or_two_steps(steps: int) -> None:
    with pytest.raises(ValueError, match="1 or 2"):
        sampler.cold(halved, noise().numpy(), SCHEDULE, steps=steps)
