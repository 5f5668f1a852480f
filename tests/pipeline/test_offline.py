"""From a recording to a film: sync, every kind of input, and nothing left behind when it fails."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from svp_stream.clock import FRAME_TICKS
from svp_stream.errors import EngineError, MediaError
from svp_stream.packets import Float32
from svp_stream.pipeline.cartoon import mouth_opening
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.noop import DrawnShelf, NoopEngine
from svp_stream.pipeline.offline import Film, open_sound, render

ENGINE = NoopEngine(look_ahead=0)


def style() -> StyleRequest:
    p = DrawnShelf().get("warm")
    return StyleRequest(p.name, p.mu, p.log_var)


def write_wav(path: Path, x: Float32, rate: int, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        samples = np.round(np.clip(x, -1, 1) * 32767).astype("<i2")
        out.writeframes(np.repeat(samples, channels).tobytes())
    return path


def beeps(seconds: float, rate: int, onset_s: float, length_s: float = 0.4) -> Float32:
    t = np.arange(round(seconds * rate)) / rate
    on = (t >= onset_s) & (t < onset_s + length_s)
    return (0.4 * np.sin(2 * np.pi * 300 * t) * on).astype(np.float32)


def make(source: Path, target: Path) -> Film:
    return render(source, target, ENGINE, style(), "disc")


def picture_times(path: Path) -> tuple[list[float], list[float]]:
    """(seconds, mouth opening) of every frame of a film."""
    times, opened = [], []
    with av.open(str(path)) as film:
        for frame in film.decode(video=0):
            assert frame.pts is not None and frame.time_base is not None
            times.append(float(frame.pts * frame.time_base))
            opened.append(mouth_opening(np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)))
    return times, opened


def sound_of(path: Path) -> tuple[Float32, float]:
    """Samples at 48 kHz and the second of the first one."""
    parts, first = [], None
    with av.open(str(path)) as film:
        for frame in film.decode(audio=0):
            assert frame.pts is not None and frame.time_base is not None
            first = float(frame.pts * frame.time_base) if first is None else first
            parts.append(np.asarray(frame.to_ndarray()[0], dtype=np.float32))
    assert first is not None
    return np.concatenate(parts), first


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 2), (16_000, 1), (44_100, 2), (48_000, 1)])
def test_lips_and_sound_are_in_sync(tmp_path: Path, rate: int, channels: int) -> None:
    onset = 0.8
    source = write_wav(tmp_path / "in.wav", beeps(2.0, rate, onset), rate, channels)
    film = make(source, tmp_path / "out.mp4")
    times, opened = picture_times(film.path)
    assert film.frames == len(times) == 50
    assert film.seconds == pytest.approx(2.0, abs=0.001)
    assert times == pytest.approx([n * 0.04 for n in range(50)])
    lips = next(t for t, o in zip(times, opened, strict=True) if o > 0.1)
    x, first = sound_of(film.path)
    heard = first + int(np.argmax(np.abs(x) > 0.15)) / 48_000
    assert heard == pytest.approx(onset, abs=0.012)
    assert lips == pytest.approx(onset, abs=0.041)
    assert list(tmp_path.iterdir()) and {p.name for p in tmp_path.iterdir()} == {"in.wav", "out.mp4"}


def test_film_holds_h264_and_aac(tmp_path: Path) -> None:
    film = make(write_wav(tmp_path / "in.wav", beeps(0.5, 16_000, 0.1), 16_000), tmp_path / "out.mp4")
    with av.open(str(film.path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height, video.average_rate) == (256, 256, Fraction(25))
        assert (audio.rate, audio.channels) == (48_000, 1)
    assert film.path.read_bytes()[:64].find(b"ftyp") >= 0
    assert film.path.read_bytes().find(b"moov") < film.path.read_bytes().find(b"mdat"), "plays while it loads"


def test_silence_gives_an_idle_face(tmp_path: Path) -> None:
    film = make(write_wav(tmp_path / "in.wav", np.zeros(48_000, np.float32), 16_000), tmp_path / "out.mp4")
    _, opened = picture_times(film.path)
    assert film.frames == len(opened) == 75
    assert max(opened) == 0.0


def test_shortest_sounds(tmp_path: Path) -> None:
    assert make(write_wav(tmp_path / "in.wav", np.ones(48, np.float32), 16_000), tmp_path / "out.mp4").frames == 1
    with pytest.raises(MediaError, match="too short"):
        make(write_wav(tmp_path / "in.wav", np.ones(1, np.float32), 48_000), tmp_path / "none.mp4")


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".ogg", ".mkv"])
def test_any_format(tmp_path: Path, suffix: str) -> None:
    """Codecs that FFmpeg brings, and a film with pictures of its own."""
    source = tmp_path / f"in{suffix}"
    codec = {".mp3": "libmp3lame", ".flac": "flac", ".ogg": "libopus", ".mkv": "aac"}[suffix]
    x = beeps(1.0, 48_000, 0.3)
    with av.open(str(source), "w") as out:
        stream = out.add_stream(codec, rate=48_000)
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(x[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    film = make(source, tmp_path / "out.mp4")
    assert film.seconds == pytest.approx(1.0, abs=0.08)
    assert max(picture_times(film.path)[1]) > 0.3


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "in.wav", beeps(1.0, 16_000, 0.2), 16_000)
    seen: list[tuple[float, float | None]] = []
    render(source, tmp_path / "o.mp4", ENGINE, style(), "disc", progress=lambda done, total: seen.append((done, total)))
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert seen[-1][0] == pytest.approx(1.0)
    assert seen[-1][1] == pytest.approx(1.0)


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """The reader hands out frames one by one and never the whole: an hour is read like a second."""
    source = write_wav(tmp_path / "in.wav", np.zeros(8_000 * 600, np.float32), 8_000)
    with open_sound(source) as sound:
        sizes = [len(c) for c in sound.chunks()]
    assert sum(sizes) == pytest.approx(48_000 * 600, abs=100)
    assert max(sizes) <= FRAME_TICKS


def damaged(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.wav"
    if kind == "empty":
        path.touch()
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "text":
        path.write_text("this is not sound\n" * 50)
    elif kind == "headed":
        write_wav(path, np.zeros(0, np.float32), 16_000)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pictures":
        path = tmp_path / "pictures.mkv"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25)
            assert isinstance(stream, av.VideoStream)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("folder", "no such file"),
        ("empty", "empty"),
        ("noise", "cannot|can read|damaged|no sound"),
        ("text", "can read|no sound"),
        ("headed", "no sound in it"),
        ("pictures", "no sound in it, only video"),
    ],
)
def test_what_is_no_sound_is_said_in_words(tmp_path: Path, kind: str, words: str) -> None:
    source = damaged(tmp_path, kind)
    target = tmp_path / "out.mp4"
    with pytest.raises(MediaError, match=words) as caught:
        make(source, target)
    assert str(source) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".mp4"] == [], "no half film"


def test_a_film_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")
    source = write_wav(tmp_path / "in.wav", beeps(0.5, 16_000, 0.1), 16_000)
    with pytest.raises(EngineError, match="oval"):
        render(source, target, ENGINE, style(), "oval")
    with pytest.raises(RuntimeError, match="stop"):
        render(source, target, ENGINE, style(), "disc", progress=_stop)
    assert target.read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"in.wav", "out.mp4"}


def _stop(done: float, total: float | None) -> None:
    if done > 0.2:
        raise RuntimeError("stop")


@pytest.mark.parametrize(
    ("target", "words"),
    [("out.avi", "ends in .mp4"), ("nowhere/out.mp4", "does not exist"), ("folder.mp4", "is a folder")],
)
def test_wrong_targets(tmp_path: Path, target: str, words: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    source = write_wav(tmp_path / "in.wav", beeps(0.2, 16_000, 0.1), 16_000)
    with pytest.raises(MediaError, match=words):
        make(source, tmp_path / target)


def test_a_film_cannot_be_its_own_source(tmp_path: Path) -> None:
    first = make(write_wav(tmp_path / "in.wav", beeps(0.3, 16_000, 0.1), 16_000), tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="recording itself"):
        make(first.path, first.path)
    assert make(first.path, tmp_path / "b.mp4").seconds == pytest.approx(0.3, abs=0.03)


def test_sound_that_is_not_finite_is_silence(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    x = np.full(16_000, np.nan, np.float32)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_f32le", rate=16_000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(x[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    film = make(path, tmp_path / "out.mp4")
    assert film.frames == 25
    assert max(picture_times(film.path)[1]) == 0.0
