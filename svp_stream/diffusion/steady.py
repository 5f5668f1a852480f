"""Output smoothing: a picture that stands still stays still, to the byte.

In: the picture last shown, the picture just painted, how the reference latent changed between them, where the eyes and
the nose are. Out: the picture to show. Remembers: nothing. Nothing is fed back to the sampler, or two filters would
chase each other.

A frame's noise, a moved head, eight-bit convolutions: each moves every cell of a latent a little, the decoder spreads
it over some fifty pixels, and rounding to bytes makes whole steps of it: a flicker that the eye finds at once on a
plain wall. So it is the picture that is held, not the latent: a byte moves by what its change exceeds the band, is
never further from the painted one than the band, and a wall does not move at all. The reference latent, which is free
of noise, tells where the face moves: there the band is shut. Over mouth and eyes it always is, for lips that hardly
part still speak.
"""

from __future__ import annotations

import numpy as np

from svp_stream.packets import Bytes, Float32

STILL = 0.15
"""Change of the reference in a frame, in deviations of a latent, up to which the band is open in a cell; it is shut at
twice that."""
MOUTH = (-0.8, 0.5, 0.8, 1.7)
EYES = (-0.95, -0.35, 0.95, 0.35)
"""Left, top, right, bottom about the middle of the eyes, in distances between them, with room for a tilted head."""


def steadied(shown: Bytes, painted: Bytes, change: Float32, points: Float32, levels: int) -> Bytes:
    """uint8 [H, W, C]: `painted`, held back by up to `levels` towards `shown`. `change` [4, h, w] of the reference;
    `points` HEAD-Kps [3, 2] (right eye, left eye, nose) in [0, 1] of the picture."""
    moves = np.abs(change).max(0)
    share = np.clip(2 - moves / STILL, 0, 1)
    for box in (MOUTH, EYES):
        share[_cells(box, points, len(share))] = 0
    band = np.rint(levels * share).astype(np.int16)
    factor = painted.shape[0] // band.shape[0]
    wide = np.repeat(np.repeat(band, factor, 0), factor, 1)[..., None]
    gap = painted.astype(np.int16) - shown
    out: Bytes = (painted - np.clip(gap, -wide, wide)).astype(np.uint8)
    return out


def _cells(box: tuple[float, float, float, float], points: Float32, cells: int) -> tuple[slice, slice]:
    """Rows and columns of the cells that `box` touches."""
    middle, unit = points[:2].mean(0), float(np.linalg.norm(points[1] - points[0]))
    left, top, right, bottom = (np.array(box) * unit + np.tile(middle, 2)) * cells
    low, high = np.floor([top, left]).astype(int), np.ceil([bottom, right]).astype(int)
    rows, columns = (slice(max(int(a), 0), max(int(b), 0)) for a, b in zip(low, high, strict=True))
    return rows, columns
