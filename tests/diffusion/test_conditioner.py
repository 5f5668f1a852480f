"""Frame conditioner: windows, look-ahead law, decoupled style path, exact expression token, OpenVINO parity."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import Tensor

from svp_stream.arkit import SPEECH
from svp_stream.diffusion.conditioner import (
    KIND,
    OPENING,
    PREFIX,
    Conditioner,
    ConditionerConfig,
    expression_readout,
    gather_windows,
    load_conditioner,
    widened,
)
from svp_stream.errors import WeightsError
from svp_stream.weights_file import save_weights

SMALL = ConditionerConfig(audio_dim=6, dim=64, heads=2, layers=2, tokens=3, style_dim=8, past=4, max_look_ahead=2)


def conditioner(*, awake: bool = True) -> Conditioner:
    """A small random conditioner; `awake` gives the style path weights as after training."""
    torch.manual_seed(0)
    model = Conditioner(SMALL).eval()
    if awake:
        for name, p in model.named_parameters():
            if name.endswith("style_v.weight"):
                torch.nn.init.normal_(p, std=0.3)
    return model


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    heard = torch.ones(batch, SMALL.window)
    return torch.randn(batch, SMALL.window, 6), heard, torch.randn(batch, 4, 8), torch.ones(batch)


@torch.no_grad()
def test_widening_scales_the_opening_alone_and_the_token_follows() -> None:
    tokens = np.random.default_rng(0).standard_normal((2, 8, 128), np.float32)
    expression = np.full((2, 42), 0.3, np.float32)
    readout = expression_readout(128)
    exact = Conditioner(ConditionerConfig()).with_expression(torch.from_numpy(tokens), torch.from_numpy(expression))
    moved, wide = widened(exact.detach().numpy(), expression, 1.5)
    opening = [SPEECH.index(name) for name in OPENING]
    assert wide[:, opening] == pytest.approx(0.45)
    assert np.delete(wide, opening, axis=1) == pytest.approx(0.3)
    assert readout(torch.from_numpy(moved[:, 0])).numpy() == pytest.approx(wide, abs=1e-4)
    same, plain = widened(exact.detach().numpy(), expression, 1.0)
    assert same == pytest.approx(exact.detach().numpy(), abs=1e-5)
    assert plain == pytest.approx(expression)


@torch.no_grad()
def test_shapes() -> None:
    out = conditioner()(*inputs())
    assert out.tokens.shape == (2, 3, 64) and out.expression.shape == (2, 42)


@pytest.mark.parametrize("frame", [0, 1, 5, 9])
@pytest.mark.parametrize("look_ahead", [0, 1, 2])
def test_window_holds_the_tokens_around_the_frame(frame: int, look_ahead: int) -> None:
    audio = torch.arange(20.0)[:, None]
    windows, heard = gather_windows(audio, torch.tensor([frame]), look_ahead, SMALL)
    got = [int(v) for v, h in zip(windows[0, :, 0], heard[0], strict=True) if h]
    assert got == list(range(max(0, 2 * frame - 4), min(20, 2 * frame + 2 + 2 * look_ahead)))


@pytest.mark.parametrize("look_ahead", [-1, 3])
def test_look_ahead_out_of_range(look_ahead: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.2"):
        gather_windows(torch.zeros(4, 6), torch.tensor([0]), look_ahead, SMALL)


@torch.no_grad()
@pytest.mark.parametrize("look_ahead", [0, 1, 2])
def test_no_expression_depends_on_audio_after_the_look_ahead(look_ahead: int) -> None:
    model, (_, _, style, strength) = conditioner(), inputs(1)
    audio = torch.randn(20, 6)
    later = audio.clone()
    later[2 * 4 + 2 + 2 * look_ahead :] = 7.0
    sooner = audio.clone()
    sooner[2 * 4 + 1 + 2 * look_ahead] = 7.0

    def at_four(tokens: Tensor) -> Tensor:
        out: Tensor = model(*gather_windows(tokens, torch.tensor([4]), look_ahead, SMALL), style, strength).expression
        return out

    assert torch.equal(at_four(audio), at_four(later))
    assert not torch.allclose(at_four(audio), at_four(sooner))


@torch.no_grad()
def test_frames_of_a_batch_stand_alone() -> None:
    model, (audio, heard, style, strength) = conditioner(), inputs(3)
    whole = model(audio, heard, style, strength).expression
    one = model(audio[1:2], heard[1:2], style[1:2], strength[1:2]).expression
    torch.testing.assert_close(whole[1:2], one, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_unheard_tokens_have_no_influence() -> None:
    model, (audio, heard, style, strength) = conditioner(), inputs(1)
    heard[:, :2] = 0
    other = audio.clone()
    other[:, :2] = 1e3
    assert torch.equal(model(audio, heard, style, strength).tokens, model(other, heard, style, strength).tokens)


@torch.no_grad()
def test_style_path_starts_silent_and_null_style_is_no_strength() -> None:
    audio, heard, style, strength = inputs()
    fresh = conditioner(awake=False)
    assert torch.equal(fresh(audio, heard, style, strength).tokens, fresh(audio, heard, -style, strength).tokens)
    model = conditioner()
    none = model(audio, heard, style, torch.zeros(2)).tokens
    torch.testing.assert_close(none, model(audio, heard, torch.zeros_like(style), strength).tokens)
    assert not torch.allclose(none, model(audio, heard, style, strength).tokens)


def test_strength_is_smooth_and_has_gradient() -> None:
    model, (audio, heard, style, strength) = conditioner(), inputs()
    strength.requires_grad_()
    torch.autograd.backward(model(audio, heard, style, strength).expression.square().sum())
    assert strength.grad is not None and bool((strength.grad.abs() > 0).all())


@torch.no_grad()
def test_expression_token_holds_the_expression_and_nothing_else() -> None:
    model = conditioner()
    out = model(*inputs())
    torch.testing.assert_close(model.readout(out.tokens[:, 0]), out.expression, atol=1e-5, rtol=1e-5)
    bare = model.with_expression(torch.zeros_like(out.tokens), out.expression)
    torch.testing.assert_close(bare[:, 0], out.tokens[:, 0], atol=1e-5, rtol=1e-5)


def test_readout_is_the_same_in_every_model_and_never_trained() -> None:
    torch.manual_seed(3)
    other = Conditioner(SMALL)
    assert torch.equal(other.readout.weight, conditioner().readout.weight)
    assert not any(p.requires_grad for p in other.readout.parameters())


def test_with_expression_sets_the_readout_exactly() -> None:
    model, rest = conditioner(), inputs()
    tokens = model(*rest).tokens
    wanted = torch.rand(2, 42, requires_grad=True)
    fixed = model.with_expression(tokens, wanted)
    torch.testing.assert_close(model.readout(fixed[:, 0]), wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(fixed[:, 1:], tokens[:, 1:])
    torch.autograd.backward(fixed.sum())
    assert wanted.grad is not None and bool(wanted.grad.abs().sum() > 0)


@torch.no_grad()
def test_with_expression_of_its_own_expression_changes_nothing() -> None:
    model = conditioner()
    out = model(*inputs())
    torch.testing.assert_close(model.with_expression(out.tokens, out.expression), out.tokens, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::FutureWarning")  # the converter reads a deprecated part of torch.export
def test_openvino_gives_the_same_numbers() -> None:
    model, example = conditioner(), inputs(1)
    graph = openvino.convert_model(torch.export.export(model, example))
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    given = [t.numpy() for t in example]
    given[1][:, -2:] = 0
    result = compiled(given)
    expected = model(*(torch.from_numpy(g) for g in given))
    np.testing.assert_allclose(result[0], expected.tokens.numpy(), atol=1e-4)
    np.testing.assert_allclose(result[1], expected.expression.numpy(), atol=1e-4)


def test_weights_load_again_and_strangers_are_refused(tmp_path: Path) -> None:
    model, given = conditioner(), inputs()
    state = {PREFIX + k: v for k, v in model.state_dict().items()}
    path = tmp_path / "conditioner.safetensors"
    save_weights(path, KIND, {"conditioner": asdict(SMALL)}, state, half=False)
    assert torch.equal(load_conditioner(path)(*given).tokens, model(*given).tokens)
    save_weights(path, KIND, {"conditioner": asdict(SMALL) | {"colour": 3}}, state, half=False)
    with pytest.raises(WeightsError, match="colour"):
        load_conditioner(path)


def test_config_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="multiple"):
        ConditionerConfig(dim=10, heads=4)
    with pytest.raises(ValueError, match="positive"):
        ConditionerConfig(tokens=0)
