"""What stands behind the person: a colour, or a picture that people upload, checked and bounded before it is decoded.

In: `#rrggbb`, the bytes of a picture, the path of one. Out: `Background`, cut to any size so that it covers it.
Remembers: the cuts of the last sizes. Errors: `MediaError` for pictures, `ConfigError` for words of a profile.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from svp_stream.errors import ConfigError, MediaError
from svp_stream.packets import Bytes

MAX_PICTURE_BYTES: Final = 8 * 1024 * 1024
MAX_PICTURE_SIDE: Final = 4096
FORMATS: Final = ("PNG", "JPEG", "WEBP")
KEPT_CUTS: Final = 4
KEPT_SIDE: Final = 2048
"""A larger picture is kept at this longer side: more than any stream shows."""

_COLOUR: Final = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class Background:
    """A colour (`rgb`), or a `picture` uint8 [H, W, 3]. Any thread may use it."""

    rgb: tuple[int, int, int] = (0, 0, 0)
    picture: Bytes | None = None
    _cuts: dict[tuple[int, int], Bytes] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_colour(cls, text: str) -> Background:
        """`#rrggbb`; raises `MediaError` for anything else."""
        if not _COLOUR.fullmatch(text):
            raise MediaError(f"a colour is written #rrggbb, such as #00ff00, got {text[:40]!r}")
        return cls((int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)))

    @classmethod
    def of_picture(cls, data: bytes, where: str = "the background") -> Background:
        """The bytes of a PNG, JPEG or WebP picture (of a moving one the first frame); raises `MediaError`.

        Size and kind are checked before anything is decoded. `where` begins the message.
        """
        return cls(picture=_decoded(data, where))

    @property
    def told(self) -> str:
        """As an event says it: the colour, or `picture`."""
        return "picture" if self.picture is not None else "#{:02x}{:02x}{:02x}".format(*self.rgb)

    def cover(self, height: int, width: int) -> Bytes:
        """uint8 [height, width, 3], read-only: the colour, or the middle of the picture, as large as it can be."""
        cut = self._cuts.get((height, width))
        if cut is None:
            cut = self._cut(height, width)
            cut.setflags(write=False)
            while len(self._cuts) >= KEPT_CUTS:
                self._cuts.pop(next(iter(self._cuts)), None)
            self._cuts[height, width] = cut
        return cut

    def _cut(self, height: int, width: int) -> Bytes:
        if self.picture is None:
            return np.full((height, width, 3), self.rgb, np.uint8)
        image = Image.fromarray(self.picture)
        return np.array(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))


def background_of(value: str | None, folder: Path) -> Background | None:
    """The background that a profile names: null, `#rrggbb`, or the path of a picture, relative to `folder`.

    Raises `ConfigError` that says what is wrong with it.
    """
    if value is None:
        return None
    try:
        if value.startswith("#"):
            return Background.of_colour(value)
        path = folder / value
        with path.open("rb") as file:
            data = file.read(MAX_PICTURE_BYTES + 1)
        return Background.of_picture(data, str(path))
    except OSError as error:
        raise ConfigError(
            f"media.background: {value!r} is neither a colour (#rrggbb) nor a picture that can be read "
            f"({error.strerror})"
        ) from error
    except MediaError as error:
        raise ConfigError(f"media.background: {error}") from error


def _decoded(data: bytes, where: str) -> Bytes:
    """uint8 [H, W, 3], transparent parts over black, turned as its EXIF says; raises `MediaError`."""
    if len(data) > MAX_PICTURE_BYTES:
        raise MediaError(f"{where}: the picture has more than {MAX_PICTURE_BYTES // 1024 // 1024} MiB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.size, where)
                image.draft("RGB", (KEPT_SIDE, KEPT_SIDE))
                image.thumbnail((KEPT_SIDE, KEPT_SIDE))
                upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{where}: the picture is too large ({error})") from error
    except UnidentifiedImageError as error:
        raise MediaError(f"{where}: this is no PNG, JPEG or WebP picture") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, IndexError, TypeError, KeyError) as error:
        # what Pillow's decoders raise for files that are cut off or made to harm
        raise MediaError(f"{where}: the picture is damaged ({type(error).__name__})") from error
    ground = Image.new("RGBA", upright.size, (0, 0, 0, 255))
    return np.array(Image.alpha_composite(ground, upright).convert("RGB"))


def _check_size(size: tuple[int, int], where: str) -> None:
    width, height = size
    if max(size) > MAX_PICTURE_SIDE:
        raise MediaError(f"{where}: {width}x{height} pixels; a side has at most {MAX_PICTURE_SIDE}")
    if min(size) < 1:
        raise MediaError(f"{where}: the picture has no pixels")
