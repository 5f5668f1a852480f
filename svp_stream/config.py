"""Profiles: pydantic models of the YAML files in `configs/`.

In: a YAML file. Out: a frozen `Config`. Errors name the file, the path of the key, what was found and what would be
right; unknown keys are errors. The defaults here equal `configs/default.yaml`, which a test holds. Paths in a profile
are relative to the profile's own folder.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from svp_stream.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
"""Where `configs/` lies: the checkout that the package is installed from."""

CONFIGS = ROOT / "configs"
STYLES = CONFIGS / "styles"
MINI_WEIGHTS = Path(__file__).resolve().parent / "weights" / "mini"

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A mapping of the profile: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, protected_namespaces=())


class Server(Section):
    """Where the server listens, and for how many."""

    host: str = "127.0.0.1"
    port: Port = 8080
    capacity: Annotated[int, Field(ge=1, le=64)] = 2
    token: Annotated[str, Field(min_length=16)] | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _tls_whole(self) -> Server:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: give both or neither")
        return self


class Media(Section):
    """What leaves the server."""

    video_codec: Literal["vp8", "h264"] = "vp8"
    video_kbps: Annotated[int, Field(ge=100, le=20_000)] = 1500
    audio_kbps: Annotated[int, Field(ge=6, le=510)] = 48
    size: Annotated[int, Field(ge=64, le=1024, multiple_of=16)] | None = None
    fps: Annotated[float, Field(ge=1, le=60)] | None = None


class Model(Section):
    """Which engine makes the pictures, and on what."""

    engine: Literal["mini", "noop", "sd15"] = "mini"
    backend: Literal["auto", "openvino", "torch"] = "auto"
    precision: Literal["auto", "int8", "fp32"] = "auto"
    weights: Path | None = None
    folder: Path | None = None
    device: Literal["auto", "cuda", "cpu"] = "auto"
    look_ahead: Annotated[int, Field(ge=0, le=5)] = 2
    articulation: Annotated[float, Field(ge=0, le=3)] = 1.6
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    avatar: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class Style(Section):
    """The style that a session begins with."""

    folder: Path | None = None
    default: str = "warm"
    strength: Annotated[float, Field(ge=0, le=2)] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None


class Speech(Section):
    """When somebody counts as speaking (see `audio.speech`)."""

    detector: Literal["silero", "none"] = "silero"
    open_above: Annotated[float, Field(gt=0, lt=1)] = 0.5
    keep_above: Annotated[float, Field(gt=0, lt=1)] = 0.35
    min_speech_ms: Annotated[float, Field(ge=0, le=1000)] = 64.0
    hangover_ms: Annotated[float, Field(ge=0, le=5000)] = 320.0

    @model_validator(mode="after")
    def _ordered(self) -> Speech:
        if self.keep_above >= self.open_above:
            raise ValueError(f"keep_above ({self.keep_above}) must be below open_above ({self.open_above})")
        return self


class LadderKeys(Section):
    """When quality gives way so that latency does not (see `pipeline.budget`)."""

    late_ms: Positive = 20.0
    lost_ms: Positive = 120.0
    busy_share: Positive = 0.95
    calm_share: Share = 0.7
    settle_ms: Positive = 120.0
    calm_ms: Positive = 2000.0
    calm_max_ms: Positive = 60_000.0
    worst: Annotated[int, Field(ge=0, le=4)] = 4

    @model_validator(mode="after")
    def _ordered(self) -> LadderKeys:
        for low, high in (("late_ms", "lost_ms"), ("calm_share", "busy_share"), ("calm_ms", "calm_max_ms")):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(f"{low} ({getattr(self, low)}) must be below {high} ({getattr(self, high)})")
        return self


class Config(Section):
    """One profile of the server."""

    server: Server = Server()
    media: Media = Media()
    model: Model = Model()
    style: Style = Style()
    speech: Speech = Speech()
    ladder: LadderKeys = LadderKeys()


M = TypeVar("M", bound=BaseModel)


def load_config(path: Path | None = None) -> Config:
    """A profile; None gives the defaults. Raises `ConfigError`."""
    if path is None:
        return Config()
    config = load_yaml(path, Config)
    here = path.resolve().parent
    return config.model_copy(
        update={name: _rooted(getattr(config, name), here) for name in ("server", "model", "style")}
    )


def load_yaml(path: Path, model: type[M]) -> M:
    """Any YAML file as `model`; an empty file is all defaults. Raises `ConfigError`."""
    return check(read_yaml(path), model, str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `ConfigError` when there is none."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror})") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: is not UTF-8 text ({e.reason} at byte {e.start})") from e
    except yaml.YAMLError as e:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(e).split())}") from e
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of sections, found {type(data).__name__}")
    return data


def check(data: dict[str, Any], model: type[M], where: str) -> M:
    """Validate a mapping; `where` begins every message of the `ConfigError`."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        raise ConfigError("\n".join(f"{where}: {_sentence(d, model)}" for d in e.errors())) from None


def _sentence(d: ErrorDetails, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in d["loc"]) or "(top level)"
    if d["type"] == "extra_forbidden":
        known = _keys_at(model, d["loc"][:-1])
        near = get_close_matches(str(d["loc"][-1]), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}" if known else ""
        return f"{path}: unknown key{hint}"
    if d["type"] == "missing":
        return f"{path}: is missing"
    words = d["msg"].removeprefix("Value error, ")
    return f"{path}: {words[0].lower()}{words[1:]}, found {d['input']!r}"


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at `loc` knows; empty when `loc` does not lead to one."""
    for part in loc:
        field = model.model_fields.get(str(part))
        inner = _section_of(field.annotation) if field is not None else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *get_args(annotation)) if get_origin(annotation) else (annotation,)
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _rooted(section: Section, folder: Path) -> Section:
    """The section with its relative paths taken from `folder`."""
    paths = {
        name: folder / value
        for name in type(section).model_fields
        if isinstance(value := getattr(section, name), Path) and not value.is_absolute()
    }
    return section.model_copy(update=paths)
