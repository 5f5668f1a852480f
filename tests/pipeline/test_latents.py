"""The switches of the latent cache: what each does to the calls of the denoiser, to speed and to stillness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from svp_stream.config import Cache
from svp_stream.diffusion.cache import CacheRule, LatentCache
from svp_stream.diffusion.noise import SessionNoise
from svp_stream.diffusion.sampler import trailing
from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.packets import Float32
from svp_stream.pipeline.latents import HISTORY, Asked, Latents
from tests.fakes.tiny_weights import tiny_engine

SHAPE = (4, 32, 32)
COLD, WARM = SCHEDULE.cold, SCHEDULE.warm


class Watched:
    """The tiny denoiser, noting of each call: which program, timestep, previous latent, history."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Float32, float]] = []
        self._programs = tiny_engine().programs

    def denoise(self, *x: Any) -> Any:
        self.calls.append(("full", round(float(x[1][0]) * TIMESTEPS), x[2].copy(), float(x[8][0])))
        return self._programs.denoise(*x)

    def shallow(self, *x: Any) -> Any:
        self.calls.append(("shallow", round(float(x[1][0]) * TIMESTEPS), x[2].copy(), float(x[6][0])))
        return self._programs.shallow(*x)


def asked(frames: int, *, moving: bool = True, seed: int = 0) -> Iterator[Asked]:
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((1, *SHAPE), dtype=np.float32)
    kps, tokens = rng.random((1, 11, 32, 32), dtype=np.float32), rng.standard_normal((1, 8, 64), dtype=np.float32)
    style, one = rng.standard_normal((1, 4, 64), dtype=np.float32), np.ones(1, np.float32)
    for n in range(frames):
        change = 0.1 * rng.standard_normal((1, *SHAPE), dtype=np.float32)
        yield Asked(n, reference + change if moving else reference, kps, tokens, style, one)


def run(rule: CacheRule, frames: int = 5, *, moving: bool = True, effort: int = 0) -> tuple[Watched, list[Float32]]:
    watched, cache = Watched(), LatentCache()
    latents = Latents(watched, rule, SessionNoise(1, SHAPE, rule.noise_mix))
    return watched, [latents.make(cache, a, effort)[0][0] for a in asked(frames, moving=moving)]


def test_the_profile_has_the_switches_of_the_code() -> None:
    assert CacheRule(**Cache().model_dump()) == CacheRule()


def test_warm_start_is_one_step_after_the_first_frame() -> None:
    watched, _ = run(CacheRule())
    assert [(c[0], c[1]) for c in watched.calls] == [("full", t) for t in (COLD, WARM, WARM, WARM, WARM, WARM)]


@pytest.mark.parametrize("steps", [1, 2, 25])
def test_without_it_every_frame_is_cold(steps: int) -> None:
    watched, _ = run(CacheRule(warm_start=False, cold_steps=steps), 2)
    once = {1: [COLD], 2: [COLD, WARM], 25: trailing(25)}[steps]
    assert [c[1] for c in watched.calls] == once * 2


@pytest.mark.parametrize("warm", [True, False])
def test_the_previous_latent_is_a_condition_or_not(warm: bool) -> None:
    told, _ = run(CacheRule(warm_start=warm), 2)
    assert told.calls[-1][2].any() and told.calls[-1][3] == pytest.approx(HISTORY)
    untold, _ = run(CacheRule(warm_start=warm, previous_latent=False), 2)
    assert not untold.calls[-1][2].any() and untold.calls[-1][3] == -1


def test_deep_features_stand_in_on_every_other_frame() -> None:
    watched, _ = run(CacheRule(deep_reuse=10.0), 6)
    assert [c[0] for c in watched.calls] == ["full", "full", "shallow", "full", "shallow", "full", "shallow"]


def test_and_only_where_little_moves() -> None:
    moving, _ = run(CacheRule(deep_reuse=0.05), 5)
    still, _ = run(CacheRule(deep_reuse=0.05), 5, moving=False)
    assert [c[0] for c in moving.calls] == ["full"] * 6
    assert [c[0] for c in still.calls].count("shallow") == 2


def test_the_ladder_still_rules() -> None:
    watched, _ = run(CacheRule(deep_reuse=10.0), 5, effort=2)
    assert [c[0] for c in watched.calls] == ["full"] + ["shallow"] * 4


def test_noise_mix_is_the_sessions() -> None:
    frozen, mixed = (np.stack(run(CacheRule(noise_mix=rho), 8, moving=False)[1])[3:] for rho in (1.0, 0.0))
    assert np.abs(np.diff(frozen, axis=0)).mean() < 0.7 * np.abs(np.diff(mixed, axis=0)).mean()


def test_another_setting_is_another_picture() -> None:
    engine = tiny_engine()
    assert engine.rule == CacheRule()
    other = replace(engine, rule=CacheRule(warm_start=False))
    assert other.programs is engine.programs
