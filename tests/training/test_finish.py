"""The finish stage: rollouts on its own frames, losses that prefer the truth, a critic and a run that learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from svp_stream.diffusion.unet import Denoiser, DenoiserConfig, load_denoiser
from svp_stream.training.finish import Critic, Finishing, FinishStage, FinishTrainConfig, feature_distance
from svp_stream.training.loop import LoopConfig, run_stage
from tests.fakes.tiny_weights import awaken
from tests.training.conftest import Painted

LOOP = LoopConfig(steps=12, batch=2, lr=4e-3, warmup=1, ema=0.5, precision="fp32", log_every_s=0, sheet_every_s=600)
WIDTHS = (8, 8, 16, 16)


def stage(painted: Painted, **changed: Any) -> FinishStage:
    torch.manual_seed(0)
    start = Denoiser(DenoiserConfig(widths=WIDTHS))
    awaken(start, ("conv_out.weight", "outer.weight"), 0.05)
    config = FinishTrainConfig(loop=LOOP, widths=WIDTHS, rollout_runs=2, own_history=0, **changed)
    return FinishStage(config, painted.heard, painted.autoencoder, start)


def test_runs_lie_inside_clips(painted: Painted) -> None:
    built = stage(painted, rollout=5)
    clip, number = painted.frames.clip, painted.frames.number
    for k in range(-1, 5):
        assert (clip[built.starts + k] == clip[built.starts]).all()
        assert (number[built.starts + k] == number[built.starts] + k).all()


def test_a_rollout_goes_on_from_its_own_frames(painted: Painted) -> None:
    built = stage(painted)
    runs = np.array([3, 50])
    made = built.rollout(built.model.denoiser, runs)  # type: ignore[arg-type]
    assert len(made) == 3
    torch.testing.assert_close(made[0][1], painted.data.latents[runs - 1].float())
    for (latent, _), (_, past) in zip(made, made[1:], strict=False):
        torch.testing.assert_close(past, latent.detach())
        assert latent.requires_grad and not past.requires_grad


def test_every_loss_prefers_the_truth(painted: Painted) -> None:
    built = stage(painted)
    at = np.array([3, 60])
    x0, before = painted.data.latents[at].float(), painted.data.latents[at - 1].float()
    model = built.model
    assert isinstance(model, Finishing)
    near = built.terms(model, x0, before, before, at)
    far = built.terms(model, x0 + 0.5 * torch.randn_like(x0), before, before, at)
    assert set(near) == {"latent", "change", "pixels", "features"}
    assert all(float(near[k][0]) < 0.6 * float(far[k][0]) for k in near)
    assert float(near["latent"][0]) == 0 and float(near["change"][0]) == 0


def test_pixels_weigh_the_mouth_most(painted: Painted) -> None:
    _, _, weight = stage(painted).crops(painted.data.latents[np.array([5])].float(), np.array([5]))
    assert float(weight.mean()) == 1 and weight.max() > 1.5 * weight.min()


def test_features_tell_a_blur(painted: Painted) -> None:
    true = torch.from_numpy(painted.frames.pixels[np.arange(2)][..., :3]).permute(0, 3, 1, 2).float() / 127.5 - 1
    blurred = torch.nn.functional.avg_pool2d(true, 5, 1, 2)
    encoder = painted.autoencoder.encoder
    assert float(feature_distance(encoder, true, true)) == 0
    assert float(feature_distance(encoder, blurred, true)) > 0.01


def test_the_critic_learns_and_its_gradients_stay_apart(painted: Painted) -> None:
    built = stage(painted, critic_weight=0.1)
    critic = Critic(8)
    true, drawn = torch.randn(4, 3, 32, 32), (0.2 * torch.randn(4, 3, 32, 32)).requires_grad_()
    optimiser = torch.optim.Adam(critic.parameters(), 2e-3)
    for _ in range(40):
        optimiser.zero_grad()
        built.duel(critic, drawn, true).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert critic(true).mean() > critic(drawn).mean() + 0.2
    (slope,) = torch.autograd.grad(built.duel(critic, drawn, true), drawn)
    fooled = critic((drawn - 0.5 * slope / slope.abs().max()).detach()).mean()
    assert fooled > critic(drawn).mean(), "the denoiser's gradient leads to what the critic takes for true"


def test_a_tiny_run_learns(painted: Painted, tmp_path: Path) -> None:
    """The error of a rollout on training clips falls; the critic is left out of what is exported."""
    built = stage(painted, critic_weight=0.01)
    runs = built.starts[:: max(1, len(built.starts) // 8)][:8]

    def error(model: torch.nn.Module) -> float:
        torch.manual_seed(5)
        with torch.no_grad():
            made = built.rollout(model, runs)
        return float(np.mean([(m - painted.data.latents[runs + k].float()).abs().mean() for k, (m, _) in
                              enumerate(made)]))

    assert isinstance(built.model, Finishing)
    before = error(built.model.denoiser)
    run_stage(built, LOOP, tmp_path)
    after = load_denoiser(tmp_path / "denoiser.safetensors")
    assert error(after) < 0.9 * before
