"""The image stage: its batches, its weighting, and that it learns to beat the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.diffusion.schedule import SCHEDULE
from svp_stream.diffusion.unet import Denoiser, DenoiserConfig, load_denoiser, save_denoiser
from svp_stream.training.image import WEIGHTS, ImageStage, ImageTrainConfig
from svp_stream.training.loop import LoopConfig, run_stage
from tests.training.conftest import Painted

LOOP = LoopConfig(steps=60, batch=8, lr=4e-3, warmup=5, ema=0.9, precision="fp32", log_every_s=600, sheet_every_s=600)
WIDTHS = (16, 16, 24, 24)


def stage(painted: Painted, pure_noise: float = 0.7) -> ImageStage:
    torch.manual_seed(0)
    config = ImageTrainConfig(loop=LOOP, widths=WIDTHS, pure_noise=pure_noise)
    return ImageStage(config, painted.data, painted.autoencoder)


def test_it_beats_the_reference_on_its_frames(painted: Painted, tmp_path: Path) -> None:
    built = stage(painted)
    at = built.train[::6]
    truth, reference = painted.data.latents[at].float(), painted.data.references[at].float()
    untrained = built.draw(built.model.eval(), at)
    torch.testing.assert_close(untrained, reference, rtol=0, atol=0.02)
    built.model.train()
    run_stage(built, LOOP, tmp_path)
    model = load_denoiser(tmp_path / WEIGHTS)
    drawn = built.draw(model, at)
    weight = painted.data.weight[at].float()
    errors = [float(((x - truth).square() * weight).mean()) for x in (drawn, reference)]
    assert errors[0] < 0.9 * errors[1]
    assert (tmp_path / "sheets" / "0000060.png").is_file()


def test_it_goes_on_from_given_weights(painted: Painted, tmp_path: Path) -> None:
    torch.manual_seed(1)
    known = Denoiser(DenoiserConfig(widths=(8, 8, 16, 16)))
    torch.nn.init.normal_(known.conv_out.weight)
    save_denoiser(tmp_path / "start.safetensors", known)
    config = ImageTrainConfig(loop=LOOP, widths=WIDTHS, start=tmp_path / "start.safetensors")
    built = ImageStage(config, painted.data, painted.autoencoder)
    assert isinstance(built.model, Denoiser) and built.model.config == known.config, "at the sizes of the file"
    torch.testing.assert_close(built.model.conv_out.weight, known.conv_out.weight, rtol=1e-3, atol=1e-3)
    assert all(p.requires_grad for p in built.model.parameters()) and built.model.training


def test_validation_tells_pixels(painted: Painted) -> None:
    built = stage(painted)
    figures = built.validate(built.model.eval())
    assert set(figures) == {f"{n}_{w}" for n in ("reference", "steps1", "steps2") for w in ("psnr", "face")}
    assert figures["steps1_psnr"] == pytest.approx(figures["reference_psnr"], abs=0.1), "untrained, it shows that"
    assert 10 < figures["reference_psnr"] < 40


@pytest.mark.parametrize("pure_noise", [0.0, 0.5, 1.0])
def test_batches(painted: Painted, pure_noise: float) -> None:
    built = stage(painted, pure_noise)
    batch = built.batch(np.random.default_rng(0), 400)
    assert set(batch["at"].tolist()) <= set(np.flatnonzero(painted.frames.split == "train"))
    cold = (batch["t"] == SCHEDULE.cold).float().mean()
    assert float(cold) == pytest.approx(pure_noise, abs=0.08)
    assert batch["t"].min() >= 1 and batch["t"].max() <= SCHEDULE.cold
    again = built.batch(np.random.default_rng(0), 400)
    assert torch.equal(again["at"], batch["at"]) and torch.equal(again["t"], batch["t"])


def test_exact_conditions_are_a_cold_start(painted: Painted) -> None:
    built = stage(painted)
    at = np.array([3, 130])
    c = built.conditions(at, exact=True)
    assert c.history.tolist() == [-1, -1] and c.previous.abs().max() == 0 and c.style.abs().max() == 0
    assert torch.equal(c.audio, built.conditions(at, exact=True).audio)
    assert not torch.equal(c.audio, built.conditions(at).audio)
