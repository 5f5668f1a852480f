"""What a frame looks like on the wire, plain and packed."""

from __future__ import annotations

import numpy as np

from svp_stream.packets import Frame
from svp_stream.pipeline.compose import packed, plain


def test_plain_is_the_frame_or_the_person_over_a_background() -> None:
    rgb, alpha = np.full((4, 4, 3), 200, np.uint8), np.zeros((4, 4), np.uint8)
    alpha[:2], alpha[2] = 255, 51
    frame = Frame(0, rgb, alpha)
    assert plain(frame) is rgb
    over = plain(frame, np.array([0, 100, 255], np.uint8))
    assert (over[0] == 200).all() and (over[3] == [0, 100, 255]).all() and (over[2] == [40, 120, 244]).all()
    assert plain(Frame(0, rgb), np.zeros(3, np.uint8)) is rgb


def test_packed_has_alpha_below() -> None:
    rgb, alpha = np.full((4, 6, 3), 200, np.uint8), np.full((4, 6), 7, np.uint8)
    out = packed(Frame(0, rgb, alpha))
    assert out.shape == (8, 6, 3) and (out[:4] == 200).all() and (out[4:] == 7).all()
    assert (packed(Frame(0, rgb))[4:] == 255).all()
