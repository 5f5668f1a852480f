"""What a call tells about itself once a second: rate, delay, rung, drops, loudness, and where the time goes.

In: the counters of the call's rooms. Out: one flat mapping for the page, one set of samples for the metrics.
Remembers: when it was last asked, the last totals (the page gets totals, the metrics get differences).
"""

from __future__ import annotations

import time
from typing import Any

from server.avatar_track import AvatarTrack
from server.health import Metrics
from server.mailbox import LatestFrame
from server.mic import QUIET_DB, Mic
from server.voice_track import VoiceTrack
from server.worker import Seat
from svp_stream.pipeline.budget import RUNGS


class Report:
    """Gathers from the rooms of one call."""

    def __init__(self, seat: Seat, picture: AvatarTrack, sound: VoiceTrack, frames: LatestFrame) -> None:
        self._seat = seat
        self._picture = picture
        self._sound = sound
        self._frames = frames
        self._asked_s = time.monotonic()
        self._counted: dict[str, int] = {}
        self.last: dict[str, Any] = {}

    def drops(self) -> dict[str, int]:
        """Totals by cause since the call began."""
        repeated = self._seat.budget.drops.snapshot().get("repeated", 0)
        return {
            "audio": self._seat.inbox.dropped + self._seat.intake.dropped,
            "superseded": self._frames.dropped,
            "repeated": repeated,
            "voice": self._sound.skipped,
        }

    def take(self, mic: Mic | None, metrics: Metrics) -> dict[str, Any]:
        """Figures since the last call; also counted into `metrics`."""
        now = time.monotonic()
        elapsed, self._asked_s = max(now - self._asked_s, 1e-6), now
        shown = self._picture.take_shown()
        drops = self.drops()
        metrics.frames.inc(shown.frames)
        for cause, total in drops.items():
            metrics.drops.labels(cause).inc(total - self._counted.get(cause, 0))
        self._counted = drops
        if shown.mean_ms is not None:
            metrics.latency.observe(shown.mean_ms / 1000)
        self.last = {
            "fps": round(shown.frames / elapsed, 2),
            "latency_ms": None if shown.mean_ms is None else round(shown.mean_ms, 1),
            "worst_ms": round(shown.worst_ms, 1),
            "level": shown.level,
            "level_name": RUNGS[shown.level] if 0 <= shown.level < len(RUNGS) else str(shown.level),
            "drops": drops,
            "mic_db": round(mic.take_level_db(), 1) if mic is not None else QUIET_DB,
            "mic": mic is not None,
            "stages_ms": {name: round(times.p50_ms, 2) for name, times in self._seat.times().items()},
        }
        return self.last
