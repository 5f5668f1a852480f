"""Style presets that users upload, checked in full and bounded before anything keeps them.

In: bytes of strangers. Out: the name of a preset that sessions can choose; `PresetError` says what is wrong.
Remembers: at most `MOST` presets, in memory only; the least recently used one goes.

A preset is read as `svp_stream.style.archive` reads: nothing is unpickled, sizes are checked before memory is taken (a
zip that claims little and inflates to much is cut off). Its name comes from its content: the same file has the same
name, nobody can take the name of another style, and who does not have the file cannot guess it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request

from server.whip import WhipError
from svp_stream.errors import PresetError
from svp_stream.pipeline.build import Shelf
from svp_stream.style.archive import MAX_FILE_BYTES
from svp_stream.style.preset import StylePreset, parse_preset

PRESET_TYPES: Final = ("application/zip", "application/x-npz", "application/octet-stream")
PREFIX: Final = "upload-"
MOST: Final = 32
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
