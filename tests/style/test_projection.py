"""Style projection: shapes, normalised tokens, distinct styles stay distinct, the null style, clear errors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from svp_stream.errors import WeightsError
from svp_stream.style.projection import KIND, PREFIX, ProjectionConfig, StyleProjection, load_projection
from svp_stream.weights_file import save_weights


def projection() -> StyleProjection:
    torch.manual_seed(0)
    return StyleProjection(ProjectionConfig(style_dim=16, tokens=4, width=8))


def test_tokens_are_normalised_and_differ_between_styles() -> None:
    tokens = projection()(torch.randn(3, 16))
    assert tokens.shape == (3, 4, 8)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(3, 4), atol=1e-5, rtol=0)
    assert (tokens[0] - tokens[1]).abs().max() > 0.1


def test_every_style_number_reaches_the_tokens() -> None:
    s = torch.randn(1, 16, requires_grad=True)
    torch.autograd.backward(projection()(s).square()[..., :3].sum())
    assert s.grad is not None and bool((s.grad.abs() > 0).all())


def test_null_style_is_zero() -> None:
    assert torch.equal(projection().null(2), torch.zeros(2, 4, 8))


@pytest.mark.parametrize("shape", [(16,), (2, 15), (2, 3, 16)])
def test_wrong_shape_names_what_is_right(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B, 16\]"):
        projection()(torch.zeros(shape))


def test_sizes_are_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        ProjectionConfig(tokens=0)


def test_weights_load_again_and_strangers_are_refused(tmp_path: Path) -> None:
    model, s = projection(), torch.randn(2, 16)
    state = {PREFIX + k: v for k, v in model.state_dict().items()} | {"conditioner.other": torch.zeros(1)}
    path = tmp_path / "conditioner.safetensors"
    save_weights(path, KIND, {"projection": asdict(model.config)}, state, half=False)
    assert torch.equal(load_projection(path)(s), model(s))
    save_weights(path, KIND, {}, state, half=False)
    with pytest.raises(WeightsError, match="projection"):
        load_projection(path)
