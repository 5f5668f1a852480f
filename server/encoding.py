"""Pictures into VP8 or H.264, and the rules that keep key frames rare.

In: uint8 RGB pictures with `pts`, a wished bit rate. Out: `EncodedPicture`s.
Remembers: the codec's own state. Latency: none (no B frames, no look-ahead). Used from the encoder thread.

A bit rate is changed in x264 while it runs; libvpx (through PyAV) has to be opened anew, which costs a key frame, so
there it changes only by `RateRule`: down at once when more than 20 % too high, up at most every 5 s. Beyond what those
openings make, `KeyGate` lets one key frame through in 500 ms.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Final, Protocol

import av
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from server.rtp_payload import payloads_of
from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS, TICKS_PER_SECOND
from svp_stream.packets import Bytes

CODECS: Final = ("vp8", "h264")
LOWEST_BITS: Final = 100_000
KEY_GAP_S: Final = 0.5
UP_GAP_S: Final = 5.0
STEP: Final = 1.25
"""A wish further away than this factor is worth opening libvpx anew."""
LEVEL_31_BLOCKS: Final = 3600
_TIME_BASE: Final = Fraction(1, TICKS_PER_SECOND)


@dataclass(frozen=True)
class EncodedPicture:
    """One picture on its way: `pts` in ticks, `key` whether it can be shown without those before, `number` (15 bits)
    counts the pictures of one encoding, `level` is the rung of the ladder that the frame was made on."""

    codec: str
    pts: int
    data: bytes
    key: bool
    number: int = 0
    level: int = 0

    @cached_property
    def payloads(self) -> list[bytes]:
        """RTP payloads, cut once for all viewers."""
        return payloads_of(self.codec, self.data, self.number)

    @property
    def timestamp(self) -> int:
        """RTP time in 1/90000 s."""
        return self.pts * 15 // 8


class PictureCodec(Protocol):
    """One running encoder."""

    def encode(self, picture: av.VideoFrame, key: bool) -> tuple[bytes, bool]:
        """One yuv420p picture with pts in ticks to its bytes (empty: left out) and whether they are a key frame."""
        ...

    def retune(self, bits_per_second: int) -> None:
        """Another bit rate from the next picture on."""
        ...


def _encoded(codec: av.VideoCodecContext, picture: av.VideoFrame, key: bool) -> tuple[bytes, bool]:
    picture.pict_type = PictureType.I if key else PictureType.NONE
    packets = codec.encode(picture)
    return b"".join(bytes(p) for p in packets), any(p.is_keyframe for p in packets)


def _context(name: str, picture: av.VideoFrame, bits: int) -> av.VideoCodecContext:
    codec = av.CodecContext.create(name, "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = picture.width, picture.height, "yuv420p"
    codec.bit_rate, codec.gop_size = bits, 3000
    codec.time_base, codec.framerate = _TIME_BASE, Fraction(FRAME_RATE_HZ)
    big = picture.width * picture.height > 640 * 480
    codec.thread_count = min(2, os.cpu_count() or 1) if big else 1
    return codec


class Vp8:
    """libvpx in real-time mode at a constant bit rate, set as aiortc sets it but for the denoiser.

    Rendered pictures have no camera noise, and libvpx's denoiser (noise-sensitivity) leaves parts of the last picture
    standing where this one differs sharply.
    """

    def __init__(self, bits_per_second: int, ceiling: int) -> None:
        self._bits = bits_per_second
        self._codec: av.VideoCodecContext | None = None

    def encode(self, picture: av.VideoFrame, key: bool) -> tuple[bytes, bool]:
        """See `PictureCodec`; the first picture after `retune` is a key frame."""
        codec = self._codec
        if codec is None or (codec.width, codec.height) != (picture.width, picture.height):
            codec = self._codec = self._open(picture)
        return _encoded(codec, picture, key)

    def retune(self, bits_per_second: int) -> None:
        """See `PictureCodec`."""
        self._bits, self._codec = bits_per_second, None

    def _open(self, picture: av.VideoFrame) -> av.VideoCodecContext:
        codec, rate = _context("libvpx", picture, self._bits), str(self._bits)
        codec.qmin, codec.qmax = 2, 56
        codec.options = {
            "bufsize": rate, "minrate": rate, "maxrate": rate, "cpu-used": "-6", "deadline": "realtime",
            "lag-in-frames": "0", "noise-sensitivity": "0", "overshoot-pct": "15", "undershoot-pct": "100",
            "partitions": "0", "static-thresh": "1",
        }  # fmt: skip
        return codec


class H264:
    """libx264, ultrafast and zerolatency, constrained baseline; its bit rate changes while it runs."""

    def __init__(self, bits_per_second: int, ceiling: int) -> None:
        self._bits = bits_per_second
        self._ceiling = ceiling
        self._codec: av.VideoCodecContext | None = None

    def encode(self, picture: av.VideoFrame, key: bool) -> tuple[bytes, bool]:
        """See `PictureCodec`."""
        codec = self._codec
        if codec is None or (codec.width, codec.height) != (picture.width, picture.height):
            codec = self._codec = self._open(picture)
        return _encoded(codec, picture, key)

    def retune(self, bits_per_second: int) -> None:
        """See `PictureCodec`; libavcodec hands a changed rate to `x264_encoder_reconfig` before the next picture."""
        self._bits = bits_per_second
        if self._codec is not None:
            self._codec.bit_rate = bits_per_second

    def _open(self, picture: av.VideoFrame) -> av.VideoCodecContext:
        codec = _context("libx264", picture, self._bits)
        codec.max_b_frames = 0
        # x264 follows a changed bit rate only where it has a buffer model: a ceiling and half a second of it
        rates = {"maxrate": str(self._ceiling), "bufsize": str(self._ceiling // 2)}
        options = {"preset": "ultrafast", "tune": "zerolatency", **rates}
        if picture.width * picture.height <= LEVEL_31_BLOCKS * 256:
            options["level"] = "31"
        codec.options = options
        codec.profile = "Baseline"
        return codec


def open_codec(name: str, bits_per_second: int, ceiling: int) -> PictureCodec:
    """A fresh encoder; raises ValueError for a codec other than "vp8" and "h264"."""
    if name not in CODECS:
        raise ValueError(f"there is no encoder for {name!r}; there are {', '.join(CODECS)}")
    return (Vp8 if name == "vp8" else H264)(bits_per_second, ceiling)


class Converter:
    """RGB arrays to yuv420p frames, scaled to a square side (None: as they are); keeps its tables between pictures."""

    def __init__(self, side: int | None) -> None:
        self._side = side
        self._scaler = VideoReformatter()

    def convert(self, rgb: Bytes, pts: int, *, halves: int = 1) -> av.VideoFrame:
        """uint8 [H, W, 3] with H even; a picture of two `halves` keeps them one above the other."""
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        width, height = (self._side, self._side * halves) if self._side else (frame.width, frame.height)
        out = self._scaler.reformat(frame, width=width, height=height, format="yuv420p")
        out.pts, out.time_base, out.duration = pts, _TIME_BASE, FRAME_TICKS
        return out


@dataclass(slots=True)
class KeyGate:
    """Lets asked-for key frames through, at most one in `gap_s`; a wish that comes too soon waits."""

    gap_s: float = KEY_GAP_S
    _asked: bool = False
    _last_s: float = field(default=float("-inf"))

    def ask(self) -> None:
        """Somebody needs a key frame."""
        self._asked = True

    def due(self, now_s: float) -> bool:
        """Whether the next picture shall be one."""
        return self._asked and now_s >= self._last_s + self.gap_s

    def made(self, now_s: float) -> None:
        """A key frame was made, asked for or not."""
        self._asked, self._last_s = False, now_s


@dataclass(slots=True)
class RateRule:
    """When a wished bit rate is worth a key frame. `bits` is the rate that the encoder runs at."""

    bits: int
    _up_s: float = field(default=float("-inf"))
    _spent: int = 0
    _since_s: float | None = None
    _output: float = 0.0

    def spent(self, now_s: float, size: int) -> None:
        """A picture of `size` bytes left: gives the rate that is really used, second by second."""
        if self._since_s is None:
            self._since_s, self._up_s = now_s, now_s
        self._spent += size
        if now_s - self._since_s >= 1.0:
            self._output = self._spent * 8 / (now_s - self._since_s)
            self._spent, self._since_s = 0, now_s

    def decide(self, now_s: float, wish: int) -> int | None:
        """A new rate, or None to leave it.

        An estimate below the rate that is set but well above the one that is used says only that a still picture
        needs few bits (a receiver estimates at most 1.5 times what it gets): that is no reason to go down. Nor is the
        first second, in which nothing is known of the use and receivers guess.
        """
        if wish * STEP < self.bits and wish < self._output * 1.2:
            self.bits, self._up_s = wish, now_s
        elif wish > self.bits * STEP and now_s - self._up_s >= UP_GAP_S:
            self.bits, self._up_s = wish, now_s
        else:
            return None
        return self.bits


def shared_rate(estimates: list[int | None], ceiling: int) -> int:
    """One bit rate for many viewers, from their receivers' estimates (REMB; None: none yet), at most `ceiling`.

    The slowest decides, but it cannot pull the others below half of their median: below that it loses packets, which
    costs one viewer pictures instead of costing all of them sharpness. Without any estimate: two thirds of the ceiling.
    """
    known = sorted(e for e in estimates if e is not None)
    if not known:
        return max(LOWEST_BITS, ceiling * 2 // 3)
    middle = len(known) // 2
    median = known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) // 2
    return max(LOWEST_BITS, min(ceiling, max(known[0], median // 2)))
