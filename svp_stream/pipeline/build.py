"""The only wiring: from a profile to the shared parts that sessions are made of.

In: a `Config`. Out: engine, voice-activity network, shelf of styles, rules. Remembers: nothing.
Engines are imported when asked for, so that the one without weights starts without their libraries.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from svp_stream.audio.speech import SpeechRule
from svp_stream.audio.vad import Vad
from svp_stream.config import MINI_WEIGHTS, STYLES, Config
from svp_stream.diffusion.cache import CacheRule
from svp_stream.errors import ConfigError, EngineError
from svp_stream.pipeline.budget import Ladder
from svp_stream.pipeline.engine import Engine, StyleRequest
from svp_stream.pipeline.noop import DrawnShelf, NoopEngine
from svp_stream.runtime.backend import BACKENDS
from svp_stream.style.preset import MAX_STRENGTH, MAX_TEMPERATURE, StylePreset, StyleShelf

if TYPE_CHECKING:
    from svp_stream.pipeline.mini import MiniEngine
    from svp_stream.pipeline.sd15 import Sd15Engine

BACKEND_VARIABLE = "SVP_BACKEND"
ENGINES = ("mini", "noop", "sd15")


class Shelf(Protocol):
    """Styles by name."""

    def names(self) -> tuple[str, ...]:
        """What there is, sorted."""
        ...

    def get(self, name: str) -> StylePreset:
        """One of them; raises `PresetError`."""
        ...


def build_engine(config: Config, engine: str | None = None) -> Engine:
    """The engine of the profile, or the one named; raises `ConfigError` and `WeightsError`."""
    name = engine or config.model.engine
    if name == "noop":
        return NoopEngine(config.model.look_ahead)
    if name == "mini":
        return build_mini(config)
    if name == "sd15":
        return build_sd15(config)
    raise ConfigError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")


def build_mini(config: Config, weights: Path | None = None) -> MiniEngine:
    """The trained engine of the profile, from `weights` if given; raises `ConfigError` and `WeightsError`."""
    from svp_stream.pipeline.mini import MiniEngine

    model = config.model
    return MiniEngine.load(
        weights or model.weights or MINI_WEIGHTS, build_backend(config), model.look_ahead, model.threads,
        model.articulation, model.precision, CacheRule(**config.cache.model_dump()), model.turns,
    )  # fmt: skip


def build_sd15(config: Config) -> Sd15Engine:
    """The engine of Stable Diffusion's size, from the profile's folder; raises ConfigError without one, and
    WeightsError and EngineError naming what is missing."""
    from svp_stream.pipeline.sd15 import Sd15Engine

    if config.model.folder is None:
        raise ConfigError("the engine sd15 needs the folder that its training wrote: --model FOLDER, or model.folder")
    return Sd15Engine.load(config.model.folder, config.model.device, config.model.look_ahead)


def build_backend(config: Config) -> str:
    """`openvino` or `torch`: SVP_BACKEND of the environment before the profile; auto is the fast one, OpenVINO."""
    asked = os.environ.get(BACKEND_VARIABLE) or config.model.backend
    if asked == "auto":
        return "openvino"
    if asked not in BACKENDS:
        raise ConfigError(f"{BACKEND_VARIABLE}={asked}: unknown backend; there are auto, {', '.join(BACKENDS)}")
    return asked


def set_threads(config: Config, engine: str | None = None) -> int:
    """Give torch its number of threads, for the whole process; returns it.

    Where torch runs only the small voice-activity network, one thread is faster than several that wait for each other.
    """
    threads = config.model.threads
    name = engine or config.model.engine
    if not threads and (name == "noop" or (name == "mini" and build_backend(config) == "openvino")):
        threads = 1
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def build_vad(config: Config) -> Vad | None:
    """The voice-activity network, None when the profile wants none; raises `WeightsError`."""
    return Vad.load() if config.speech.detector == "silero" else None


def build_rule(config: Config) -> SpeechRule:
    """When somebody counts as speaking."""
    s = config.speech
    return SpeechRule(on=s.open_above, off=s.keep_above, min_speech_ms=s.min_speech_ms, hangover_ms=s.hangover_ms)


def build_ladder(config: Config) -> Ladder:
    """When quality gives way."""
    return Ladder(**config.ladder.model_dump())


def build_shelf(config: Config, engine: Engine, *, allow_paths: bool = False) -> Shelf:
    """The presets of the profile's folder that belong to the engine; noop and sd15 bring their own styles along."""
    if config.style.folder is None and isinstance(engine, NoopEngine) and not allow_paths:
        return DrawnShelf()
    own = config.model.folder / "styles" if engine.name == "sd15" and config.model.folder is not None else STYLES
    folder = config.style.folder or own
    shelf = StyleShelf(folder, engine.prior, engine.style_dim, allow_paths=allow_paths)
    if config.style.folder is None and isinstance(engine, NoopEngine):
        return _Both(DrawnShelf(), shelf)
    return shelf


class _Both:
    """The drawn styles by name, and presets by path."""

    def __init__(self, drawn: DrawnShelf, files: StyleShelf) -> None:
        self._drawn, self._files = drawn, files

    def names(self) -> tuple[str, ...]:
        return self._drawn.names()

    def get(self, name: str) -> StylePreset:
        return self._files.get(name) if name.endswith(".npz") else self._drawn.get(name)


def style_request(
    shelf: Shelf, name: str, strength: float | None = None, temperature: float | None = None
) -> StyleRequest:
    """A style by name (or by path, where the shelf allows it); None takes the preset's own strength and temperature.

    Raises `PresetError` for an unusable preset and `ConfigError` for a control out of range.
    """
    for what, value, high in (("strength", strength, MAX_STRENGTH), ("temperature", temperature, MAX_TEMPERATURE)):
        if value is not None and not 0 <= value <= high:
            raise ConfigError(f"style {what} is {value}; it goes from 0 to {high:g}")
    preset = shelf.get(name)
    return StyleRequest(
        name=preset.name,
        mu=preset.mu,
        log_var=preset.log_var,
        temperature=preset.temperature if temperature is None else temperature,
        strength=preset.strength if strength is None else strength,
    )


def first_style(config: Config, shelf: Shelf) -> StyleRequest:
    """The style that the profile begins with."""
    return style_request(shelf, config.style.default, config.style.strength, config.style.temperature)


def first_avatar(config: Config, engine: Engine) -> str:
    """The person that the profile begins with; raises `EngineError` when the engine does not have it."""
    name = config.model.avatar or engine.avatars[0]
    if name not in engine.avatars:
        raise EngineError(f"unknown avatar {name!r}; the engine {engine.name} has {', '.join(engine.avatars)}")
    return name
