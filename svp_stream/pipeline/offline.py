"""From a recording to a film, through the very same session as live speech.

In: any file with sound that FFmpeg reads. Out: an MP4 with H.264 pictures and AAC sound in sync: nothing waits for
anything here, so the sound keeps its place and each frame is shown at its own `pts`.
Remembers: the few frames between decoder and encoder, so that an hour takes no more memory than a second.
The film is written beside its place and moved there when whole; a failure leaves nothing behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from svp_stream.audio.speech import SpeechRule
from svp_stream.audio.vad import Vad
from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS, TICKS_PER_SECOND, WIRE_RATE_HZ
from svp_stream.errors import MediaError
from svp_stream.packets import AudioChunk, Float32, Frame
from svp_stream.pipeline.engine import Engine, StyleRequest
from svp_stream.pipeline.meter import StageTimes
from svp_stream.pipeline.session import Session

Progress = Callable[[float, float | None], None]
"""Seconds done, and seconds in all where the file says so."""

CHUNK_SAMPLES = FRAME_TICKS
_TICK = Fraction(1, TICKS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Film:
    """What was made: frames, seconds of sound, milliseconds by stage."""

    path: Path
    frames: int
    seconds: float
    stages: dict[str, StageTimes] = field(default_factory=dict)


def render(
    source: Path,
    target: Path,
    engine: Engine,
    style: StyleRequest,
    avatar: str,
    *,
    vad: Vad | None = None,
    rule: SpeechRule | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Film:
    """Make the film of `source`; raises `MediaError` in words, `EngineError` for an unknown avatar."""
    _check_paths(source, target)
    session = Session(engine, vad, avatar=avatar, style=style, seed=seed, rule=rule)
    with _whole(target) as partial, open_sound(source) as sound:
        frames, ticks = _film(sound, session, engine.size, partial, target, progress)
    return Film(target, frames, ticks / TICKS_PER_SECOND, session.meter.snapshot())


def _film(
    sound: Sound, session: Session, size: int, partial: Path, target: Path, progress: Progress | None
) -> tuple[int, int]:
    frames = pts = 0
    with _writer(partial, target, size) as writer:
        for samples in sound.chunks():
            chunk = AudioChunk(pts, samples, WIRE_RATE_HZ)
            pts = chunk.end
            writer.voice(chunk)
            for frame in session.push(chunk):
                writer.picture(frame)
                frames += 1
            if progress is not None:
                progress(pts / TICKS_PER_SECOND, sound.seconds)
        if pts == 0:
            raise MediaError(f"{sound.path}: has no sound in it (0 samples); give a recording of speech")
        for frame in session.flush():
            writer.picture(frame)
            frames += 1
        if frames == 0:
            raise MediaError(f"{sound.path}: is too short for a single picture ({pts} samples at 48 kHz)")
    return frames, pts


def _check_paths(source: Path, target: Path) -> None:
    if target.suffix.lower() != ".mp4":
        raise MediaError(f"{target}: the film is an MP4; give a name that ends in .mp4")
    if not target.parent.is_dir():
        raise MediaError(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise MediaError(f"{target}: is a folder; give the name of a file")
    if target.exists() and source.exists() and target.samefile(source):
        raise MediaError(f"{target}: is the recording itself; give another name")


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place on success and vanishes on failure."""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=".mp4")
    except OSError as e:
        raise MediaError(f"{target}: cannot be written ({e.strerror})") from e
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(slots=True)
class Sound:
    """An open recording: `seconds` is what its header says, None when it says nothing."""

    path: Path
    container: InputContainer
    stream: AudioStream
    seconds: float | None

    def chunks(self, samples: int = CHUNK_SAMPLES) -> Iterator[Float32]:
        """48 kHz mono float32 [N], N <= `samples`, to the end; raises `MediaError` where the file is damaged."""
        resampler = av.AudioResampler(format="flt", layout="mono", rate=WIRE_RATE_HZ)
        done = 0
        try:
            for frame in self._frames():
                for part in resampler.resample(frame):
                    for cut in _cuts(part, samples):
                        done += len(cut)
                        yield cut
        except FFmpegError as e:
            where = f"the sound cannot be read after {done / WIRE_RATE_HZ:.2f} s"
            raise MediaError(f"{self.path}: is damaged: {where} ({e.strerror})") from e

    def _frames(self) -> Iterator[av.AudioFrame | None]:
        for frame in self.container.decode(self.stream):
            frame.pts = None
            yield frame
        yield None


def _cuts(frame: av.AudioFrame, samples: int) -> list[Float32]:
    x = np.nan_to_num(np.asarray(frame.to_ndarray()[0], dtype=np.float32), posinf=1.0, neginf=-1.0)
    return [np.clip(x[i : i + samples], -1.0, 1.0) for i in range(0, len(x), samples)]


@contextmanager
def open_sound(path: Path) -> Iterator[Sound]:
    """Open a recording; raises `MediaError` when it is missing, empty, no media or without sound."""
    if not path.is_file():
        raise MediaError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: is empty (0 bytes); give a recording of speech")
    try:
        container = av.open(str(path), mode="r", metadata_errors="replace")
    except (FFmpegError, OSError) as e:
        raise MediaError(f"{path}: is no sound or film that FFmpeg can read ({e.strerror or e})") from e
    with container:
        if not container.streams.audio:
            raise MediaError(f"{path}: has no sound in it, only {_kinds(container)}; give a recording of speech")
        stream = container.streams.audio[0]
        seconds = None
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / av.time_base
        yield Sound(path, container, stream, seconds)


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({s.type for s in container.streams})) or "no stream at all"


@dataclass(slots=True)
class _Writer:
    """Pictures and voice into one MP4."""

    container: OutputContainer
    video: VideoStream
    audio: AudioStream

    def voice(self, chunk: AudioChunk) -> None:
        frame = av.AudioFrame.from_ndarray(chunk.samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = WIRE_RATE_HZ, _TICK, chunk.pts
        self.container.mux(self.audio.encode(frame))

    def picture(self, frame: Frame) -> None:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.rgb), format="rgb24")
        picture.pts, picture.time_base = frame.pts // FRAME_TICKS, Fraction(1, FRAME_RATE_HZ)
        self.container.mux(self.video.encode(picture))

    def finish(self) -> None:
        self.container.mux(self.video.encode(None))
        self.container.mux(self.audio.encode(None))


@contextmanager
def _writer(partial: Path, target: Path, size: int) -> Iterator[_Writer]:
    try:
        with av.open(str(partial), mode="w", format="mp4", options={"movflags": "+faststart"}) as container:
            options: dict[str, Any] = {"crf": "18", "preset": "veryfast"}
            video = container.add_stream("libx264", rate=FRAME_RATE_HZ, options=options)
            video.width = video.height = size
            video.pix_fmt = "yuv420p"
            audio = container.add_stream("aac", rate=WIRE_RATE_HZ, layout="mono")
            audio.bit_rate = 96_000
            writer = _Writer(container, video, audio)
            yield writer
            writer.finish()
    except FFmpegError as e:
        raise MediaError(f"{target}: the film cannot be written ({e.strerror})") from e
