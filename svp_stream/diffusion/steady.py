"""Output smoothing: a picture that stands still stays still, to the byte.

In: the picture last shown, the picture just painted, how the reference latent changed between them. Out: the picture to
show. Remembers: nothing. Nothing is fed back to the sampler, or two filters would chase each other.

A frame's noise, a moved head, eight-bit convolutions: each moves every cell of a latent a little, the decoder spreads
it over some fifty pixels, and rounding to bytes makes whole steps of it: a flicker that the eye finds at once on a
plain wall. So it is the picture that is held, not the latent: a byte moves by what its change exceeds the band, is
never further from the painted one than the band, and a wall does not move at all. The reference latent, which is free
of noise, tells where the face moves: there the band is shut, and lips are as painted.
"""

from __future__ import annotations

import numpy as np

from svp_stream.packets import Bytes, Float32

STILL = 0.1
"""Change of the reference in a frame, in deviations of a latent, up to which the band is open in a cell; it is shut at
twice that."""


def steadied(shown: Bytes, painted: Bytes, change: Float32, levels: int) -> Bytes:
    """uint8 [H, W, C]: `painted`, held back by up to `levels` towards `shown`; `change` [4, h, w] of the reference."""
    moves = np.abs(change).max(0)
    band = np.rint(levels * np.clip(2 - moves / STILL, 0, 1)).astype(np.int16)
    factor = painted.shape[0] // band.shape[0]
    wide = np.repeat(np.repeat(band, factor, 0), factor, 1)[..., None]
    gap = painted.astype(np.int16) - shown
    out: Bytes = (painted - np.clip(gap, -wide, wide)).astype(np.uint8)
    return out
