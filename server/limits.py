"""How often somebody may ask, pure: token buckets by address, and waits that double with each wrong token.

In: an address, wall seconds (an argument, never read here). Out: seconds to wait, 0 for "go ahead".
Remembers: one bucket and one count of failures for each of the last `KEEP` addresses; the least recent is forgotten.
An IPv6 customer has a /64 at least, so that is what counts as one address there.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

KEEP: Final = 4096
"""Addresses remembered: beyond it the least recently seen starts afresh."""

S = TypeVar("S")


class _Recent(Generic[S]):
    """A bounded mapping that forgets what was not asked for longest."""

    def __init__(self, keep: int) -> None:
        self._items: OrderedDict[str, S] = OrderedDict()
        self._keep = keep

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> S | None:
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: str, item: S) -> None:
        self._items[key] = item
        self._items.move_to_end(key)
        if len(self._items) > self._keep:
            self._items.popitem(last=False)

    def drop(self, key: str) -> None:
        self._items.pop(key, None)


@dataclass(slots=True)
class _Bucket:
    level: float
    at_s: float


class Rates:
    """At most `burst` at once and `per_minute` in the long run, for each address.

    Raises ValueError for numbers that let nobody in.
    """

    def __init__(self, per_minute: float, burst: int, keep: int = KEEP) -> None:
        if per_minute <= 0 or burst < 1:
            raise ValueError(f"nobody could ask anything: {per_minute} a minute, {burst} at once")
        self._per_s = per_minute / 60
        self._burst = burst
        self._buckets: _Recent[_Bucket] = _Recent(keep)

    def take(self, address: str, now_s: float) -> float:
        """One request at `now_s`: 0 when it may pass (and counts), else the seconds until one may (does not count)."""
        key = network(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = _Bucket(float(self._burst), now_s)
            self._buckets.put(key, bucket)
        bucket.level = min(self._burst, bucket.level + max(0.0, now_s - bucket.at_s) * self._per_s)
        bucket.at_s = max(bucket.at_s, now_s)
        if bucket.level >= 1:
            bucket.level -= 1
            return 0.0
        return (1 - bucket.level) / self._per_s


@dataclass(slots=True)
class _Failures:
    count: int = 0
    until_s: float = 0.0
    last_s: float = 0.0


@dataclass(slots=True)
class Backoff:
    """After `free` wrong tokens in a row each further one makes the address wait twice as long, up to `longest_s`.

    A right token, or `forget_s` without a wrong one, makes all good again.
    """

    free: int = 5
    first_s: float = 1.0
    longest_s: float = 60.0
    forget_s: float = 600.0
    keep: int = KEEP
    _seen: _Recent[_Failures] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = _Recent(self.keep)

    def wait(self, address: str, now_s: float) -> float:
        """Seconds until this address may try a token again."""
        seen = self._seen.get(network(address))
        return 0.0 if seen is None else max(0.0, seen.until_s - now_s)

    def failed(self, address: str, now_s: float) -> None:
        """A wrong token came."""
        key = network(address)
        seen = self._seen.get(key) or _Failures()
        seen.count = 1 if now_s - seen.last_s > self.forget_s else seen.count + 1
        seen.last_s = now_s
        if seen.count > self.free:
            doublings = min(seen.count - self.free - 1, 30)
            seen.until_s = now_s + min(self.longest_s, self.first_s * 2**doublings)
        self._seen.put(key, seen)

    def passed(self, address: str) -> None:
        """The right token came."""
        self._seen.drop(network(address))


def network(address: str) -> str:
    """What counts as one asker: an IPv4 address, the /64 of an IPv6 one; anything else as it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
