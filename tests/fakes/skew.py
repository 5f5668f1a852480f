"""A receiving peer that measures how far picture and voice are apart: beeps that it says, as they come back seen and
heard.

In: the pictures of `tests.fakes.engines` (their lower half tells the loudness of 40 ms of sound) and the voice with
echo on. Out: for each beep, seconds by which the picture's onset comes after the voice's. Remembers: onsets.

Times are those of the last packet of a picture and of the packet of voice, before any jitter buffer of the receiver. An
onset inside a picture's 40 ms is read off the loudness, which is the root of the share of the picture that sounds.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server import hearing
from server.hearing import Heard
from server.opus import OpusEar
from svp_stream.packets import Floats
from tests.fakes.engines import read_loudness
from tests.fakes.peers import PACKET, Caller, ToneMic

PERIOD = 101
"""Packets from beep to beep, 2.02 s: an odd number, so that onsets fall on either half of a picture."""
BEEP = 20
APART_S = 0.8
"""Onsets farther apart than this are not of one beep."""


class BeepMic(ToneMic):
    """400 ms of tone in each 2.02 s."""

    def samples(self, packet: int) -> Floats:
        return super().samples(packet) if packet % PERIOD < BEEP else np.zeros(PACKET)


class _Watch:
    """In the place of the video receiver's jitter buffer: notes when the last packet of each picture came."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._origin: int | None = None
        self.arrived: dict[int, float] = {}

    def add(self, packet: Any) -> Any:
        if self._origin is None:
            self._origin = packet.timestamp
        if packet.marker:
            self.arrived[(packet.timestamp - self._origin) % (1 << 32)] = time.monotonic()
            while len(self.arrived) > 500:
                del self.arrived[next(iter(self.arrived))]
        return self._inner.add(packet)


@dataclass
class SkewCaller(Caller):
    """Keeps onsets only, so that it can listen for hours."""

    seen_s: list[float] = field(default_factory=list)
    heard_s: list[float] = field(default_factory=list)
    frames: int = 0

    def skews(self) -> tuple[Floats, Floats]:
        """(when, by how much the picture came after the voice), both in seconds, one for each beep seen and heard."""
        seen, pairs = np.array(self.seen_s), []
        for heard in self.heard_s:
            nearest = float(seen[np.abs(seen - heard).argmin()]) if len(seen) else float("inf")
            if abs(nearest - heard) < APART_S:
                pairs.append((heard, nearest - heard))
        made = np.array(pairs).reshape(-1, 2)
        return made[:, 0], made[:, 1]

    async def _watch(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            hearing.hear(self.connection, track, self._listen())
        watch = self._tap(track) if track.kind == "video" else None
        shown: deque[tuple[float, float]] = deque(maxlen=60)
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if watch is not None and isinstance(frame, av.VideoFrame):
                self.frames += 1
                at_s = watch.arrived.get(round(float(frame.time or 0) * 90_000) % (1 << 32))
                if at_s is not None:
                    shown.append((at_s, read_loudness(frame.to_ndarray(format="rgb24").astype(np.uint8))))
                    self._look(shown)

    def _tap(self, track: MediaStreamTrack) -> _Watch:
        (receiver,) = [r for r in self.connection.getReceivers() if r.track is track]
        watch = _Watch(receiver._RTCRtpReceiver__jitter_buffer)
        receiver._RTCRtpReceiver__jitter_buffer = watch
        return watch

    def _look(self, shown: deque[tuple[float, float]]) -> None:
        """Two pictures after the first that sounds, the onset is known."""
        if len(shown) < 5:
            return
        quiet, first, full = shown[-4][1], shown[-3], shown[-1][1]
        if full > 0.1 and quiet < 0.15 * full <= first[1]:
            share = min(1.0, (first[1] / full) ** 2)
            self.seen_s.append(first[0] + (1 - share) * 0.04)

    def _listen(self) -> Any:
        ear, quiet = OpusEar(), [0]

        def take(packet: Heard) -> None:
            now, sound = time.monotonic(), np.abs(ear.decode(packet.payload))
            loud = np.flatnonzero(sound > 0.1)
            if len(loud) and quiet[0] > 10:
                self.heard_s.append(now + float(loud[0]) / 48_000)
            quiet[0] = 0 if len(loud) else quiet[0] + 1

        return take
