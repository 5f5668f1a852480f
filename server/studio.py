"""What all calls share: the engine, the styles, and what a call begins with.

In: names and numbers that people chose. Out: `StyleRequest`s and fresh sessions.
Remembers: the defaults; nothing of any call. `StyleShelf` and `Engine` are immutable or keep their own cache.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from server.control import StyleOrder
from server.worker import Street
from svp_stream.clock import FRAME_TICKS, WIRE_RATE_HZ
from svp_stream.config import Config
from svp_stream.errors import EngineError
from svp_stream.packets import AudioChunk
from svp_stream.pipeline.budget import Budget, Ladder
from svp_stream.pipeline.build import (
    Shelf,
    build_engine,
    build_ladder,
    build_rule,
    build_shelf,
    build_vad,
    first_avatar,
    set_threads,
    style_request,
)
from svp_stream.pipeline.engine import Engine, StyleRequest
from svp_stream.pipeline.session import Session
from svp_stream.style.blend import mix
from svp_stream.style.preset import StylePreset

REHEARSED: Final = 25
"""Frames: the first of them wake the model, the rest say what it costs."""
MakeStreet = Callable[[str, StyleRequest, int], Street]
"""(avatar, style, seed) to one person's stages; called on the inference thread."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What one call is set to: an avatar, a blend of styles by weight, strength (0 to 2) and temperature (0 to 1)."""

    avatar: str
    weights: Mapping[str, float]
    strength: float
    temperature: float

    @property
    def style(self) -> str:
        """The blend in words, heaviest first."""
        names = sorted(self.weights, key=lambda n: (-self.weights[n], n))
        return " + ".join(names)

    def told(self) -> dict[str, Any]:
        """As an event says it."""
        return {
            "avatar": self.avatar, "name": self.style, "weights": dict(self.weights),
            "strength": self.strength, "temperature": self.temperature,
        }  # fmt: skip


@dataclass(frozen=True)
class Studio:
    """Made once by `__main__` (or a test)."""

    engine: Engine
    shelf: Shelf
    make_street: MakeStreet
    manner: Manner
    styles: Mapping[str, StylePreset] = field(default_factory=dict)
    """Presets that the command line named by path; strangers on the wire can choose them, but no other path."""
    ladder: Ladder = field(default_factory=Ladder)
    seeds: Iterator[int] = field(default_factory=itertools.count)
    rehearse: Callable[[], list[float]] = list
    """Makes a few frames of silence, on the inference thread, and says what each cost in milliseconds."""

    @property
    def avatars(self) -> tuple[str, ...]:
        """Who can be shown."""
        return self.engine.avatars

    def preset(self, name: str) -> StylePreset:
        """A preset by name; raises `PresetError`, which for an unknown name lists those there are."""
        return self.styles[name] if name in self.styles else self.shelf.get(name)

    def style_names(self) -> tuple[str, ...]:
        """What can be chosen."""
        return tuple(dict.fromkeys([*self.styles, *self.shelf.names()]))

    def avatar(self, name: str) -> str:
        """`name` itself; raises `EngineError` when there is no such person."""
        if name not in self.avatars:
            raise EngineError(f"unknown avatar {name[:80]!r}; there are: {', '.join(self.avatars)}")
        return name

    def ordered(self, manner: Manner, order: StyleOrder) -> Manner:
        """`manner` with what `order` says; a preset chosen alone brings its own strength and temperature.

        Raises `PresetError` for an unknown or malformed preset.
        """
        weights: Mapping[str, float] = manner.weights
        strength, temperature = manner.strength, manner.temperature
        if order.name is not None:
            preset = self.preset(order.name)
            weights, strength, temperature = {order.name: 1.0}, preset.strength, preset.temperature
        elif order.weights is not None:
            total = sum(order.weights.values())
            weights = {name: weight / total for name, weight in order.weights.items() if weight > 0}
        return replace(
            manner,
            weights=weights,
            strength=strength if order.strength is None else order.strength,
            temperature=temperature if order.temperature is None else order.temperature,
        )

    def request(self, manner: Manner) -> StyleRequest:
        """The point of the style prior that `manner` means; raises `PresetError`."""
        presets = [self.preset(name) for name in manner.weights]
        mu, log_var = mix(presets, list(manner.weights.values()))
        return StyleRequest(manner.style, mu, log_var, manner.temperature, manner.strength)

    def street(self, manner: Manner) -> Street:
        """Fresh stages; for the inference thread. Raises `EngineError` or `PresetError`."""
        return self.make_street(self.avatar(manner.avatar), self.request(manner), next(self.seeds))

    def budget(self) -> Budget:
        """A fresh ladder for one call."""
        return Budget(self.ladder)


def build_studio(config: Config, engine_name: str | None = None) -> Studio:
    """The studio of a profile, its model loaded and not yet warm.

    Raises `ConfigError`, `WeightsError`; `PresetError` and `EngineError` for the profile's style and avatar.
    """
    set_threads(config)
    engine = build_engine(config, engine_name)
    vad, rule = build_vad(config), build_rule(config)
    asked = config.style.default
    first = style_request(
        build_shelf(config, engine, allow_paths=True), asked, config.style.strength, config.style.temperature
    )
    by_path: dict[str, StylePreset] = {}
    if asked.endswith(".npz"):
        by_path[first.name] = StylePreset(first.name, first.mu, first.log_var, engine.prior or "", "",
                                          first.temperature, first.strength)

    def make_street(avatar: str, style: StyleRequest, seed: int) -> Street:
        return Session(engine, vad, avatar=avatar, style=style, seed=seed, rule=rule)

    weights = {first.name if by_path else asked: 1.0}
    manner = Manner(first_avatar(config, engine), weights, first.strength, first.temperature)

    def rehearse() -> list[float]:
        return rehearsal(make_street(manner.avatar, first, config.model.seed))

    return Studio(
        engine, build_shelf(config, engine), make_street, manner,
        styles=by_path, ladder=build_ladder(config), seeds=itertools.count(config.model.seed), rehearse=rehearse,
    )  # fmt: skip


def rehearsal(street: Street) -> list[float]:
    """Milliseconds of each frame that `REHEARSED` frames' worth of silence leads to."""
    costs, spent_s = [], 0.0
    for i in range(REHEARSED):
        started_s = time.perf_counter()
        frames = street.push(AudioChunk(i * FRAME_TICKS, np.zeros(FRAME_TICKS, np.float32), WIRE_RATE_HZ))
        spent_s += time.perf_counter() - started_s
        if frames:
            costs += [spent_s * 1000 / len(frames)] * len(frames)
            spent_s = 0.0
    return costs
