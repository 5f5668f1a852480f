"""The consistency stage: earlier times, the sampler's times, crops over the mouth, finite steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svp_stream.diffusion.schedule import SCHEDULE
from svp_stream.diffusion.unet import Denoiser, DenoiserConfig
from svp_stream.training import consistency as room
from svp_stream.training.consistency import SHARE, ConsistencyStage, ConsistencyTrainConfig, earlier
from svp_stream.training.loop import LoopConfig, run_stage
from tests.fakes.tiny_weights import awaken
from tests.training.conftest import Painted

LOOP = LoopConfig(steps=3, batch=4, lr=1e-3, warmup=1, ema=0.9, precision="fp32", log_every_s=0, sheet_every_s=600)
WIDTHS = (8, 8, 16, 16)
ALL = torch.arange(1, 1000)


def stage(painted: Painted, **changed: Any) -> ConsistencyStage:
    torch.manual_seed(0)
    start = Denoiser(DenoiserConfig(widths=WIDTHS))
    awaken(start, ("conv_out.weight", "outer.weight"), 0.05)
    config = ConsistencyTrainConfig(loop=LOOP, widths=WIDTHS, **changed)
    return ConsistencyStage(config, painted.heard, painted.autoencoder, start)


def test_at_stage_0_the_target_is_the_data() -> None:
    assert earlier(ALL, 0).abs().max() == 0


@pytest.mark.parametrize("number", [1, 2, 4, 8])
def test_earlier_is_earlier(number: int) -> None:
    r = earlier(ALL, number)
    assert (r < ALL).all() and (r >= 0).all()
    assert (r.diff() >= 0).all(), "order is kept"
    wanted = SHARE[ALL] * (1 - 2.0**-number)
    finest = SHARE.diff().max()
    free = r < ALL - 1
    assert (SHARE[r] - wanted)[free].abs().max() <= finest


def test_r_moves_towards_t() -> None:
    gaps = torch.stack([(ALL - earlier(ALL, n)).float().mean() for n in range(6)])
    assert (gaps.diff() < 0).all() and gaps[-1] < 0.1 * gaps[0]


def test_half_of_the_times_are_the_samplers(painted: Painted) -> None:
    torch.manual_seed(0)
    t = stage(painted).times(2000)
    assert t.min() >= 1 and t.max() <= SCHEDULE.cold
    exact = (t == SCHEDULE.cold) | (t == SCHEDULE.warm)
    assert float(exact.float().mean()) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_steps_are_finite(painted: Painted, progress: float) -> None:
    built = stage(painted)
    loss, logs = built.loss(built.model, built.batch(np.random.default_rng(2), 4), progress)
    gradients = torch.autograd.grad(loss, list(built.model.parameters()), allow_unused=True)
    assert torch.isfinite(loss) and logs["pixels"] > 0 and logs["consistency"] > 0
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


def test_a_whole_run(painted: Painted, tmp_path: Path) -> None:
    run_stage(stage(painted), LOOP, tmp_path)
    assert (tmp_path / "denoiser.safetensors").is_file()


def test_no_gradient_through_the_target(painted: Painted) -> None:
    built = stage(painted)
    calls: list[bool] = []
    handle = built.model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    built.consistency(built.model, np.array([3, 60]), 0.9)
    handle.remove()
    assert calls == [False, True]


def test_pixels_prefer_the_true_latents(painted: Painted) -> None:
    built = stage(painted)
    at = np.array([3, 60])
    truth = painted.data.latents[at].float()
    off = (truth + 0.5 * torch.randn_like(truth)).requires_grad_()
    near, far = built.pixels(truth, at), built.pixels(off, at)
    assert near < 0.5 * far
    assert torch.autograd.grad(far, off)[0].abs().max() > 0
    assert float(built.pixels(truth[:0], at[:0])) == 0


def test_crops_lie_over_the_mouth_or_the_eyes(painted: Painted) -> None:
    built = stage(painted)
    built.data = replace(painted.heard, points=np.array([[[0.4, 0.4], [0.6, 0.4], [0.5, 0.5]]], np.float32))
    torch.manual_seed(0)
    tops = [built._crop(0, 32) for _ in range(200)]
    mouth, eyes = (round((0.4 + 1.05 * 0.2) * 32 - room.CROP / 2), round(0.4 * 32 - room.CROP / 2))
    assert set(tops) == {(mouth, 8), (eyes, 8)}
    assert sum(top == mouth for top, _ in tops) / 200 == pytest.approx(0.7, abs=0.1)
    built.data = replace(built.data, points=built.data.points + 0.6)
    assert built._crop(0, 32) == (16, 16), "within the picture"
