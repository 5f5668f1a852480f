"""A face reader for films that `svp corpus` rendered: it tells what the renderer drew. For walkthroughs and tests.

In: pictures of a corpus' clips; the folder of that corpus, named by SVP_TRUTH. Out: the truth of each as a reading.
Remembers: a thumbnail and the truth of every frame of the corpus (about 2 kB each).

    SVP_TRUTH=corpus svp prepare corpus -o clips --reader svp_stream.preparing.truth_reader:reader

It stands where MediaPipe or a 3DMM stands for real people, so that the whole way can be walked without either.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

from svp_stream.errors import ConfigError, MediaError
from svp_stream.evaluation.face_reader import FaceReading
from svp_stream.packets import Bytes, Float32
from svp_stream.training.clips import Clips, read_frames

THUMB: Final = 16
VARIABLE: Final = "SVP_TRUTH"
MOST_GAP: Final = 12.0
"""Mean difference in levels above which a picture is none of the corpus."""


class TruthReader:
    """See the card. Raises MediaError for a corpus without pictures."""

    def __init__(self, corpus: Path) -> None:
        clips = list(Clips.open(corpus).where(has_video=True))
        if not clips:
            raise MediaError(f"{corpus} holds no clip with a picture; render some with `svp corpus`")
        self._thumbs = np.concatenate([_thumbs(read_frames(c)[0]) for c in clips])
        self._expression = np.concatenate([c.expression for c in clips])
        self._angles = np.concatenate([c.pose[:, :3] for c in clips])
        self._landmarks = np.concatenate([c.landmarks for c in clips])

    def read(self, rgb: Bytes) -> FaceReading | None:
        """See FaceReader; None for a picture that is none of the corpus."""
        gaps = np.abs(self._thumbs - _thumbs(rgb[None])).mean(axis=(1, 2))
        best = int(gaps.argmin())
        if gaps[best] > MOST_GAP:
            return None
        return FaceReading(self._expression[best], self._angles[best], self._landmarks[best])

    def reset(self) -> None:
        """Every picture is looked up afresh."""


def _thumbs(pictures: Bytes) -> Float32:
    """Means of 16 x 16 areas, float32 [N, 256, 3]."""
    n, high, wide = pictures.shape[:3]
    cut = pictures[:, : high // THUMB * THUMB, : wide // THUMB * THUMB]
    areas = cut.reshape(n, THUMB, high // THUMB, THUMB, wide // THUMB, 3).mean(axis=(2, 4), dtype=np.float32)
    return np.asarray(areas.reshape(n, THUMB * THUMB, 3), np.float32)


def reader() -> TruthReader:
    """The reader of the corpus that SVP_TRUTH names. Raises ConfigError when it names none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise ConfigError(f"set {VARIABLE} to the folder of the corpus whose films are prepared")
    return TruthReader(Path(folder))
