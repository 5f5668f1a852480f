"""A map of styles: where presets lie in the style space, each a dot with the ellipse of its sigma.

In: presets of one style prior. Out: RGB uint8 [size, size, 3], the plane of the two largest principal components of
their means, both axes to one scale. An ellipse is one standard deviation of the Gaussian projected onto the plane.
Remembers: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from svp_stream.errors import PresetError
from svp_stream.packets import Bytes
from svp_stream.style.family import kinships
from svp_stream.style.preset import StylePreset

COLOURS: Final = (
    (31, 119, 180), (214, 69, 65), (44, 140, 60), (148, 103, 189), (140, 86, 75), (200, 90, 160), (110, 110, 110),
    (150, 150, 30), (20, 150, 170), (230, 120, 20), (60, 60, 140), (170, 30, 90), (90, 130, 50), (120, 70, 30),
    (70, 160, 130), (180, 140, 60),
)
MARGIN: Final = 0.12
OVERSAMPLE: Final = 2
_Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Plane:
    """Two principal directions [D, 2], the mean [D] they pass through, and their shares of the variance [2]."""

    axes: _Floats
    centre: _Floats
    shares: _Floats

    def place(self, mu: _Floats) -> _Floats:
        """Means [N, D] to places [N, 2]."""
        return np.asarray((mu - self.centre) @ self.axes)

    def spread(self, log_var: _Floats) -> _Floats:
        """Log variances [D] to the covariance [2, 2] in the plane."""
        return np.asarray((self.axes * np.exp(log_var.astype(np.float64))[:, None]).T @ self.axes)


def plane(presets: Sequence[StylePreset]) -> Plane:
    """The plane that shows most of how the presets differ.

    Raises PresetError for fewer than three, or where they belong to different priors.
    """
    if len(presets) < 3:
        raise PresetError(f"a map needs three styles or more, got {len(presets)}")
    priors = {p.prior for p in presets} | {str(p.mu.shape) for p in presets}
    if len(priors) != 2:
        raise PresetError(f"styles of different priors lie in different spaces: {', '.join(p.name for p in presets)}")
    mu = np.stack([p.mu for p in presets]).astype(np.float64)
    centre = mu.mean(0)
    _, size, directions = np.linalg.svd(mu - centre, full_matrices=False)
    # The sign of a principal direction is free: largest entry positive, so that equal presets give equal maps.
    signs = np.sign(directions[np.arange(2), np.abs(directions[:2]).argmax(1)])
    return Plane((directions[:2] * signs[:, None]).T, centre, size[:2] ** 2 / max(float((size**2).sum()), 1e-12))


def draw_map(presets: Sequence[StylePreset], size: int = 900) -> Bytes:
    """uint8 [size, size, 3]. Members of a family (`warm-soft`, `warm`, `warm-strong`) share a colour and are joined by
    a line. Raises PresetError as `plane` does."""
    kin = kinships([p.name for p in presets])
    presets = sorted(presets, key=lambda p: kin[p.name].rank)
    flat = plane(presets)
    places = flat.place(np.stack([p.mu for p in presets]))
    low, high = places.min(0), places.max(0)
    whole = size * OVERSAMPLE
    scale = whole * (1 - 2 * MARGIN) / max(float((high - low).max()), 1e-9)
    at = (places - (low + high) / 2) * scale * np.array([1.0, -1.0]) + whole / 2
    image = Image.new("RGB", (whole, whole), (255, 255, 255))
    pen = ImageDraw.Draw(image, "RGBA")
    families = list(dict.fromkeys(kin[p.name].family for p in presets))
    colours = {f: COLOURS[i % len(COLOURS)] for i, f in enumerate(families)}
    for preset, centre in zip(presets, at, strict=True):
        _ellipse(pen, centre, flat.spread(preset.log_var) * scale**2, colours[kin[preset.name].family])
    for family in families:
        own = [(float(x), float(y)) for p, (x, y) in zip(presets, at, strict=True) if kin[p.name].family == family]
        pen.line(own, fill=(*colours[family], 150), width=OVERSAMPLE)
    font = ImageFont.load_default(11 * OVERSAMPLE)
    for preset, (x, y) in zip(presets, at, strict=True):
        r = 3 * OVERSAMPLE
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colours[kin[preset.name].family])
        pen.text((x + 1.6 * r, y - 2 * r), preset.name, fill=(30, 30, 30), font=font)
    told = " and ".join(f"{100 * s:.0f} %" for s in flat.shares)
    pen.text((10, 8), f"two principal directions: {told} of the variance between means; ellipses: one sigma",
             fill=(90, 90, 90), font=font)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS), np.uint8)


def _ellipse(pen: ImageDraw.ImageDraw, centre: _Floats, covariance: _Floats, colour: tuple[int, int, int]) -> None:
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0, 2 * np.pi, 73)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * np.sqrt(np.maximum(values, 0)) @ vectors.T
    points = [(float(centre[0] + x), float(centre[1] - y)) for x, y in ring]
    pen.polygon(points, fill=(*colour, 26), outline=(*colour, 110))
