"""Messages of the data channel `control`: JSON objects with `type` and `v`, pure parse and serialise.

In: text from the page. Out: typed orders; text for the page.
Remembers: nothing.

The rule for the unknown: a well-formed message of an unknown `type`, or of a known type with unknown fields, is
ignored as far as it is unknown; a malformed one raises `ControlError`, whose words go back as an `error` event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

VERSION: Final = 1
LABEL: Final = "control"
MAX_MESSAGE_BYTES: Final = 16 * 1024
MAX_BLEND: Final = 16

Name = Annotated[str, Field(min_length=1, max_length=200)]
M = TypeVar("M", bound=BaseModel)
Weight = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class ControlError(Exception):
    """The message cannot be read; the words say which field and what would be right."""


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    id: str | int | None = None
    """Whatever the sender chose; comes back in the answer."""


class StyleOrder(_Order):
    """Speak in a preset or in a blend of presets. Absent fields stay as they are."""

    type: Literal["style"] = "style"
    name: Name | None = None
    weights: Annotated[dict[str, Weight], Field(min_length=1, max_length=MAX_BLEND)] | None = None
    strength: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> StyleOrder:
        if self.name is not None and self.weights is not None:
            raise ValueError("give 'name' or 'weights', not both")
        if (self.name, self.weights, self.strength, self.temperature) == (None, None, None, None):
            raise ValueError("give at least one of 'name', 'weights', 'strength', 'temperature'")
        if self.weights is not None and sum(self.weights.values()) <= 0.0:
            raise ValueError("'weights' must not all be zero")
        return self


class AvatarOrder(_Order):
    """Show another person."""

    type: Literal["avatar"] = "avatar"
    name: Name


class MuteOrder(_Order):
    """While on, the microphone is taken for silence."""

    type: Literal["mute"] = "mute"
    on: bool


class EchoOrder(_Order):
    """While on, the caller hears the own voice, in step with the lips."""

    type: Literal["echo"] = "echo"
    on: bool


class ListenOrder(_Order):
    """While on, somebody speaks to the avatar (say, an agent's user): while it does not speak itself, it listens."""

    type: Literal["listen"] = "listen"
    on: bool


class BackgroundOrder(_Order):
    """Stand before a colour; null: the engine's own picture. A picture comes by HTTP (see `backdrop`)."""

    type: Literal["background"] = "background"
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None


class Ping(_Order):
    """Answered at once by `pong` with the same `t`."""

    type: Literal["ping"] = "ping"
    t: Annotated[float, Field(allow_inf_nan=False)] | int = 0


Order = StyleOrder | AvatarOrder | MuteOrder | EchoOrder | ListenOrder | BackgroundOrder | Ping
_KNOWN: Final[dict[str, type[Order]]] = {
    "style": StyleOrder, "avatar": AvatarOrder, "mute": MuteOrder, "echo": EchoOrder, "listen": ListenOrder,
    "background": BackgroundOrder, "ping": Ping,
}


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def parse(text: str | bytes) -> Order | None:
    """One message; None when its type is not known to us. Raises `ControlError`."""
    return read(text, _KNOWN)


def read(text: str | bytes, known: Mapping[str, type[M]]) -> M | None:
    """One message of the types in `known`; None for any other type. Raises `ControlError`."""
    if isinstance(text, bytes):
        raise ControlError("messages are text, this one is binary")
    if len(text) > MAX_MESSAGE_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_MESSAGE_BYTES:
        raise ControlError(f"the message is longer than {MAX_MESSAGE_BYTES} bytes")
    try:
        data = json.loads(text, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"the message is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ControlError("the message is not a JSON object")
    kind, version = data.get("type"), data.get("v")
    if not isinstance(kind, str):
        raise ControlError("'type' is missing or not a string")
    if not isinstance(version, int) or isinstance(version, bool):
        raise ControlError(f"'v' is missing or not an integer; this server speaks version {VERSION}")
    model = known.get(kind)
    if model is None:
        return None
    if version != VERSION:
        raise ControlError(f"'{kind}' version {version} is not known; this server speaks version {VERSION}")
    return validated(model, data)


def validated(model: type[M], data: object, *, json: bool = False) -> M:
    """`data` (a mapping, or with `json` its text) as `model`; raises `ControlError` naming the first wrong field."""
    try:
        return model.model_validate_json(str(data)) if json else model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        words = first["msg"].removeprefix("Value error, ")
        raise ControlError(f"{model.__name__}{'.' + where if where else ''}: {words}") from error


def write(kind: str, /, **fields: Any) -> str:
    """An event for the page: `type`, `v` and the given fields; raises ValueError for NaN or infinity."""
    return json.dumps({"type": kind, "v": VERSION, **fields}, allow_nan=False, separators=(",", ":"))
