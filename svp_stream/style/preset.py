"""The style preset: one speaking style in a file that people exchange.

`.npz`, version 1: `format` = 1, `name`, `mu` float32 [D], `log_var` float32 [D], `prior` (hash of the style prior that
it belongs to), optional `description`, `temperature`, `strength`, `thumbnail` uint8 [64, 64, 3]. Unknown keys are kept.
Files are read as `archive` does and checked in full; a fault is a PresetError with file, key, expected and found.

Remembers: `StyleShelf` the presets of its folder until their files change.
"""

from __future__ import annotations

import difflib
import io
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from svp_stream.errors import PresetError
from svp_stream.packets import Bytes, Float32
from svp_stream.style.archive import MAX_FILE_BYTES, unpack

FORMAT = 1
THUMBNAIL_SHAPE = (64, 64, 3)
MAX_TEMPERATURE = 2.0
MAX_STRENGTH = 2.0
MAX_LOG_VAR = 20.0
MAX_NAME = 80
MAX_TEXT = 2000
_LISTED = 40
_KNOWN = ("format", "name", "mu", "log_var", "prior", "description", "temperature", "strength", "thumbnail")


@dataclass(frozen=True, slots=True, eq=False)
class StylePreset:
    """`mu`, `log_var` float32 [D] of N(mu, exp(log_var)); `prior` the hash of the style prior; `temperature` in [0, 2]
    and `strength` in [0, 2] are where the controls start; `thumbnail` uint8 [64, 64, 3] or None; `extra` other keys."""

    name: str
    mu: Float32
    log_var: Float32
    prior: str
    description: str = ""
    temperature: float = 0.0
    strength: float = 1.0
    thumbnail: Bytes | None = None
    extra: Mapping[str, NDArray[Any]] = field(default_factory=lambda: MappingProxyType({}))


def load_preset(path: Path | str, *, prior: str | None = None, dim: int | None = None) -> StylePreset:
    """Read and check a preset; `prior` and `dim` are what the model at hand wants (None accepts any).

    Raises PresetError when the file is missing, over 1 MiB, damaged, malformed or made for another style prior.
    """
    path = Path(path)
    try:
        with path.open("rb") as f:
            data = f.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise PresetError(f"{path}: cannot be read ({e.strerror}); a style preset is an .npz file") from e
    return parse_preset(data, str(path), prior=prior, dim=dim)


def parse_preset(data: bytes, where: str, *, prior: str | None = None, dim: int | None = None) -> StylePreset:
    """The same from the bytes of a file; `where` begins every message of the PresetError."""
    try:
        arrays = unpack(data)
    except ValueError as e:
        raise PresetError(f"{where}: {e}; expected a style preset of at most {MAX_FILE_BYTES} bytes") from e
    return _Reader(where, arrays).preset(prior, dim)


def save_preset(path: Path | str, preset: StylePreset) -> None:
    """Write a preset so that a reader sees the old file or the new one; equal presets give equal bytes.

    Raises PresetError when the preset would not load again.
    """
    path = Path(path)
    arrays = _arrays(preset)
    _Reader(str(path), arrays).preset(None, None)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    data = buffer.getvalue()
    try:
        unpack(data)
    except ValueError as e:
        raise PresetError(f"{path}: {e}; leave out extra keys") from e
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as f:
            # Presets are for sharing; a temporary file is private.
            os.fchmod(handle, 0o644)
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


class StyleShelf:
    """The presets of a folder, by file stem, all of one style prior.

    Names come from strangers on the wire, so that they only ever choose among the files of the folder; `allow_paths`
    is for command lines, where the person who asks may read any file anyway.
    """

    def __init__(self, folder: Path | str, prior: str | None = None, dim: int | None = None, *,
                 allow_paths: bool = False) -> None:
        self._folder = Path(folder)
        self._prior, self._dim, self._allow_paths = prior, dim, allow_paths
        self._cache: dict[str, tuple[tuple[int, int], StylePreset]] = {}

    def names(self) -> tuple[str, ...]:
        """What there is, sorted; empty when the folder is missing."""
        return tuple(sorted(p.stem for p in self._folder.glob("*.npz") if not p.name.startswith(".")))

    def get(self, name: str) -> StylePreset:
        """The preset of that name (or at that path); raises PresetError, which for an unknown name lists the known."""
        names = self.names()
        if name in names:
            return self._load(name)
        if self._allow_paths and name.endswith(".npz"):
            return load_preset(name, prior=self._prior, dim=self._dim)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        known = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "") or "none"
        raise PresetError(f"unknown style {name[:MAX_NAME]!r}; {hint}{self._folder} has: {known}")

    def _load(self, name: str) -> StylePreset:
        path = self._folder / f"{name}.npz"
        try:
            stat = path.stat()
        except OSError as e:
            raise PresetError(f"{path}: cannot be read ({e.strerror})") from e
        stamp = (stat.st_mtime_ns, stat.st_size)
        known = self._cache.get(name)
        if known is None or known[0] != stamp:
            known = stamp, load_preset(path, prior=self._prior, dim=self._dim)
            self._cache = {n: c for n, c in self._cache.items() if n in self.names()} | {name: known}
        return known[1]


def _arrays(preset: StylePreset) -> dict[str, NDArray[Any]]:
    clash = sorted(set(preset.extra) & set(_KNOWN))
    if clash:
        raise PresetError(f"preset '{preset.name}': extra keys {clash} are taken; give them other names")
    arrays: dict[str, NDArray[Any]] = {
        "format": np.asarray(FORMAT), "name": np.asarray(preset.name), "mu": preset.mu, "log_var": preset.log_var,
        "prior": np.asarray(preset.prior), "description": np.asarray(preset.description),
        "temperature": np.asarray(preset.temperature, dtype=np.float64),
        "strength": np.asarray(preset.strength, dtype=np.float64),
    }
    if preset.thumbnail is not None:
        arrays["thumbnail"] = preset.thumbnail
    return arrays | dict(preset.extra)


class _Reader:
    """Checks one file's arrays key by key."""

    def __init__(self, where: str, arrays: dict[str, NDArray[Any]]) -> None:
        self._where, self._arrays = where, arrays

    def preset(self, prior: str | None, dim: int | None) -> StylePreset:
        version = self._number("format", float("-inf"), float("inf"), None)
        if version != FORMAT:
            self._fail("format", f"{FORMAT}; a file of a later version needs a later program", f"{version:g}")
        # Before its numbers: another prior may well have another number of them.
        own = self._text("prior", MAX_NAME, None)
        if prior is not None and own != prior:
            self._fail("prior", f"'{prior}', the style prior of this model; make the preset again from its clip, "
                                "or take one of those that came with the model", own)
        mu = self._vector("mu", dim)
        log_var = self._vector("log_var", len(mu))
        if np.abs(log_var).max() > MAX_LOG_VAR:
            self._fail("log_var", f"values within +-{MAX_LOG_VAR:g}", f"{np.abs(log_var).max():g}")
        return StylePreset(
            self._text("name", MAX_NAME, None), mu, log_var, own, self._text("description", MAX_TEXT, ""),
            self._number("temperature", 0.0, MAX_TEMPERATURE, 0.0), self._number("strength", 0.0, MAX_STRENGTH, 1.0),
            self._thumbnail(), MappingProxyType({k: v for k, v in self._arrays.items() if k not in _KNOWN}),
        )

    def _fail(self, key: str, expected: str, found: str) -> NoReturn:
        raise PresetError(f"{self._where}: key '{key}': expected {expected}; found {found}")

    def _get(self, key: str) -> NDArray[Any]:
        if key not in self._arrays:
            self._fail(key, "this key", "only " + ", ".join(sorted(self._arrays)[:16]))
        return self._arrays[key]

    def _vector(self, key: str, dim: int | None) -> Float32:
        v = self._get(key)
        wanted = f"float32 [{'D' if dim is None else dim}]"
        if v.dtype != np.float32 or v.ndim != 1 or not len(v) or len(v) != (dim or len(v)):
            self._fail(key, wanted, f"{v.dtype} {list(v.shape)}")
        if not np.isfinite(v).all():
            self._fail(key, "finite numbers", f"{int((~np.isfinite(v)).sum())} that are NaN or infinite")
        return v

    def _number(self, key: str, low: float, high: float, default: float | None) -> float:
        if default is not None and key not in self._arrays:
            return default
        v = self._get(key)
        if v.ndim or v.dtype.kind not in "iuf":
            self._fail(key, "one number", f"{v.dtype} {list(v.shape)}")
        if not low <= float(v) <= high:
            self._fail(key, f"{low:g} to {high:g}", f"{float(v):g}")
        return float(v)

    def _text(self, key: str, longest: int, default: str | None) -> str:
        if default is not None and key not in self._arrays:
            return default
        v = self._get(key)
        if v.ndim or v.dtype.kind != "U":
            self._fail(key, "text", f"{v.dtype} {list(v.shape)}")
        try:
            text = str(v)
        except ValueError:
            self._fail(key, "text", "code points beyond Unicode")
        if len(text) > longest or not all(c.isprintable() or (c == "\n" and longest == MAX_TEXT) for c in text):
            self._fail(key, f"at most {longest} printable characters", repr(text[:longest]))
        if default is None and not text.strip():
            self._fail(key, "text", "an empty string")
        return text

    def _thumbnail(self) -> Bytes | None:
        v = self._arrays.get("thumbnail")
        if v is not None and (v.dtype != np.uint8 or v.shape != THUMBNAIL_SHAPE):
            self._fail("thumbnail", f"uint8 {list(THUMBNAIL_SHAPE)}", f"{v.dtype} {list(v.shape)}")
        return v
