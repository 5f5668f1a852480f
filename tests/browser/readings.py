"""Lips, eyes and expression read off received pictures, one reader for each engine.

In: pictures uint8 [N, 256, 256, 3]. Out: `Readings`. Remembers: nothing. The trained face is read by the gauge that
ships with the weights and never saw the network's pictures; the drawn one by the colours that it is drawn with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import svp_stream
from svp_stream.evaluation.measure import READING, SPEECH_READINGS, WEIGHTS, load_evaluator
from svp_stream.packets import Bytes
from svp_stream.pipeline.cartoon import mouth_opening

Doubles = NDArray[np.float64]
SHIPPED = Path(svp_stream.__file__).parent / "weights" / "mini"
EYES = (slice(96, 134), slice(70, 186))
CORNER = (slice(4, 28), slice(4, 28))


@dataclass(frozen=True)
class Readings:
    """`lips` and `eyes` [N], opening in units of their own; `expression` [N, K], what a style changes."""

    lips: Doubles
    eyes: Doubles
    expression: Doubles


def read_trained(pictures: Bytes) -> Readings:
    """By the gauge; raises `WeightsError` when it is missing."""
    read = load_evaluator(SHIPPED / WEIGHTS).gauge.read(pictures).astype(np.float64)
    eyes = read[:, READING["eye_open_left"]] + read[:, READING["eye_open_right"]]
    return Readings(read[:, READING["lip_open"]], eyes, read[:, SPEECH_READINGS])


def read_drawn(pictures: Bytes) -> Readings:
    """By the colours of the drawing: dark red inside the mouth, white of the eyes, the light behind."""
    lips = np.array([mouth_opening(picture) for picture in pictures])
    white = (pictures[:, *EYES].min(axis=-1) > 205).sum(axis=(1, 2))
    corner = pictures[:, *CORNER].astype(np.float64).mean(axis=(1, 2))
    return Readings(lips, white.astype(np.float64), corner)
