"""What travels between the rooms: frozen packets, each stamped with `pts` in ticks of 1/48000 s.

Sound is float32 mono in [-1, 1]. Pictures are uint8 RGB, row-major, top row first. Angles are degrees, positive yaw
turns the face to its own left (picture right), positive pitch looks down, positive roll tilts clockwise in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp_stream.clock import ticks_per_sample

Floats = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Mono sound: `samples` float32 [N] at `rate_hz`, first sample at `pts`."""

    pts: int
    samples: Float32
    rate_hz: int

    @property
    def end(self) -> int:
        """The tick right after the last sample."""
        return self.pts + len(self.samples) * ticks_per_sample(self.rate_hz)


@dataclass(frozen=True, slots=True)
class VadWindow:
    """Speech `probability` in [0, 1] for the 512 samples at 16 kHz (32 ms) that start at `pts`."""

    pts: int
    probability: float


@dataclass(frozen=True, slots=True)
class SpeechState:
    """From `pts` on the person is `speaking` (or silent), after hysteresis."""

    pts: int
    speaking: bool


@dataclass(frozen=True, slots=True)
class AudioTokens:
    """Encoder output for one video frame: `tokens` float32 [2, d], 20 ms each, first at `pts`."""

    pts: int
    tokens: Float32


@dataclass(frozen=True, slots=True)
class Pose:
    """What is not lips, for the frame at `pts`: head angles in degrees, shift `dx, dy` as a fraction of the picture
    (right and down positive), eyelid closure in [0, 1] (0 open), gaze in degrees (picture right and down positive).
    The frame at `pts` covers [pts, pts + 1920) and shows the instant in its middle, pts + 960."""

    pts: int
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    dx: float = 0.0
    dy: float = 0.0
    blink_left: float = 0.0
    blink_right: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture: `rgb` uint8 [H, W, 3], `alpha` uint8 [H, W] (255 is the person), `level` of the ladder it was made at
    (0 is full quality, see `pipeline.budget`)."""

    pts: int
    rgb: Bytes
    alpha: Bytes | None = None
    level: int = 0
