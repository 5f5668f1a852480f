"""Films to prepare: the procedural head talking, written as cameras and phones write, with the truth of every frame.

In: what should be seen. Out: MP4 files and a `TruthReader`, which knows each frame by its thumbnail and tells what the
renderer drew. Remembers: `takes`, rendered once a test run. The voice is noise as loud as the mouth is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.errors import MediaError
from svp_stream.evaluation.face_reader import FaceReading
from svp_stream.packets import Bytes, Float32, Pose
from svp_stream.synthetic.render import Renderer
from svp_stream.synthetic.rig import Rig
from tests.fakes.procedural_head import write_procedural_head

SIDE = 96
RATE = 16_000


@dataclass(frozen=True)
class Take:
    """T frames of a head: pictures, readings in them, sound at 16 kHz (int16)."""

    pictures: list[Bytes]
    readings: list[FaceReading | None]
    audio: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.pictures)

    def __add__(self, other: Take) -> Take:
        return Take(self.pictures + other.pictures, self.readings + other.readings,
                    np.concatenate([self.audio, other.audio]))

    def placed(self, width: int, height: int, left: int, top: int, colour: tuple[int, int, int] = (60, 70, 80)) -> Take:
        """The take as a part of larger pictures."""
        pictures, readings = [], []
        for picture, reading in zip(self.pictures, self.readings, strict=True):
            whole = np.full((height, width, 3), colour, np.uint8)
            whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            pictures.append(whole)
            readings.append(None if reading is None else FaceReading(
                reading.expression, reading.angles, reading.landmarks + np.array([left, top], np.float32)))
        return Take(pictures, readings, self.audio)


def opening(frames: int, seed: int) -> Float32:
    """Opening of the jaw [T] in syllables of 2 to 5 a second."""
    rng = np.random.default_rng(seed)
    marks = np.zeros(frames + 20)
    at = 4.0
    while at < frames:
        marks[int(at)] = rng.uniform(0.3, 1.0)
        at += rng.uniform(5, 14)
    bump = np.hanning(9)[1:-1]
    return np.clip(np.convolve(marks, bump, "same")[:frames], 0, 1).astype(np.float32)


def voice(jaw: Float32, seed: int) -> NDArray[np.int16]:
    """Noise as loud as the mouth is open, int16 [T * 640]."""
    loud = np.interp(np.arange(len(jaw) * 640) / 640 - 0.5, np.arange(len(jaw)), jaw)
    hiss = np.random.default_rng([seed, 9]).standard_normal(len(loud))
    return np.clip(hiss * (20 + 6000 * loud**2), -32767, 32767).astype(np.int16)


@cache
def take(frames: int = 75, seed: int = 0, size: int = SIDE) -> Take:
    """A rendered take; skips the test where there is no OpenGL."""
    jaw = opening(frames, seed)
    with TemporaryDirectory() as name:
        write_procedural_head(Path(name))
        head = Rig.load(Path(name), "tiny")
    try:
        renderer = Renderer(size, 1)
    except MediaError as error:
        pytest.skip(f"no OpenGL here: {error}")
    pictures: list[Bytes] = []
    readings: list[FaceReading | None] = []
    with renderer:
        for n in range(frames):
            face = np.zeros(len(ARKIT), np.float32)
            face[INDEX["jawOpen"]] = jaw[n]
            turn = [float(6 * np.sin(n / 9 + seed)), float(4 * np.sin(n / 7)), float(3 * np.sin(n / 11))]
            shut = float(n % 40 == 30)
            pose = Pose(0, turn[0], turn[1], turn[2], blink_left=shut, blink_right=shut)
            seen = renderer.draw(head, face, pose)
            face[INDEX["eyeBlinkLeft"]] = face[INDEX["eyeBlinkRight"]] = pose.blink_left
            pictures.append(seen.rgb)
            readings.append(FaceReading(face, np.array(turn, np.float32), seen.landmarks))
    return Take(pictures, readings, voice(jaw, seed))


class TruthReader:
    """A `FaceReader` that knows the frames of a take by their thumbnails."""

    def __init__(self, known: Take) -> None:
        self._known = known
        self._thumbs = np.stack([_thumb(p) for p in known.pictures])
        self.resets = 0
        self.reads = 0

    def read(self, rgb: Bytes) -> FaceReading | None:
        self.reads += 1
        gaps = np.abs(self._thumbs - _thumb(rgb)).mean(axis=(1, 2, 3))
        return self._known.readings[int(gaps.argmin())]

    def reset(self) -> None:
        self.resets += 1


def _thumb(rgb: Bytes) -> Float32:
    step = max(min(rgb.shape[:2]) // 48, 1)
    return rgb[::step, ::step, 1:].astype(np.float32)


def write_film(path: Path, made: Take, *, stamps_ms: list[int] | None = None, rate: int = 48_000,
               with_sound: bool = True, sound_late_ms: int = 0) -> Path:
    """Write `made` at 25 fps, or at the given stamps, with sound at `rate`."""
    height, width = made.pictures[0].shape[:2]
    with av.open(str(path), "w") as out:
        options = {"crf": "10", "preset": "veryfast"}
        video: VideoStream = out.add_stream("libx264", rate=25, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.time_base = Fraction(1, 1000)
        video.codec_context.time_base = Fraction(1, 1000)
        sound: AudioStream | None = out.add_stream("aac", rate=rate, layout="stereo") if with_sound else None
        for n, picture in enumerate(made.pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (n * 40 if stamps_ms is None else stamps_ms[n]), Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            late = np.zeros(sound_late_ms * RATE // 1000, np.int16)
            samples = np.concatenate([late, made.audio])[: len(made.audio)] if sound_late_ms else made.audio
            up = np.repeat(samples, rate // RATE)
            chunk = av.AudioFrame.from_ndarray(np.repeat(up, 2)[None], format="s16", layout="stereo")
            chunk.sample_rate, chunk.pts, chunk.time_base = rate, 0, Fraction(1, rate)
            out.mux(sound.encode(chunk))
            out.mux(sound.encode(None))
    return path


def turn_film(path: Path, quarters: int) -> None:
    """Patch the display matrix of the video track (the first `tkhd` of an MP4): phones hold their camera upright by it.

    The matrix asks for a clockwise turn by `quarters` * 90 degrees.
    """
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd")
    # Version 0: type, flags and 9 fields of 4 bytes come before the 3 x 3 matrix of 16.16 (and 2.30) numbers.
    start = at + 4 + 4 + 36
    one = 1 << 16
    a, b = ((one, 0), (0, one), (-one, 0), (0, -one))[quarters % 4]
    numbers = (a, b, 0, -b, a, 0, 0, 0, 1 << 30)
    data[start : start + 36] = b"".join(int(v).to_bytes(4, "big", signed=True) for v in numbers)
    path.write_bytes(bytes(data))
