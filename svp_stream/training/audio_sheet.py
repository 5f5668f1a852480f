"""The audio stage's sample sheet, one PNG: what was said and heard, what the jaw should do and what it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from svp_stream.packets import Float32

SCALE, MEL_ROWS, LINE, CURVE = 6, 120, 12, 90
_RIGHT, _WRONG, _TRUE, _TOLD = (40, 150, 60), (200, 40, 40), (30, 30, 30), (220, 110, 20)
_Labels = NDArray[np.int64]


def draw_sheet(
    path: Path,
    mel: Float32,
    phonemes: tuple[_Labels, _Labels],
    jaws: tuple[Float32, Float32],
    symbols: Sequence[str],
) -> None:
    """mel [B, T, bands]; phonemes (true, heard) [B, T]; jaws (true, told) [B, F] in [0, 1]."""
    rows = [
        _row(mel[i], (phonemes[0][i], phonemes[1][i]), (jaws[0][i], jaws[1][i]), symbols) for i in range(len(mel))
    ]
    sheet = Image.new("RGB", (rows[0].width, sum(r.height for r in rows)), "white")
    for i, row in enumerate(rows):
        sheet.paste(row, (0, i * row.height))
    sheet.save(path)


def _row(
    mel: Float32, phonemes: tuple[_Labels, _Labels], jaws: tuple[Float32, Float32], symbols: Sequence[str]
) -> Image.Image:
    width = len(mel) * SCALE
    out = Image.new("RGB", (width, MEL_ROWS + 2 * LINE + CURVE + 6), "white")
    low, high = np.quantile(mel, [0.05, 0.995])
    grey = np.clip((mel.T[::-1] - low) / (high - low + 1e-6) * 255, 0, 255).astype(np.uint8)
    out.paste(Image.fromarray(grey).resize((width, MEL_ROWS), Image.Resampling.BILINEAR), (0, 0))
    pen = ImageDraw.Draw(out)
    for line, labels in enumerate(phonemes):
        for t, label in enumerate(labels):
            if t == 0 or label != labels[t - 1]:
                colour = _TRUE if line == 0 else _RIGHT if label == phonemes[0][t] else _WRONG
                pen.text((t * SCALE, MEL_ROWS + line * LINE), symbols[int(label)], fill=colour)
    top = MEL_ROWS + 2 * LINE
    for jaw, colour in zip(jaws, (_TRUE, _TOLD), strict=True):
        x = (np.arange(len(jaw)) + 0.5) * 2 * SCALE
        y = top + CURVE * (1 - np.clip(jaw, 0, 1))
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=2)
    return out
