"""The autoencoder's stage learns on a handful of painted pictures; its crops weigh the face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from svp_stream.diffusion.vae import Autoencoder, load_autoencoder, save_autoencoder
from svp_stream.errors import WeightsError
from svp_stream.training.autoencoder import (
    WEIGHTS,
    AutoencoderStage,
    AutoencoderTrainConfig,
    charbonnier,
    psnr,
    reconstruction,
)
from svp_stream.training.frames import to_tensors
from svp_stream.training.loop import Batch, LoopConfig, run_stage
from tests.training.conftest import Painted

LOOP = LoopConfig(steps=40, batch=4, lr=1e-2, warmup=4, ema=0.9, precision="fp32", log_every_s=600, sheet_every_s=600)


def stage(painted: Painted, face_crops: float = 0.6) -> AutoencoderStage:
    torch.manual_seed(0)
    config = AutoencoderTrainConfig(loop=LOOP, widths=(16, 8, 8), depths=(1, 1, 1), crop=64, face_crops=face_crops,
                                    start_pictures=24)
    train = painted.frames.split == "train"
    return AutoencoderStage(config, painted.frames.select(train), painted.frames.select(~train))


def loss_of(built: AutoencoderStage, model: Autoencoder, batch: Batch) -> float:
    torch.manual_seed(1)
    with torch.no_grad():
        return float(built.loss(model, batch, 0.0)[0])


def test_it_learns_and_exports(painted: Painted, tmp_path: Path) -> None:
    """From random weights: the closed-form start is too good to better it in so few steps."""
    built = stage(painted)
    assert isinstance(built.model, Autoencoder)
    built.model.load_state_dict(Autoencoder(built.model.config).state_dict())
    fixed = built.batch(np.random.default_rng(99), 12)
    before = loss_of(built, built.model, fixed)
    run_stage(built, LOOP, tmp_path)
    model = load_autoencoder(tmp_path / WEIGHTS)
    assert loss_of(built, model, fixed) < 0.7 * before
    assert set(reconstruction(model, built.held_out, np.array([0, 20]))) == {"psnr", "psnr_face", "matte"}
    latents = model.encode(to_tensors(painted.frames.pixels[::5])[0])
    assert latents.mean((0, 2, 3)).abs().max() < 0.3 and float(latents.std()) == pytest.approx(1, abs=0.2)
    with Image.open(tmp_path / "sheets" / "0000040.png") as sheet:
        assert sheet.size == (6 * 128, 3 * 128)


@pytest.mark.parametrize("keep", [True, False])
def test_it_goes_on_from_given_weights(painted: Painted, tmp_path: Path, keep: bool) -> None:
    save_autoencoder(tmp_path / "start.safetensors", painted.autoencoder)
    config = AutoencoderTrainConfig(loop=LOOP.model_copy(update={"steps": 2}), crop=64, start_pictures=24,
                                    start=tmp_path / "start.safetensors", keep_encoder=keep)
    built = AutoencoderStage(config, painted.frames, painted.frames.select(painted.frames.split != "train"))
    known = load_autoencoder(tmp_path / "start.safetensors")
    assert isinstance(built.model, Autoencoder) and built.model.config == known.config, "at the sizes of the file"
    for a, b in zip(built.model.parameters(), known.parameters(), strict=True):
        assert torch.equal(a, b)
    run_stage(built, config.loop, tmp_path / "run")
    model = load_autoencoder(tmp_path / "run" / WEIGHTS)
    assert not torch.equal(model.decoder.linear.weight, known.decoder.linear.weight)
    picture = to_tensors(painted.frames.pixels[:2])[0]
    assert torch.equal(model.encode(picture), known.encode(picture)) is keep


def test_a_start_must_be_there(painted: Painted, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="gone.safetensors are missing"):
        AutoencoderStage(AutoencoderTrainConfig(start=tmp_path / "gone.safetensors"), painted.frames, painted.frames)
    with pytest.raises(ValidationError, match="keep_encoder keeps that of `start`"):
        AutoencoderTrainConfig(keep_encoder=True)


def test_batches_depend_on_the_generator_alone(painted: Painted) -> None:
    built = stage(painted)
    a, b, c = (built.batch(np.random.default_rng(seed), 3) for seed in (5, 5, 6))
    assert all(torch.equal(a[k], b[k]) for k in a) and not torch.equal(a["pixels"], c["pixels"])
    assert a["pixels"].shape == (3, 64, 64, 4) and a["weight"].shape == (3, 1, 64, 64)


def test_face_crops_hold_the_face(painted: Painted) -> None:
    weight = stage(painted, face_crops=1.0).batch(np.random.default_rng(0), 24)["weight"]
    assert set(np.unique(weight.numpy()).tolist()) == {1.0, 3.0}
    assert weight.amax((1, 2, 3)).min() == 3


def test_the_loss_falls_with_the_error(painted: Painted) -> None:
    built = stage(painted)
    batch = built.batch(np.random.default_rng(0), 4)
    torch.manual_seed(0)
    blind = Autoencoder(built.model.config) if isinstance(built.model, Autoencoder) else None
    assert blind is not None
    assert built.loss(built.model, batch, 0.0)[0] < 0.3 * built.loss(blind, batch, 0.0)[0]


def test_charbonnier_and_psnr() -> None:
    x = torch.tensor([0.0, 1e-4, 1.0, -1.0])
    assert charbonnier(x).tolist() == pytest.approx([0, 5e-7, 0.99, 0.99], abs=1e-4)
    assert psnr(0.04) == pytest.approx(20) and psnr(1 / 255**2, peak=1.0) == pytest.approx(48.13, abs=0.01)
    assert np.isfinite(psnr(0.0))
