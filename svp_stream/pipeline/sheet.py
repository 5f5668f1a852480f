"""Pictures for people: a contact sheet (styles by moments) and a short moving picture, from one recording.

In: a recording and an engine. Out: a PNG whose rows are styles (avatars by turns) and whose columns are moments of the
same speech; an animated WebP that goes through some styles. Every frame comes from the very same session as live
speech. """

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

from svp_stream.audio.speech import SpeechRule
from svp_stream.audio.vad import Vad
from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS, WIRE_RATE_HZ
from svp_stream.packets import AudioChunk, Bytes, Float32
from svp_stream.pipeline.engine import Engine, StyleRequest
from svp_stream.pipeline.offline import open_sound
from svp_stream.pipeline.session import Session

MOST_SECONDS = 20


def read_speech(path: Path, seconds: float = MOST_SECONDS) -> Float32:
    """The first `seconds` of a recording, 48 kHz mono float32. Raises MediaError."""
    parts: list[Float32] = []
    wanted = int(seconds * WIRE_RATE_HZ)
    with open_sound(path) as sound:
        for chunk in sound.chunks(FRAME_TICKS):
            parts.append(chunk)
            if sum(map(len, parts)) >= wanted:
                break
    return np.concatenate(parts)[:wanted] if parts else np.zeros(0, np.float32)


def pictures(
    engine: Engine, style: StyleRequest, avatar: str, speech: Float32, *, vad: Vad | None, rule: SpeechRule | None,
    seed: int = 0,
) -> list[Bytes]:
    """Every frame of `speech`, uint8 [H, W, 3]."""
    session = Session(engine, vad, avatar=avatar, style=style, seed=seed, rule=rule)
    frames = []
    for at in range(0, len(speech), FRAME_TICKS):
        frames += session.push(AudioChunk(at, speech[at : at + FRAME_TICKS], WIRE_RATE_HZ))
    return [f.rgb for f in [*frames, *session.flush()]]


def contact_sheet(rows: Sequence[Sequence[Bytes]], columns: int) -> Bytes:
    """Rows of films to one picture: `columns` moments of each, evenly spread, the same in every row."""
    shortest = min(len(row) for row in rows)
    moments = np.linspace(0, shortest - 1, columns + 2)[1:-1].round().astype(int)
    return np.concatenate([np.concatenate([row[m] for m in moments], axis=1) for row in rows], axis=0)


def write_sheet(
    out: Path, engine: Engine, styles: Sequence[StyleRequest], speech: Float32, *, columns: int = 8,
    vad: Vad | None = None, rule: SpeechRule | None = None,
) -> None:
    """Write the contact sheet of `styles`, the avatars of the engine by turns."""
    avatars = cycle(engine.avatars)
    rows = [pictures(engine, s, next(avatars), speech, vad=vad, rule=rule) for s in styles]
    Image.fromarray(contact_sheet(rows, columns)).save(out)


def write_moving(
    out: Path, engine: Engine, styles: Sequence[StyleRequest], speech: Float32, *, vad: Vad | None = None,
    rule: SpeechRule | None = None,
) -> None:
    """Write an animated WebP: the speech cut into as many pieces as there are styles, two avatars side by side."""
    pairs = [engine.avatars[0], engine.avatars[-1]]
    halves = [_changing(engine, styles, avatar, speech, vad, rule) for avatar in dict.fromkeys(pairs)]
    joined = [Image.fromarray(np.concatenate(both, axis=1)) for both in zip(*halves, strict=True)]
    joined[0].save(
        out, save_all=True, append_images=joined[1:], duration=1000 // FRAME_RATE_HZ, loop=0, quality=70, method=4
    )


def _changing(
    engine: Engine, styles: Sequence[StyleRequest], avatar: str, speech: Float32, vad: Vad | None,
    rule: SpeechRule | None,
) -> list[Bytes]:
    """One film in which the style changes live, at even distances."""
    session = Session(engine, vad, avatar=avatar, style=styles[0], seed=1, rule=rule)
    count = -(-len(speech) // FRAME_TICKS)
    frames = []
    for n in range(count):
        if n and n * len(styles) // count != (n - 1) * len(styles) // count:
            session.set_style(styles[n * len(styles) // count])
        at = n * FRAME_TICKS
        frames += session.push(AudioChunk(at, speech[at : at + FRAME_TICKS], WIRE_RATE_HZ))
    return [f.rgb for f in [*frames, *session.flush()]]
