"""What the lists of `/v1` say about a style, an avatar, a session.

In: the studio, a session. Out: plain mappings for JSON. Remembers: nothing. Thumbnails are small PNG data URLs.
A style says where it belongs among those listed: `family` is the name that its intensities share, `intensity` is
`soft`, `medium` or `strong`, or null for a style that is alone in its family (`family` then is its name).
"""

from __future__ import annotations

import base64
import io
import logging
import time
from typing import Any

from PIL import Image

from server.live import Live
from server.studio import Studio
from svp_stream.errors import PresetError
from svp_stream.packets import Bytes
from svp_stream.style.family import kinships

logger = logging.getLogger(__name__)


def data_url(rgb: Bytes) -> str:
    """uint8 [H, W, 3] as a PNG in a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def style_marks(studio: Studio) -> list[dict[str, Any]]:
    """Every style that can be used; a malformed file is left out and logged."""
    presets = {}
    for name in studio.style_names():
        try:
            presets[name] = studio.preset(name)
        except PresetError as error:
            logger.warning("not on the list of styles: %s", error)
    kin = kinships(presets)
    return [
        {
            "name": name, "title": preset.name, "description": preset.description,
            "family": kin[name].family, "intensity": kin[name].intensity,
            "strength": preset.strength, "temperature": preset.temperature,
            "thumbnail": data_url(preset.thumbnail) if preset.thumbnail is not None else None,
        }  # fmt: skip
        for name, preset in presets.items()
    ]


def avatar_marks(studio: Studio) -> list[dict[str, Any]]:
    """Who can be shown."""
    return [{"name": name} for name in studio.avatars]


def session_marks(live: Live) -> dict[str, Any]:
    """One session; the secrets of its connections are not shown."""
    return {
        "id": live.id,
        "state": live.state,
        "seconds": round(time.time() - live.since_s, 1),
        "speaking": live.desk.speaking,
        "source": live.source.kind if live.source is not None else None,
        "connections": live.connections,
        **live.desk.manner.told(),
        "stats": live.report.last,
    }
