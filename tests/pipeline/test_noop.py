"""The drawn face: its mouth follows the voice, its eyes blink, its styles glide, it obeys the ladder."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from svp_stream.clock import FRAME_TICKS, MODEL_RATE_HZ
from svp_stream.errors import EngineError, PresetError, StreamError
from svp_stream.packets import AudioChunk, Bytes, Float32, Frame, SpeechState
from svp_stream.pipeline.cartoon import SITTERS, Drawing, Look, Sprites, accent, finish, mouth_opening, scene
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.noop import FRAME_SAMPLES, STYLE_DIM, DrawnShelf, NoopEngine, NoopFace

ENGINE = NoopEngine()


def request(name: str = "neutral", **controls: float) -> StyleRequest:
    p = DrawnShelf().get(name)
    return StyleRequest(p.name, p.mu, p.log_var, **controls)


def face(style: str = "neutral", seed: int = 1, engine: NoopEngine = ENGINE) -> NoopFace:
    return engine.stream(avatar="disc", style=request(style), seed=seed)


def noise(levels: list[float]) -> Float32:
    """One frame of noise for each level (root mean square)."""
    rng = np.random.default_rng(0)
    frames = [level * rng.standard_normal(FRAME_SAMPLES) for level in levels]
    return np.concatenate(frames).astype(np.float32)


def run(stream: NoopFace, x: Float32) -> list[Frame]:
    return stream.push(AudioChunk(0, x, MODEL_RATE_HZ)) + stream.flush()


def test_frames_tile_the_sound() -> None:
    for samples in (1, FRAME_SAMPLES, 10 * FRAME_SAMPLES - 1):
        frames = run(face(), np.zeros(samples, np.float32))
        assert [f.pts for f in frames] == [n * FRAME_TICKS for n in range(-(-samples // FRAME_SAMPLES))]
        assert all(f.rgb.shape == (256, 256, 3) and f.rgb.dtype == np.uint8 for f in frames)
        assert all(f.alpha is not None and f.alpha.shape == (256, 256) for f in frames)
    assert face().flush() == []


def test_mouth_follows_the_level() -> None:
    levels = [0.0] * 10 + [0.01] * 10 + [0.1] * 10 + [0.0] * 20
    opened = [mouth_opening(f.rgb) for f in run(face(), noise(levels))]
    assert max(opened[:7]) == 0.0
    assert 0.15 < np.mean(opened[12:17]) < np.mean(opened[22:27]) - 0.2
    assert max(opened[40:]) == 0.0


def test_look_ahead_is_what_it_says() -> None:
    """Sound up to the frame's end plus the look-ahead matters; what comes after does not."""
    for ahead in (0, 1, 2):
        engine = NoopEngine(ahead)
        assert face(engine=engine).latency == FRAME_TICKS * (1 + ahead)
        for later in range(3):
            loud = noise([0.0] * (5 + later) + [0.2])
            opened = mouth_opening(run(face(engine=engine), loud)[5].rgb)
            assert (opened > 0) == (later <= ahead), (ahead, later)


def test_idle_face_lives() -> None:
    frames = run(face(), np.zeros(FRAME_SAMPLES * 400, np.float32))
    steps = [np.abs(a.rgb.astype(int) - b.rgb).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert min(steps) > 0, "no two frames alike"
    whites = [int((f.rgb[98:130, 78:178].min(axis=2) > 225).sum()) for f in frames]
    assert sum(w < 0.4 * np.median(whites) for w in whites) >= 8, "hardly a blink in 16 seconds"
    assert max(mouth_opening(f.rgb) for f in frames) == 0.0


def test_speaking_moves_the_head_more() -> None:
    def travel(speaking: bool) -> float:
        stream = face(seed=3)
        stream.hear(SpeechState(0, speaking))
        frames = run(stream, np.zeros(FRAME_SAMPLES * 150, np.float32))
        tops = [np.argmax(f.alpha[:, 128] > 127) for f in frames if f.alpha is not None]
        sides = [np.argmax(f.alpha[110] > 127) for f in frames if f.alpha is not None]
        return float(np.std(tops) + np.std(sides))

    assert travel(True) > 1.2 * travel(False)


def test_same_seed_same_pictures_other_seed_others() -> None:
    x = noise([0.05] * 30)
    a, b, c = (run(face(seed=s), x) for s in (5, 5, 6))
    assert all(np.array_equal(p.rgb, q.rgb) for p, q in zip(a, b, strict=True))
    assert not np.array_equal(a[20].rgb, c[20].rgb)


@pytest.mark.parametrize("rung", [0, 3])
def test_style_glides_without_a_jump(rung: int) -> None:
    """Also on the rung that draws no new scene by itself."""
    stream = face("sad")
    frames = []
    for n in range(40):
        stream.effort = rung
        if n == 20:
            stream.set_style(request("lively"))
        frames += stream.push(AudioChunk(n * FRAME_TICKS, np.zeros(FRAME_SAMPLES, np.float32), MODEL_RATE_HZ))
    corner = np.array([f.rgb[4, 4].astype(float) for f in frames])
    moved = np.abs(np.diff(corner, axis=0)).max(axis=1)
    changing = np.flatnonzero(moved > 0)
    assert 6 <= changing[-1] - changing[0] + 1 <= 9, "0.3 s are 7.5 frames"
    assert moved.max() < 0.35 * np.abs(corner[-1] - corner[0]).max()
    assert np.abs(corner[-1] - corner[0]).max() > 30


def test_style_controls() -> None:
    def look(**controls: float) -> Bytes:
        return run(ENGINE.stream(avatar="disc", style=request("warm", **controls), seed=4), noise([0.0] * 9))[8].rgb

    plain = run(face("neutral", seed=4), noise([0.0] * 9))[8].rgb
    assert np.array_equal(look(strength=0.0), plain)
    assert not np.array_equal(look(strength=1.0), look(strength=2.0))
    assert not np.array_equal(look(temperature=0.0), look(temperature=1.0))


def test_rungs_of_the_ladder() -> None:
    x = noise([0.0, 0.1] * 15)
    changed = {}
    for rung in range(5):
        stream = face()
        head, rest = x[: 5 * FRAME_SAMPLES], x[5 * FRAME_SAMPLES :]
        stream.push(AudioChunk(0, head, MODEL_RATE_HZ))
        stream.effort = rung
        frames = stream.push(AudioChunk(5 * FRAME_TICKS, rest, MODEL_RATE_HZ))
        assert [f.level for f in frames] == [rung] * len(frames)
        pairs = list(zip(frames, frames[1:], strict=False))
        changed[rung] = sum(not np.array_equal(a.rgb[:100], b.rgb[:100]) for a, b in pairs)
        moving = sum(not np.array_equal(a.rgb, b.rgb) for a, b in pairs)
        assert moving == (0 if rung == 4 else len(pairs)), "the mouth moves on every rung but the last"
    assert changed[0] > changed[1] > changed[2] > changed[3] == changed[4] == 0


def test_first_frame_is_drawn_on_any_rung() -> None:
    stream = face()
    stream.effort = 4
    frames = run(stream, noise([0.1] * 4))
    assert frames[0].rgb.std() > 10


def test_avatars() -> None:
    stream = face()
    frames = []
    for n in range(8):
        if n == 4:
            stream.set_avatar("square")
        frames += stream.push(AudioChunk(n * FRAME_TICKS, np.zeros(FRAME_SAMPLES, np.float32), MODEL_RATE_HZ))
    steps = [np.abs(a.rgb.astype(int) - b.rgb).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert int(np.argmax(steps)) == 1, "the frame made after the change is the first of the other person"
    stream.reset()
    again = run(stream, np.zeros(FRAME_SAMPLES, np.float32))
    assert np.array_equal(again[0].rgb, frames[0].rgb), "reset brings the first avatar back"


def test_wrong_use() -> None:
    with pytest.raises(EngineError, match="oval.*disc, square"):
        ENGINE.stream(avatar="oval", style=request(), seed=0)
    with pytest.raises(EngineError, match="oval"):
        face().set_avatar("oval")
    short = StyleRequest("short", np.zeros(4, np.float32), np.zeros(4, np.float32))
    with pytest.raises(EngineError, match="short.*128"):
        face().set_style(short)
    with pytest.raises(EngineError, match="-1"):
        NoopEngine(-1)
    with pytest.raises(PresetError, match="'odd'.*calm, lively, neutral, sad, stern, warm"):
        DrawnShelf().get("odd")
    stream = face()
    with pytest.raises(StreamError, match="48000"):
        stream.push(AudioChunk(0, np.zeros(4, np.float32), 48_000))
    stream.push(AudioChunk(0, np.zeros(10, np.float32), MODEL_RATE_HZ))
    with pytest.raises(StreamError, match="expected 30"):
        stream.push(AudioChunk(60, np.zeros(10, np.float32), MODEL_RATE_HZ))
    stream.flush()
    with pytest.raises(StreamError, match="reset"):
        stream.push(AudioChunk(30, np.zeros(10, np.float32), MODEL_RATE_HZ))


def test_styles_of_the_shelf_differ() -> None:
    ENGINE.warm()
    pictures = [run(face(name), noise([0.0] * 4))[3].rgb.astype(int) for name in DrawnShelf().names()]
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            assert np.abs(a - b).mean() > 4
    assert DrawnShelf().get("warm").mu.shape == (STYLE_DIM,)


@pytest.mark.parametrize("codec", ["libvpx", "libx264"])
@pytest.mark.parametrize("sitter", sorted(SITTERS))
def test_mouth_is_readable_after_a_lossy_codec(codec: str, sitter: str) -> None:
    openings = np.linspace(0, 1, 9)
    still = scene(Sprites(SITTERS[sitter]), Drawing(Look(0.4, 0.1, 0.5, 0.0), dx=2.3, dy=-1.4, turn=0.5))
    sent = [finish(still, float(o))[0] for o in openings for _ in range(4)]
    read = [mouth_opening(rgb) for rgb in _through(codec, sent)][3::4]
    assert read[0] < 0.05
    assert np.corrcoef(openings, read)[0, 1] > 0.98
    assert all(b > a - 0.02 for a, b in zip(read, read[1:], strict=False))


def _through(codec: str, pictures: list[Bytes]) -> list[Bytes]:
    """Pictures after encoding at 300 kbit/s and decoding."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 256
        stream.pix_fmt, stream.bit_rate = "yuv420p", 300_000
        for n, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r") as back:
        return [np.asarray(f.to_ndarray(format="rgb24"), dtype=np.uint8) for f in back.decode(video=0)]


def test_accent_is_a_colour() -> None:
    for angle in np.linspace(0, 6.3, 20):
        colour = accent(Look(float(np.cos(angle)), float(np.sin(angle)), 0.0, 0.0))
        assert colour.shape == (3,)
        assert (colour > 40).all() and (colour < 240).all()
