"""Curve sheets: size of the grid, curves where their values are, values out of range stay inside their panel."""

from __future__ import annotations

import numpy as np

from svp_stream.training.curves import COLOURS, Panel, draw


def test_grid_has_the_size_of_its_panels() -> None:
    panel = Panel("jaw", {"true": np.zeros(10)})
    assert draw([[panel, panel], [panel]], width=200, height=80).shape == (160, 400, 3)


def test_a_high_value_is_drawn_above_a_low_one() -> None:
    def row_of(value: float) -> float:
        picture = draw([[Panel("x", {"true": np.full(20, value)})]], width=300, height=100)
        line = (picture[20:, 50:] == np.array(COLOURS[0])).all(-1)
        return float(np.flatnonzero(line.any(1)).mean())

    assert row_of(0.9) < row_of(0.1) - 30


def test_values_out_of_range_stay_inside_their_panel() -> None:
    calm, wild = Panel("a", {"true": np.zeros(9)}), Panel("b", {"true": np.linspace(-50, 50, 9)})
    together, alone = draw([[calm], [wild]], width=200, height=80), draw([[calm], [calm]], width=200, height=80)
    np.testing.assert_array_equal(together[:78], alone[:78])
