"""Smooth randomness: the slow wander of a head, and the spring that a head follows its goals with.

What it is: `Wander` is unit-variance Gaussian noise shaped by a critically damped second-order filter, one row a
channel, stepped with the exact discretisation of its stochastic differential equation, so that size and tempo can
change at any frame without a jump and without a change of variance. `spring` is the exact step of a critically
damped follower (Särkkä and Solin, Applied Stochastic Differential Equations, 2019, chapter 6).

In: seconds, corner frequencies, unit normals. Out: float64 [C]. Remembers: position and velocity of each channel.
Latency: none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(slots=True)
class Wander:
    """`x` and `v` float64 [C]: position and velocity in units of their stationary standard deviations."""

    x: Float64
    v: Float64

    @classmethod
    def start(cls, normals: Float64) -> Wander:
        """Begin inside the stationary distribution; `normals` [2, C]."""
        return cls(normals[0].copy(), normals[1].copy())

    def step(self, corner_hz: Float64, dt_s: float, normals: Float64) -> None:
        """Advance by `dt_s`; `corner_hz` [C] is the filter's corner, `normals` [2, C] fresh unit normals."""
        a = 2 * math.pi * corner_hz * dt_s
        decay = np.exp(-a)
        # Transition of (x, v/w) for x'' + 2 w x' + w^2 x = noise; the noise keeps the covariance at identity.
        a11, a12, a21, a22 = decay * (1 + a), decay * a, -decay * a, decay * (1 - a)
        q11 = np.maximum(1 - a11 * a11 - a12 * a12, 1e-12)
        q12 = -(a11 * a21 + a12 * a22)
        q22 = 1 - a21 * a21 - a22 * a22
        l11 = np.sqrt(q11)
        l21 = q12 / l11
        l22 = np.sqrt(np.maximum(q22 - l21 * l21, 0.0))
        x, v = self.x, self.v
        self.x = a11 * x + a12 * v + l11 * normals[0]
        self.v = a21 * x + a22 * v + l21 * normals[0] + l22 * normals[1]


def spring(x: Float64, v: Float64, goal: Float64, w: float, dt_s: float) -> tuple[Float64, Float64]:
    """One exact step of a critically damped spring of `w` rad/s towards `goal`; returns the next position, velocity."""
    e = x - goal
    decay = math.exp(-w * dt_s)
    b = (v + w * e) * dt_s
    return goal + (e + b) * decay, (v - w * b) * decay


def soft_limit(x: Float64, limit: Float64, knee: float = 0.75) -> Float64:
    """`x` unchanged up to `knee * limit`, then bent smoothly so that it never passes `limit`."""
    start = knee * limit
    room = limit - start
    over = np.maximum(np.abs(x) - start, 0.0)
    bent: Float64 = np.sign(x) * (np.minimum(np.abs(x), start) + room * np.tanh(over / room))
    return bent


def smoothstep(t: float) -> float:
    """0 before 0, 1 after 1, with zero slope at both ends."""
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)
