"""From microphone to lips: the delay that a person sees, through a real Chromium on this machine.

In: an engine's name. Out: `LatencyFigures`: milliseconds from a vowel in the page's microphone to the first picture in
the page whose mouth has changed, p50 and p95, beside the transport floor: the same page with a face that is drawn from
the loudness of its own frame at once. Remembers: nothing. A server is started for each run and stopped after it.

The vowels come at steps that are no multiple of a frame, so that all phases between sound and frame are met.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from svp_stream.clock import WIRE_RATE_HZ
from svp_stream.errors import EngineError
from svp_stream.evaluation.browser import open_page, open_server, wait_until_warm, write_recording
from svp_stream.packets import Float32
from svp_stream.pipeline.bench import Machine, machine, syllables

FLOOR = {"model": {"engine": "noop", "look_ahead": 0}, "speech": {"detector": "none"}}
"""The profile of the floor: a drawn face, no look-ahead, nothing to wait for."""

SIDE = 32
BOX = {"left": 9, "top": 17, "width": 14, "height": 10}
"""Where the mouth is in a picture of 32 x 32: the lower middle of the face."""
STEP_S = 1.613
VOWEL_S = 0.45
SETTLE_S = 3.0

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Delays:
    """Milliseconds from sound to lips over `count` vowels; `missed` changed no mouth within 1.2 s.

    `street_ms` is what the engine declares: the sound it waits for before it shows a moment of it. It is within the
    others, not beside them.
    """

    count: int
    missed: int
    min_ms: float
    p50_ms: float
    p95_ms: float
    street_ms: float
    fps: float


@dataclass(frozen=True, slots=True)
class LatencyFigures:
    """The engine beside the floor of the transport."""

    engine: str
    lips: Delays
    floor: Delays
    machine: Machine

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def measure_latency(engine: str, profile: Path | None = None, vowels: int = 20) -> LatencyFigures:
    """Call a fresh server twice, with the engine and with the floor's; about `vowels` * 1.6 s each.

    Raises `ConfigError` when Chromium or Playwright is missing, `EngineError` when the server or the call fails.
    """
    here = machine()
    with tempfile.TemporaryDirectory() as folder:
        recording = write_recording(Path(folder, "vowels.wav"), vowel_track(vowels))
        floor = Path(folder, "floor.yaml")
        floor.write_text(yaml.safe_dump(FLOOR), encoding="utf-8")
        lips = _call(["--engine", engine, *(("--config", str(profile)) if profile else ())], recording, vowels)
        return LatencyFigures(engine, lips, _call(["--config", str(floor)], recording, vowels), here)


def vowel_track(vowels: int) -> Float32:
    """float32 [N] at 48 kHz: silence, then a vowel every 1.613 s."""
    out = np.zeros(round((SETTLE_S + (vowels + 1) * STEP_S) * WIRE_RATE_HZ), np.float32)
    burst = syllables(VOWEL_S, seed=1)
    ramp = np.clip(np.arange(len(burst)) / (0.004 * WIRE_RATE_HZ), 0, 1)
    burst = (0.3 * burst / np.abs(burst).max() * ramp * ramp[::-1]).astype(np.float32)
    for n in range(vowels):
        start = round((SETTLE_S + n * STEP_S) * WIRE_RATE_HZ)
        out[start : start + len(burst)] = burst
    return out


def onsets(times: Doubles, loudness: Doubles, threshold: float = 0.01, quiet_ms: float = 500.0) -> Doubles:
    """When sound begins after at least `quiet_ms` of silence; `times` in ms [N], root mean square [N]."""
    loud = np.flatnonzero(loudness > threshold)
    if not len(loud):
        return np.zeros(0)
    before = np.concatenate([[-np.inf], times[loud[:-1]]])
    first = times[loud] - before > quiet_ms
    return np.asarray(times[loud[first]])


def first_change(onset: float, times: Doubles, pictures: Doubles) -> float | None:
    """The time of the first of two pictures in a row whose mouth differs from the half second before `onset`.

    `times` ms [N], `pictures` [N, P] grey; None when none does within 1.2 s, or too few pictures came before.
    """
    rest = pictures[(times > onset - 500) & (times <= onset + 15)]
    if len(rest) < 5:
        return None
    still = rest[-5:].mean(axis=0)
    wander = np.abs(rest - still).mean(axis=1)
    limit = wander.max() + 3 * wander.std() + 0.8
    window = np.flatnonzero((times > onset + 15) & (times < onset + 1200))
    moved = np.abs(pictures[window] - still).mean(axis=1) > limit
    hits = np.flatnonzero(moved[:-1] & moved[1:])
    return float(times[window[hits[0]]]) if len(hits) else None


def delays(
    sound: Sequence[Sequence[float]], pictures: Sequence[tuple[float, Sequence[int]]], street_ms: float
) -> Delays:
    """Figures from what the page wrote down: (ms, loudness) of the microphone, (ms, grey) of the mouth.

    Raises `EngineError` when no mouth ever moved with a sound.
    """
    heard, seen = np.array(sound, dtype=np.float64), np.array([p[0] for p in pictures], dtype=np.float64)
    if len(seen) < 10 or not len(heard):
        raise EngineError(f"the page saw {len(seen)} pictures and {len(heard)} pieces of sound; the call did not run")
    grey = np.array([p[1] for p in pictures], dtype=np.float64)
    starts = [t for t in onsets(heard[:, 0], heard[:, 1]) if seen[0] + 600 < t < seen[-1] - 1200]
    found = [first_change(t, seen, grey) for t in starts]
    ms = np.array([f - t for f, t in zip(found, starts, strict=True) if f is not None])
    if not len(ms):
        raise EngineError(f"no mouth moved after any of {len(starts)} vowels")
    p50, p95 = np.percentile(ms, (50, 95))
    fps = 1000 * (len(seen) - 1) / (seen[-1] - seen[0])
    return Delays(len(ms), len(starts) - len(ms), *(round(float(x), 1) for x in (ms.min(), p50, p95, street_ms, fps)))


def _call(arguments: Sequence[str], recording: Path, vowels: int) -> Delays:
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    order = {"seconds": SETTLE_S + vowels * STEP_S + 4, "side": SIDE, "box": BOX}
    with open_server(arguments) as url, open_page(recording) as page:
        wait_until_warm(page, url)
        told = page.evaluate(script, order)
    return delays(told["sound"], told["pictures"], told["street_ms"])
