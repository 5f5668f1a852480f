"""What is wrong with the STUN and TURN servers, in words, and which of them to ask next. Pure: time is an argument.

In: outcomes of asking. Out: an order to ask in, sentences for the log, the figures and `svp doctor`.
Remembers: the last failure of each server. One that has just failed is not asked again for `pause_s`, so that a dead
TURN server does not hold up every call; when a call cannot do without, it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from server.turn import IceUrl

PAUSE_S: Final = 30.0
PORTS: Final = "ice.port_range"


@dataclass(slots=True)
class Troubles:
    """The failures that stand."""

    pause_s: float = PAUSE_S
    _words: dict[str, str] = field(default_factory=dict)
    _failed_s: dict[str, float] = field(default_factory=dict)

    def order(self, urls: Iterable[IceUrl], now_s: float, *, insist: bool) -> list[IceUrl]:
        """Whom to ask, first to last. With `insist` those that have just failed come last, without it not at all."""
        known = list(urls)
        fresh = [u for u in known if now_s - self._failed_s.get(str(u), float("-inf")) < self.pause_s]
        rested = [u for u in known if u not in fresh]
        return rested + fresh if insist else rested

    def failed(self, what: str, words: str, now_s: float) -> bool:
        """Notes a failure of `what` (a URL, or a key of the profile); True when it is news."""
        news = self._words.get(what) != words
        self._words[what], self._failed_s[what] = words, now_s
        return news

    def worked(self, what: str) -> bool:
        """Notes that `what` is well; True when that is news."""
        self._failed_s.pop(what, None)
        return self._words.pop(what, None) is not None

    def sentences(self) -> list[str]:
        """What stands, one sentence each."""
        return [f"{what} {words}" for what, words in sorted(self._words.items())]
