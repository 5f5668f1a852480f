"""Coloured noise: the raw randomness that a learned head makes its movements of.

What it is: smooth unit-variance noise at six tempos, and the rhythm of a breath. White noise would leave a network to
learn how heavy a head is; tempos leave it to learn how much of each a person has.

In: unit normals. Out: float64 [..., COLOURS]. Remembers: `Colours`, one `Wander` and the phase of the breath.
Latency: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from svp_stream.motion.wander import Float64, Wander

TEMPOS_HZ: Final = (0.08, 0.2, 0.45, 0.9, 1.8, 3.2)
STRANDS: Final = 3
"""Independent noises at each tempo."""
BREATH_HZ: Final = 0.26
HARMONICS: Final = 2
NORMALS: Final = len(TEMPOS_HZ) * STRANDS + 1
"""Channels of normals that a step takes: the strands, and one for the pace of the breath."""
COLOURS: Final = len(TEMPOS_HZ) * STRANDS + 2 * HARMONICS
_CORNERS: Final = np.array([*np.repeat(TEMPOS_HZ, STRANDS), 0.15])


@dataclass(slots=True)
class Colours:
    """`breath` is a phase in [0, 1); arrays have any leading axes."""

    wander: Wander
    breath: Float64

    @classmethod
    def start(cls, normals: Float64, phase: Float64) -> Colours:
        """Begin inside the stationary law: `normals` [2, ..., NORMALS], `phase` [...] uniform in [0, 1)."""
        return cls(Wander.start(normals), np.array(phase))

    def step(self, normals: Float64, dt_s: float) -> Float64:
        """Advance by `dt_s` with fresh `normals` [2, ..., NORMALS]; returns the noise [..., COLOURS] there."""
        self.wander.step(_CORNERS, dt_s, normals)
        x = self.wander.x
        self.breath = (self.breath + dt_s * BREATH_HZ * (1 + 0.15 * x[..., -1])) % 1.0
        angles = [2 * np.pi * k * self.breath for k in range(1, HARMONICS + 1)]
        rhythm = np.stack([f(a) for a in angles for f in (np.sin, np.cos)], axis=-1)
        return np.concatenate([x[..., :-1], rhythm], axis=-1)
