"""What an engine is: heavy, immutable models shared by every session, and one light `FaceStream` for each person.

In: 16 kHz `AudioChunk`s and `SpeechState`s. Out: one `Frame` for each 1920 ticks of sound.
Remembers: in the stream only. Latency: declared by the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from svp_stream.packets import AudioChunk, Float32, Frame, SpeechState


@dataclass(frozen=True, slots=True)
class StyleRequest:
    """A point of the style prior to speak in: `mu`, `log_var` float32 [D], `temperature` t of s = mu + t * sigma * eps,
    `strength` the weight of the style's cross attention (0 none, 1 as trained, up to 2)."""

    name: str
    mu: Float32
    log_var: Float32
    temperature: float = 0.0
    strength: float = 1.0


class FaceStream(Protocol):
    """One person's face, a `Stage[AudioChunk, Frame]` with controls that take effect from the next frame made."""

    effort: int
    """Rung of the ladder to work at: 0 full, 1 fewer steps, 2 reuse deep features, 3 reuse latent, 4 repeat frame."""

    @property
    def latency(self) -> int: ...

    def push(self, x: AudioChunk) -> list[Frame]: ...

    def flush(self) -> list[Frame]: ...

    def reset(self) -> None: ...

    def hear(self, state: SpeechState) -> None:
        """Tell who speaks from `state.pts` on; the frame at `pts` uses the last state with `state.pts <= pts`."""
        ...

    def set_style(self, style: StyleRequest) -> None:
        """Glide to a style over 0.3 s of media time, without a jump in pose."""
        ...

    def set_avatar(self, name: str) -> None:
        """Change the person shown; raises `EngineError` for an unknown name."""
        ...


@runtime_checkable
class Hushing(Protocol):
    """A stream that can forget sound it has heard and not yet shown, so that an interrupt need not wait for it."""

    def hush(self) -> int:
        """That sound becomes silence; returns the tick from which pictures show none of it."""
        ...


@runtime_checkable
class Attending(Protocol):
    """A stream whose person can be spoken to by somebody who is not heard here: the user of an agent."""

    def attend(self, on: bool) -> None:
        """Whether somebody speaks to the person, from the next frame made."""
        ...


class Engine(Protocol):
    """Shared models. Called from the one inference thread only."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int:
        """Width and height of a frame in pixels."""
        ...

    @property
    def avatars(self) -> tuple[str, ...]: ...

    @property
    def prior(self) -> str | None:
        """Hash of the style prior that presets must belong to; None accepts any."""
        ...

    @property
    def style_dim(self) -> int: ...

    def warm(self) -> None:
        """Compile and run once, so that the first session does not pay."""
        ...

    def stream(self, *, avatar: str, style: StyleRequest, seed: int) -> FaceStream:
        """A fresh stream for one person; raises `EngineError` for an unknown avatar or a style of another dimension."""
        ...
