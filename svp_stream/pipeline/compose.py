"""The person before another background, and the packing of colour and matte into one opaque picture.

In: a `Frame` (the person over the engine's own backdrop, with a matte). Out: uint8 [H, W, 3], or [2H, W, 3] packed.
Remembers: a `Background` keeps its picture cut to the last sizes. Latency: none; 1-2 ms at 256x256.

Where the matte is partial the frame shows a mixture, C = aF + (1-a)B. The backdrop B is read off the frame itself:
spread from the pixels that show nothing else, so every engine's backdrop will do. C - (1-a)B is then the person alone,
already multiplied by a, and needs no division, which would raise the noise of thin hair (Porter and Duff, "Compositing
digital images", 1984). Spreading is push and pull over halved grids (Gortler et al., "The Lumigraph", 1996, 3.4).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from svp_stream.packets import Bytes, Float32, Frame
from svp_stream.pipeline.backdrop import Background

__all__ = ["CLEAR", "SOLID", "Background", "matte", "packed", "plain", "scaled", "spread"]

CLEAR: Final = 12
"""A matte up to this counts as 0: the decoder leaves traces of that height where nobody is."""
SOLID: Final = 243
"""A matte from this on counts as 255."""
CELL: Final = 8
"""Pixels a side of a cell of the grid that colours are spread on."""
LOOK: Final = 4
"""Of the pixels in a cell every fourth of every fourth row is looked at."""

_STRETCH: Final = (np.clip((np.arange(256) - CLEAR) / (SOLID - CLEAR), 0, 1) * 255).round().astype(np.uint8)


def matte(frame: Frame) -> Bytes:
    """The frame's matte, uint8 [H, W], its ends cleared of the decoder's traces; all 255 where the frame has none."""
    if frame.alpha is None:
        return np.full(frame.rgb.shape[:2], 255, np.uint8)
    return _STRETCH.take(frame.alpha)


def plain(frame: Frame, background: Background | None = None) -> Bytes:
    """The picture to send, uint8 [H, W, 3]: the person over `background`; None leaves the engine's own picture."""
    if background is None or frame.alpha is None:
        return frame.rgb
    height, width = frame.rgb.shape[:2]
    return _over(frame.rgb, matte(frame), background.cover(height, width))


def packed(frame: Frame) -> Bytes:
    """Colour above, matte as grey below: uint8 [2H, W, 3], an opaque picture that any codec carries.

    The colours are not multiplied by the matte. Beyond the person they go on as the colours of its nearest parts, so
    that neither blur nor subsampled chroma brings the engine's backdrop, or black, into hair.
    """
    height, width = frame.rgb.shape[:2]
    out = np.empty((2 * height, width, 3), np.uint8)
    alpha = matte(frame)
    if frame.alpha is None or not alpha.any():
        out[:height] = frame.rgb
    else:
        around = _enlarged(spread(frame.rgb, alpha == 255), height, width)
        out[:height] = _over(frame.rgb, alpha, around)
    _fill(out[height:], alpha)
    return out


def scaled(picture: Bytes, width: int, height: int) -> Bytes:
    """uint8 [H, W, 3] at another size: area-true when smaller, bicubic when larger; itself when it fits."""
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def spread(rgb: Bytes, known: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Float32:
    """Colours of the `known` pixels [H, W] carried over the whole picture: float32 [ceil(H/8), ceil(W/8), 3].

    A cell with known pixels has their mean; one without takes it from the coarser grid. Mid-grey when none is known.
    """
    step = slice(None, None, LOOK)
    weights = known[step, step]
    sums = np.empty((*weights.shape, 4), np.float32)
    sums[..., :3] = rgb[step, step]
    sums[..., 3] = 1
    sums *= weights[..., None]
    return _pulled(_summed(sums, CELL // LOOK))


def _fill(out: Bytes, grey: Bytes) -> None:
    """The same in all three colours: plane by plane, a broadcast takes three times as long."""
    for colour in range(3):
        out[..., colour] = grey


def _summed(grid: Float32, side: int) -> Float32:
    """Sums over cells of `side` by `side`; the last ones may be smaller."""
    rows = np.add.reduceat(grid, np.arange(0, grid.shape[0], side), axis=0)
    cells: Float32 = np.add.reduceat(rows, np.arange(0, grid.shape[1], side), axis=1)
    return cells


def _pulled(sums: Float32) -> Float32:
    """Weighted colours [h, w, 4] to colours [h, w, 3], holes filled from the halved grid."""
    known = sums[..., 3:] > 0
    own = np.divide(sums[..., :3], sums[..., 3:], out=np.full_like(sums[..., :3], 127), where=known)
    if bool(known.all()) or sums.shape[:2] == (1, 1):
        return own
    height, width = sums.shape[:2]
    coarse = _doubled(_doubled(_pulled(_summed(sums, 2)), 0), 1)[:height, :width]
    return np.where(known, own, coarse)


def _doubled(grid: Float32, axis: int) -> Float32:
    """Twice as many cells along an axis, in between linear."""
    rows = np.moveaxis(grid, axis, 0)
    before, after = np.concatenate([rows[:1], rows[:-1]]), np.concatenate([rows[1:], rows[-1:]])
    both = np.empty((len(rows), 2, *rows.shape[1:]), np.float32)
    both[:, 0], both[:, 1] = 0.75 * rows + 0.25 * before, 0.75 * rows + 0.25 * after
    return np.moveaxis(both.reshape(-1, *rows.shape[1:]), 0, axis)


def _enlarged(cells: Float32, height: int, width: int) -> Bytes:
    """Cells to pixels, bilinear: uint8 [height, width, 3]."""
    tall, wide = cells.shape[0] * CELL, cells.shape[1] * CELL
    small = Image.fromarray(np.clip(cells + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(small.resize((wide, tall), Image.Resampling.BILINEAR))[:height, :width]


def _over(rgb: Bytes, alpha: Bytes, behind: Bytes) -> Bytes:
    """The person of `rgb` over `behind`, without the backdrop that it was drawn over."""
    solid = np.empty_like(rgb)
    _fill(solid, np.where(alpha == 255, np.uint8(255), np.uint8(0)))
    out: Bytes = behind ^ ((rgb ^ behind) & solid)  # `where`, at twice its speed
    clear = alpha == 0
    at = np.flatnonzero((alpha > 0) & (alpha < 255))
    if len(at) == 0:
        return out
    share = alpha.reshape(-1)[at].astype(np.float32)[:, None] / 255
    mixed = rgb.reshape(-1, 3)[at].astype(np.float32)
    backdrop = _sampled(spread(rgb, clear), at, alpha.shape[1]) if clear.any() else mixed
    person = np.clip(mixed - (1 - share) * backdrop, 0, 255 * share)
    out.reshape(-1, 3)[at] = person + (1 - share) * behind.reshape(-1, 3)[at] + 0.5
    return out


def _sampled(cells: Float32, at: np.ndarray[tuple[int], np.dtype[np.intp]], width: int) -> Float32:
    """Bilinear values of the cells at pixels numbered row by row: float32 [N, 3]."""
    y, x = np.divmod(at, width)
    rows = np.clip((y + 0.5) / CELL - 0.5, 0, cells.shape[0] - 1).astype(np.float32)[:, None]
    columns = np.clip((x + 0.5) / CELL - 0.5, 0, cells.shape[1] - 1).astype(np.float32)[:, None]
    top, left = rows.astype(np.intp)[:, 0], columns.astype(np.intp)[:, 0]
    below, right = np.minimum(top + 1, cells.shape[0] - 1), np.minimum(left + 1, cells.shape[1] - 1)
    down, across = rows - top[:, None], columns - left[:, None]
    upper = cells[top, left] * (1 - across) + cells[top, right] * across
    lower = cells[below, left] * (1 - across) + cells[below, right] * across
    values: Float32 = upper * (1 - down) + lower * down
    return values
