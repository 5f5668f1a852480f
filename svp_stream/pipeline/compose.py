"""What of a frame goes on the wire, pure: the person over a background, or colour and alpha packed into one picture.

In: a `Frame`. Out: uint8 RGB. Remembers: nothing. No latency.
"""

from __future__ import annotations

import numpy as np

from svp_stream.packets import Bytes, Frame


def plain(frame: Frame, background: Bytes | None = None) -> Bytes:
    """uint8 [H, W, 3]: the person over `background` [H, W, 3] or [3]; None leaves the frame's own colours."""
    if background is None or frame.alpha is None:
        return frame.rgb
    weight = frame.alpha[:, :, None].astype(np.uint16)
    mixed = frame.rgb * weight + background * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


def packed(frame: Frame) -> Bytes:
    """uint8 [2H, W, 3]: colours above, alpha as grey below (no alpha: all 255)."""
    height, width, _ = frame.rgb.shape
    out = np.empty((2 * height, width, 3), np.uint8)
    out[:height] = frame.rgb
    out[height:] = 255 if frame.alpha is None else frame.alpha[:, :, None]
    return out
