"""What a viewer would say of a received call: do the lips follow the words, do the eyes blink, does the picture flow.

In: a `Recording` of a page, readings of its pictures, a `Score`. Out: figures. Remembers: nothing.

Sound and pictures meet on the page's clock: the loudness that the page heard tells where in the recording it was, and
the RTP timestamps tell how far pictures are apart, free of the jitter of their arrival.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from svp_stream.clock import WIRE_RATE_HZ
from svp_stream.packets import Bytes, Float32

Doubles = NDArray[np.float64]
HOP_S = 0.01
RTP_HZ = 90_000
LAGS_S = np.arange(0.0, 1.2, 0.02)
"""From sound to picture: no less than none, and no more than makes a conversation hard."""
CONTROLS = 20


@dataclass(frozen=True)
class Recording:
    """Times in seconds of the page's clock: pictures uint8 [N, H, W, 3], their arrival, their media time (steady and
    in step with the arrivals); where the sound began; what the server said."""

    pictures: Bytes
    arrived: Doubles
    media: Doubles
    sound_began: float
    events: tuple[tuple[float, dict[str, Any]], ...]

    @property
    def heard(self) -> Doubles:
        """The moment of the sound that was being heard when a picture came, [N]."""
        return self.media - self.sound_began


@dataclass(frozen=True)
class Likeness:
    """Correlation at the best lag, and that of every control at its own best lag."""

    r: float
    lag_s: float
    controls: Doubles


def read_recording(pictures: list[Any], sound: list[Any], events: list[Any], samples: Float32) -> Recording:
    """From what recorder.js wrote down, and the sound that was played."""
    seen = [Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for _, _, text in pictures]
    arrived = np.array([p[0] for p in pictures], np.float64) / 1000
    ticks = np.unwrap(np.array([p[1] for p in pictures], np.float64), period=2.0**32)
    told = tuple((at / 1000, json.loads(text)) for at, text in events)
    media = steady(arrived, ticks / RTP_HZ)
    return Recording(np.stack([np.asarray(s) for s in seen]), arrived, media, began(np.array(sound), samples), told)


def steady(arrived: Doubles, media: Doubles, within: int = 12) -> Doubles:
    """Media time moved to the clock of arrivals: the usual delay of the pictures around takes out the jitter, and lets
    the media clock stand still, as it does when sound was lost."""
    late = arrived - media
    usual = [float(np.median(late[max(0, n - within) : n + within + 1])) for n in range(len(late))]
    return np.asarray(media + np.array(usual))


def began(sound: Doubles, samples: Float32) -> float:
    """When the recording `samples` (48 kHz) began on the page's clock, from (page ms, capture ms, loudness) [N, 3]."""
    page, capture, loudness = sound[:, 0] / 1000, sound[:, 1] / 1000, sound[:, 2]
    hop = round(HOP_S * WIRE_RATE_HZ)
    played = np.sqrt(np.mean(samples[: len(samples) // hop * hop].reshape(-1, hop) ** 2, axis=1))
    grid = np.arange(capture[0], capture[-1], HOP_S)
    heard = np.interp(grid, capture, loudness)
    size = 1 << int(np.ceil(np.log2(len(heard) + len(played))))
    spectra = [np.fft.rfft(x - x.mean(), size) for x in (heard, played)]
    match = np.fft.irfft(spectra[0] * np.conj(spectra[1]), size)
    shift = int(np.argmax(match))
    shift -= size if shift > size // 2 else 0
    return float(grid[0] + shift * HOP_S + np.percentile(page - capture, 10))


def likeness(heard: Doubles, lips: Doubles, truth: Callable[[Doubles], Doubles],
             speaks: Callable[[Doubles], NDArray[np.bool_]]) -> Likeness:
    """How well `lips` [N], read off pictures that came while `heard` [N] was said, follow the truth while somebody
    speaks, at the best of `LAGS_S`. Controls go the same way with the truth turned round in time by many amounts, all
    of them more than the lags can undo."""
    turns = np.linspace(0.12, 0.88, CONTROLS)
    best = np.full(1 + CONTROLS, -1.0)
    lag_s = 0.0
    for lag in LAGS_S:
        now = heard - lag
        spoken = speaks(now)
        true, seen = truth(now[spoken]), lips[spoken]
        turned = [true, *(np.roll(true, round(turn * len(true))) for turn in turns)]
        r = np.array([correlation(seen, t) for t in turned])
        lag_s = float(lag) if r[0] > best[0] else lag_s
        best = np.maximum(best, r)
    return Likeness(float(best[0]), lag_s, best[1:])


def correlation(a: Doubles, b: Doubles) -> float:
    """Pearson's; 0 when either stands still or there are fewer than three."""
    if len(a) < 3 or a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def blinks(eyes: Doubles, depth: float = 0.4) -> int:
    """Dips of the eyes' opening [N] by more than `depth` of their usual opening, each shorter than the rest between."""
    usual = np.array([np.median(eyes[max(0, n - 25) : n + 26]) for n in range(len(eyes))])
    shut = eyes < (1 - depth) * usual
    return int(np.sum(shut[1:] & ~shut[:-1]))


def changes(pictures: Bytes) -> Doubles:
    """Mean absolute difference of each picture to the one before, [N - 1], in grey levels."""
    small = pictures[:, ::2, ::2].astype(np.int16)
    return np.array([np.abs(b - a).mean() for a, b in zip(small[:-1], small[1:], strict=True)])
