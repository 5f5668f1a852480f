"""How fast the street is on this machine: one session fed at full speed.

In: an engine and speech (a recording, or made-up syllables). Out: `StreetFigures`: ms by stage, frames a second, p50
and p95, with the machine named. Remembers: nothing. Latency: declared by the session, reported beside.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from svp_stream.audio.speech import SpeechRule
from svp_stream.audio.vad import Vad
from svp_stream.clock import FRAME_TICKS, WIRE_RATE_HZ, ticks_to_ms
from svp_stream.packets import AudioChunk, Float32
from svp_stream.pipeline.engine import Engine, StyleRequest
from svp_stream.pipeline.meter import TOTAL, StageTimes, WallClock
from svp_stream.pipeline.offline import open_sound
from svp_stream.pipeline.session import Session

WARM_FRAMES = 25
LONGEST_S = 40.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the figures were taken."""

    processor: str
    cores: int
    torch_threads: int
    python: str
    torch: str
    load: float
    """Load average of the last minute when the run began: figures taken on a busy machine say little."""


@dataclass(frozen=True, slots=True)
class StreetFigures:
    """Milliseconds for each frame of 40 ms; `realtime` is media time over wall time."""

    engine: str
    backend: str
    effort: int
    frames: int
    seconds: float
    fps: float
    realtime: float
    p50_ms: float
    p95_ms: float
    latency_ms: float
    stages: dict[str, StageTimes]
    machine: Machine

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    def table(self) -> str:
        """For people."""
        f, m = self, self.machine
        rows = [
            f"engine {f.engine}, backend {f.backend}, effort {f.effort}, {f.frames} frames of {f.seconds:.1f} s",
            f"{m.processor}, {m.cores} cores, torch {m.torch} with {m.torch_threads} threads, load {m.load}",
            "",
            f"{'ms a frame':<20}{'mean':>8}{'p50':>8}{'p95':>8}",
            *(f"{name:<20}{t.mean_ms:>8.2f}{t.p50_ms:>8.2f}{t.p95_ms:>8.2f}" for name, t in f.stages.items()),
            "",
            f"{f.fps:.1f} frames a second, {f.realtime:.1f} x real time, declared latency {f.latency_ms:.1f} ms",
        ]
        return "\n".join(rows)


def machine() -> Machine:
    """This machine, now."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        torch_threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def syllables(seconds: float, seed: int = 0) -> Float32:
    """Made-up speech, float32 [48000 * seconds]: vowels of moving formants in syllables, with a pause every few."""
    t = np.arange(round(seconds * WIRE_RATE_HZ)) / WIRE_RATE_HZ
    rng = np.random.default_rng(seed)
    pitch_hz = 130 + 25 * np.sin(2 * np.pi * 0.4 * t)
    phase = np.cumsum(2 * np.pi * pitch_hz / WIRE_RATE_HZ)
    first_hz = 520 + 240 * np.sin(2 * np.pi * 1.3 * t)
    second_hz = 1500 + 600 * np.sin(2 * np.pi * 0.9 * t + 1)
    voice = np.zeros(len(t))
    for k in range(1, 25):
        gain = 1 / (1 + ((k * pitch_hz - first_hz) / 90) ** 2) + 0.4 / (1 + ((k * pitch_hz - second_hz) / 140) ** 2)
        voice += (gain + 0.02) * np.sin(k * phase)
    beat = np.clip(0.1 + np.sin(2 * np.pi * 2.1 * t), 0, None) * (np.sin(2 * np.pi * 0.21 * t) > -0.6)
    return np.asarray(0.15 * voice * beat + 0.001 * rng.standard_normal(len(t)), dtype=np.float32)


def read_speech(path: Path, seconds: float) -> Float32:
    """The first `seconds` of a recording, 48 kHz mono float32; raises `MediaError`."""
    parts: list[Float32] = []
    with open_sound(path) as sound:
        for chunk in sound.chunks():
            parts.append(chunk)
            if sum(map(len, parts)) >= seconds * WIRE_RATE_HZ:
                break
    return np.concatenate([*parts, np.zeros(0, np.float32)])[: round(seconds * WIRE_RATE_HZ)]


def run_street(
    engine: Engine,
    vad: Vad | None,
    style: StyleRequest,
    avatar: str,
    speech: Float32,
    *,
    rule: SpeechRule | None = None,
    effort: int = 0,
    backend: str = "none",
    clock: WallClock = time.perf_counter,
) -> StreetFigures:
    """Feed `speech` (float32 [N] at 48 kHz) in frames of 40 ms as fast as the session takes it.

    A second of it goes before, unmeasured, so that compilation and caches do not count.
    """
    engine.warm()
    here = machine()
    session = Session(engine, vad, avatar=avatar, style=style, seed=0, rule=rule, clock=clock)
    session.effort = effort
    _feed(session, speech[: WARM_FRAMES * FRAME_TICKS])
    session.reset()
    session.effort = effort
    started = clock()
    frames = _feed(session, speech)
    wall_s = max(clock() - started, 1e-9)
    stages = session.meter.snapshot()
    total = stages[TOTAL]
    seconds = len(speech) / WIRE_RATE_HZ
    return StreetFigures(
        engine=engine.name, backend=backend, effort=effort, frames=frames, seconds=seconds,
        fps=frames / wall_s, realtime=seconds / wall_s, p50_ms=total.p50_ms, p95_ms=total.p95_ms,
        latency_ms=ticks_to_ms(session.latency), stages=stages, machine=here,
    )  # fmt: skip


def _feed(session: Session, speech: Float32) -> int:
    frames = 0
    for start in range(0, len(speech), FRAME_TICKS):
        frames += len(session.push(AudioChunk(start, speech[start : start + FRAME_TICKS], WIRE_RATE_HZ)))
    return frames + len(session.flush())
