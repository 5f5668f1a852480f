"""The style encoder: shapes, padding, order, what it listens to; its files; and that its losses teach it styles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from svp_stream.errors import WeightsError
from svp_stream.style.prior import (
    LOG_VAR_HIGH,
    LOG_VAR_LOW,
    PriorConfig,
    StyleEncoder,
    StylePrior,
    draw,
    load_prior,
    pool,
    save_prior,
)
from svp_stream.weights_file import sha256

TINY = PriorConfig(expression_dim=6, audio_dim=5, width=16, layers=2, heads=2, style_dim=8, decoder_layers=2)


def encoder(**changes: Any) -> StyleEncoder:
    torch.manual_seed(0)
    return StyleEncoder(replace(TINY, **changes)).eval()


def clip(batch: int = 3, frames: int = 20) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, frames, 6), torch.randn(batch, frames, 5)


@pytest.mark.parametrize("pool", ["attention", "mean"])
@pytest.mark.parametrize("audio_in_style", [True, False])
def test_shapes_and_ranges(pool: str, audio_in_style: bool) -> None:
    net = encoder(pool=pool, audio_in_style=audio_in_style)
    expression, audio = clip()
    mu, log_var = net(expression * 100, audio * 100)
    assert mu.shape == log_var.shape == (3, 8)
    torch.testing.assert_close(mu.square().mean(1), torch.ones(3), rtol=1e-3, atol=1e-3)
    assert float(log_var.detach().min()) >= LOG_VAR_LOW and float(log_var.detach().max()) <= LOG_VAR_HIGH


@pytest.mark.parametrize("pool", ["attention", "mean"])
def test_padding_changes_nothing(pool: str) -> None:
    net = encoder(pool=pool)
    expression, audio = clip(2, 20)
    mask = torch.arange(20) < torch.tensor([[20], [13]])
    padded_e, padded_a = expression.clone(), audio.clone()
    padded_e[1, 13:], padded_a[1, 13:] = torch.nan, torch.nan
    mu, log_var = net(padded_e, padded_a, mask)
    for i, frames in ((0, 20), (1, 13)):
        alone = net(expression[i : i + 1, :frames], audio[i : i + 1, :frames])
        torch.testing.assert_close(mu[i : i + 1], alone[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(log_var[i : i + 1], alone[1], rtol=1e-4, atol=1e-4)


def test_padding_sends_back_no_gradient() -> None:
    net, (expression, audio) = encoder().train(), clip(2, 20)
    expression.requires_grad_()
    mask = torch.arange(20) < torch.tensor([[20], [13]])
    mu, log_var = net(expression, audio, mask)
    (mu.pow(3) + log_var).sum().backward()
    assert expression.grad is not None
    assert bool((expression.grad[1, 13:] == 0).all()) and bool((expression.grad[1, :13] != 0).any())


def test_time_matters_and_audio_matters_where_wanted() -> None:
    expression, audio = clip()
    heard, deaf = encoder(), encoder(audio_in_style=False)
    assert not torch.allclose(heard(expression, audio)[0], heard(expression.flip(1), audio)[0], atol=1e-3)
    assert not torch.allclose(heard(expression, audio)[0], heard(expression, audio.flip(0))[0], atol=1e-3)
    assert torch.equal(deaf(expression, audio)[0], deaf(expression)[0])


def test_statistics_travel_with_the_weights() -> None:
    net, (expression, audio) = encoder(), clip()
    mean, std = torch.rand(6), torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0, 0.0])
    before = net(expression, audio)[0]
    net.set_statistics(mean, std)
    assert float(net.expression_std[5]) == 1.0
    torch.testing.assert_close(net.restore(net.standardise(expression)), expression)
    torch.testing.assert_close(net(net.restore(expression), audio)[0], before, rtol=1e-3, atol=1e-4)
    assert {"expression_mean", "expression_std"} <= set(net.state_dict())


@pytest.mark.parametrize(("expression", "audio", "mask", "says"), [
    ((2, 9, 7), (2, 9, 5), None, r"expression has shape \[B, T, 6\], got \(2, 9, 7\)"),
    ((2, 0, 6), (2, 0, 5), None, r"got \(2, 0, 6\)"),
    ((2, 9, 6), (2, 8, 5), None, r"audio has shape \[2, 9, 5\], got \[2, 8, 5\]"),
    ((2, 9, 6), None, None, "got None"),
    ((2, 9, 6), (2, 9, 5), torch.ones(2, 8, dtype=torch.bool), r"mask is bool \[2, 9\]"),
    ((2, 9, 6), (2, 9, 5), torch.ones(2, 9), r"mask is bool"),
    ((2, 9, 6), (2, 9, 5), torch.tensor([[True] * 9, [False] * 9]), "a frame in each clip"),
])
def test_wrong_shapes_are_named(expression: tuple[int, ...], audio: tuple[int, ...] | None, mask: Tensor | None,
                                says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encoder()(torch.zeros(expression), None if audio is None else torch.zeros(audio), mask)


@pytest.mark.parametrize("bad", [{"width": 10}, {"layers": 0}, {"pool": "max"}, {"dropout": 1.0}])
def test_configurations_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(TINY, **bad)


def test_the_decoder_speaks_in_the_style_and_hears_only_nearby() -> None:
    torch.manual_seed(0)
    net = StylePrior(TINY).eval()
    _, audio = clip(2, 40)
    s = torch.randn(2, 8)
    out = net.decoder(audio, s)
    assert out.shape == (2, 40, 6)
    assert not torch.allclose(out, net.decoder(audio, s.flip(0)), atol=1e-3)
    later = audio.clone()
    later[:, 20:] = 0
    # Two convolutions of five frames reach four frames ahead.
    torch.testing.assert_close(net.decoder(later, s)[:, :16], out[:, :16])
    assert not torch.allclose(net.decoder(later, s)[:, 16:20], out[:, 16:20])


def test_draws_have_the_gaussians_moments() -> None:
    mu, log_var = torch.tensor([[1.0, -2.0]]), torch.tensor([[-2.0, 1.0]])
    draws = draw(mu, log_var, torch.randn(50_000, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(draws.mean(0), mu[0], atol=0.02, rtol=0)
    torch.testing.assert_close(draws.var(0).log(), log_var[0], atol=0.03, rtol=0)


def test_a_saved_prior_comes_back_with_its_hash(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, path = StylePrior(TINY).eval(), tmp_path / "style_prior.safetensors"
    net.encoder.set_statistics(torch.rand(6), torch.rand(6) + 0.5)
    assert save_prior(path, net) == sha256(path)
    again = load_prior(path)
    assert again.config == TINY and not again.training
    torch.testing.assert_close(again.encoder(*clip())[0], net.encoder(*clip())[0], atol=0.02, rtol=0)
    with pytest.raises(WeightsError, match="missing"):
        load_prior(tmp_path / "none.safetensors")


def test_evidence_tells_sigma_length_and_reach() -> None:
    net = encoder(evidence=True)
    with torch.no_grad():
        net.spread.weight.zero_()
        net.spread.weight[:, -2] = -1.0
        net.spread.bias.zero_()
    expression, audio = clip(2, 20)
    mask = torch.arange(20) < torch.tensor([[20], [5]])
    _, log_var = net(expression, audio, mask)
    apart = (log_var[1] - log_var[0]).detach()
    assert bool((apart > 0.8).all()) and bool((apart < 1.4).all()), "ln 4, less what the squash takes"
    raw, told = net.summary(expression, audio, mask)
    assert told.shape == (2, 18) and raw.shape == (2, 8)
    torch.testing.assert_close(told[:, -1], raw.std(1).log())
    assert encoder().spread.in_features == 16


def test_pooling_is_the_law_of_total_variance() -> None:
    mu, log_var = torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, -2.0]])
    mean, spread = pool(mu, log_var)
    torch.testing.assert_close(mean, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(spread.exp(), torch.tensor([1.0 + 2.0, (1 + torch.tensor(-2.0).exp().item()) / 2]))
    alone = pool(mu[:1], log_var[:1])
    torch.testing.assert_close(alone[0], mu[0])
    torch.testing.assert_close(alone[1], log_var[0])
