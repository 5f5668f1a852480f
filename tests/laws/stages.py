"""Every streaming stage of the package, with what it takes to put it on trial. A stage that is missing here fails the
house test beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from svp_stream.audio.level import Level, LevelStream
from svp_stream.audio.resample import Resampler
from svp_stream.audio.speech import SpeechDetector
from svp_stream.audio.vad import WINDOW_TICKS, Vad, VadStream
from svp_stream.audio.wav2vec import EncoderConfig, Wav2VecEncoder, Wav2VecStream
from svp_stream.audio.wav2vec_rolling import RollingConfig, RollingEncoder, RollingStream, measure_statistics
from svp_stream.clock import FRAME_TICKS, TICKS_PER_SECOND, ticks_per_sample
from svp_stream.diffusion.cache import CacheRule
from svp_stream.motion.generator import MotionDrive, MotionStream
from svp_stream.motion.learned import LearnedMotion, MotionModel
from svp_stream.motion.manner import Manner
from svp_stream.packets import AudioChunk, AudioTokens, Float32, Frame, Pose, SpeechState, VadWindow
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.face import MiniFace
from svp_stream.pipeline.noop import STYLE_DIM, NoopEngine, NoopFace
from svp_stream.pipeline.sd15_face import Sd15Face
from svp_stream.pipeline.session import Session
from svp_stream.stage import Stage
from tests.fakes.tiny_sd15 import tiny_sd15_engine, tiny_sd15_styles, tiny_wav2vec2
from tests.fakes.tiny_weights import ENCODER, PRIOR, tiny_engine, tiny_motion, tiny_styles

START = 48_003
"""Streams begin in the middle of media time, off every grid."""

Moment = tuple[int, bytes]
"""One atom of output: its tick and its exact bits."""


@dataclass(frozen=True)
class Case:
    """`make` builds a fresh stage, `feed` the input of a seed; `examples` how many random cuts are worth their time."""

    name: str
    covers: type
    make: Callable[[], Stage[Any, Any]]
    feed: Callable[[int], list[Any]]
    examples: int = 12


def voice(seed: int, rate_hz: int, seconds: float) -> Float32:
    """Something like speech: buzzing syllables of 200 ms between pauses, over quiet noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    pitch = 110 + 60 * rng.random()
    buzz = sum(np.sin(2 * np.pi * pitch * k * t + rng.uniform(0, 6)) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * (1.5 + rng.random()) * t + rng.uniform(0, 6)), 0, None)
    x = 0.25 * buzz * syllables + 0.003 * rng.standard_normal(len(t))
    return np.clip(x, -1, 1).astype(np.float32)


def sound(rate_hz: int, seconds: float) -> Callable[[int], list[AudioChunk]]:
    """A feed of one long chunk."""
    return lambda seed: [AudioChunk(START, voice(seed, rate_hz, seconds), rate_hz)]


def windows(seed: int) -> list[VadWindow]:
    """Probabilities that wander through both thresholds."""
    rng = np.random.default_rng(seed)
    walk = np.clip(np.cumsum(rng.normal(0, 0.35, 200)) % 2, 0, 2)
    return [VadWindow(START + i * WINDOW_TICKS, float(abs(p - 1))) for i, p in enumerate(walk)]


def drives(seed: int) -> list[MotionDrive]:
    """Turns of speech with stress, between words of somebody else."""
    rng = np.random.default_rng(seed)
    chances, voices = rng.random((120, 3)), rng.standard_normal((120, ENCODER.width), dtype=np.float32)
    return [MotionDrive(START + i * FRAME_TICKS, bool(c[0] < 0.7), float(c[1]), bool(c[2] < 0.3), voices[i])
            for i, c in enumerate(chances)]


def _encoder() -> Wav2VecEncoder:
    torch.manual_seed(0)
    small = EncoderConfig(channels=(8,) * 7, width=16, layers=2, heads=2, feedforward=32, position_kernel=4,
                          position_groups=2, left_context=6)
    return Wav2VecEncoder(small).eval()


def _rolling(norm: str) -> RollingEncoder:
    model = tiny_wav2vec2(norm)
    measured = measure_statistics(model, [voice(9, 16_000, 1.0)]) if norm == "group" else None
    return RollingEncoder(model, RollingConfig(window=6, look_ahead=1), measured)


_VAD = Vad.load()
_ROLLING = {norm: _rolling(norm) for norm in ("group", "layer")}
_ENCODER = _encoder()
_MOTION = MotionModel(tiny_motion())
_NOOP = NoopEngine()
_REUSING = replace(tiny_engine(), rule=CacheRule(noise_mix=0.5, deep_reuse=10.0, smoothing=6))
"""Every memory of the latent cache at work."""
_STYLE = StyleRequest("plain", np.zeros(STYLE_DIM, np.float32), np.full(STYLE_DIM, -2, np.float32))

CASES: tuple[Case, ...] = (
    Case("resample-48-16", Resampler, lambda: Resampler(48_000, 16_000), sound(48_000, 0.4)),
    Case("resample-24-16", Resampler, lambda: Resampler(24_000, 16_000), sound(24_000, 0.4)),
    Case("resample-8-16", Resampler, lambda: Resampler(8_000, 16_000), sound(8_000, 0.4)),
    Case("resample-16-48", Resampler, lambda: Resampler(16_000, 48_000), sound(16_000, 0.4)),
    Case("resample-16-16", Resampler, lambda: Resampler(16_000, 16_000), sound(16_000, 0.4)),
    Case("vad", VadStream, _VAD.stream, sound(16_000, 1.0)),
    Case("speech", SpeechDetector, SpeechDetector, windows),
    Case("level", LevelStream, LevelStream, sound(16_000, 1.0)),
    Case("wav2vec", Wav2VecStream, lambda: Wav2VecStream(_ENCODER), sound(16_000, 1.0), 6),
    Case("wav2vec2-group", RollingStream, lambda: RollingStream(_ROLLING["group"]), sound(16_000, 0.6), 3),
    Case("wav2vec2-layer", RollingStream, lambda: RollingStream(_ROLLING["layer"]), sound(16_000, 0.6), 3),
    Case("motion", MotionStream, lambda: MotionStream(Manner(), seed=5), drives),
    Case("learned-motion", LearnedMotion, lambda: LearnedMotion(_MOTION, np.ones(PRIOR.style_dim, np.float32), seed=5),
         drives, 6),
    Case("noop-face", NoopFace, lambda: _NOOP.stream(avatar=_NOOP.avatars[0], style=_STYLE, seed=3),
         sound(16_000, 1.0), 3),
    Case("session", Session, lambda: Session(_NOOP, _VAD, avatar=_NOOP.avatars[0], style=_STYLE, seed=3),
         sound(48_000, 1.5), 3),
    Case("mini-face", MiniFace, lambda: tiny_engine().stream(avatar="pat", style=tiny_styles()["warm"], seed=3),
         sound(16_000, 0.4), 2),
    Case("mini-face-reusing", MiniFace,
         lambda: _REUSING.stream(avatar="kim", style=tiny_styles()["sad"], seed=4), sound(16_000, 0.4), 1),
    Case("mini-session", Session,
         lambda: Session(tiny_engine(), _VAD, avatar="pat", style=tiny_styles()["warm"], seed=3),
         sound(48_000, 0.5), 1),
    Case("sd15-face", Sd15Face,
         lambda: tiny_sd15_engine().stream(avatar="pat", style=tiny_sd15_styles()["warm"], seed=3),
         sound(16_000, 0.4), 1),
)


def moments(outputs: Iterable[Any]) -> list[Moment]:
    """Outputs as atoms that do not depend on how they were packed: samples one by one, packets whole."""
    return [m for o in outputs for m in _atoms(o)]


def _atoms(o: Any) -> Iterator[Moment]:
    match o:
        case AudioChunk():
            step = ticks_per_sample(o.rate_hz)
            yield from ((o.pts + i * step, s.tobytes()) for i, s in enumerate(o.samples))
        case Frame():
            yield o.pts, o.rgb.tobytes() + (b"" if o.alpha is None else o.alpha.tobytes()) + bytes([o.level])
        case AudioTokens():
            yield o.pts, o.tokens.tobytes()
        case VadWindow() | SpeechState() | Level() | Pose():
            yield o.pts, repr(o).encode()
        case _:
            raise TypeError(f"tests/laws/stages.py does not know how to compare a {type(o).__name__}")


def end_of(packet: Any) -> int:
    """The tick that the input is complete up to once this packet is in."""
    match packet:
        case AudioChunk():
            return packet.end
        case VadWindow():
            return packet.pts + WINDOW_TICKS
        case MotionDrive():
            return packet.pts + FRAME_TICKS
        case _:
            raise TypeError(f"tests/laws/stages.py does not know how long a {type(packet).__name__} lasts")


def recut(packets: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    """Sound cut into chunks of these many samples, the rest into 20 ms; other packets are as small as they get."""
    out: list[Any] = []
    for packet in packets:
        if not isinstance(packet, AudioChunk):
            out.append(packet)
            continue
        step, at = ticks_per_sample(packet.rate_hz), 0
        whole = packet.rate_hz // 50
        cuts = iter(sizes)
        while at < len(packet.samples):
            size = next(cuts, whole)
            out.append(AudioChunk(packet.pts + at * step, packet.samples[at : at + size].copy(), packet.rate_hz))
            at += size
    return out


def perturbed(packets: Sequence[Any], other: Sequence[Any], at: int) -> list[Any]:
    """`packets` before tick `at`, `other` from there on."""
    out: list[Any] = []
    for a, b in zip(packets, other, strict=True):
        if isinstance(a, AudioChunk):
            ticks: NDArray[np.int64] = a.pts + np.arange(len(a.samples)) * ticks_per_sample(a.rate_hz)
            out.append(AudioChunk(a.pts, np.where(ticks < at, a.samples, b.samples), a.rate_hz))
        else:
            out.append(a if a.pts < at else b)
    return out


def run(stage: Stage[Any, Any], packets: Iterable[Any]) -> list[Moment]:
    """Feed all, then end."""
    out = [m for p in packets for m in moments(stage.push(p))]
    return out + moments(stage.flush())


def seconds(ticks: int) -> float:
    """For messages."""
    return ticks / TICKS_PER_SECOND
