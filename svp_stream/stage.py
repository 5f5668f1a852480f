"""The contract of every streaming stage.

    push(x) -> list      feed one packet, get what is ready
    flush() -> list      the input has ended: get the rest (the stage then wants `reset`)
    reset()              as if newly made
    latency              ticks: an output stamped `pts` depends on no input at or after `pts + latency`,
                         and is returned no later than the push that completes the input up to `pts + latency`

The four laws, tested over every stage in `tests/laws`: any chunking gives the same output; no output depends on input
after its latency; `reset()` equals a fresh stage; two interleaved streams change neither.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out")


@runtime_checkable
class Stage(Protocol[In, Out]):
    """A light, mutable stream over heavy, immutable, shared models."""

    @property
    def latency(self) -> int:
        """Declared look-ahead in ticks."""
        ...

    def push(self, x: In) -> list[Out]:
        """Feed one packet; returns the outputs that became ready, in order of `pts`."""
        ...

    def flush(self) -> list[Out]:
        """End of input; returns the remaining outputs."""
        ...

    def reset(self) -> None:
        """Forget everything; the next push starts a new stream."""
        ...
