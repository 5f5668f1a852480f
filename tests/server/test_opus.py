"""Opus as it is received: lengths against libopus itself, and that concealment does less harm than silence."""

from __future__ import annotations

import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from server.opus import OpusEar, frame_ticks, packet_ticks
from server.voice_track import OpusVoice
from svp_stream.packets import Float32
from svp_stream.synthetic.speech import VOICES, synthesise

PACKET = 960


def tone(seconds: float = 1.0) -> Float32:
    t = np.arange(round(48_000 * seconds)) / 48_000
    return (0.3 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)


def encoded(sound: Float32) -> list[bytes]:
    voice = OpusVoice()
    return [voice.encode(sound[at : at + PACKET]) for at in range(0, len(sound) - PACKET + 1, PACKET)]


@pytest.mark.parametrize(
    ("payload", "ms"),
    [(b"\x00a", 10), (b"\x08a", 20), (b"\x10a", 40), (b"\x18a", 60), (b"\x60a", 10), (b"\x68a", 20), (b"\x80a", 2.5),
     (b"\xf8a", 20), (b"\xf9ab", 40), (b"\xfaab", 40), (b"\xfb\x03abc", 60), (b"\xfb\x06a", 120), (b"\x78", 20)],
)  # fmt: skip
def test_how_long_a_packet_lasts(payload: bytes, ms: float) -> None:
    assert packet_ticks(payload) == ms * 48


@pytest.mark.parametrize("payload", [b"", b"\xfb", b"\xfb\x00a", b"\xfb\x07a", b"\x1b\x03a"])
def test_what_is_no_opus_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="Opus packet"):
        packet_ticks(payload)


@pytest.mark.parametrize("frame_ms", [2.5, 5, 10, 20, 40, 60])
def test_lengths_are_those_of_libopus(frame_ms: float) -> None:
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.format, codec.layout = 48_000, av.AudioFormat("s16"), av.AudioLayout("mono")
    codec.options = {"frame_duration": str(frame_ms)}
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 2880 * 4), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = 48_000, Fraction(1, 48_000), 0
    fifo = av.AudioFifo()
    fifo.write(frame)
    packets = [bytes(p) for f in fifo.read_many(round(48 * frame_ms)) for p in codec.encode(f)]
    assert packets and {packet_ticks(p) for p in packets} == {round(48 * frame_ms)}
    ear = OpusEar()
    assert {len(ear.decode(p)) for p in packets} == {round(48 * frame_ms)}


def test_a_stereo_stream_is_heard_as_its_mean() -> None:
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.format, codec.layout, codec.bit_rate = (
        48_000, av.AudioFormat("s16"), av.AudioLayout("stereo"), 128_000,
    )  # fmt: skip
    left = (tone(0.4) * 32767).astype(np.int16)
    ear, heard = OpusEar(), []
    for at in range(0, len(left), PACKET):
        both = np.stack([left[at : at + PACKET], np.zeros(PACKET, np.int16)], axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = 48_000, Fraction(1, 48_000), at
        heard += [ear.decode(bytes(p)) for p in codec.encode(frame)]
    rms = float(np.sqrt(np.mean(np.square(np.concatenate(heard)[4800:]))))
    assert rms == pytest.approx(0.5 * 0.3 / np.sqrt(2), rel=0.1)


def test_concealment_goes_on_with_what_was_heard_and_fades() -> None:
    packets, ear = encoded(tone()), OpusEar()
    assert not ear.conceal(PACKET).any(), "at the start there is nothing to go on with"
    for packet in packets[:20]:
        ear.decode(packet)
    peaks = [float(np.abs(ear.conceal(PACKET)).max()) for _ in range(6)]
    assert peaks[0] > 0.2 and peaks[-1] < 0.7 * peaks[0]
    again = np.concatenate([ear.decode(p) for p in packets[26:30]])
    assert np.abs(again[PACKET:]).max() == pytest.approx(0.3, rel=0.1), "and the stream goes on"


def test_concealment_has_the_length_asked_for() -> None:
    ear = OpusEar()
    ear.decode(encoded(tone())[0])
    assert [len(ear.conceal(n)) for n in (1, 480, 960, 961, 2880)] == [1, 480, 960, 961, 2880]


def test_a_broken_packet_is_an_error_and_the_next_is_heard() -> None:
    packets, ear = encoded(tone()), OpusEar()
    ear.decode(packets[0])
    with pytest.raises(av.FFmpegError):
        ear.decode(b"\x03\x00")
    assert len(ear.decode(packets[1])) == PACKET
    assert frame_ticks(packets[0][0]) == PACKET


def spectra(sound: Float32) -> Float32:
    """Log power, dB [frames, bins], windows of 32 ms every 16 ms, floored 70 dB below full scale."""
    size, hop = 1536, 768
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop] * np.hanning(size)
    power = np.square(np.abs(np.fft.rfft(frames, axis=1)))[:, :256] / size
    return np.asarray(10 * np.log10(power + 1e-7), np.float32)


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite speaks the sentence")
@pytest.mark.parametrize("voice", ["slt", "rms"])
def test_concealment_does_less_harm_than_silence(voice: str) -> None:
    """Speech through Opus with 5 % of the packets lost: log-spectral distance to the same speech with none lost, over
    the windows in which the two differ."""
    speech = synthesise("She sells sea shells by the sea shore, and the wind blows away what she says.", VOICES[voice])
    sound = np.repeat(speech.samples, 3).astype(np.float32)
    packets, rng = encoded(sound), np.random.default_rng(5)
    whole = OpusEar()
    clean = np.concatenate([whole.decode(p) for p in packets])
    silent: list[float] = []
    concealed: list[float] = []
    for _ in range(3):
        lost = rng.random(len(packets)) < 0.05
        ears = OpusEar(), OpusEar()
        holes = [np.zeros(PACKET, np.float32) if gone else ears[0].decode(p)
                 for p, gone in zip(packets, lost, strict=True)]  # fmt: skip
        hidden = [ears[1].conceal(PACKET) if gone else ears[1].decode(p) for p, gone in zip(packets, lost, strict=True)]
        for parts, distances in ((holes, silent), (hidden, concealed)):
            distance = np.sqrt(np.mean(np.square(spectra(np.concatenate(parts)) - spectra(clean)), axis=1))
            touched = np.lib.stride_tricks.sliding_window_view(np.repeat(lost, PACKET), 1536)[::768].any(axis=1)
            distances.append(float(distance[touched].mean()))
    assert np.mean(concealed) < 0.75 * np.mean(silent), (silent, concealed)
