"""When a mouth comes to rest: nobody is heard, or what is heard is no speech.

What it is: the rule that lets a face close its lips in pauses and keep them still, whatever murmurs the audio encoder
makes of room noise. A pause rests as soon as the sound, the look-ahead included, has fallen far below the voice; sound
that the voice detector takes for silence rests, too, once the detector has had the time to say otherwise, so that the
lips open before the voice and not after the detector.

In: one step a frame with its level, the levels of the look-ahead, and whether the detector hears speech (None: nobody
says). Out: how far the mouth has come to rest, in [0, 1]. Remembers: `Resting`. Latency: that of the levels given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from svp_stream.audio.level import Level

QUIET_DB: Final = 30.0
"""A frame so far below the voice's ceiling holds none of it."""
QUIET_FRAMES: Final = 3
"""Silence before the frame, itself included, that makes a pause: a plosive's closure is shorter."""
DOUBT_FRAMES: Final = 6
"""How long sound counts as speech that the detector has not confirmed."""
CLOSE, OPEN = 0.25, 0.5
"""How much nearer to rest, and away from it, the mouth comes in a frame."""


@dataclass(slots=True)
class Resting:
    """`quiet` and `loud` count frames on end; `share` is how far the mouth has come to rest."""

    quiet: int = 0
    loud: int = 0
    share: float = 1.0

    def step(self, level: Level, ahead: Sequence[Level], speaking: bool | None) -> float:
        """The share of rest in the frame of `level`; `ahead` are the levels of the frames after it that are known."""
        silent = level.below_db > QUIET_DB
        coming = any(x.below_db <= QUIET_DB for x in ahead)
        self.quiet = self.quiet + 1 if silent else 0
        if self.quiet >= QUIET_FRAMES and not coming:
            self.loud = 0
        elif coming or not silent or self.loud:
            self.loud += 1
        pause = self.quiet >= QUIET_FRAMES and not coming
        murmur = speaking is False and (not self.loud or self.loud > DOUBT_FRAMES)
        step = CLOSE if pause or murmur else -OPEN
        self.share = min(max(self.share + step, 0.0), 1.0)
        return self.share
