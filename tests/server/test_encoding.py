"""Encoders read back by a decoder; the rules of key frames and bit rates by themselves, on a clock of their own."""

from __future__ import annotations

import av
import numpy as np
import pytest
from aiortc.codecs import depayload
from aiortc.codecs.h264 import H264Encoder, h264_depayload
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from server.encoding import (
    Converter,
    EncodedPicture,
    KeyGate,
    PictureCodec,
    RateRule,
    open_codec,
    shared_rate,
)
from server.rtp_payload import PAYLOAD_BYTES, h264_payloads, nal_units, vp8_payloads
from svp_stream.packets import Bytes
from tests.fakes.engines import draw, read_number

DECODERS = {"vp8": "libvpx", "h264": "h264"}


def busy(number: int) -> Bytes:
    """A picture that costs many bits: noise that moves."""
    noise = np.random.default_rng(3).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    return np.roll(noise // 2 + 60, 3 * number, axis=1)


def spent(codec: PictureCodec, first: int, count: int) -> tuple[float, list[int]]:
    """Bits a second at 25 fps, and which pictures were key frames."""
    converter, size, keys = Converter(None), 0, []
    for number in range(first, first + count):
        data, key = codec.encode(converter.convert(busy(number), number * 1920), False)
        size += len(data)
        keys += [number] if key else []
    return size * 8 * 25 / count, keys


@pytest.mark.parametrize("name", ["vp8", "h264"])
def test_every_picture_comes_back_at_once_and_as_it_was(name: str) -> None:
    codec, converter = open_codec(name, 1_000_000, 1_500_000), Converter(None)
    decoder = av.CodecContext.create(DECODERS[name], "r")
    assert isinstance(decoder, av.VideoCodecContext)
    for number in range(4, 44):
        data, key = codec.encode(converter.convert(draw(number, 0.4), number * 1920), number == 20)
        assert key is (number in (4, 20)), "key frames are the first and those asked for"
        (picture,) = decoder.decode(av.Packet(data))
        assert read_number(picture.to_ndarray(format="rgb24").astype(np.uint8)) == number, "no delay, no ghosts"


def test_h264_changes_its_rate_while_it_runs_without_a_key_frame() -> None:
    codec = open_codec("h264", 1_500_000, 1_500_000)
    high, keys = spent(codec, 0, 75)
    codec.retune(400_000)
    low, more_keys = spent(codec, 75, 75)
    assert keys == [0] and more_keys == []
    assert low < 0.5 * high and high > 1_000_000


def test_vp8_changes_its_rate_by_a_key_frame() -> None:
    codec = open_codec("vp8", 1_500_000, 1_500_000)
    high, keys = spent(codec, 0, 50)
    codec.retune(400_000)
    low, more_keys = spent(codec, 50, 50)
    assert keys == [0] and more_keys == [50] and low < 0.5 * high


@pytest.mark.parametrize(("side", "halves", "size"), [(None, 1, (256, 256)), (512, 1, (512, 512)), (64, 2, (64, 128))])
def test_pictures_are_scaled(side: int | None, halves: int, size: tuple[int, int]) -> None:
    frame = Converter(side).convert(np.repeat(busy(0), halves, axis=0), 7, halves=halves)
    assert (frame.width, frame.height) == size and frame.format.name == "yuv420p" and frame.pts == 7


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="there are vp8, h264"):
        open_codec("av1", 1, 1)


def test_key_frames_are_half_a_second_apart() -> None:
    gate, made = KeyGate(), []
    for step in range(100):
        now = step * 0.04
        if step % 3 == 0:
            gate.ask()
        if gate.due(now):
            gate.made(now)
            made.append(now)
    assert made[0] == 0 and len(made) == 8 and min(np.diff(made)) >= 0.5
    assert not KeyGate().due(0.0), "nobody asked"


def _rule(bits: int, output: int) -> RateRule:
    """At ten seconds, after a second of `output` bits a second."""
    rule = RateRule(bits)
    for step in range(0, 251):
        rule.spent(step * 0.04, output // 200)
    return rule


@pytest.mark.parametrize(
    ("wish", "output", "found"),
    [
        (900_000, 1_000_000, None),
        (790_000, 1_000_000, 790_000),
        (400_000, 1_000_000, 400_000),
        (400_000, 100_000, None),
        (1_200_000, 1_000_000, None),
        (1_300_000, 1_000_000, 1_300_000),
    ],
    ids=["near", "below", "far below", "a still picture needs few bits", "little above", "above"],
)
def test_which_wishes_are_worth_a_key_frame(wish: int, output: int, found: int | None) -> None:
    assert _rule(1_000_000, output).decide(10.0, wish) == found


def test_down_at_once_and_up_slowly() -> None:
    rule = _rule(1_000_000, 1_000_000)
    assert rule.decide(10.00, 500_000) == 500_000
    assert rule.decide(10.04, 250_000) == 250_000
    assert [rule.decide(now, 1_000_000) for now in (11.0, 13.0, 15.0)] == [None, None, None]
    assert rule.decide(15.1, 1_000_000) == 1_000_000 and rule.bits == 1_000_000


@pytest.mark.parametrize(
    ("estimates", "rate"),
    [
        ([], 1_000_000),
        ([None, None], 1_000_000),
        ([700_000], 700_000),
        ([9_000_000], 1_500_000),
        ([10_000], 100_000),
        ([None, 700_000], 700_000),
        ([900_000, 1_000_000, 1_400_000], 900_000),
        ([50_000, 1_000_000, 1_400_000], 500_000),
        ([50_000] + [1_400_000] * 19, 700_000),
        ([50_000, 1_450_000], 375_000),
        ([50_000, 60_000, 1_400_000], 100_000),
    ],
)
def test_one_rate_for_many(estimates: list[int | None], rate: int) -> None:
    assert shared_rate(estimates, 1_500_000) == rate


@pytest.mark.parametrize("length", [1, 1195, 1196, 1197, 5000])
def test_vp8_payloads_are_read_by_aiortc(length: int) -> None:
    data = bytes(range(256)) * (length // 256) + bytes(length % 256)
    parts = vp8_payloads(data, 0x1234)
    vp8 = RTCRtpCodecParameters(mimeType="video/VP8", clockRate=90000, payloadType=96)
    assert b"".join(depayload(vp8, p) for p in parts) == data
    assert all(len(p) <= PAYLOAD_BYTES for p in parts) and [p[0] for p in parts][1:] == [0x80] * (len(parts) - 1)
    assert parts[0][:4] == bytes((0x90, 0x80, 0x92, 0x34))


def test_h264_payloads_are_read_by_aiortc_and_cut_as_aiortc_would() -> None:
    units = [b"\x67\1\2", b"\x68\3", b"\x65" + bytes([7]) * 3000, b"\x41" + bytes([9]) * 1199]
    data = b"".join(b"\0\0\0\1" + unit for unit in units)
    assert list(nal_units(data)) == units == list(H264Encoder._split_bitstream(data))
    parts = h264_payloads(data)
    assert b"".join(h264_depayload(p) for p in parts) == data and all(len(p) <= PAYLOAD_BYTES for p in parts)
    assert list(nal_units(b"no start code")) == []


def test_a_picture_is_cut_once_for_all_and_timed_in_90_khz() -> None:
    picture = EncodedPicture("vp8", 1920 * 25, b"x" * 3000, True, 5)
    assert picture.payloads is picture.payloads and picture.timestamp == 90_000
