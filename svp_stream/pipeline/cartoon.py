"""A drawn face: the picture of the engine without weights, in plain numpy and well under 3 ms.

In: a `Drawing` (pose, eyelids, mouth, look). Out: `rgb` uint8 [256, 256, 3] and `alpha` uint8 [256, 256].
Remembers: nothing beyond the sprites of a `Sitter`, made once. Shapes are anti-aliased distance fields (after
I. Quilez, "2D distance functions"), so that sub-pixel motion is smooth; only the box around each feature is computed,
on float32 planes [3, h, w].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from svp_stream.packets import Bytes, Float32

SIZE: Final = 256
MOUTH_BOX: Final = (slice(150, 208), slice(76, 180))
"""Rows and columns within which the mouth stays, whatever the head does."""

_GAP: Final = (62.0, 10.0, 20.0)
_LIP: Final = (178.0, 74.0, 80.0)
_EYE_X: Final = 27.0
_EYE_Y: Final = 114.0
_MOUTH_Y: Final = 168.0
_MARGIN: Final = 16
_HEAD_BOX: Final = (slice(12, SIZE), slice(38, 218))
_SHOULDER_BOX: Final = (slice(204, SIZE), slice(0, SIZE))

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Sitter:
    """An avatar: the exponent of its head's outline (2 round, 4 squarish), its size and its colours."""

    power: float
    rx: float
    ry: float
    skin: Colour
    hair: Colour


SITTERS: Final = {
    "disc": Sitter(2.0, 66.0, 76.0, (238.0, 194.0, 164.0), (84.0, 52.0, 36.0)),
    "square": Sitter(3.4, 62.0, 74.0, (166.0, 116.0, 86.0), (34.0, 30.0, 36.0)),
}


@dataclass(frozen=True, slots=True)
class Look:
    """What a style changes: `warmth, tint` in [-1, 1] span the accent colour, `smile` and `brow` in [-1, 1]."""

    warmth: float = 0.0
    tint: float = 0.0
    smile: float = 0.0
    brow: float = 0.0


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture: head shift in pixels, turn in [-1, 1] (features slide over the head), breath in pixels."""

    look: Look
    dx: float = 0.0
    dy: float = 0.0
    turn: float = 0.0
    tilt: float = 0.0
    breath: float = 0.0
    blink: float = 0.0
    gaze: float = 0.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything but the mouth: `canvas` float32 [3, 256, 256], `alpha` uint8 [256, 256], and where the mouth goes."""

    canvas: Float32
    alpha: Bytes
    mouth_x: float
    mouth_y: float
    look: Look


def _grid(rows: slice, cols: slice) -> tuple[Float32, Float32]:
    ys = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    xs = np.arange(cols.start, cols.stop, dtype=np.float32)[None, :]
    return ys, xs


def _box(cx: float, cy: float, rx: float, ry: float) -> tuple[slice, slice]:
    top, left = max(int(cy - ry) - 2, 0), max(int(cx - rx) - 2, 0)
    return slice(top, min(int(cy + ry) + 4, SIZE)), slice(left, min(int(cx + rx) + 4, SIZE))


def _cover(f: Float32) -> Float32:
    """Coverage in [0, 1] of a pixel whose signed distance to the outline is `f` (negative inside)."""
    cover: Float32 = np.clip(np.float32(0.5) - f, np.float32(0), np.float32(1))
    return cover


def _oval(ys: Float32, xs: Float32, cx: float, cy: float, rx: float, ry: float, power: float = 2.0) -> Float32:
    """Coverage of a superellipse."""
    u, v = np.abs((xs - cx) / rx), np.abs((ys - cy) / ry)
    radius = np.sqrt(u * u + v * v) if power == 2.0 else (u**power + v**power) ** (1 / power)
    return _cover(((radius - 1) * min(rx, ry)).astype(np.float32))


def _paint(canvas: Float32, cover: Float32, colour: Colour) -> None:
    """Lay `colour` over `canvas` [3, h, w] in place."""
    for plane, tone in zip(canvas, colour, strict=True):
        plane += cover * (np.float32(tone) - plane)


def _with_margin(sprite: Float32) -> Float32:
    """A sprite [C, h, w] with its edges repeated, so that moving it is a slice."""
    return np.pad(sprite, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)), mode="edge")


class Sprites:
    """The parts of one sitter that only move: head with hair, and shoulders."""

    def __init__(self, sitter: Sitter) -> None:
        self._sitter = sitter

    @cached_property
    def head(self) -> Float32:
        """float32 [4, 256 + 2 m, 256 + 2 m], premultiplied RGB in 0..255 and coverage in 0..1."""
        s = self._sitter
        ys, xs = _grid(slice(0, SIZE), slice(0, SIZE))
        rgb = np.zeros((3, SIZE, SIZE), dtype=np.float32)
        back = _oval(ys, xs, 128, 112, s.rx + 9, s.ry + 6, s.power)
        back = back * _cover(((ys - 178) * 0.2 + 0 * xs).astype(np.float32))
        neck = _oval(ys, xs, 128, 196, 27, 54, 4)
        ears = np.maximum(_oval(ys, xs, 128 - s.rx, 126, 10, 15), _oval(ys, xs, 128 + s.rx, 126, 10, 15))
        face = _oval(ys, xs, 128, 124, s.rx, s.ry, s.power)
        fringe = face * _cover((ys - 80 + 16 * np.sin((xs - 96) / 40)).astype(np.float32))
        light = (1.06 - 0.0011 * (ys - 60) - 0.0006 * (xs - 90)).astype(np.float32)
        dark = tuple(0.82 * c for c in s.skin)
        alpha = np.zeros((SIZE, SIZE), dtype=np.float32)
        layers = ((back, s.hair), (neck, dark), (ears, dark), (face, s.skin), (fringe, s.hair))
        for cover, colour in layers:
            _paint(rgb, cover, (colour[0], colour[1], colour[2]))
            alpha = np.maximum(alpha, cover)
        for side in (-1, 1):
            cheek = 0.32 * np.clip(1 - np.hypot(xs - 128 - side * 38, ys - 150) / 22, 0, 1)
            _paint(rgb, cheek.astype(np.float32), (226.0, 120.0, 110.0))
        return _with_margin(np.concatenate([rgb * light * alpha, alpha[None]]))

    @cached_property
    def shoulders(self) -> Float32:
        """float32 [1, 256 + 2 m, 256 + 2 m], coverage."""
        ys, xs = _grid(slice(0, SIZE), slice(0, SIZE))
        return _with_margin(_oval(ys, xs, 128, 276, 104, 62, 2.6)[None])

    @cached_property
    def backdrop(self) -> Float32:
        """float32 [256, 256], brightness of the background: a soft light from the upper left."""
        ys, xs = _grid(slice(0, SIZE), slice(0, SIZE))
        return np.clip(1.12 - np.hypot(xs - 96, ys - 84) / 420, 0.5, 1.1).astype(np.float32)


def accent(look: Look) -> Float32:
    """float32 [3], the colour of a style; linear in the look, so that it glides without a jump."""
    spin = np.array([0.0, -2 * np.pi / 3, 2 * np.pi / 3])
    return np.asarray(145 + 70 * (look.warmth * np.cos(spin) + look.tint * np.sin(spin)), dtype=np.float32)


def _shifted(sprite: Float32, dx: float, dy: float, rows: slice, cols: slice) -> Float32:
    """The part `rows, cols` of a sprite [C, 256 + 2 m, 256 + 2 m] moved right and down, bilinear; [C, h, w]."""
    limit = _MARGIN - 1.0
    dx, dy = min(max(dx, -limit), limit), min(max(dy, -limit), limit)
    ix, iy = int(np.floor(dx)), int(np.floor(dy))
    fx, fy = np.float32(dx - ix), np.float32(dy - iy)
    top, left = rows.start + _MARGIN - 1 - iy, cols.start + _MARGIN - 1 - ix
    whole = sprite[:, top : top + rows.stop - rows.start + 1, left : left + cols.stop - cols.start + 1]
    tall = (1 - fy) * whole[:, 1:]
    tall += fy * whole[:, :-1]
    wide = (1 - fx) * tall[..., 1:]
    wide += fx * tall[..., :-1]
    return np.asarray(wide, dtype=np.float32)


def scene(sprites: Sprites, d: Drawing) -> Scene:
    """Everything but the mouth."""
    colour = accent(d.look)
    canvas = sprites.backdrop * colour[:, None, None]
    alpha = np.zeros((SIZE, SIZE), dtype=np.float32)
    alpha[_SHOULDER_BOX] = shoulders = _shifted(sprites.shoulders, 0.3 * d.dx, d.breath, *_SHOULDER_BOX)[0]
    red, green, blue = (0.42 * float(c) for c in colour)
    _paint(canvas[:, *_SHOULDER_BOX], shoulders, (red, green, blue))
    head = _shifted(sprites.head, d.dx, d.dy, *_HEAD_BOX)
    part, matte = canvas[:, *_HEAD_BOX], alpha[_HEAD_BOX]
    part *= 1 - head[3]
    part += head[:3]
    np.maximum(matte, head[3], out=matte)
    x, y = 128 + d.dx + 7 * d.turn, d.dy + 5 * d.tilt
    for side in (-1, 1):
        _eye(canvas, x + side * _EYE_X * (1 - 0.04 * side * d.turn), _EYE_Y + y, d, side)
    _nose(canvas, x + 4 * d.turn, 142 + y)
    return Scene(canvas, (alpha * 255 + 0.5).astype(np.uint8), x, _MOUTH_Y + y, d.look)


def _eye(canvas: Float32, cx: float, cy: float, d: Drawing, side: int) -> None:
    rows, cols = _box(cx, cy - 8, 24, 28)
    ys, xs = _grid(rows, cols)
    part = canvas[:, rows, cols]
    opening = 10.5 * (1 - 0.92 * min(max(d.blink, 0.0), 1.0)) * (1 - 0.12 * max(d.look.smile, 0.0))
    white = _oval(ys, xs, cx, cy, 16, max(opening, 0.9))
    _paint(part, _oval(ys, xs, cx, cy, 17.5, max(opening + 1.8, 2.2)), (58.0, 38.0, 34.0))
    _paint(part, white, (250.0, 248.0, 244.0))
    for radius, tone in ((7.5, (70.0, 98.0, 112.0)), (3.6, (16.0, 16.0, 20.0))):
        _paint(part, white * _oval(ys, xs, cx + 5 * d.gaze, cy, radius, radius), tone)
    _paint(part, white * _oval(ys, xs, cx + 5 * d.gaze - 2.4, cy - 2.6, 1.9, 1.9), (255.0, 255.0, 255.0))
    u = (xs - cx) / 18
    brow = cy - 21 - 5 * d.look.brow + 4 * u * u + 3 * side * u * d.look.brow
    _paint(part, _cover(np.maximum(np.abs(ys - brow) - 2.3, 18 * (np.abs(u) - 1))), (66.0, 44.0, 36.0))


def _nose(canvas: Float32, cx: float, cy: float) -> None:
    rows, cols = _box(cx, cy, 12, 8)
    ys, xs = _grid(rows, cols)
    _paint(canvas[:, rows, cols], 0.28 * _oval(ys, xs, cx, cy, 9, 5), (110.0, 52.0, 44.0))


def finish(s: Scene, opening: float) -> tuple[Bytes, Bytes]:
    """The picture with its mouth open by `opening` in [0, 1]; returns `rgb` [256, 256, 3] and `alpha` [256, 256]."""
    canvas = s.canvas.copy()
    o, smile = min(max(opening, 0.0), 1.0), s.look.smile
    rows, cols = _box(s.mouth_x, s.mouth_y + 8, 42, 26)
    ys, xs = _grid(rows, cols)
    part = canvas[:, rows, cols]
    half = 26 + 5 * smile - 6 * o
    u = (xs - s.mouth_x) / half
    arch = np.sqrt(np.clip(1 - u * u, 0, 1))
    middle = s.mouth_y - 8 * smile * (u * u - 0.45)
    upper, lower = middle - 5 * o * arch, middle + 24 * o * arch
    ends = half * (np.abs(u) - 1)
    lips = np.maximum(np.maximum(upper - 3.4 * arch - 0.8 - ys, ys - lower - 4.2 * arch - 0.8), ends)
    gap = np.maximum(np.maximum(upper - ys, ys - lower), ends)
    _paint(part, _cover(lips.astype(np.float32)), _LIP)
    inside = _cover(gap.astype(np.float32)) * np.float32(min(6 * o, 1.0))
    _paint(part, inside, _GAP)
    _paint(part, inside * _oval(ys, xs, s.mouth_x, s.mouth_y + 24 * o, 15, 7 * o + 0.5), (190.0, 84.0, 88.0))
    seam = _cover(np.maximum(np.abs(ys - middle) - 0.7, ends + 1).astype(np.float32)) * np.float32(max(1 - 8 * o, 0.0))
    _paint(part, seam, (112.0, 40.0, 48.0))
    rgb = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
    rgb[...] = np.clip(canvas, 0, 255).transpose(1, 2, 0)
    return rgb, s.alpha


def mouth_opening(rgb: Bytes) -> float:
    """How far the drawn mouth is open, in [0, 1], read off a picture (uint8 [256, 256, 3]) that may have been through
    a lossy codec: the share of dark red pixels in the middle columns of the mouth's box."""
    part = rgb[MOUTH_BOX].astype(np.int16)
    red, green, blue = part[..., 0], part[..., 1], part[..., 2]
    dark = (red < 110) & (red - green > 18) & (green < 60) & (blue < 70)
    tallest = np.sort(dark.sum(axis=0))[-12:]
    return float(min(tallest.mean() / 23.0, 1.0))
