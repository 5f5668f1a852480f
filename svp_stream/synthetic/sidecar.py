"""The sidecar: all that is known about a clip besides its picture, as one `.npz`.

What it is: the format (version 1) that the corpus maker writes, that real video is prepared to, and that training
reads. Frame n shows the instant (n + 0.5) / 25 s; T frames are accompanied by exactly T * 640 samples at 16 kHz.
Arrays are read one by one, on demand, with `allow_pickle=False`.

In: arrays, or a path. Out: a file that appears whole or not at all, or arrays checked against the table `SHAPES`.
Remembers: nothing.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from svp_stream.arkit import ARKIT
from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.errors import MediaError

FORMAT: Final = 1
SAMPLES_PER_FRAME: Final = MODEL_RATE_HZ // FRAME_RATE_HZ
POSE_DIM: Final = 9

SHAPES: Final[dict[str, tuple[str, tuple[int | str, ...]]]] = {
    "expression": ("float32", ("T", len(ARKIT))),
    "pose": ("float32", ("T", POSE_DIM)),
    "stress": ("float32", ("T",)),
    "landmarks": ("float32", ("T", "L", 2)),
    "kps": ("float32", ("T", 3, 2)),
    "audio": ("int16", ("N",)),
    "style_vector": ("float32", ("P",)),
    "manner": ("float32", ("M",)),
}
"""Type and shape of each array; T is the number of frames, N is T * 640. `landmarks` and `kps` come with a picture."""

PICTURE_KEYS: Final = ("landmarks", "kps")


@dataclass(frozen=True, slots=True)
class Sound:
    """A phoneme as stored: ARPAbet `symbol` in lower case, seconds, stress 0 to 2."""

    symbol: str
    start_s: float
    end_s: float
    stress: int


def write(path: Path, arrays: Mapping[str, NDArray[Any]], words: Mapping[str, str], seed: int,
          phonemes: tuple[Sound, ...]) -> None:
    """Write a sidecar whole or not at all. `words` has style, voice, text, avatar ('' without picture) and split.

    Raises MediaError when an array is not as `SHAPES` says.
    """
    frames = len(arrays["expression"])
    for key, array in arrays.items():
        _check(path, key, array, frames)
    spoken = json.dumps([[p.symbol, round(p.start_s, 5), round(p.end_s, 5), p.stress] for p in phonemes])
    content: dict[str, Any] = {**arrays, **words, "phonemes": spoken, "format": FORMAT, "fps": FRAME_RATE_HZ,
                               "seed": seed}
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, **content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class Sidecar:
    """An open sidecar: `words` read at once, arrays on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = _read(path, ("format", "fps", "style", "voice", "text", "avatar", "split", "seed"))
        version, rate = int(found["format"]), int(found["fps"])
        if version != FORMAT:
            raise MediaError(f"{path}: key 'format': expected {FORMAT}, found {version}")
        if rate != FRAME_RATE_HZ:
            raise MediaError(f"{path}: key 'fps': expected {FRAME_RATE_HZ}, found {rate}")
        self.style, self.voice, self.text, self.avatar, self.split = (
            str(found[k]) for k in ("style", "voice", "text", "avatar", "split"))
        self.seed = int(found["seed"])

    def array(self, key: str) -> NDArray[Any]:
        """The array `key` of `SHAPES`. Raises MediaError that names file, key, expected and found."""
        array = _read(self.path, (key,))[key]
        return _check(self.path, key, array, None)

    def phonemes(self) -> tuple[Sound, ...]:
        """What is said, in order of time."""
        text = str(_read(self.path, ("phonemes",))["phonemes"])
        try:
            return tuple(Sound(str(s), float(a), float(b), int(k)) for s, a, b, k in json.loads(text))
        except (TypeError, ValueError) as odd:
            raise MediaError(f"{self.path}: key 'phonemes': expected JSON rows of symbol, start, end, stress") from odd


def _read(path: Path, keys: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [k for k in keys if k not in archive.files]
            if missing:
                raise MediaError(f"{path}: key '{missing[0]}' is missing; a sidecar of format {FORMAT} has it")
            return {k: archive[k] for k in keys}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MediaError(f"{path}: not a readable sidecar (.npz with arrays): {error}") from error


def _check(path: Path, key: str, array: NDArray[Any], frames: int | None) -> NDArray[Any]:
    if key not in SHAPES:
        raise MediaError(f"{path}: key '{key}': expected one of {', '.join(SHAPES)}")
    dtype, shape = SHAPES[key]
    known = {} if frames is None else {"T": frames, "N": frames * SAMPLES_PER_FRAME}
    wanted = tuple(known.get(n, n) if isinstance(n, str) else n for n in shape)
    fits = len(wanted) == array.ndim and all(isinstance(w, str) or w == n
                                             for w, n in zip(wanted, array.shape, strict=True))
    if array.dtype != np.dtype(dtype) or not fits:
        raise MediaError(f"{path}: key '{key}': expected {dtype} {list(wanted)}, found {array.dtype} "
                         f"{list(array.shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MediaError(f"{path}: key '{key}': holds numbers that are not finite")
    return array
