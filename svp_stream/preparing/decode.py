"""Any video file as 25 pictures a second and 16 kHz mono, one picture at a time.

In: a path. Out: `probe`, what the file says of itself; `pictures`, uint8 [H, W, 3] upright and with square pixels, the
one that is shown at (n + 0.5) / 25 s; `sound`, int16 samples on the same clock, in a file on disk.
Remembers: nothing; memory does not grow with the file's length. Every fault is a MediaError that names the file.

Time is taken from the stamps of the frames, so a variable frame rate, a late start of the sound and holes in either
come out right: a picture is held until the next one, a hole in the sound is silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from PIL import Image

from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.errors import MediaError
from svp_stream.packets import Bytes

LONGEST_HOLE_S: Final = 5.0
"""A picture is held this long at most; a longer hole in the stamps is a damaged file."""
JITTER_S: Final = 0.02
"""Stamps of sound may be off the running clock by this much before silence is put in."""
LEAST_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """`rate_hz` is the file's average; `turned` degrees counter-clockwise that the picture is turned to stand upright;
    `start_s` the stamp of its first picture."""

    width: int
    height: int
    rate_hz: float
    turned: int
    start_s: float


def probe(path: Path) -> VideoInfo:
    """Look at the first picture. Raises MediaError: no such file, not a video, no picture, no sound."""
    if not path.is_file():
        raise MediaError(f"{path}: there is no such file")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path}: has no picture; give a video file")
            if not container.streams.audio:
                raise MediaError(f"{path}: has no sound; a talking head is prepared from picture and sound together")
            stream = container.streams.video[0]
            frame = next(iter(container.decode(stream)), None)
            if frame is None:
                raise MediaError(f"{path}: holds no picture that can be decoded")
            rgb = _upright(frame)
            start = float(frame.time or 0.0)
            rate = float(stream.average_rate or FRAME_RATE_HZ)
            return VideoInfo(rgb.shape[1], rgb.shape[0], rate, int(frame.rotation) % 360, start)
    except (OSError, av.FFmpegError) as error:
        raise MediaError(f"{path}: not a readable video: {error}") from error


def pictures(path: Path) -> Iterator[Bytes]:
    """Picture n is the one shown at (n + 0.5) / 25 s after the first; uint8 [H, W, 3].

    Raises MediaError when the file breaks off in the middle, or its stamps leave a hole of more than 5 s.
    """
    held: Any = None
    rgb: Bytes | None = None
    count, start, last, end = 0, 0.0, 0.0, 0.0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                start = float(frame.time or 0.0) if held is None else start
                at = last if frame.time is None else float(frame.time) - start
                if at - last > LONGEST_HOLE_S:
                    raise MediaError(f"{path}: no picture between {last:.1f} s and {at:.1f} s; repair or cut the file")
                while held is not None and (count + 0.5) / FRAME_RATE_HZ < at:
                    rgb = _upright(held) if rgb is None else rgb
                    yield rgb
                    count += 1
                # Pictures that are never shown (the source is faster than 25 a second) are not converted.
                held, rgb, last = frame, None, at
                end = at + _duration(frame, stream)
            while held is not None and (count + 0.5) / FRAME_RATE_HZ < end:
                rgb = _upright(held) if rgb is None else rgb
                yield rgb
                count += 1
    except (OSError, av.FFmpegError) as error:
        raise MediaError(f"{path}: breaks off after {count / FRAME_RATE_HZ:.1f} s of picture: {error}") from error


def _duration(frame: Any, stream: Any) -> float:
    """Seconds for which a picture stands."""
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return float(1 / (stream.average_rate or FRAME_RATE_HZ))


def _upright(frame: Any) -> Bytes:
    """uint8 [H, W, 3], turned as the file asks and with square pixels."""
    rgb = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    aspect = getattr(frame, "sample_aspect_ratio", None)
    if aspect and float(aspect) > 0 and abs(float(aspect) - 1) > 0.01:
        wide = Image.fromarray(rgb).resize((max(round(rgb.shape[1] * float(aspect)), 1), rgb.shape[0]))
        rgb = np.asarray(wide, np.uint8)
    quarter = round(int(frame.rotation) / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, quarter)) if quarter else rgb


def sound(path: Path, start_s: float, to: Path) -> Any:
    """Decode all sound into the file `to` and map it: int16 [N] at 16 kHz mono, sample 0 at `start_s` of the file.

    Raises MediaError for a file without sound, or with less than half a second of it.
    """
    done = 0
    try:
        with av.open(str(path)) as container, to.open("wb") as out:
            if not container.streams.audio:
                raise MediaError(f"{path}: has no sound; a talking head is prepared from picture and sound together")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=MODEL_RATE_HZ)
            skip: int | None = None
            for frame in container.decode(container.streams.audio[0]):
                at = round((float(frame.time or 0.0) - start_s) * MODEL_RATE_HZ)
                if skip is None or at - done > JITTER_S * MODEL_RATE_HZ:
                    gap = at - done
                    skip = max(-gap, 0)
                    out.write(bytes(2 * max(gap, 0)))
                    done += max(gap, 0)
                for part in resampler.resample(frame):
                    samples = part.to_ndarray().reshape(-1)
                    left = samples[min(skip, len(samples)):]
                    skip -= len(samples) - len(left)
                    out.write(left.astype(np.int16).tobytes())
                    done += len(left)
            for part in resampler.resample(None):
                samples = part.to_ndarray().reshape(-1)
                out.write(samples.astype(np.int16).tobytes())
                done += len(samples)
    except (OSError, av.FFmpegError) as error:
        raise MediaError(f"{path}: its sound breaks off after {done / MODEL_RATE_HZ:.1f} s: {error}") from error
    if done < LEAST_S * MODEL_RATE_HZ:
        raise MediaError(f"{path}: has {done / MODEL_RATE_HZ:.2f} s of sound; at least {LEAST_S} s is needed")
    return np.memmap(to, dtype=np.int16, mode="r", shape=(done,))
