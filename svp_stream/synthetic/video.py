"""Picture and sound of a clip as MP4: the picture nearly lossless, the matte beside it.

What it is: a writer of `<name>.mp4` (H.264 4:4:4 at 25 fps, AAC) and `<name>.matte.mp4` (grey H.264), and a reader of
single frames from either. Files appear whole or not at all.

In: rgb uint8 [H, W, 3] and alpha uint8 [H, W], one by one, then sound. Out: two files; frames by number.
Remembers: the open files.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.errors import MediaError
from svp_stream.packets import Bytes


def matte_path(path: Path) -> Path:
    """Where the matte of the clip `path` lies."""
    return path.with_suffix(".matte.mp4")


class ClipWriter:
    """Writes one clip; a context manager that publishes both files on a clean exit and removes them otherwise."""

    def __init__(self, path: Path, size: int, crf: int, matte_crf: int) -> None:
        self._paths = (path, matte_path(path))
        self._parts = tuple(p.with_name(f".{p.name}.part") for p in self._paths)
        self._picture, self._matte = (av.open(str(p), "w", format="mp4") for p in self._parts)
        self._video = _h264(self._picture, size, "yuv444p", crf)
        self._sound: AudioStream = self._picture.add_stream("aac", rate=MODEL_RATE_HZ, layout="mono")
        self._sound.bit_rate = 96_000
        self._grey = _h264(self._matte, size, "yuv420p", matte_crf)
        self._count = 0

    def add(self, rgb: Bytes, alpha: Bytes) -> None:
        """Append a frame: rgb uint8 [H, W, 3], alpha uint8 [H, W]."""
        for container, stream, picture, form in ((self._picture, self._video, rgb, "rgb24"),
                                                 (self._matte, self._grey, alpha, "gray")):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=form)
            frame.pts, frame.time_base = self._count, Fraction(1, FRAME_RATE_HZ)
            container.mux(stream.encode(frame))
        self._count += 1

    def sound(self, audio: NDArray[np.int16]) -> None:
        """Append all sound, int16 [N] at 16 kHz; call once."""
        frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = MODEL_RATE_HZ, 0, Fraction(1, MODEL_RATE_HZ)
        self._picture.mux(self._sound.encode(frame))
        self._picture.mux(self._sound.encode(None))

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self._picture.mux(self._video.encode(None))
            self._matte.mux(self._grey.encode(None))
        self._picture.close()
        self._matte.close()
        for part, path in zip(self._parts, self._paths, strict=True):
            if kind is None:
                part.replace(path)
            else:
                part.unlink(missing_ok=True)


def _h264(container: OutputContainer, size: int, form: str, crf: int) -> VideoStream:
    # One keyframe a second keeps single frames quick to reach.
    options = {"crf": str(crf), "preset": "veryfast", "g": str(FRAME_RATE_HZ), "threads": "1"}
    stream: VideoStream = container.add_stream("libx264", rate=FRAME_RATE_HZ, options=options)
    stream.width = stream.height = size
    stream.pix_fmt = form
    return stream


def read_pictures(path: Path, indices: Iterable[int] | None) -> Bytes:
    """Frames of an MP4 in the order of `indices` (all when None): uint8 [n, H, W, 3].

    Raises MediaError when the file cannot be read or has no such frame.
    """
    wanted = None if indices is None else [int(i) for i in indices]
    last = None if wanted is None else max(wanted, default=-1)
    needed = None if wanted is None else set(wanted)
    kept: dict[int, Bytes] = {}
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if last is not None and number > last:
                    break
                if needed is None or number in needed:
                    kept[number] = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    except (OSError, av.FFmpegError, IndexError) as error:
        raise MediaError(f"{path}: not a readable video: {error}") from error
    order = sorted(kept) if wanted is None else wanted
    missing = [i for i in order if i not in kept]
    if missing or not kept:
        raise MediaError(f"{path}: frame {missing[0] if missing else 0} is not in the video, which has "
                         f"{max(kept, default=-1) + 1} or more of those asked for")
    return np.stack([kept[i] for i in order])
