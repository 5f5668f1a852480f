"""The small rooms: registry, guard, microphone, voice, words of the command line."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from server.ice import configuration, is_loopback, video_codecs
from server.mailbox import VoiceLine
from server.mic import MonoVoice, level_db
from server.pacing import MediaClock
from server.registry import Registry
from server.security import Denied, Guard, guard, hostname
from server.voice_track import SILENCE, OpusVoice, VoiceFeed, VoiceTrack
from svp_stream.config import Server
from svp_stream.errors import CapacityError, ConfigError
from svp_stream.packets import AudioChunk


def test_a_place_counts_from_the_wish_on() -> None:
    registry: Registry[str] = Registry(1, retry_after_s=7)
    place = registry.reserve()
    with pytest.raises(CapacityError, match="1 call at a time") as caught:
        registry.reserve()
    assert caught.value.retry_after_s == 7 and registry.refused == 1
    place.holder = "call"
    assert registry.by_secret(place.secret) is place and registry.by_id(place.id) is place
    assert registry.by_secret("") is None and registry.by_secret("é") is None and registry.by_id(place.secret) is None
    registry.release(place)
    registry.release(place)
    assert len(registry) == 0 and registry.by_secret(place.secret) is None


def test_secrets_differ_and_are_long() -> None:
    registry: Registry[str] = Registry(50)
    places = [registry.reserve() for _ in range(50)]
    assert len({p.secret for p in places} | {p.etag for p in places} | {p.id for p in places}) == 150
    assert min(len(p.secret) for p in places) >= 32


def test_no_room_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Registry[str](0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("localhost", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.3", False), ("avatar.example", False), ("", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_nobody_is_asked_for_candidates() -> None:
    assert configuration().iceServers == []


@pytest.mark.parametrize(("first", "kind"), [("vp8", "video/VP8"), ("h264", "video/H264")])
def test_codec_first(first: str, kind: str) -> None:
    codecs = [codec.mimeType for codec in video_codecs(first)]
    assert codecs[0] == kind and "video/rtx" in codecs


@pytest.mark.parametrize(
    ("header", "name"),
    [("localhost:80", "localhost"), ("127.0.0.1", "127.0.0.1"), ("[::1]:80", "::1"), ("::1", "::1"), ("a.b:1", "a.b")],
)
def test_hostname(header: str, name: str) -> None:
    assert hostname(header) == name


def test_a_server_of_this_machine_answers_to_no_foreign_name() -> None:
    local = guard(Server())
    local.check("127.0.0.1:8080", None)
    local.check("localhost:8080", None)
    for host in ("rebound.example:8080", None, ""):
        with pytest.raises(Denied, match="127.0.0.1 only") as caught:
            local.check(host, None)
        assert caught.value.status == 421


def test_a_token_is_asked_of_everybody() -> None:
    wide = guard(Server(host="0.0.0.0", token="0123456789abcdef"))
    wide.check("any.example", "Bearer 0123456789abcdef")
    wide.check("any.example", "bearer 0123456789abcdef ")
    for header in (None, "", "Bearer", "Bearer wrong", "Basic 0123456789abcdef", "Bearer é"):
        with pytest.raises(Denied) as caught:
            wide.check("any.example", header)
        assert caught.value.status == 401


def test_listening_wide_without_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="server.host: 0.0.0.0 .* token of at least 16"):
        guard(Server(host="0.0.0.0"))
    assert guard(Server()) == Guard(None, local=True)


def sound(rate: int, layout: str, fmt: str, pts: int = 0) -> av.AudioFrame:
    """20 ms of a 400 Hz tone, the same in all channels."""
    n = rate // 50
    tone = (0.5 * np.sin(2 * np.pi * 400 * np.arange(n) / rate) * 32767).astype(np.int16)
    channels = 2 if layout == "stereo" else 1
    planes = np.repeat(tone.reshape(1, -1), channels, axis=0)
    data = planes.T.reshape(1, -1) if fmt == "s16" else planes
    frame = av.AudioFrame.from_ndarray(data, format=fmt, layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
    return frame


@pytest.mark.parametrize(("layout", "fmt"), [("mono", "s16"), ("stereo", "s16"), ("stereo", "s16p")])
def test_48_khz_of_any_layout_becomes_mono_at_once_and_keeps_its_level(layout: str, fmt: str) -> None:
    pts, samples = MonoVoice().convert(sound(48_000, layout, fmt, pts=960))
    assert pts == 960 and samples.shape == (960,) and samples.dtype == np.float32
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_other_rates_are_resampled_and_their_pts_are_ticks() -> None:
    voice = MonoVoice()
    parts = [voice.convert(sound(8_000, "mono", "s16", pts=i * 160)) for i in range(50)]
    assert parts[10][0] == 10 * 960
    total = sum(len(samples) for _, samples in parts)
    assert 48_000 - 960 <= total <= 48_000


def test_a_change_in_mid_stream_is_followed() -> None:
    voice = MonoVoice()
    voice.convert(sound(48_000, "stereo", "s16"))
    assert len(voice.convert(sound(48_000, "mono", "s16"))[1]) == 960


def test_level() -> None:
    assert level_db(1.0) == 0.0 and level_db(0.01) == pytest.approx(-20) and level_db(0.0) == -100.0


def test_opus_voice_is_the_voice() -> None:
    opus, decoder = OpusVoice(), av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    tone = (0.5 * np.sin(2 * np.pi * 400 * np.arange(48_000) / 48_000)).astype(np.float32)
    heard = []
    for start in range(0, 48_000, 960):
        payload = opus.encode(tone[start : start + 960])
        if payload:
            heard += [f.to_ndarray() for f in decoder.decode(av.Packet(payload))]
    pcm = np.concatenate([h.reshape(-1) for h in heard[10:]]).astype(np.float64)
    pcm = pcm / (32768 if pcm.max() > 2 else 1)
    assert np.sqrt(np.mean(pcm**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


def test_the_silence_packet_decodes_to_silence() -> None:
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    frames = [f for _ in range(5) for f in decoder.decode(av.Packet(SILENCE))]
    assert len(frames) == 5 and all(f.samples == 960 for f in frames)
    assert max(float(np.abs(f.to_ndarray()).max()) for f in frames) < 1e-4


async def test_the_voice_is_encoded_once_and_its_stamps_are_media_time() -> None:
    clock, line = MediaClock(time.monotonic() - 1.0), VoiceLine(96_000)
    line.write(AudioChunk(0, np.full(96_000, 0.3, np.float32), 48_000))
    feed, ears = VoiceFeed(clock, line, latency=4800), [False]
    deaf, hearer, other = VoiceTrack(feed, lambda: ears[0]), VoiceTrack(feed), VoiceTrack(feed)
    packets = await asyncio.gather(*(track.recv() for track in (deaf, hearer, other)))
    assert packets[0].data == SILENCE and packets[1] is packets[2] and feed.encoded == 1
    following = await hearer.recv()
    assert following.pts - packets[1].pts == 960 and feed.skipped == 0, "a voice that begins late is late for nothing"
    assert packets[1].pts >= 48_000 - 4800 - 960 - 1920 - 960
    ears[0] = True
    assert any([(await deaf.recv()).data != SILENCE for _ in range(12)])
    for track in (deaf, hearer, other):
        track.stop()
    assert feed._task is None, "nobody listens: nothing runs"


async def test_a_voice_that_nobody_shall_hear_is_not_encoded() -> None:
    feed = VoiceFeed(MediaClock(time.monotonic()), VoiceLine(96_000), latency=0)
    track = VoiceTrack(feed, lambda: False)
    assert [(await track.recv()).data for _ in range(3)] == [SILENCE] * 3 and feed.encoded == 0
    track.stop()
