"""The flat programs say what the models say; painting shifts, rounds and clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from svp_stream.diffusion.conditioner import Conditioner
from svp_stream.diffusion.programs import Condition, Denoise, DenoiseShallow, Paint
from svp_stream.diffusion.unet import Conditions
from svp_stream.diffusion.vae import Autoencoder
from svp_stream.training.frames import to_tensors
from tests.fakes import painted_faces
from tests.fakes.tiny_weights import AUTOENCODER, CONDITIONER, tiny_denoiser

SIDE = 64


def painter() -> tuple[Paint, Tensor]:
    """A program over 64 x 64 pictures and the latent of a face."""
    torch.manual_seed(0)
    model = Autoencoder(AUTOENCODER)
    rgb, alpha = to_tensors(painted_faces.paint(*painted_faces.course(6, 0), SIDE))
    model.start_from_patches(rgb, alpha)
    with torch.no_grad():
        return Paint(model, SIDE // 8).eval(), model.encode(rgb[:1])


def painted(program: Paint, latent: Tensor, right: float, down: float) -> Tensor:
    with torch.no_grad():
        out: Tensor = program(latent, torch.tensor([[right, down]]) / SIDE)[0]
    return out.int()


def test_paint_rounds_what_the_decoder_says() -> None:
    program, latent = painter()
    with torch.no_grad():
        decoded = program.model.decode(latent)[0].permute(1, 2, 0)
    out = painted(program, latent, 0, 0)
    assert out.shape == (SIDE, SIDE, 4)
    assert (out - ((decoded.clamp(-1, 1) + 1) * 127.5)).abs().max() < 0.51


@pytest.mark.parametrize("right, down", [(5, 0), (0, -3), (-4, 7)])
def test_paint_shifts_by_whole_pixels(right: int, down: int) -> None:
    program, latent = painter()
    still, moved = painted(program, latent, 0, 0), painted(program, latent, right, down)
    inner = slice(10, SIDE - 10)
    expected = still.roll((down, right), (0, 1))[inner, inner]
    assert (moved[inner, inner] - expected).abs().max() <= 1


def test_paint_repeats_the_border() -> None:
    program, latent = painter()
    still, moved = painted(program, latent, 0, 0), painted(program, latent, 12, 0)
    assert (moved[:, 2] - still[:, 0]).abs().max() <= 1, "what comes in from outside is the edge"


def test_half_a_pixel_lies_between() -> None:
    program, latent = painter()
    still, half, whole = (painted(program, latent, x, 0).float() for x in (0, 0.5, 1))
    assert (half - still).abs().mean() < (whole - still).abs().mean()
    assert ((still + whole) / 2 - half).abs().mean() < 1.5


def test_paint_clips() -> None:
    program, latent = painter()
    for sign in (-1, 1):
        out = painted(program, latent * 50 * sign, 0, 0)
        assert out.min() >= 0 and out.max() <= 255
        assert {0, 255} <= set(np.unique(out.numpy()).tolist()), "far beyond white is white, not black"


def flat(seed: int = 0) -> tuple[Tensor, ...]:
    """x_t, t, previous, reference, kps, audio, style, strength, history."""
    g = torch.Generator().manual_seed(seed)
    x, previous, reference = torch.randn(3, 1, 4, 16, 16, generator=g)
    kps, audio = torch.randn(1, 11, 16, 16, generator=g), torch.randn(1, 8, 64, generator=g)
    style, one = torch.randn(1, 4, 64, generator=g), torch.ones(1)
    return x, 0.5 * one, previous, reference, kps, audio, style, 1.5 * one, 0.05 * one


@torch.no_grad()
def test_denoise_is_the_model() -> None:
    torch.manual_seed(0)
    model, (x, t, *rest) = tiny_denoiser(), flat()
    for said, meant in zip(Denoise(model)(x, t, *rest), model(x, t, Conditions(*rest)), strict=True):
        torch.testing.assert_close(said, meant, rtol=0, atol=0)


@torch.no_grad()
def test_shallow_is_the_model_on_deep_features() -> None:
    torch.manual_seed(0)
    model, all_of = tiny_denoiser(), flat()
    full, deep = Denoise(model)(*all_of)
    shallow = DenoiseShallow(model)(*all_of[:6], all_of[8], deep)
    torch.testing.assert_close(shallow, full, rtol=0, atol=0)


@torch.no_grad()
def test_condition_is_the_model() -> None:
    torch.manual_seed(0)
    model = Conditioner(CONDITIONER).eval()
    audio, heard = torch.randn(1, CONDITIONER.window, 16), torch.ones(1, CONDITIONER.window)
    style, strength = torch.randn(1, 4, 64), torch.ones(1)
    tokens, expression = Condition(model)(audio, heard, style, strength)
    meant = model(audio, heard, style, strength)
    torch.testing.assert_close(tokens, meant.tokens)
    torch.testing.assert_close(expression, meant.expression)
