"""How a person moves apart from the lips: the few numbers that steer the motion generator.

A corpus style names them by hand; at run time they are read off the style vector. The vector form is frozen: weights
depend on its order.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

import numpy as np

from svp_stream.packets import Float32


@dataclass(frozen=True, slots=True)
class Manner:
    """Head angles in degrees, rates in Hz, sizes as standard deviations unless said otherwise."""

    head_size_deg: float = 2.0
    """Standard deviation of the slow wander of yaw; pitch and roll follow in proportion."""
    head_tempo_hz: float = 0.35
    """Corner frequency of the wander."""
    nod_deg: float = 2.0
    """Pitch of a nod on full vocal stress."""
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    """Resting attitude of the head."""
    blink_rate_hz: float = 0.3
    double_blink: float = 0.1
    """Chance that a blink is followed at once by another."""
    gaze_size_deg: float = 3.0
    gaze_rate_hz: float = 0.5
    """Saccades away from the viewer a second."""
    breath_size: float = 0.004
    """Amplitude of the breathing lift as a fraction of the picture."""
    lid_rest: float = 0.0
    """Resting eyelid closure, 0 open to 0.4 sleepy."""

    def vector(self) -> Float32:
        """float32 [M] in the order of the fields."""
        return np.asarray(astuple(self), dtype=np.float32)

    @classmethod
    def from_vector(cls, v: Float32) -> Manner:
        """Inverse of `vector`; values are clipped to what a person can do."""
        low = np.array([0.1, 0.05, 0.0, -8.0, -8.0, -6.0, 0.05, 0.0, 0.0, 0.05, 0.0, 0.0], dtype=np.float32)
        high = np.array([6.0, 1.5, 8.0, 8.0, 8.0, 6.0, 1.2, 0.6, 10.0, 2.0, 0.015, 0.4], dtype=np.float32)
        if v.shape != low.shape:
            raise ValueError(f"a manner has {len(low)} numbers, got shape {v.shape}")
        return cls(*(float(x) for x in np.clip(v, low, high)))


MANNER_DIM = len(fields(Manner))
