"""The person before another background: exact at the ends, without a trace of the old backdrop in between, fast."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from svp_stream.errors import ConfigError, MediaError
from svp_stream.packets import AudioChunk, Bytes, Frame
from svp_stream.pipeline import backdrop
from svp_stream.pipeline.backdrop import MAX_PICTURE_BYTES, Background, background_of
from svp_stream.pipeline.compose import CLEAR, SOLID, matte, packed, plain, scaled, spread
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.noop import STYLE_DIM, NoopEngine

GREEN = Background.of_colour("#00ff00")
PERSON = np.array([150.0, 90.0, 60.0])


def mixed(height: int = 96, width: int = 80, backdrop_side: float = 40.0) -> tuple[Frame, NDArray[np.float64]]:
    """A disc of one colour with a wide soft edge over a sloping backdrop, and its true matte in [0, 1]."""
    y, x = np.mgrid[:height, :width].astype(float)
    share = np.clip((min(height, width) * 0.42 - np.hypot(y - height / 2, x - width / 2)) / 8 + 0.5, 0, 1)
    behind = np.stack([110 + x / width * backdrop_side, 116 + y / height * backdrop_side, 127 - x * 0], axis=-1)
    rgb = share[..., None] * PERSON + (1 - share[..., None]) * behind
    return Frame(0, rgb.round().astype(np.uint8), (share * 255).round().astype(np.uint8)), share


def drawn() -> Frame:
    """A frame of the engine without weights."""
    engine = NoopEngine()
    zeros = np.zeros(STYLE_DIM, np.float32)
    face = engine.stream(avatar=engine.avatars[0], style=StyleRequest("plain", zeros, zeros), seed=1)
    return face.push(AudioChunk(0, np.zeros(16_000, np.float32), 16_000))[-1]


def test_without_a_background_the_picture_is_the_engines_own() -> None:
    frame, _ = mixed()
    assert plain(frame, None) is frame.rgb
    bare = Frame(0, frame.rgb)
    assert plain(bare, GREEN) is bare.rgb, "without a matte nothing is known about the person"


@pytest.mark.parametrize("colour", ["#00ff00", "#ffffff", "#000000", "#3060c0"])
def test_the_ends_are_exact_and_the_edge_knows_nothing_of_the_old_backdrop(colour: str) -> None:
    frame, share = mixed()
    background = Background.of_colour(colour)
    out = plain(frame, background)
    assert out.dtype == np.uint8 and out.shape == frame.rgb.shape and out.flags.c_contiguous
    clean = matte(frame)
    assert (out[clean == 0] == background.rgb).all()
    assert (out[clean == 255] == frame.rgb[clean == 255]).all()
    true = share[..., None] * PERSON + (1 - share[..., None]) * np.array(background.rgb)
    naive = share[..., None] * frame.rgb + (1 - share[..., None]) * np.array(background.rgb)
    edge = (share > 0.2) & (share < 0.8)
    assert np.abs(out - true)[edge].mean() < 8, "the stretch of the matte's ends is all that is left"
    assert np.abs(out - true)[edge].max() < 0.7 * np.abs(naive - true)[edge].max() + 12


def test_packing_comes_back_over_any_colour() -> None:
    frame, _ = mixed()
    height = frame.rgb.shape[0]
    whole = packed(frame)
    assert whole.shape == (2 * height, frame.rgb.shape[1], 3)
    assert (whole[height:] == matte(frame)[..., None]).all()
    alpha = whole[height:].astype(float) / 255
    for rgb in ((0, 255, 0), (255, 255, 255), (0, 0, 0)):
        back = whole[:height] * alpha + (1 - alpha) * np.array(rgb)
        assert np.abs(back - plain(frame, Background(rgb))).max() <= 6


def through_vp8(picture: Bytes, frames: int = 5) -> Bytes:
    """The last of `frames` equal pictures after libvpx at 1.5 Mbit/s and its decoder."""
    encoder, decoder = av.CodecContext.create("libvpx", "w"), av.CodecContext.create("vp8", "r")
    assert isinstance(encoder, av.VideoCodecContext) and isinstance(decoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
    encoder.bit_rate, encoder.time_base = 1_500_000, Fraction(1, 25)
    encoder.options = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}
    out = picture
    for pts in range(frames):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = pts
        for packet in encoder.encode(frame):
            for decoded in decoder.decode(packet):
                out = np.asarray(decoded.to_ndarray(format="rgb24"), np.uint8)
    return out


def test_colour_and_matte_survive_a_codec() -> None:
    """What a page makes of a packed picture after VP8: the matte within a few levels, no backdrop at the edge."""
    frame = drawn()
    got = through_vp8(packed(frame)).astype(float)
    alpha = np.clip((got[256 + 3 :].mean(axis=2) - 10) / 235, 0, 1) * 255
    true = matte(frame)[3:]
    assert np.abs(alpha - true).mean() < 2
    assert (alpha[true == 0] < 40).all() and (alpha[true == 255] > 215).all()
    over = got[3:256] * alpha[..., None] / 255 + (1 - alpha[..., None] / 255) * np.array((0, 255, 0))
    assert np.abs(over - plain(frame, GREEN)[3:]).mean() < 4


def test_the_packed_colours_are_the_persons_everywhere() -> None:
    frame, _ = mixed()
    colours = packed(frame)[: frame.rgb.shape[0]].astype(float)
    assert np.abs(colours - PERSON).max() < 6, "one-coloured person: one-coloured picture, wherever the edge is"


def test_a_drawn_face_keeps_itself_and_loses_its_backdrop() -> None:
    frame = drawn()
    assert frame.alpha is not None
    out = plain(frame, GREEN)
    assert (out[matte(frame) == 0] == (0, 255, 0)).all() and (matte(frame) == 0).mean() > 0.1
    inner = frame.alpha >= SOLID
    assert (out[inner] == frame.rgb[inner]).all() and inner.mean() > 0.3


@pytest.mark.parametrize("alpha", [0, 255, 128])
def test_nobody_and_all_person_are_no_special_case(alpha: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    frame = Frame(0, rgb, np.full((40, 24), alpha, np.uint8))
    assert plain(frame, GREEN).shape == rgb.shape
    assert packed(frame).shape == (80, 24, 3)
    if alpha == 0:
        assert (plain(frame, GREEN) == (0, 255, 0)).all()
    if alpha == 255:
        assert (plain(frame, GREEN) == rgb).all() and (packed(frame)[40:] == 255).all()
    assert (packed(Frame(0, rgb))[40:] == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (97, 33), (128, 128), (256, 256)])
def test_any_size_will_do(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    rgb, alpha = rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.integers(0, 256, size, dtype=np.uint8)
    assert plain(Frame(0, rgb, alpha), GREEN).shape == (*size, 3)
    assert packed(Frame(0, rgb, alpha)).shape == (2 * size[0], size[1], 3)


def test_traces_of_the_decoder_are_cleared() -> None:
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    clean = matte(Frame(0, np.zeros((16, 16, 3), np.uint8), alpha)).reshape(-1)
    assert (clean[: CLEAR + 1] == 0).all() and (clean[SOLID:] == 255).all() and (np.diff(clean.astype(int)) >= 0).all()


def test_spreading_fills_holes_smoothly_and_keeps_what_is_known() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:, :32], rgb[:, 32:] = (200, 0, 0), (0, 0, 200)
    known = np.zeros((64, 64), np.bool_)
    known[:, :8] = known[:, -8:] = True
    cells = spread(rgb, known)
    assert cells.shape == (8, 8, 3)
    assert np.allclose(cells[:, 0], (200, 0, 0)) and np.allclose(cells[:, -1], (0, 0, 200))
    assert np.abs(np.diff(cells[..., 0], axis=1)).max() < 120, "no cliff in between"
    assert np.allclose(spread(rgb, np.zeros((64, 64), np.bool_)), 127)


def test_composing_is_fast() -> None:
    """In this thread's own time, against a few passes over the same picture."""
    frame = drawn()

    def best(work: Callable[[], object]) -> float:
        times = []
        for _ in range(60):
            began = time.thread_time()
            work()
            times.append(time.thread_time() - began)
        return min(times)

    floats = frame.rgb.astype(np.float32)
    naive = best(lambda: np.clip(floats * 0.5 + floats * floats / 255, 0, 255).astype(np.uint8))
    assert best(lambda: plain(frame, GREEN)) < 12 * naive
    assert best(lambda: packed(frame)) < 20 * naive


def test_scaling_keeps_what_fits_and_changes_what_does_not() -> None:
    frame = drawn()
    assert scaled(frame.rgb, 256, 256) is frame.rgb
    large, small = scaled(frame.rgb, 512, 384), scaled(frame.rgb, 64, 64)
    assert large.shape == (384, 512, 3) and small.shape == (64, 64, 3) and large.dtype == np.uint8
    mean = frame.rgb.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - mean).mean() < 3


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 20), mode: str = "RGB") -> bytes:
    """A picture, left half red, right half blue."""
    image = Image.new(mode, size, "red")
    image.paste("blue", (size[0] // 2, 0, *size))
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_covers_and_is_cut_in_the_middle(kind: str) -> None:
    background = Background.of_picture(picture(kind))
    cut = background.cover(50, 50)
    assert cut.shape == (50, 50, 3) and background.told == "picture"
    assert (np.abs(cut[25, 2].astype(int) - (255, 0, 0)) < 30).all()
    assert (np.abs(cut[25, -3].astype(int) - (0, 0, 255)) < 30).all()
    assert background.cover(50, 50) is cut, "kept"
    with pytest.raises(ValueError, match="read-only"):
        cut[0] = 0
    for side in range(10, 20):
        background.cover(side, side)
    assert len(background._cuts) == backdrop.KEPT_CUTS


def test_a_person_stands_before_a_picture() -> None:
    frame = drawn()
    out = plain(frame, Background.of_picture(picture()))
    assert (out[2, 2] == (255, 0, 0)).all() and (out[2, -3] == (0, 0, 255)).all()


def damaged() -> bytes:
    whole = picture("PNG", (200, 200))
    return whole[: len(whole) // 2]


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "no PNG, JPEG or WebP"), (b"GIF89a" + bytes(50), "no PNG"), (b"<svg onload=alert(1)>", "no PNG"),
     (picture("PNG", (5000, 3)), "4096"), (picture("BMP"), "no PNG"), (damaged(), "damaged"),
     (bytes(MAX_PICTURE_BYTES + 1), "8 MiB")],
    ids=["nothing", "gif", "svg", "wide", "bmp", "damaged", "long"],
)  # fmt: skip
def test_other_files_are_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        Background.of_picture(data)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    """A PNG of a few bytes that says it is 4000 million pixels."""
    bomb = bytearray(picture("PNG"))
    bomb[16:24] = (65_000).to_bytes(4, "big") * 2
    with pytest.raises(MediaError):
        Background.of_picture(bytes(bomb))


def test_random_bytes_after_a_true_head_never_escape() -> None:
    rng = np.random.default_rng(7)
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = picture(kind, (64, 64))
        for _ in range(60):
            data = bytearray(whole)
            for at in rng.integers(8, len(data), 5):
                data[at] = int(rng.integers(0, 256))
            try:
                Background.of_picture(bytes(data)).cover(16, 16)
            except MediaError:
                continue


def test_transparent_and_large_pictures() -> None:
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(clear, "PNG")
    assert (Background.of_picture(clear.getvalue()).cover(4, 4) == 0).all()
    large = Background.of_picture(picture("JPEG", (4000, 3000)))
    assert large.picture is not None and max(large.picture.shape) == backdrop.KEPT_SIDE


@pytest.mark.parametrize("text", ["#0f0", "00ff00", "#00ff0g", "green", "", "#00ff00 "])
def test_colours_are_written_one_way(text: str) -> None:
    with pytest.raises(MediaError, match="#rrggbb"):
        Background.of_colour(text)
    assert GREEN.told == "#00ff00" and Background.of_colour("#A0b1C2").rgb == (0xA0, 0xB1, 0xC2)


def test_a_profile_names_colour_or_picture(tmp_path: Path) -> None:
    (tmp_path / "room.png").write_bytes(picture())
    (tmp_path / "text.png").write_text("hello")
    assert background_of(None, tmp_path) is None
    named = background_of("#102030", tmp_path)
    assert named is not None and named.rgb == (16, 32, 48)
    room = background_of("room.png", tmp_path)
    assert room is not None and room.told == "picture"
    wrongs = {"#1020": "#rrggbb", "nowhere.png": "neither a colour", "text.png": "text.png", ".": "neither"}
    for wrong, words in wrongs.items():
        with pytest.raises(ConfigError, match=f"media.background: .*{words}"):
            background_of(wrong, tmp_path)


def test_a_frame_is_never_written_to() -> None:
    frame, _ = mixed()
    before: Bytes = frame.rgb.copy()
    plain(frame, GREEN)
    packed(frame)
    assert (frame.rgb == before).all()
