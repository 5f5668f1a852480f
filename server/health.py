"""Is it alive, is it ready, and how is it doing: the state behind `/healthz`, `/readyz` and `/metrics`.

In: counts from sessions, a census at each scrape. Out: Prometheus text (exposition format 0.0.4).
Remembers: one registry for one server; how long the ladder has been at its end. No label names a session: their number
is without bound.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from svp_stream.pipeline.budget import REPEAT, RUNGS

LATENCY_BUCKETS_S = (0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0)
STAGE_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.25, 1.0)
SKEW_BUCKETS_S = (-0.2, -0.1, -0.06, -0.04, -0.02, -0.01, 0.0, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2)
CONNECT_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0)
KINDS: Final = ("call", "whip", "pcm", "mic", "none")
"""What feeds a session; `none` while nothing does. What is not known here is counted as `other`."""
STATES: Final = ("new", "checking", "completed", "disconnected", "failed", "closed")
"""Of ICE (W3C webrtc, RTCIceConnectionState; aiortc never says `connected`)."""


@dataclass(frozen=True, slots=True)
class Census:
    """Who is there in this moment. `levels` and `fps`: of each session, last second; `queues`: items that wait in all
    mailboxes of a name; `connections`: by ICE state; `frame_ms`: what a frame costs at full quality, if known."""

    sessions: Mapping[str, int] = field(default_factory=dict)
    viewers: int = 0
    levels: Sequence[int] = ()
    fps: Sequence[float] = ()
    queues: Mapping[str, int] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    tasks: int = 0
    threads: int = 0
    pool_threads: int = 0
    frame_ms: float | None = None


class Metrics:
    """The figures of one server; a registry of its own, so that two servers in one process do not mix."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, capacity: int) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._count(registry)
        self._time(registry)
        self._gauge(registry)
        Gauge("svp_capacity", "Calls that fit at a time", registry=registry).set(capacity)

    def _count(self, registry: CollectorRegistry) -> None:
        self.started = Counter("svp_calls_started", "Sessions that began", registry=registry)
        self.refused = Counter("svp_calls_refused", "Requests refused, by HTTP status", ["status"], registry=registry)
        self.denied = Counter(
            "svp_requests_denied", "Requests stopped at the gate, by HTTP status and reason", ["status", "reason"],
            registry=registry,
        )  # fmt: skip
        self.failed = Counter("svp_calls_failed", "Sessions ended by a failure of their stages", registry=registry)
        self.frames = Counter("svp_frames", "Frames sent", registry=registry)
        self.drops = Counter("svp_drops", "What was dropped or repeated, by cause", ["cause"], registry=registry)
        self._pictures = Counter("svp_encoded_pictures", "Pictures encoded; viewers share them", registry=registry)
        self._keys = Counter("svp_encoded_key_frames", "Key frames among them", registry=registry)
        self._encode_s = Counter("svp_encode_seconds", "Wall time of the encoders", registry=registry)

    def _time(self, registry: CollectorRegistry) -> None:
        self.latency = Histogram(
            "svp_latency_seconds", "Mean delay from sound to picture, one observation a session and second",
            buckets=LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._stages = Histogram(
            "svp_stage_seconds", "Wall time of a frame by stage, one frame a session and second", ["stage"],
            buckets=STAGE_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._skew = Histogram(
            "svp_av_skew_seconds", "Picture behind voice, one observation a session and second",
            buckets=SKEW_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._connect = Histogram(
            "svp_connect_seconds", "From the offer to the connection", buckets=CONNECT_BUCKETS_S, registry=registry
        )

    def _gauge(self, registry: CollectorRegistry) -> None:
        self.calls = Gauge("svp_calls", "Sessions in progress", registry=registry)
        self._sessions = Gauge("svp_sessions", "Sessions by what feeds them", ["kind"], registry=registry)
        self._viewers = Gauge("svp_viewers", "Viewers of all sessions", registry=registry)
        self._rungs = Gauge("svp_ladder_sessions", "Sessions by rung of the ladder", ["rung"], registry=registry)
        self._fps = Gauge("svp_fps", "Frames a second, of the slowest session", registry=registry)
        self._queues = Gauge("svp_queue_depth", "Items that wait, by mailbox", ["queue"], registry=registry)
        self._states = Gauge("svp_ice_connections", "Connections by ICE state", ["state"], registry=registry)
        self._tasks = Gauge("svp_tasks", "Tasks of the event loop", registry=registry)
        self._threads = Gauge("svp_threads", "Threads of the process", registry=registry)
        self._pool_threads = Gauge(
            "svp_pool_threads", "Those of them that wait in a shared pool, which grows to its bound", registry=registry
        )
        self._frame_s = Gauge("svp_frame_cost_seconds", "What a frame costs at full quality", registry=registry)
        self._ready = Gauge("svp_ready", "1 when calls are taken", registry=registry)
        self._degraded = Gauge("svp_degraded", "1 when the ladder has been at its end for long", registry=registry)

    def deny(self, status: int, reason: str) -> None:
        """The gate has refused a request."""
        self.denied.labels(str(status), reason).inc()

    def stages(self, last_ms: Mapping[str, float]) -> None:
        """Milliseconds of one frame by stage."""
        for stage, ms in last_ms.items():
            self._stages.labels(stage).observe(ms / 1000)

    def skew(self, ms: float) -> None:
        """How far the picture is behind the voice."""
        self._skew.observe(ms / 1000)

    def encoded(self, pictures: int, keys: int, spent_ms: float) -> None:
        """So much was encoded since the last call."""
        self._pictures.inc(pictures)
        self._keys.inc(keys)
        self._encode_s.inc(spent_ms / 1000)

    def connected(self, seconds: float) -> None:
        """A connection came about so long after its offer."""
        self._connect.observe(seconds)

    def look(self, census: Census, readiness: Readiness) -> None:
        """Set every gauge."""
        kinds = Tally({kind if kind in KINDS else "other": count for kind, count in census.sessions.items()})
        for kind in (*KINDS, "other"):
            self._sessions.labels(kind).set(kinds[kind])
        rungs = Tally(census.levels)
        for level, name in enumerate(RUNGS):
            self._rungs.labels(name).set(rungs[level])
        for state in STATES:
            self._states.labels(state).set(census.connections.get(state, 0))
        for queue, depth in census.queues.items():
            self._queues.labels(queue).set(depth)
        self._viewers.set(census.viewers)
        self._fps.set(min(census.fps, default=0.0))
        self._tasks.set(census.tasks)
        self._threads.set(census.threads)
        self._pool_threads.set(census.pool_threads)
        self._frame_s.set(float("nan") if census.frame_ms is None else census.frame_ms / 1000)
        self._ready.set(readiness.ready)
        self._degraded.set(readiness.strain.long)

    def watch_paths(self, problems: Callable[[], list[str]]) -> None:
        """Shows how many STUN and TURN servers fail (`server.ice.Ice.problems`) whenever somebody looks."""
        gauge = Gauge("svp_ice_problems", "STUN and TURN servers that fail", registry=self._registry)
        gauge.set_function(lambda: len(problems()))

    def exposition(self) -> bytes:
        """The text that a scrape gets."""
        return generate_latest(self._registry)

    @property
    def registry(self) -> CollectorRegistry:
        """Where rooms register figures of their own."""
        return self._registry


@dataclass(slots=True)
class Strain:
    """Whether the ladder has been at its end for long, counted in looks, one a second: `SHARE` of the last `looks`."""

    looks: int = 30
    end: int = REPEAT - 1
    """The rung from which on nothing is left to give up but frames."""
    share: float = 0.8
    _seen: deque[bool] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = deque(maxlen=self.looks)

    def look(self, levels: Sequence[int]) -> None:
        """The rungs of all sessions now."""
        self._seen.append(any(level >= self.end for level in levels))

    @property
    def long(self) -> bool:
        """At its end for most of the last half minute."""
        return len(self._seen) == self.looks and sum(self._seen) >= self.share * self.looks


@dataclass(slots=True)
class Readiness:
    """Whether the model is warm; `failure` says why it never will be; `draining`: nobody new is taken."""

    warm: bool = False
    failure: str | None = None
    draining: bool = False
    strain: Strain = field(default_factory=Strain)

    @property
    def ready(self) -> bool:
        """Whether new sessions are taken."""
        return self.warm and not self.draining

    @property
    def words(self) -> str:
        """For people and probes."""
        if self.failure is not None:
            return f"the model failed to start: {self.failure}"
        if self.draining:
            return "draining: the server is going down, calls in progress may end"
        if not self.warm:
            return "the model is warming up"
        if self.strain.long:
            return "degraded: the machine is too slow for its sessions, frames are repeated"
        return "ready"
