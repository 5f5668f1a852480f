"""The video stage: pairs, the past as it is shown, own history, runs of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svp_stream.diffusion.conditioner import expression_readout
from svp_stream.diffusion.schedule import SCHEDULE
from svp_stream.diffusion.unet import Denoiser, DenoiserConfig
from svp_stream.training.loop import LoopConfig, run_stage
from svp_stream.training.pixels import WIDTH
from svp_stream.training.video import VideoStage, VideoTrainConfig
from tests.fakes.tiny_weights import awaken
from tests.training.conftest import Painted

LOOP = LoopConfig(steps=3, batch=6, lr=1e-3, warmup=1, ema=0.9, precision="fp32", log_every_s=0, sheet_every_s=600)
WIDTHS = (8, 8, 16, 16)


def stage(painted: Painted, **changed: Any) -> VideoStage:
    torch.manual_seed(0)
    start = Denoiser(DenoiserConfig(widths=WIDTHS))
    awaken(start, ("conv_out.weight", "outer.weight"), 0.05)
    return VideoStage(VideoTrainConfig(loop=LOOP, widths=WIDTHS, **changed), painted.heard, painted.autoencoder, start)


@pytest.mark.parametrize("own_history, deep_reuse", [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("warm_share", [0.0, 0.5, 1.0])
def test_steps_are_finite(painted: Painted, own_history: float, deep_reuse: float, warm_share: float) -> None:
    built = stage(painted, own_history=own_history, deep_reuse=deep_reuse, warm_share=warm_share)
    loss, logs = built.loss(built.model, built.batch(np.random.default_rng(1), 5), 0.3)
    gradients = torch.autograd.grad(loss, list(built.model.parameters()), allow_unused=True)
    assert torch.isfinite(loss) and all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert (logs["warm"] > 0) == (warm_share > 0) and (logs["rest"] > 0) == (warm_share < 1)


def test_a_whole_run(painted: Painted, tmp_path: Path) -> None:
    built = stage(painted)
    run_stage(built, LOOP, tmp_path)
    assert (tmp_path / "denoiser.safetensors").is_file()
    assert '"motion_ratio"' in (tmp_path / "log.jsonl").read_text()


def test_batches_are_pairs(painted: Painted) -> None:
    built = stage(painted)
    batch = built.batch(np.random.default_rng(0), 300)
    at, f = batch["at"].numpy(), painted.frames
    assert (f.clip[at] == f.clip[at - 1]).all() and (f.split[at] == "train").all()
    assert (f.number[at] == f.number[at - 1] + 1).all()
    warm = batch["warm"]
    assert (batch["t"][warm] - SCHEDULE.warm).abs().max() <= 20
    assert float(warm.float().mean()) == pytest.approx(0.5, abs=0.1)


def test_what_is_heard(painted: Painted) -> None:
    at, speech = np.array([4, 90]), torch.from_numpy(painted.data.speech[[4, 90]])
    readout = expression_readout(WIDTH)
    tokens, style = stage(painted).heard(at, exact=True)
    torch.testing.assert_close(readout(tokens[:, 0]), speech, atol=1e-3, rtol=1e-3)
    assert painted.heard.tokens is not None and painted.heard.style is not None
    torch.testing.assert_close(style, painted.heard.style[at].float())
    said, dropped = stage(painted, true_expression=0.0, style_dropout=1.0).heard(at, exact=False)
    torch.testing.assert_close(said, painted.heard.tokens[at].float())
    assert dropped.abs().max() == 0


def test_the_past_is_spoiled_as_told(painted: Painted) -> None:
    previous = torch.randn(64, 4, 16, 16)
    clean = {"history_noise": 0.0, "patch_drop": 0.0, "no_history": 0.0}
    shown, level = stage(painted, **clean).corrupted(previous)
    assert torch.equal(shown, previous) and level.abs().max() == 0
    shown, level = stage(painted, **clean | {"no_history": 1.0}).corrupted(previous)
    assert shown.abs().max() == 0 and (level == -1).all()
    shown, level = stage(painted, **clean | {"history_noise": 0.3}).corrupted(previous)
    told = (shown - previous).std((1, 2, 3))
    torch.testing.assert_close(told, level, rtol=0.15, atol=1e-3)
    shown, _ = stage(painted, **clean | {"patch_drop": 0.25}).corrupted(previous)
    blocks = (shown == 0).reshape(64, 4, 4, 4, 4, 4).float().mean((1, 3, 5))
    assert set(np.unique(blocks.numpy()).tolist()) == {0.0, 1.0}, "whole patches of 4 x 4 cells"
    assert float(blocks.mean()) == pytest.approx(0.125, abs=0.06)


def test_own_history_is_what_the_network_makes(painted: Painted) -> None:
    at = np.array([5, 6, 50])
    before = painted.data.latents[at - 1].float()
    kept, deep = stage(painted, own_history=0.0).past(Denoiser(), at, before)
    assert kept is before and deep is None
    built = stage(painted, own_history=1.0)
    made, deep = built.past(built.model, at, before)
    assert deep is not None and not made.requires_grad and not deep.requires_grad
    assert made.shape == before.shape and not torch.equal(made, before)


@torch.no_grad()
def test_a_run_of_frames_is_cold_then_warm(painted: Painted) -> None:
    built = stage(painted)
    asked: list[tuple[float, float]] = []
    model = built.model.eval()
    handle = model.register_forward_pre_hook(
        lambda _, args: asked.append((round(float(args[1][0]) * 1000), round(float(args[2].history[0]), 2))))
    frames = built.roll(model, 122, 3)
    handle.remove()
    assert frames.shape == (3, 4, 16, 16)
    cold, warm = SCHEDULE.cold, SCHEDULE.warm
    assert asked == [(cold, -1.0), (warm, -1.0), (warm, 0.05), (warm, 0.05)]
    assert torch.equal(frames, built.roll(model, 122, 3))
