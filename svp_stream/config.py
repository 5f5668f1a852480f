"""Profiles: pydantic models of the YAML files in `configs/`.

In: a YAML file. Out: a frozen `Config`. Errors name the file, the path of the key, what was found and what would be
right; unknown keys are errors. The defaults here equal `configs/default.yaml`, which a test holds. Paths in a profile
are relative to the profile's own folder.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyAddress, ValidationError, model_validator
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
PORTS = range(1, 65536)
UdpPort = Annotated[int, Field(ge=1024, le=65535)]

ICE_URL = re.compile(
    r"(?P<scheme>stun|turns?):(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:\?transport=(?P<transport>udp|tcp))?"
)
"""Where a STUN or TURN server is (RFC 7064, RFC 7065); `turns` is TURN over TLS."""


def _stun(url: str) -> str:
    match = ICE_URL.fullmatch(url)
    if match is None or match["scheme"] != "stun" or match["transport"] or int(match["port"] or 1) not in PORTS:
        raise ValueError('is no STUN URL; one looks like "stun:host:3478"')
    return url


def _turn(url: str) -> str:
    match = ICE_URL.fullmatch(url)
    if match is None or match["scheme"] == "stun" or int(match["port"] or 1) not in PORTS:
        raise ValueError('is no TURN URL; one looks like "turn:host:3478?transport=tcp" or "turns:host:5349"')
    if match["scheme"] == "turns" and match["transport"] == "udp":
        raise ValueError("asks for TURN over DTLS, which is not supported; leave out transport=udp")
    return url


StunUrl = Annotated[str, AfterValidator(_stun)]
TurnUrl = Annotated[str, AfterValidator(_turn)]


class Section(BaseModel):
    """A mapping of the profile: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, protected_namespaces=())


class Server(Section):
    """Where the server listens, and for how many."""

    host: str = "127.0.0.1"
    port: Port = 8080
    capacity: Annotated[int, Field(ge=1, le=64)] = 2
    token: Annotated[str, Field(min_length=16)] | None = None
    origins: tuple[str, ...] = ()
    posts_per_minute: Annotated[int, Field(ge=1, le=60_000)] = 240
    budget: Literal["auto", "off"] = "auto"
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 20.0
    tls: Literal["auto"] | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _tls_whole(self) -> Server:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: give both or neither")
        if self.tls is not None and self.tls_certificate is not None:
            raise ValueError("tls: auto makes a certificate of its own: leave out tls_certificate and tls_key")
        return self

    @property
    def secure(self) -> bool:
        """Whether it serves https."""
        return self.tls is not None or self.tls_certificate is not None


class Ice(Section):
    """How a path for the media is found (see `server.ice`)."""

    stun: tuple[StunUrl, ...] = ()
    turn: tuple[TurnUrl, ...] = ()
    username: str | None = None
    credential: str | None = Field(default=None, repr=False)
    secret: str | None = Field(default=None, repr=False)
    ttl_s: Annotated[int, Field(ge=60, le=7 * 86_400)] = 12 * 3600
    port_range: tuple[UdpPort, UdpPort] | None = None
    advertise: IPvAnyAddress | None = None
    policy: Literal["all", "relay"] = "all"

    @model_validator(mode="after")
    def _whole(self) -> Ice:
        if (self.username is None) != (self.credential is None):
            raise ValueError("username and credential belong together: give both or neither")
        if self.secret is not None and self.username is not None:
            raise ValueError("give either a secret to make credentials with, or a username and credential, not both")
        if self.turn and self.secret is None and self.username is None:
            raise ValueError("turn needs a secret (coturn: --use-auth-secret), or a username and credential")
        if self.policy == "relay" and not self.turn:
            raise ValueError("policy relay sends everything through TURN: give at least one URL in turn")
        if self.port_range is not None and self.port_range[0] > self.port_range[1]:
            raise ValueError(f"port_range [{self.port_range[0]}, {self.port_range[1]}] must go from low to high")
        return self


class Media(Section):
    """What leaves the server."""

    video_codec: Literal["vp8", "h264"] = "vp8"
    video_kbps: Annotated[int, Field(ge=100, le=20_000)] = 1500
    audio_kbps: Annotated[int, Field(ge=6, le=510)] = 48
    size: Annotated[int, Field(ge=64, le=1024, multiple_of=16)] | None = None
    fps: Annotated[float, Field(ge=1, le=60)] | None = None
    background: Annotated[str, Field(min_length=1, max_length=4096)] | None = None


class Model(Section):
    """Which engine makes the pictures, and on what."""

    engine: Literal["mini", "noop", "sd15"] = "mini"
    backend: Literal["auto", "openvino", "torch"] = "auto"
    precision: Literal["auto", "int8", "fp32"] = "auto"
    weights: Path | None = None
    folder: Path | None = None
    device: Literal["auto", "cuda", "cpu"] = "auto"
    look_ahead: Annotated[int, Field(ge=0, le=5)] = 2
    articulation: Annotated[float, Field(ge=0, le=3)] = 1.25
    turns: Annotated[float, Field(ge=0, le=1)] = 1.0
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    avatar: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class Cache(Section):
    """What of a session's past the trained avatar uses (see `diffusion.cache`)."""

    noise_mix: Annotated[float, Field(ge=0, le=1)] = 0.9
    warm_start: bool = True
    previous_latent: bool = True
    deep_reuse: Annotated[float, Field(ge=0, le=10)] = 0.0
    smoothing: Annotated[int, Field(ge=0, le=16)] = 3
    cold_steps: Annotated[int, Field(ge=1, le=100)] = 2


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
    ice: Ice = Ice()
    media: Media = Media()
    model: Model = Model()
    cache: Cache = Cache()
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
    background = config.media.background
    if background is not None and not background.startswith("#"):
        media = config.media.model_copy(update={"background": str(here / background)})
        config = config.model_copy(update={"media": media})
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
    # a whole section may hold secrets, and its own rule says in words what is wrong
    found = "" if isinstance(d["input"], dict) else f", found {d['input']!r}"
    return f"{path}: {words[0].lower()}{words[1:]}{found}"


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
