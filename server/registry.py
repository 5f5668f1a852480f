"""Who is here: the calls of this server, how many more it takes, and the secrets that their URLs carry.

In: a wish for a place. Out: a `Place` with a public id, a secret for the WHIP resource and an entity tag (RFC 9725
section 4.2), or `CapacityError`. Remembers: the places taken. A place counts from the wish on.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from svp_stream.errors import CapacityError

P = TypeVar("P")


@dataclass(slots=True, eq=False)
class Place(Generic[P]):
    """One call's entry. The `secret` is all that is needed to change or end the call; `id` is fit to be shown."""

    id: str = field(default_factory=lambda: secrets.token_hex(4))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    etag: str = field(default_factory=lambda: f'"{secrets.token_hex(8)}"')
    holder: P | None = None


class Registry(Generic[P]):
    """At most `capacity` places."""

    def __init__(self, capacity: int, retry_after_s: int = 5) -> None:
        if capacity < 1:
            raise ValueError(f"a server with room for {capacity} calls serves nobody; give at least 1")
        self.capacity = capacity
        self._retry_after_s = retry_after_s
        self._places: list[Place[P]] = []
        self.refused = 0

    def __len__(self) -> int:
        return len(self._places)

    def reserve(self) -> Place[P]:
        """A place; raises `CapacityError` when all are taken."""
        if len(self._places) >= self.capacity:
            self.refused += 1
            calls = "1 call" if self.capacity == 1 else f"{self.capacity} calls"
            raise CapacityError(f"the server is full: it serves {calls} at a time", self._retry_after_s)
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
        return next((p for p in self._places if p.id == public_id), None)

    def holders(self) -> list[P]:
        """Everybody whose call has been built."""
        return [p.holder for p in self._places if p.holder is not None]
