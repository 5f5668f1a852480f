"""Reads one baked head: `<name>.npz` with its WebP textures, checked key by key.

In: a folder and a name. Out: `HeadFile`, plain arrays. Remembers: nothing.

Every fault is a `MediaError` that names the file and the key.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_matrix

from svp_stream.errors import MediaError
from svp_stream.packets import Bytes, Float32

JOINTS: Final = ("neck", "head", "LeftEye", "RightEye")


class Kind(IntEnum):
    """The material of a part."""

    SKIN = 0
    EYE = 1
    TEETH = 2
    HAIR = 3
    CLOTH = 4


@dataclass(frozen=True, eq=False)
class PartFile:
    """One mesh: positions [V, 3] (metres), uv [V, 2], triangles [F, 3], occlusion [V] in [0, 1] (1 open), weights
    [V, 2] (head, neck), `morphs` sparse [3V, T] in metres for the `HeadFile.targets` (None: stiff), its texture
    [H, W, 4] and its look."""

    name: str
    kind: Kind
    positions: Float32
    uv: Float32
    triangles: NDArray[np.int32]
    occlusion: Float32
    weights: Float32
    morphs: Any
    texture: Bytes
    normal_map: Bytes | None
    bump: float
    cutoff: float
    tint: tuple[float, float, float]
    gloss: float
    saturation: float
    cull: bool
    casts: bool


@dataclass(frozen=True, eq=False)
class HeadFile:
    """A head as stored: joints (metres), names of the morph targets, parts."""

    name: str
    joints: dict[str, Float32]
    targets: tuple[str, ...]
    parts: tuple[PartFile, ...]


def heads(folder: Path) -> list[str]:
    """Names of the heads in `folder`, sorted."""
    return sorted(p.stem for p in folder.glob("*.npz"))


def read_head(folder: Path, name: str) -> HeadFile:
    """Read head `name` from `folder`.

    Raises:
        MediaError: the file, a key or a texture is missing or malformed; names it and, for an unknown name, the heads
            there are.
    """
    path = folder / f"{name}.npz"
    if not path.is_file():
        there = ", ".join(heads(folder)) or "none"
        raise MediaError(f"no head '{name}' in {folder}: expected {path.name}; heads there: {there}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _Reader(path, {k: archive[k] for k in archive.files}).head()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise MediaError(f"{path}: not a readable head archive (.npz with arrays): {error}") from error


class _Reader:
    """Walks the arrays of one archive; each texture file is decoded once."""

    def __init__(self, path: Path, arrays: dict[str, NDArray[Any]]) -> None:
        self._path = path
        self._arrays = arrays
        self._textures: dict[str, Bytes] = {}

    def head(self) -> HeadFile:
        meta = self._meta()
        targets = tuple(str(t) for t in self._field(meta, "targets", list))
        stored = self._field(meta, "joints", dict)
        joints = {}
        for joint in JOINTS:
            joints[joint] = np.asarray(self._field(stored, joint, list, "meta.joints"), np.float32)
            if joints[joint].shape != (3,):
                raise self._bad(f"meta.joints.{joint}", "three numbers (metres)")
        parts = tuple(self._part(i, p, len(targets)) for i, p in enumerate(self._field(meta, "parts", list)))
        if not parts:
            raise self._bad("meta.parts", "at least one part")
        return HeadFile(self._path.stem, joints, targets, parts)

    def _bad(self, key: str, expected: str) -> MediaError:
        return MediaError(f"{self._path}: key '{key}': expected {expected}")

    def _meta(self) -> dict[str, Any]:
        try:
            meta = json.loads(str(self._array("meta", 0)))
        except json.JSONDecodeError as error:
            raise self._bad("meta", f"JSON text ({error})") from error
        if not isinstance(meta, dict):
            raise self._bad("meta", "a JSON object")
        return meta

    def _field(self, record: dict[str, Any], key: str, kind: type, where: str = "meta") -> Any:
        value = record.get(key)
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind):
            raise self._bad(f"{where}.{key}", f"a {kind.__name__}")
        return value

    def _array(self, key: str, dimensions: int) -> NDArray[Any]:
        if key not in self._arrays:
            raise self._bad(key, "an array, but it is missing")
        array = self._arrays[key]
        if array.ndim != dimensions:
            raise self._bad(key, f"{dimensions} dimensions, found shape {array.shape}")
        return array

    def _texture(self, file: Any, key: str) -> Bytes:
        if not isinstance(file, str) or Path(file).name != file:
            raise self._bad(key, "the name of a texture file beside the archive")
        if file not in self._textures:
            path = self._path.with_name(file)
            try:
                with Image.open(path) as image:
                    self._textures[file] = np.asarray(image.convert("RGBA"))
            except OSError as error:
                raise MediaError(f"{path}: texture of {self._path.name} ({key}) cannot be read: {error}") from error
        return self._textures[file]

    def _part(self, i: int, record: Any, targets: int) -> PartFile:
        where = f"meta.parts[{i}]"
        if not isinstance(record, dict):
            raise self._bad(where, "a JSON object")
        positions = self._array(f"p{i}_pos", 2).astype(np.float32)
        count = len(positions)
        triangles = self._array(f"p{i}_idx", 2).astype(np.int32)
        if triangles.shape[1:] != (3,) or (triangles.size and not 0 <= triangles.min() <= triangles.max() < count):
            raise self._bad(f"p{i}_idx", f"triangles [F, 3] of vertex numbers below {count}")
        if positions.shape[1:] != (3,):
            raise self._bad(f"p{i}_pos", "positions [V, 3]")
        each = {k: self._array(f"p{i}_{k}", 2 if k == "uv" else 1) for k in ("uv", "ao", "hw", "nw")}
        for k, a in each.items():
            if len(a) != count:
                raise self._bad(f"p{i}_{k}", f"one row for each of {count} vertices, found {len(a)}")
        kind = self._field(record, "kind", int, where)
        tint = self._field(record, "tint", list, where)
        if kind not in set(Kind) or len(tint) != 3:
            raise self._bad(f"{where}.kind, .tint", f"a kind of {[int(k) for k in Kind]} and three colours")
        relief = record.get("nm")
        return PartFile(
            name=self._field(record, "name", str, where), kind=Kind(kind), positions=positions,
            uv=each["uv"].astype(np.float32), triangles=triangles, occlusion=each["ao"].astype(np.float32) / 255.0,
            weights=np.stack([each["hw"], each["nw"]], 1).astype(np.float32), morphs=self._morphs(i, count, targets),
            texture=self._texture(record.get("tex"), f"{where}.tex"),
            normal_map=None if relief is None else self._texture(relief, f"{where}.nm"),
            bump=self._field(record, "nms", float, where), cutoff=self._field(record, "cut", float, where),
            tint=(float(tint[0]), float(tint[1]), float(tint[2])), gloss=self._field(record, "gloss", float, where),
            saturation=self._field(record, "sat", float, where), cull=bool(record.get("cull")),
            casts=bool(record.get("cast")))

    def _morphs(self, i: int, count: int, targets: int) -> Any:
        """Sparse [3V, T] in metres, from runs of (vertex, delta in mm) for each stored target."""
        numbers, starts = self._array(f"p{i}_mt", 1).astype(np.int64), self._array(f"p{i}_mo", 1).astype(np.int64)
        vertices, deltas = self._array(f"p{i}_mi", 1).astype(np.int64), self._array(f"p{i}_md", 2)
        if not len(numbers):
            return None
        if len(starts) != len(numbers) + 1 or starts[-1] != len(vertices) or deltas.shape != (len(vertices), 3):
            raise self._bad(f"p{i}_mo", "one start for each target and the end of p*_mi, p*_md")
        if numbers.max() >= targets or (len(vertices) and vertices.max() >= count):
            raise self._bad(f"p{i}_mt, p{i}_mi", f"targets below {targets} and vertices below {count}")
        columns = np.repeat(np.repeat(numbers, np.diff(starts)), 3)
        rows = (vertices[:, None] * 3 + np.arange(3)).ravel()
        metres = (deltas.astype(np.float32) / 1000.0).ravel()
        return csr_matrix((metres, (rows, columns)), shape=(3 * count, targets), dtype=np.float32)
