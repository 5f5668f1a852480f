"""Reading `.npz` files that strangers made.

What it is: the `.npz` format (a zip of `.npy`, NEP 1) read without trust. Nothing is unpickled; every size is checked
before memory is taken, where numpy's own reader allocates what a header claims; names are plain.

In: bytes of a file. Out: a dict of numpy arrays. Each fault is a ValueError that says which member is wrong and how.
"""

from __future__ import annotations

import ast
import io
import math
import re
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_FILE_BYTES = 1 << 20
MAX_UNPACKED_BYTES = 4 << 20
MAX_MEMBERS = 64
_MAX_HEADER_BYTES = 4096
_TYPE = re.compile(r"[<>=|]?[biufcU][0-9]{1,6}")
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, UnicodeError)


def unpack(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays in an `.npz`; raises ValueError for anything but a small, plain, whole one."""
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"the file has more than {MAX_FILE_BYTES} bytes")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (*_ZIP_FAULTS, ValueError) as e:
        raise ValueError(f"not an .npz file ({e})") from e
    with archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise ValueError(f"{len(members)} members; at most {MAX_MEMBERS} are allowed")
        arrays: dict[str, NDArray[Any]] = {}
        left = MAX_UNPACKED_BYTES
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # The other methods inflate a block of any size at once.
                raise ValueError(f"member {member.filename!r} is neither stored nor deflated")
            name = member.filename.removesuffix(".npy")
            if name == member.filename or not name.isidentifier():
                raise ValueError(f"member {member.filename!r} is not named like an array, <key>.npy")
            if name in arrays:
                raise ValueError(f"key '{name}' is there twice")
            raw = _read(archive, member, left)
            left -= len(raw)
            arrays[name] = _parse(name, raw)
    return arrays


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, left: int) -> bytes:
    """Inflate at most `left` bytes, whatever the directory claims."""
    try:
        with archive.open(member) as f:
            raw = f.read(left + 1)
    except (*_ZIP_FAULTS, ValueError) as e:
        raise ValueError(f"member {member.filename!r} is damaged ({e})") from e
    if len(raw) > left:
        raise ValueError(f"unpacked, the arrays have more than {MAX_UNPACKED_BYTES} bytes")
    return raw


def _parse(name: str, raw: bytes) -> NDArray[Any]:
    """One `.npy`, versions 1 to 3 of numpy.lib.format, whose header must describe exactly the bytes that follow."""
    if raw[:6] != b"\x93NUMPY" or len(raw) < 12 or raw[6] not in (1, 2, 3):
        raise ValueError(f"key '{name}' is not a .npy array of version 1 to 3")
    start = 10 if raw[6] == 1 else 12
    size = int.from_bytes(raw[8:start], "little")
    if size > _MAX_HEADER_BYTES or start + size > len(raw):
        raise ValueError(f"key '{name}' has a header of {size} bytes, which does not fit")
    dtype, shape, fortran = _header(name, raw[start : start + size])
    body = raw[start + size :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"key '{name}' claims {dtype} {shape} but holds {len(body)} bytes")
    # A copy, so that the array owns aligned, writable memory.
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C").copy()


def _header(name: str, text: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    try:
        fields = ast.literal_eval(text.decode("utf-8").strip())
        descr, shape, fortran = fields["descr"], fields["shape"], fields["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, MemoryError, RecursionError) as e:
        raise ValueError(f"key '{name}' has a header that cannot be read") from e
    dtype = _dtype(name, descr)
    plain = isinstance(shape, tuple) and all(type(n) is int and 0 <= n <= MAX_UNPACKED_BYTES for n in shape)
    if not plain or len(shape) > 8 or not isinstance(fortran, bool):
        raise ValueError(f"key '{name}' has shape {shape!r}; a short tuple of small integers is wanted")
    return dtype, shape, fortran


def _dtype(name: str, descr: object) -> np.dtype[Any]:
    """Numbers and text only: what a header may name without running or allocating anything."""
    try:
        if isinstance(descr, str) and _TYPE.fullmatch(descr) and np.dtype(descr).itemsize:
            return np.dtype(descr)
    except TypeError:
        pass
    raise ValueError(f"key '{name}' has type {str(descr)[:40]!r}; only numbers and text are read")
