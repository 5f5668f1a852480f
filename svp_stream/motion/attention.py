"""Whom a person attends to: speaking, listening or idle.

What it is: the rule that turns two facts into a role. Who speaks is SPEAKING. Who is spoken to is LISTENING, and so is
everybody for a few seconds after a turn (an answer may come) and at the start of a call. Nobody there: IDLE.

In: one step a frame with whether the person speaks and whether somebody speaks to them. Out: `Role`.
Remembers: `Attention`, the seconds of silence. Latency: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

ATTENTIVE_S: Final = 6.0
"""How long after the last word, of whomever, a person still listens."""


class Role(IntEnum):
    """What a person is doing in a conversation."""

    SPEAKING = 0
    LISTENING = 1
    IDLE = 2


@dataclass(slots=True)
class Attention:
    """`quiet_s` seconds since anybody spoke."""

    quiet_s: float = 0.0

    def step(self, speaking: bool, addressed: bool, dt_s: float) -> Role:
        """The role in the frame that lasts `dt_s`."""
        self.quiet_s = 0.0 if speaking or addressed else self.quiet_s + dt_s
        if speaking:
            return Role.SPEAKING
        return Role.LISTENING if self.quiet_s < ATTENTIVE_S else Role.IDLE
