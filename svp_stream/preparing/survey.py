"""The first pass over a video: what every picture shows, in numbers.

In: a path and a `FaceReader`. Out: a `Survey`, kept on disk so that a run that was cut off reads no picture twice.
Remembers: numbers only (about 550 bytes a frame: 50 MB an hour), never pictures.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from svp_stream.arkit import ARKIT
from svp_stream.errors import MediaError
from svp_stream.evaluation.face_reader import FaceReader, FaceReading, key_points
from svp_stream.packets import Bytes, Float32
from svp_stream.preparing.config import PrepareConfig
from svp_stream.preparing.decode import pictures
from svp_stream.preparing.shots import CutFinder
from svp_stream.synthetic.landmarks import LANDMARKS
from svp_stream.training.frames import face_boxes

logger = logging.getLogger(__name__)
FACE_SIDE: Final = 128


@dataclass(frozen=True)
class Survey:
    """T frames. `starts` int64 [S]: where shots begin; `found` bool [T]; the readings, 0 where there is no face;
    `sharpness` float32 [T] of the face; `size` int64 [2]: width and height of the upright picture."""

    starts: NDArray[np.int64]
    found: NDArray[np.bool_]
    expression: Float32
    angles: Float32
    landmarks: Float32
    sharpness: Float32
    size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.found)


def sharpness(rgb: Bytes, box: Float32) -> float:
    """Variance of the Laplacian (4 neighbours) of the luma of `box` (left, top, right, bottom), drawn to 128 x 128.

    Drawn to one size, so that a small face counts as the blurred one that it will be.
    """
    left, top, right, bottom = (float(v) for v in box)
    if right - left < 4 or bottom - top < 4:
        return 0.0
    face = Image.fromarray(rgb).resize((FACE_SIDE, FACE_SIDE), Image.Resampling.BILINEAR,
                                       box=(left, top, right, bottom))
    y = np.asarray(face.convert("L"), np.float32)
    bend = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    return float(bend.var())


def survey(path: Path, reader: FaceReader, config: PrepareConfig, advance: Callable[[int], None]) -> Survey:
    """Read the whole video; `advance` is told of each frame. Raises MediaError for an empty or damaged one."""
    finder = CutFinder(config.cut_least, config.cut_ratio)
    starts: list[int] = []
    readings: list[FaceReading | None] = []
    sharp: list[float] = []
    size = (0, 0)
    for number, rgb in enumerate(pictures(path)):
        size = (rgb.shape[1], rgb.shape[0])
        if finder.push(rgb):
            starts.append(number)
            reader.reset()
        reading = reader.read(rgb)
        readings.append(reading)
        sharp.append(0.0 if reading is None else sharpness(rgb, _face(reading, *size)))
        advance(1)
    if not readings:
        raise MediaError(f"{path}: holds no picture of 40 ms or more")
    return _stacked(starts, readings, sharp, size)


def _face(reading: FaceReading, width: int, height: int) -> Float32:
    box = face_boxes(key_points(reading.landmarks)[None], max(width, height))[0]
    return np.asarray(np.minimum(box, [width, height, width, height]), np.float32)


def _stacked(starts: list[int], readings: list[FaceReading | None], sharp: list[float],
             size: tuple[int, int]) -> Survey:
    def column(name: str, shape: tuple[int, ...]) -> Float32:
        empty = np.zeros(shape, np.float32)
        return np.stack([empty if r is None else getattr(r, name) for r in readings])

    return Survey(
        np.array(starts, np.int64), np.array([r is not None for r in readings]), column("expression", (len(ARKIT),)),
        column("angles", (3,)), column("landmarks", (len(LANDMARKS), 2)), np.array(sharp, np.float32),
        np.array(size, np.int64))


def keep(path: Path, made: Survey) -> None:
    """Write a survey whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    arrays: dict[str, Any] = {f.name: getattr(made, f.name) for f in fields(Survey)}
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)


def kept(path: Path) -> Survey | None:
    """The survey at `path`, or None when there is none that can be read."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as z:
            return Survey(**{f.name: z[f.name] for f in fields(Survey)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s: unreadable (%s); reading the video again", path, error)
        return None


def filled(values: Float32, found: NDArray[np.bool_]) -> Float32:
    """`values` [T, ...] with the frames that were not found drawn straight between their neighbours."""
    if found.all() or not found.any():
        return values
    at, known = np.arange(len(values)), np.flatnonzero(found)
    flat = values.reshape(len(values), -1)
    columns = [np.interp(at, known, flat[known, i]) for i in range(flat.shape[1])]
    return np.stack(columns, 1).reshape(values.shape).astype(np.float32)
