"""How a face gets its movement: learned where the weights have a motion network, by rule where they have none.

In: a style [D], a seed. Out: a stream of poses that can change its style. Remembers: nothing; the streams do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from svp_stream.motion.generator import MotionDrive, MotionStream
from svp_stream.motion.learned import LearnedMotion, MotionModel
from svp_stream.motion.manner import Manner
from svp_stream.packets import Float32, Pose


class Motion(Protocol):
    """One person's movement, a `Stage[MotionDrive, Pose]`."""

    def push(self, x: MotionDrive) -> list[Pose]: ...

    def set_style(self, s: Float32) -> None:
        """Move in the style [D] from the next frame on, gliding."""
        ...


class MotionByRule:
    """The rule of `motion.generator`, with the manner read off the style."""

    def __init__(self, manner: Callable[[Float32], Manner], s: Float32, seed: int) -> None:
        self._manner = manner
        self._stream = MotionStream(manner(s), seed)

    def push(self, x: MotionDrive) -> list[Pose]:
        """See `MotionStream.push`."""
        return self._stream.push(x)

    def set_style(self, s: Float32) -> None:
        """See `Motion`."""
        self._stream.set_manner(self._manner(s))


class Calmer:
    """A share of what another movement turns and tilts the head by; lids, gaze and place stay."""

    def __init__(self, motion: Motion, share: float) -> None:
        self._motion = motion
        self._share = share

    def push(self, x: MotionDrive) -> list[Pose]:
        """See `Motion`."""
        k = self._share
        return [replace(p, yaw=k * p.yaw, pitch=k * p.pitch, roll=k * p.roll) for p in self._motion.push(x)]

    def set_style(self, s: Float32) -> None:
        """See `Motion`."""
        self._motion.set_style(s)


def living(
    model: MotionModel | None, manner: Callable[[Float32], Manner], s: Float32, seed: int, turns: float = 1.0
) -> Motion:
    """A fresh stream for one person in style `s` [D]; of learned movement, `turns` is the share of the head's turns
    that is shown."""
    if model is None:
        return MotionByRule(manner, s, seed)
    learned = LearnedMotion(model, s, seed)
    return learned if turns == 1 else Calmer(learned, turns)
