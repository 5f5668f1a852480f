"""What a live session tells about itself once a second: rate, delay, rung, drops, loudness, where the time goes.

In: the counters of the session's rooms. Out: one flat mapping for the page, one set of samples for the metrics.
Remembers: when it was last asked, the last totals (the page gets totals, the metrics get differences).
"""

from __future__ import annotations

import time
from typing import Any

from server.feed import Encoded, PictureFeed
from server.health import Metrics
from server.mic import QUIET_DB
from server.voice_track import VoiceFeed
from server.worker import Seat
from svp_stream.clock import FRAME_TICKS, ticks_to_ms
from svp_stream.pipeline.budget import RUNGS


class Report:
    """Gathers from the rooms of one session."""

    def __init__(self, seat: Seat, pictures: PictureFeed, voice: VoiceFeed) -> None:
        self._seat = seat
        self._pictures = pictures
        self._voice = voice
        self._asked_s = time.monotonic()
        self._counted: dict[str, int] = {}
        self._encoded = Encoded()
        self.last: dict[str, Any] = {}

    def drops(self) -> dict[str, int]:
        """Totals by cause since the session began."""
        repeated = self._seat.budget.drops.snapshot().get("repeated", 0)
        return {
            "audio": self._seat.inbox.dropped + self._seat.intake.dropped,
            "superseded": self._pictures.superseded,
            "repeated": repeated,
            "voice": self._voice.skipped,
        }

    def take(self, mic_db: float | None, jitter: dict[str, float], metrics: Metrics) -> dict[str, Any]:
        """Figures since the last call, also counted into `metrics`; `mic_db` None: there is no source of sound.

        `jitter` is what its jitter buffer does. `latency_ms` goes from the coming of sound to the leaving of its
        picture, what the jitter buffer holds included. `skew_ms` is how much later a picture leaves than the voice of
        the same media time.
        """
        now = time.monotonic()
        elapsed, self._asked_s = max(now - self._asked_s, 1e-6), now
        shown = self._pictures.take_shown()
        drops = self.drops()
        metrics.frames.inc(shown.frames)
        for cause, total in drops.items():
            metrics.drops.labels(cause).inc(max(0, total - self._counted.get(cause, 0)))
        self._counted = drops
        latency_ms = None if shown.mean_ms is None else shown.mean_ms + jitter.get("hold_ms", 0.0)
        if latency_ms is not None:
            metrics.latency.observe(latency_ms / 1000)
        metrics.stages({name: times.last_ms for name, times in self._seat.times().items()})
        self._count_encoded(metrics)
        voice_ms = self._voice.take_delay_ms()
        # delays of pictures count from the middle of their sound; they begin to be shown where it begins
        picture_ms = None if shown.mean_ms is None else shown.mean_ms + ticks_to_ms(FRAME_TICKS // 2)
        self.last = {
            "fps": round(shown.frames / elapsed, 2),
            "latency_ms": None if latency_ms is None else round(latency_ms, 1),
            "worst_ms": round(shown.worst_ms, 1),
            "level": shown.level,
            "level_name": RUNGS[shown.level] if 0 <= shown.level < len(RUNGS) else str(shown.level),
            "drops": drops,
            "mic_db": round(mic_db, 1) if mic_db is not None else QUIET_DB,
            "mic": mic_db is not None,
            "jitter": jitter,
            "skew_ms": None if picture_ms is None or voice_ms is None else round(picture_ms - voice_ms, 1),
            "stages_ms": {name: round(times.p50_ms, 2) for name, times in self._seat.times().items()},
            "encodings": [
                {
                    "codec": e.codec, "layout": e.layout, "viewers": len(e.viewers), "kbps": e.bits // 1000,
                    "pictures": e.pictures, "keys": e.keys,
                    "encode_ms": round(e.spent_ms / e.pictures, 2) if e.pictures else None,
                }
                for e in self._pictures.encodings
            ],
        }  # fmt: skip
        if (skew_ms := self.last["skew_ms"]) is not None:
            metrics.skew(skew_ms)
        return self.last

    def _count_encoded(self, metrics: Metrics) -> None:
        now, before = self._pictures.encoded(), self._encoded
        self._encoded = now
        metrics.encoded(now.pictures - before.pictures, now.keys - before.keys, now.spent_ms - before.spent_ms)
