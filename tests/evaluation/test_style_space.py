"""The style space measured: probes that see what is there and no more, and ways that are even or jump."""

from __future__ import annotations

import pytest
import torch

from svp_stream.evaluation.style_space import probe
from svp_stream.evaluation.style_study import SHOWN, draw_ways, table


def _clouds(noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 6
    features = 3 * torch.randn(6, 20, generator=g)[labels] + noise * torch.randn(240, 20, generator=g)
    return features, labels, torch.arange(240) // 6


def test_a_probe_names_what_lies_apart_and_guesses_else() -> None:
    features, labels, groups = _clouds(0.5)
    assert probe(features, labels, groups) > 0.97
    assert probe(features, labels, groups, shuffle=0) < 0.35
    assert probe(torch.randn(240, 20, generator=torch.Generator().manual_seed(1)), labels, groups) < 0.35


def test_a_probe_is_asked_about_other_groups_than_it_was_fitted_on() -> None:
    """What only marks the group, and not the class, must not help."""
    labels, groups = torch.arange(240) % 6, torch.arange(240) // 6
    marks = torch.nn.functional.one_hot(groups, 40).float()
    paired = (groups * 7) % 6
    assert probe(marks, paired, groups) < 0.4
    assert probe(torch.cat([marks, torch.nn.functional.one_hot(labels, 6)], 1), labels, groups) > 0.9


def test_the_table_marks_controls_and_the_picture_has_a_row_for_each_way() -> None:
    told = table({"probe_style": 0.9, "probe_style_chance": 0.1, "diversity_0": 0.0, "diversity_0.3": 0.2,
                  "sigma_error_r": 0.8, "error_72": 0.1})
    assert told.count("*control:*") == 3 and "| probe_style | 0.900 |" in told
    path = [torch.rand(42).numpy() for _ in range(5)]
    assert draw_ways({"a to b": path, "b to c": path}).shape == (240, 300 * len(SHOWN), 3)
    with pytest.raises(ValueError):
        draw_ways({})
