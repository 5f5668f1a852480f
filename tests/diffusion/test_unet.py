"""The denoiser: what each condition may and may not do, deep features, its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from svp_stream.diffusion.unet import Conditions, Denoiser, DenoiserConfig, fourier, load_denoiser, save_denoiser
from svp_stream.errors import WeightsError
from tests.fakes.tiny_weights import DENOISER, awaken, tiny_denoiser

CELLS = 16
T = torch.tensor([0.5, 0.999])


def fresh(config: DenoiserConfig = DENOISER) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(config).eval()


def awake() -> Denoiser:
    torch.manual_seed(0)
    return tiny_denoiser()


def inputs(seed: int = 1) -> tuple[Tensor, Conditions]:
    g = torch.Generator().manual_seed(seed)
    x, previous, reference = torch.randn(3, 2, 4, CELLS, CELLS, generator=g)
    kps = torch.randn(2, 11, CELLS, CELLS, generator=g)
    audio, style = torch.randn(2, 8, 64, generator=g), torch.randn(2, 4, 64, generator=g)
    return x, Conditions(previous, reference, kps, audio, style, torch.ones(2), torch.tensor([0.05, 0.2]))


@torch.no_grad()
def test_untrained_it_shows_the_reference() -> None:
    x, c = inputs()
    x0, deep = fresh()(x, T, c)
    torch.testing.assert_close(x0, c.reference, rtol=0, atol=0)
    assert deep.shape == (2, DENOISER.widths[0], CELLS, CELLS)


@torch.no_grad()
def test_deep_features_of_the_same_frame_change_nothing() -> None:
    model, (x, c) = awake(), inputs()
    full, deep = model(x, T, c)
    shallow, again = model(x, T, c, deep)
    torch.testing.assert_close(shallow, full, rtol=0, atol=0)
    assert again is deep


@torch.no_grad()
def test_deep_features_of_another_frame_show() -> None:
    model, (x, c) = awake(), inputs()
    full, deep = model(x, T, c)
    assert (model(x, T, c, 2 * deep)[0] - full).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", ["previous", "kps", "audio", "style"])
def test_each_condition_shows(name: str) -> None:
    model, (x, c), (_, other) = awake(), inputs(), inputs(2)
    changed = model(x, T, c._replace(**{name: getattr(other, name)}))[0] - model(x, T, c)[0]
    assert changed.abs().amax((1, 2, 3)).min() > 1e-4


@torch.no_grad()
def test_without_strength_the_style_has_no_say() -> None:
    model, (x, c), (_, other) = awake(), inputs(), inputs(2)
    c = c._replace(strength=torch.tensor([0.0, 1.0]))
    change = model(x, T, c._replace(style=other.style))[0] - model(x, T, c)[0]
    assert change[0].abs().max() == 0 and change[1].abs().max() > 1e-4


@torch.no_grad()
def test_without_strength_equals_the_null_style() -> None:
    """Keys and values are free of bias, so that zero tokens and zero strength are one thing."""
    model, (x, c) = awake(), inputs()
    off = model(x, T, c._replace(strength=torch.zeros(2)))[0]
    torch.testing.assert_close(model(x, T, c._replace(style=0 * c.style))[0], off)


@torch.no_grad()
def test_the_guider_is_silent_at_birth() -> None:
    model, (x, c), (_, other) = fresh(), inputs(), inputs(2)
    awaken(model, ("conv_out.weight",), 0.3)
    before, after = (model(x, T, d)[0] for d in (c, c._replace(kps=other.kps)))
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    assert (before - c.reference).abs().max() > 1e-2, "the rest of the network does speak"


def test_the_guider_learns_from_the_first_step() -> None:
    model, (x, c) = fresh(), inputs()
    awaken(model, ("conv_out.weight",), 0.3)
    model(x, T, c)[0].square().sum().backward()
    last = [p for n, p in model.named_parameters() if n == "guider.4.weight"][0]
    assert last.grad is not None and last.grad.abs().max() > 0


@torch.no_grad()
def test_history_and_time_show_and_no_history_is_one_thing() -> None:
    model, (x, c) = awake(), inputs()
    base = model(x, T, c)[0]
    assert (model(x, T, c._replace(history=c.history + 0.2))[0] - base).abs().max() > 1e-4
    assert (model(x, 1 - T, c)[0] - base).abs().max() > 1e-4
    none = [model(x, T, c._replace(history=torch.full((2,), h)))[0] for h in (-1.0, -0.3)]
    torch.testing.assert_close(none[0], none[1], rtol=0, atol=0)


@torch.no_grad()
def test_frames_of_a_batch_stand_alone() -> None:
    model, (x, c) = awake(), inputs()
    both = model(x, T, c)[0]
    one = model(x[1:], T[1:], Conditions(*(v[1:] for v in c)))[0]
    torch.testing.assert_close(one, both[1:], rtol=1e-4, atol=1e-5)


def test_fourier_tells_near_and_far_apart() -> None:
    code = fourier(torch.tensor([0.0, 0.001, 0.5, 1.0]), 64)
    assert code.shape == (4, 64) and code.abs().max() <= 1
    gaps = (code[1:] - code[0]).norm(dim=1)
    assert 0.05 < gaps[0] < gaps[1]


@torch.no_grad()
def test_round_trip(tmp_path: Path) -> None:
    model, (x, c) = awake(), inputs()
    save_denoiser(tmp_path / "d.safetensors", model)
    back = load_denoiser(tmp_path / "d.safetensors")
    assert back.config == DENOISER and not back.training
    torch.testing.assert_close(back(x, T, c)[0], model(x, T, c)[0], atol=0.02, rtol=0)


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    save_denoiser(path, fresh())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="d.safetensors are damaged"):
        load_denoiser(path)
