"""Sample sheets of numbers over time: a grid of small plots of true and predicted curves in one PNG.

In: panels of named tracks. Out: RGB pictures. Remembers: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from svp_stream.packets import Bytes, Floats

COLOURS: Final = ((40, 40, 40), (214, 69, 65), (50, 110, 190), (60, 150, 80), (150, 90, 170))


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: `tracks` of equal length [T], drawn over the value range `low` to `high`."""

    title: str
    tracks: Mapping[str, Floats]
    low: float = 0.0
    high: float = 1.0


def draw(rows: Sequence[Sequence[Panel]], width: int = 640, height: int = 130) -> Bytes:
    """uint8 [rows * height, columns * width, 3]; the first track is the truth, in dark grey."""
    columns = max(len(row) for row in rows)
    image = Image.new("RGB", (columns * width, len(rows) * height), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            _panel(pen, panel, c * width, r * height, width, height)
    return np.asarray(image, dtype=np.uint8)


def _panel(pen: ImageDraw.ImageDraw, panel: Panel, left: int, top: int, width: int, height: int) -> None:
    pen.rectangle((left, top, left + width - 1, top + height - 1), outline=(220, 220, 220))
    pen.text((left + 4, top + 2), f"{panel.title}  [{panel.low:g}..{panel.high:g}]", fill=(0, 0, 0))
    at = left + 8 * len(panel.title) + 90
    for (name, track), colour in zip(panel.tracks.items(), COLOURS, strict=False):
        pen.text((at, top + 2), name, fill=colour)
        at += 7 * len(name) + 12
        share = np.clip((np.asarray(track, dtype=np.float64) - panel.low) / (panel.high - panel.low), 0, 1)
        x = left + 6 + np.arange(len(share)) * (width - 12) / max(len(share) - 1, 1)
        y = top + height - 5 - share * (height - 24)
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=2 if name == "true" else 1)
