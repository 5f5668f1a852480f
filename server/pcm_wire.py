"""The wire of `/v1/sessions/{id}/audio`, version 1: an agent's voice in, what became of it out. Pure, no sockets.

In: text and binary messages of a WebSocket. Out: typed orders and sound; the text of events.
Remembers: nothing. Text is JSON with `type` and `v`; binary is PCM16, little-endian, mono, at the segment's rate.

| agent -> server | means |
|---|---|
| `start` {rate_hz, segment?} | a segment begins: 16000, 24000 or 48000 Hz; the server numbers one without a name |
| binary | sound of the open segment, whole samples, at most 1 MiB a message, as fast as it is made |
| `end` | the segment is complete (another `start` says so, too) |
| `interrupt` {id?} | cut now: whatever was started and has not been heard to its end is forgotten |
| `listen` {on, id?} | the agent's user began or ceased to speak: a silent avatar listens and nods meanwhile |
| `ping` {t?, id?} | answered by `pong` with the same `t` and `id` |

| server -> agent | means |
|---|---|
| `welcome` {session, rates_hz, street_latency_ms, bound_ms, high_ms, low_ms} | first; sound may come |
| `playback_started` {segment} | viewers see and hear its beginning |
| `playback_finished` {segment, position_ms, interrupted} | exactly one for each `start`, in order, whatever happens |
| `interrupted` {segments, dropped_ms, id} | the answer to `interrupt`, after the `playback_finished` of those it cut |
| `backpressure` {on, buffered_ms} | on at `high_ms` of sound not yet played: send slower; off again at `low_ms` |
| `state` {state} | what the avatar does: `speaking` or `silent` |
| `error` {code, message, ...} | codes below; `closing` is followed by the close frame |

Errors: `malformed` (a message that cannot be read, it counts for nothing), `no_segment` (sound before any `start`),
`too_large`, `overflow` {segment, dropped_ms} (beyond `bound_ms` the newest sound is refused: what was taken first is
played whole; told at once, then at most once a second), `too_many_segments`, `closing`.

Close codes: 4400 too much that cannot be read, 4404 no such session, 4408 idle, 4409 another source feeds the session,
4410 the session has ended, 4413 the agent does not read its events.

The rule for the unknown is that of `control`: unknown types and fields are ignored, malformed messages are answered.

For LiveKit's avatar protocol: a byte stream with `sample_rate` is `start`, its closing `end`, RPC `lk.clear_buffer` is
`interrupt`; `playback_started` is `lk.playback_started`, `playback_finished` is `lk.playback_finished` with
`playback_position` = position_ms / 1000.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from server import control
from server.control import ControlError, ListenOrder, Ping

RATES_HZ: Final = (16_000, 24_000, 48_000)
MAX_AUDIO_BYTES: Final = 1 << 20
"""Of one binary message: 10.9 s at 48 kHz."""

TOO_GARBLED: Final = 4400
NO_SESSION: Final = 4404
IDLE: Final = 4408
TAKEN: Final = 4409
ENDED: Final = 4410
NOT_READING: Final = 4413

Int16 = NDArray[np.int16]
Segment = Annotated[str, Field(min_length=1, max_length=100)]


class WireError(Exception):
    """A message cannot be taken; `code` is for programs, the words are for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    id: str | int | None = None
    """Whatever the agent chose; comes back in the answer, where there is one."""


class Start(_Order):
    """A segment begins; one that is still open ends."""

    type: Literal["start"] = "start"
    rate_hz: Literal[16_000, 24_000, 48_000]
    segment: Segment | None = None


class End(_Order):
    """The open segment is complete."""

    type: Literal["end"] = "end"


class Interrupt(_Order):
    """Forget all that was started and has not been heard to its end."""

    type: Literal["interrupt"] = "interrupt"


AgentOrder = Start | End | Interrupt | ListenOrder | Ping
_KNOWN: Final[dict[str, type[AgentOrder]]] = {
    "start": Start, "end": End, "interrupt": Interrupt, "listen": ListenOrder, "ping": Ping,
}


@dataclass(frozen=True, slots=True)
class Welcome:
    """The first event: what the agent may send, and how far the picture lags its sound."""

    kind: ClassVar[str] = "welcome"
    session: str
    street_latency_ms: float
    bound_ms: float
    high_ms: float
    low_ms: float
    rates_hz: tuple[int, ...] = RATES_HZ


@dataclass(frozen=True, slots=True)
class PlaybackStarted:
    """Viewers see and hear the beginning of a segment."""

    kind: ClassVar[str] = "playback_started"
    segment: str


@dataclass(frozen=True, slots=True)
class PlaybackFinished:
    """The end of a segment: heard whole, or cut at `position_ms`."""

    kind: ClassVar[str] = "playback_finished"
    segment: str
    position_ms: float
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The answer to `interrupt`: the segments that it cut, the sound that nobody will hear."""

    kind: ClassVar[str] = "interrupted"
    segments: tuple[str, ...]
    dropped_ms: float
    id: str | int | None = None


@dataclass(frozen=True, slots=True)
class Backpressure:
    """Whether the agent should send slower."""

    kind: ClassVar[str] = "backpressure"
    on: bool
    buffered_ms: float


@dataclass(frozen=True, slots=True)
class State:
    """What the avatar does, as its ears hear it."""

    kind: ClassVar[str] = "state"
    state: Literal["speaking", "silent"]


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to `ping`."""

    kind: ClassVar[str] = "pong"
    t: float | int
    id: str | int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """An `error`. `segment` and `dropped_ms` only where sound was lost."""

    kind: ClassVar[str] = "error"
    code: str
    message: str
    segment: str | None = None
    dropped_ms: float | None = None


Event = Welcome | PlaybackStarted | PlaybackFinished | Interrupted | Backpressure | State | Pong | Refused


def parse(text: str) -> AgentOrder | None:
    """A text message; None when its type is not known here. Raises `WireError` with code `malformed`."""
    try:
        return control.read(text, _KNOWN)
    except ControlError as error:
        raise WireError("malformed", str(error)) from error


def samples(data: bytes) -> Int16:
    """A binary message: int16 [N]. Raises `WireError`: `too_large`, or `malformed` for half a sample."""
    if len(data) > MAX_AUDIO_BYTES:
        raise WireError("too_large", f"the message has {len(data)} bytes; at most {MAX_AUDIO_BYTES} are taken")
    if len(data) % 2:
        raise WireError("malformed", f"the message has {len(data)} bytes; PCM16 has two for each sample")
    return np.frombuffer(data, "<i2").astype(np.int16, copy=False)


def write(event: Event) -> str:
    """The text of an event; fields that are None are left out, milliseconds have one decimal."""
    fields: dict[str, Any] = {}
    for name, value in asdict(event).items():
        if name.endswith("_ms") and value is not None:
            fields[name] = round(value, 1)
        elif value is not None:
            fields[name] = value
    return control.write(event.kind, **fields)
