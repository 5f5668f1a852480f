"""Who is here: sessions and connections of this server, how many more it takes, and the secrets of their URLs.

In: a wish for a place. Out: a `Place` with a public id, a secret for the WHIP resource and an entity tag (RFC 9725
section 4.2), or `CapacityError`. Remembers: the places taken. A place counts from the wish on.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from svp_stream.errors import CapacityError

P = TypeVar("P")


def new_etag() -> str:
    """An entity tag for one ICE session (RFC 9725 section 4.3.1)."""
    return f'"{secrets.token_hex(8)}"'


@dataclass(slots=True, eq=False)
class Place(Generic[P]):
    """One entry. The `secret` is all that is needed to change or end a connection; who knows the `id` may watch, so it
    is shown to the one who asked, listed behind the token, and never logged: logs and metrics say `key`."""

    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    etag: str = field(default_factory=new_etag)
    holder: P | None = None

    @property
    def key(self) -> str:
        """8 hex characters that tell entries apart and give nothing away."""
        return hashlib.sha256(self.id.encode()).hexdigest()[:8]


class Registry(Generic[P]):
    """At most `capacity` places."""

    def __init__(self, capacity: int, retry_after_s: int = 5, noun: str = "call") -> None:
        if capacity < 1:
            raise ValueError(f"a server with room for {capacity} calls serves nobody; give at least 1")
        self.capacity = capacity
        self._retry_after_s = retry_after_s
        self._noun = noun
        self._places: list[Place[P]] = []
        self.refused = 0

    def __len__(self) -> int:
        return len(self._places)

    def reserve(self) -> Place[P]:
        """A place; raises `CapacityError` when all are taken."""
        if len(self._places) >= self.capacity:
            self.refused += 1
            most = f"1 {self._noun}" if self.capacity == 1 else f"{self.capacity} {self._noun}s"
            raise CapacityError(f"the server is full: it serves {most} at a time", self._retry_after_s)
        place: Place[P] = Place()
        self._places.append(place)
        return place

    def release(self, place: Place[P]) -> None:
        """Give a place back; a second time does nothing."""
        if place in self._places:
            self._places.remove(place)

    def by_secret(self, secret: str) -> Place[P] | None:
        """The place of a WHIP resource; compares in constant time."""
        given = secret.encode()
        return next((p for p in self._places if hmac.compare_digest(p.secret.encode(), given)), None)

    def by_id(self, public_id: str) -> Place[P] | None:
        """The place with a public id."""
        given = public_id.encode()
        return next((p for p in self._places if hmac.compare_digest(p.id.encode(), given)), None)

    def holders(self) -> list[P]:
        """Everybody whose entry has been built."""
        return [p.holder for p in self._places if p.holder is not None]
