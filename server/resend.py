"""How many lost packets are sent again, pure.

In: what is sent, what a receiver misses (NACK, RFC 4585). Out: whether a packet goes out once more.
Remembers: a budget. Without one a link that is full gets fuller: each packet that it drops is sent again, and again,
and nothing comes through. What is not sent again needs a key frame: a browser asks for one (PLI) only after 3 s of
waiting, so it is made unasked, once a second at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SHARE: Final = 0.3
"""Resent bytes for each byte sent: four times what a link with 5 % loss needs."""
KEY_GAP_S: Final = 1.0
BURST: Final = 48_000
"""Bytes that may be sent again in a row: a few pictures at full rate, seconds of a face that hardly moves."""


@dataclass(slots=True)
class ResendBudget:
    """Grows with what is sent."""

    refused: int = 0
    _left: float = BURST
    _key_s: float = float("-inf")

    def sent(self, size: int) -> None:
        """So many bytes left for the first time."""
        self._left = min(BURST, self._left + SHARE * size)

    def key_due(self, now_s: float) -> bool:
        """After a refusal: whether a key frame shall be made; counts as made when it says yes."""
        if now_s - self._key_s < KEY_GAP_S:
            return False
        self._key_s = now_s
        return True

    def take(self, size: int) -> bool:
        """Whether a packet of so many bytes may be sent again."""
        if self._left < size:
            self.refused += 1
            return False
        self._left -= size
        return True
