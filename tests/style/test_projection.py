"""Style projection: shapes, normalised tokens, distinct styles stay distinct, the null style, clear errors."""

from __future__ import annotations

import pytest
import torch

from svp_stream.style.projection import ProjectionConfig, StyleProjection


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
