"""What users upload: style presets and pictures, checked in full and bounded before anything keeps them.

In: bytes of strangers. Out: the name of a preset that sessions can choose, an RGB picture; `PresetError` and
`MediaError` say what is wrong. Remembers: at most `MOST` presets, in memory only; the least recently used one goes.

A preset is read as `svp_stream.style.archive` reads: nothing is unpickled, sizes are checked before memory is taken (a
zip that claims little and inflates to much is cut off). Its name comes from its content: the same file has the same
name, nobody can take the name of another style, and who does not have the file cannot guess it.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Header, Request
from PIL import Image, UnidentifiedImageError

from server.whip import WhipError
from svp_stream.errors import MediaError, PresetError
from svp_stream.packets import Bytes
from svp_stream.pipeline.build import Shelf
from svp_stream.style.archive import MAX_FILE_BYTES
from svp_stream.style.preset import StylePreset, parse_preset

PRESET_TYPES: Final = ("application/zip", "application/x-npz", "application/octet-stream")
PREFIX: Final = "upload-"
MOST: Final = 32
MAX_PICTURE_BYTES: Final = 4 << 20
MAX_PICTURE_PIXELS: Final = 4096 * 2304
PICTURE_KINDS: Final = ("PNG", "JPEG", "WEBP")
ReadBody = Callable[[Request, int], Awaitable[bytes]]


class UploadShelf:
    """A shelf with what was uploaded on top; uploads are found by name and stand on no list."""

    def __init__(self, shelf: Shelf, prior: str | None, dim: int, most: int = MOST) -> None:
        self._shelf = shelf
        self._prior, self._dim, self._most = prior, dim, most
        self._kept: OrderedDict[str, StylePreset] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def names(self) -> tuple[str, ...]:
        """The styles on the shelf below."""
        return self._shelf.names()

    def get(self, name: str) -> StylePreset:
        """An upload, or the preset of the shelf below; raises `PresetError`."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        if name.startswith(PREFIX):
            raise PresetError(f"unknown style {name[:80]!r}: it was never uploaded here, or others took its place")
        return self._shelf.get(name)

    def add(self, data: bytes) -> str:
        """Checks the bytes of an .npz and keeps the preset; the name to choose it by. Raises `PresetError`."""
        preset = parse_preset(data, "the upload", prior=self._prior, dim=self._dim)
        name = PREFIX + hashlib.sha256(data).hexdigest()[:32]
        self._kept[name] = replace(preset, extra={})
        self._kept.move_to_end(name)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return name


def read_picture(data: bytes) -> Bytes:
    """PNG, JPEG or WebP as uint8 [H, W, 3]; its first frame where it moves, over black where it is transparent.

    Raises `MediaError` for anything else, for over 4 MiB and for over 9 million pixels; nothing is decoded before the
    size in its header is known to be taken.
    """
    if len(data) > MAX_PICTURE_BYTES:
        raise MediaError(f"the picture has {len(data)} bytes; at most {MAX_PICTURE_BYTES} are taken")
    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_KINDS) as picture:
            width, height = picture.size
            if width * height > MAX_PICTURE_PIXELS:
                raise MediaError(f"the picture has {width} x {height} pixels; at most {MAX_PICTURE_PIXELS} are taken")
            return _rgb(picture)
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(f"the picture is none of {', '.join(PICTURE_KINDS)}") from error
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever damaged bytes lead them to
        raise MediaError(f"the picture is damaged: {type(error).__name__}") from error


def _rgb(picture: Image.Image) -> Bytes:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    return np.array(picture.convert("RGB"), np.uint8)


def router(shelf: UploadShelf, read_body: ReadBody) -> APIRouter:
    """`POST` (or `PUT`) `/v1/styles`: the bytes of an .npz; 201 with the name to choose it by."""
    routes = APIRouter(prefix="/v1/styles")

    async def upload(request: Request, content_type: Annotated[str | None, Header()] = None) -> dict[str, Any]:
        kind = (content_type or "").split(";", 1)[0].strip().lower()
        if kind not in PRESET_TYPES:
            raise WhipError(415, f"Content-Type is {kind or 'missing'}; a preset comes as {' or '.join(PRESET_TYPES)}")
        name = shelf.add(await read_body(request, MAX_FILE_BYTES))
        preset = shelf.get(name)
        return {
            "name": name, "title": preset.name, "description": preset.description,
            "strength": preset.strength, "temperature": preset.temperature,
        }  # fmt: skip

    routes.add_api_route("", upload, methods=["POST", "PUT"], status_code=201)
    return routes
