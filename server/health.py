"""Is it alive, is it ready, and how is it doing: the state behind `/healthz`, `/readyz` and `/metrics`.

In: counts from calls. Out: Prometheus text (exposition format 0.0.4). Remembers: one registry for one server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS_S = (0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0)


class Metrics:
    """The figures of one server; a registry of its own, so that two servers in one process do not mix."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, capacity: int) -> None:
        registry = self._registry = CollectorRegistry()
        self.calls = Gauge("svp_calls", "Calls in progress", registry=registry)
        self.started = Counter("svp_calls_started", "Calls answered", registry=registry)
        self.refused = Counter("svp_calls_refused", "Calls refused, by HTTP status", ["status"], registry=registry)
        self.failed = Counter("svp_calls_failed", "Calls ended by a failure of their stages", registry=registry)
        self.frames = Counter("svp_frames", "Frames sent", registry=registry)
        self.drops = Counter("svp_drops", "What was dropped or repeated, by cause", ["cause"], registry=registry)
        self.latency = Histogram(
            "svp_latency_seconds", "Mean delay from sound to picture, one observation a call and second",
            buckets=LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        Gauge("svp_capacity", "Calls that fit at a time", registry=registry).set(capacity)

    def watch_paths(self, problems: Callable[[], list[str]]) -> None:
        """Shows how many STUN and TURN servers fail (`server.ice.Ice.problems`) whenever somebody looks."""
        gauge = Gauge("svp_ice_problems", "STUN and TURN servers that fail", registry=self._registry)
        gauge.set_function(lambda: len(problems()))

    def exposition(self) -> bytes:
        """The text that a scrape gets."""
        return generate_latest(self._registry)


@dataclass(slots=True)
class Readiness:
    """Whether the model is warm; `failure` says why it never will be."""

    warm: bool = False
    failure: str | None = None

    @property
    def words(self) -> str:
        """For people and probes."""
        if self.failure is not None:
            return f"the model failed to start: {self.failure}"
        return "ready" if self.warm else "the model is warming up"
