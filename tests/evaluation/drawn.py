"""A corpus of drawn faces in the format of rendered clips: a mouth that opens on command, without OpenGL.

In: a folder. Out: clips `<id>.npz`, `.mp4`, `.matte.mp4` with all of their truth. Remembers: nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.packets import Bytes, Float32, Floats
from svp_stream.synthetic import sidecar
from svp_stream.synthetic.landmarks import LANDMARKS
from svp_stream.synthetic.video import ClipWriter

SIDE = 64
EYES = 16.0
"""Distance between the eyes in pixels."""
AVATAR = "drawn"


def draw(opening: float, lids: float, dx: float = 0.0) -> Bytes:
    """uint8 [64, 64, 3]: `opening` of the mouth and of the lids in distances between the eyes."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    x = x - dx
    picture = np.full((SIDE, SIDE, 3), 90, np.float64)

    def spot(cx: float, cy: float, rx: float, ry: float, colour: tuple[int, int, int]) -> None:
        share = np.clip((1 - ((x - cx) / rx) ** 2 - ((y - cy) / max(ry, 0.2)) ** 2) * 4, 0, 1)[..., None]
        picture[:] = picture * (1 - share) + np.array(colour) * share

    spot(32, 34, 22, 28, (225, 180, 150))
    spot(24, 26, 4, lids * EYES / 2 + 0.3, (40, 40, 60))
    spot(40, 26, 4, lids * EYES / 2 + 0.3, (40, 40, 60))
    spot(32, 46, 7, opening * EYES / 2 + 0.3, (90, 10, 20))
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def course(frames: int, seed: int) -> tuple[Float32, Float32]:
    """Opening of the mouth and of the lids [frames]: syllables with a silent fifth at both ends, and two blinks."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames) / 25
    rates = rng.uniform(1.0, 3.0, 3)
    mouth = np.abs(np.sin(np.pi * rates[:, None] * t + rng.uniform(0, 3, (3, 1))).mean(0)) * 0.7
    mouth[: frames // 5] = mouth[-frames // 5 :] = 0.02
    lids = np.full(frames, 0.3)
    for blink in rng.integers(5, frames - 5, 2):
        lids[blink : blink + 3] = 0.03
    return mouth.astype(np.float32), lids.astype(np.float32)


def truth_of(mouth: Float32, lids: Float32) -> tuple[Float32, Float32]:
    """Landmarks [T, 38, 2] and kps [T, 3, 2] in pixels; what is not drawn lies in the middle of the face."""
    frames = len(mouth)
    marks = np.full((frames, len(LANDMARKS), 2), (32, 34), np.float32)

    def put(name: str, cx: float, cy: Floats | float) -> None:
        marks[:, LANDMARKS.index(name), 0], marks[:, LANDMARKS.index(name), 1] = cx, cy

    for lip, wider in (("inner", 0.0), ("outer", 1.5)):
        for place, sign in (("top", -1), ("bottom", 1)):
            high = mouth * EYES / 2 + wider
            put(f"{lip}_lip_{place}", 32, 46 + sign * high)
            put(f"{lip}_lip_{place}_left", 35.5, 46 + sign * 0.87 * high)
            put(f"{lip}_lip_{place}_right", 28.5, 46 + sign * 0.87 * high)
        put(f"{lip}_lip_left", 39 + wider, 46.0)
        put(f"{lip}_lip_right", 25 - wider, 46.0)
    put("nose_tip", 32, 36.0)
    for side, cx, out in (("left", 40, 1), ("right", 24, -1)):
        put(f"{side}_eye_inner", cx - 4 * out, 26.0)
        put(f"{side}_eye_outer", cx + 4 * out, 26.0)
        put(f"{side}_eye_top", cx, 26 - lids * EYES / 2)
        put(f"{side}_eye_bottom", cx, 26 + lids * EYES / 2)
    points = np.array([[24, 26], [40, 26], [32, 36]], np.float32)
    return marks, np.repeat(points[None], frames, axis=0)


def write_clip(folder: Path, name: str, *, frames: int, style: str, voice: str, split: str, seed: int,
               picture: bool = True) -> None:
    """One clip whose words are syllables of one vowel."""
    mouth, lids = course(frames, seed)
    marks, kps = truth_of(mouth, lids)
    face = np.zeros((frames, len(ARKIT)), np.float32)
    face[:, INDEX["jawOpen"]] = mouth
    pose = np.zeros((frames, 9), np.float32)
    pose[:, 5] = pose[:, 6] = 1 - lids / 0.3
    rng = np.random.default_rng([seed, 1])
    sound = rng.standard_normal(frames * 640) * np.repeat(mouth, 640) * 4000
    audio = sound.astype(np.int16)
    arrays: dict[str, NDArray[Any]] = {
        "expression": face, "pose": pose, "stress": mouth, "audio": audio,
        "style_vector": np.zeros(3, np.float32), "manner": np.zeros(3, np.float32),
    }
    if picture:
        arrays |= {"landmarks": marks, "kps": kps}
        with ClipWriter(folder / f"{name}.mp4", SIDE, 4, 4) as writer:
            for m, e in zip(mouth, lids, strict=True):
                writer.add(draw(m, e), np.full((SIDE, SIDE), 255, np.uint8))
            writer.sound(audio)
    edge = frames / 25 / 5
    sounds = (sidecar.Sound("pau", 0.0, edge, 0), sidecar.Sound("aa", edge, 4 * edge, 1),
              sidecar.Sound("pau", 4 * edge, 5 * edge, 0))
    words = {"style": style, "voice": voice, "text": "ah", "avatar": AVATAR if picture else "", "split": split}
    sidecar.write(folder / f"{name}.npz", arrays, words, seed, sounds)
