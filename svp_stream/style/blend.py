"""Between styles: mixing several, gliding from one to the next, drawing one sample.

A `StylePoint` is where a voice's manner stands now: a Gaussian of the style prior, a temperature, a strength. Means and
standard deviations move linearly: between diagonal Gaussians that is the 2-Wasserstein geodesic, and several of them
mixed so are their exact W2 barycentre (Takatsu 2011). Mixing samples instead would narrow the variance half-way.

Remembers: nothing; `Glide` is a frozen function of `pts`. Latency: 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from svp_stream.clock import ms_to_ticks
from svp_stream.errors import PresetError
from svp_stream.packets import Float32

GLIDE_TICKS = ms_to_ticks(300)


class Gaussian(Protocol):
    """What can be mixed: `mu`, `log_var` float32 [D]."""

    @property
    def mu(self) -> Float32: ...

    @property
    def log_var(self) -> Float32: ...


@dataclass(frozen=True, slots=True)
class StylePoint:
    """`mu`, `log_var` float32 [D]; `temperature` t of s = mu + t * sigma * eps; `strength` of the style attention."""

    mu: Float32
    log_var: Float32
    temperature: float = 0.0
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Glide:
    """From `start` to `goal` over `ticks` of media time that begin at `pts`, by smoothstep; stands still outside."""

    start: StylePoint
    goal: StylePoint
    pts: int = 0
    ticks: int = GLIDE_TICKS

    def __post_init__(self) -> None:
        if self.ticks < 0:
            raise ValueError(f"a glide of {self.ticks} ticks; use 0 or more")
        _same_dim([self.start, self.goal])

    @classmethod
    def rest(cls, point: StylePoint, ticks: int = GLIDE_TICKS) -> Glide:
        """A glide that already stands at `point`."""
        return cls(point, point, 0, ticks)

    def toward(self, goal: StylePoint, pts: int) -> Glide:
        """Turn to another goal at `pts`, from wherever the glide then is: no jump, also in mid-glide."""
        return Glide(self.at(pts), goal, pts, self.ticks)

    def at(self, pts: int) -> StylePoint:
        """Where the style stands at `pts`."""
        if pts >= self.pts + self.ticks:
            return self.goal
        if pts <= self.pts:
            return self.start
        a, b, u = self.start, self.goal, smoothstep((pts - self.pts) / self.ticks)
        mu, log_var = mix((a, b), (1.0 - u, u))
        return StylePoint(mu, log_var, a.temperature + u * (b.temperature - a.temperature),
                          a.strength + u * (b.strength - a.strength))

    def still(self, pts: int) -> bool:
        """True when nothing moves from `pts` on, so that what was computed from the goal may be kept."""
        return pts >= self.pts + self.ticks or self.start is self.goal


def mix(styles: Sequence[Gaussian], weights: Sequence[float]) -> tuple[Float32, Float32]:
    """The W2 barycentre (mu, log_var), float32 [D] each; `weights` are scaled to sum 1.

    Raises PresetError when there is nothing to mix, when weights are negative, not finite or all zero, and when the
    styles differ in dimension.
    """
    if not styles or len(styles) != len(weights):
        raise PresetError(f"a blend needs one weight for each style; got {len(styles)} styles, {len(weights)} weights")
    w = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise PresetError(f"blend weights are {list(weights)}; they must be 0 or more and not all 0")
    _same_dim(styles)
    w = w / w.sum()
    mu = w @ np.stack([s.mu for s in styles]).astype(np.float64)
    sigma = w @ np.exp(np.stack([s.log_var for s in styles]).astype(np.float64) / 2)
    return mu.astype(np.float32), (2 * np.log(sigma)).astype(np.float32)


class Named(Gaussian, Protocol):
    """A Gaussian that is called something."""

    @property
    def name(self) -> str: ...


def random_blend(styles: Sequence[Named], rng: np.random.Generator) -> tuple[Float32, Float32, str]:
    """A blend of two or three of them at random weights: mu, log_var [D], and what it is made of.

    Raises PresetError for fewer than two.
    """
    if len(styles) < 2:
        raise PresetError(f"a random blend needs two styles or more, got {len(styles)}")
    count = min(int(rng.integers(2, 4)), len(styles))
    chosen = [styles[i] for i in rng.choice(len(styles), count, replace=False)]
    weights = rng.dirichlet(np.ones(count)).tolist()
    mu, log_var = mix(chosen, weights)
    return mu, log_var, ", ".join(f"{w:.2f} {s.name}" for s, w in zip(chosen, weights, strict=True))


def sample(mu: Float32, log_var: Float32, temperature: float, eps: Float32) -> Float32:
    """s = mu + t * sigma * eps, float32 [D]; `eps` [D] is standard normal and passed in, so that a seed repeats it."""
    if not mu.shape == log_var.shape == eps.shape:
        raise ValueError(f"mu {mu.shape}, log_var {log_var.shape} and eps {eps.shape} must have one shape")
    s: Float32 = mu + np.float32(temperature) * np.exp(log_var / 2) * eps
    return s.astype(np.float32)


def smoothstep(u: float) -> float:
    """0 to 1 with flat ends: 3u^2 - 2u^3 on [0, 1]."""
    u = min(max(u, 0.0), 1.0)
    return u * u * (3.0 - 2.0 * u)


def _same_dim(styles: Sequence[Gaussian]) -> None:
    shapes = {s.mu.shape for s in styles} | {s.log_var.shape for s in styles}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise PresetError(f"styles of shapes {sorted(shapes)} do not mix; all must be vectors of one style prior")
