"""The autoencoder: its closed-form start is PCA, its latents are of unit size, its file comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from svp_stream.diffusion.vae import Autoencoder, AutoencoderConfig, load_autoencoder, save_autoencoder
from svp_stream.errors import WeightsError
from svp_stream.packets import Floats
from svp_stream.training.frames import to_tensors
from tests.fakes import painted_faces

SMALL = AutoencoderConfig(widths=(16, 8, 8), depths=(1, 1, 1))


def pictures() -> tuple[Tensor, Tensor]:
    """Twelve painted faces, 64 x 64."""
    return to_tensors(painted_faces.paint(*painted_faces.course(12, 3), 64))


def autoencoder(*, started: bool = True) -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(SMALL)
    if started:
        model.start_from_patches(*pictures())
    return model.eval()


def patches(x: Tensor) -> Floats:
    """[B * h * w, C * 64] of [B, C, 8h, 8w], pixel by pixel as they lie in the picture."""
    b, c, height, width = x.shape
    cut = x.numpy().astype(np.float64).reshape(b, c, height // 8, 8, width // 8, 8)
    out: Floats = cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, c * 64)
    return out


@torch.no_grad()
def test_the_start_is_patch_pca() -> None:
    rgb, alpha = pictures()
    model = autoencoder()
    x = patches(rgb)
    mean = x.mean(0)
    _, _, directions = np.linalg.svd(x - mean, full_matrices=False)
    z = (x - mean) @ directions[:4].T
    out = patches(model.decode(model.encode(rgb)))
    np.testing.assert_allclose(out[:, : 3 * 64], mean + z @ directions[:4], atol=2e-3)
    regressors = np.c_[z, np.ones(len(z))]
    matte = regressors @ np.linalg.lstsq(regressors, patches(alpha), rcond=None)[0]
    np.testing.assert_allclose(out[:, 3 * 64 :], matte, atol=2e-3)


@torch.no_grad()
def test_the_start_beats_chance() -> None:
    rgb, alpha = pictures()
    truth = torch.cat([rgb, alpha], 1)
    errors = [float((m.decode(m.encode(rgb)) - truth).square().mean()) for m in (autoencoder(),
                                                                                autoencoder(started=False))]
    assert errors[0] < 0.1 * errors[1]


@torch.no_grad()
def test_latents_of_unit_size() -> None:
    rgb, _ = pictures()
    model = autoencoder()
    before = model.decode(model.encode(rgb))
    model.measure_latents(rgb)
    latents = model.encode(rgb)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.decode(latents), before, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(64, 64), (8, 8), (16, 40)])
def test_shapes(height: int, width: int) -> None:
    model = autoencoder()
    latent = model.encode(torch.rand(2, 3, height, width))
    assert latent.shape == (2, 4, height // 8, width // 8)
    assert model.decode(latent).shape == (2, 4, height, width)


@pytest.mark.parametrize("height, width", [(60, 64), (64, 7)])
def test_sides_must_divide(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"multiples of 8.*{height}, {width}"):
        autoencoder().encode(torch.rand(1, 3, height, width))


@torch.no_grad()
def test_round_trip(tmp_path: Path) -> None:
    rgb, _ = pictures()
    model = autoencoder()
    model.measure_latents(rgb)
    save_autoencoder(tmp_path / "a.safetensors", model)
    back = load_autoencoder(tmp_path / "a.safetensors")
    assert back.config == SMALL and not back.training
    assert not any(p.requires_grad for p in back.parameters())
    torch.testing.assert_close(back.decode(back.encode(rgb)), model.decode(model.encode(rgb)), atol=0.02, rtol=0)


def test_another_shape_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_autoencoder(path, autoencoder())
    data = path.read_bytes()
    (tmp_path / "hashes.json").unlink()
    path.write_bytes(data.replace(b"[16, 8, 8]", b"[32, 8, 8]"))
    with pytest.raises(WeightsError, match="do not fit"):
        load_autoencoder(path)
