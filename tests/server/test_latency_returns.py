"""Jitter buffer and intake together in virtual time, over hours and through any weather: latency always returns."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

import numpy as np
import pytest

from server.jitter import MOST_HOLD_S, PATIENCE_S, JitterBuffer
from server.pacing import PACKET_TICKS, SLACK_TICKS, Intake, MediaClock
from svp_stream.clock import ticks_to_ms

SOUND = np.full(PACKET_TICKS, 0.5, np.float32)


@dataclass
class Weather:
    """For `seconds`: the share lost, the spread of the delay, the delay itself."""

    seconds: float
    loss: float = 0.0
    jitter_s: float = 0.0
    delay_s: float = 0.02


class Street:
    """A sender (`pace` of its clock), a network, the jitter buffer and the intake."""

    def __init__(self, seed: int, pace: float = 1.0) -> None:
        self._random = random.Random(seed)
        self._pace = pace
        self._sent = 0
        self._flying: list[tuple[float, int]] = []
        self.buffer = JitterBuffer()
        self.intake = Intake(MediaClock(0.0))
        self.ages_s: list[tuple[float, float]] = []

    def run(self, weather: Weather) -> None:
        """Sends for so long, and hears in the order of time; `ages_s` gets (now, age of what is handed on)."""
        until_s = self.now_s + weather.seconds
        while (now := self.now_s) < until_s:
            self._pass(now)
            if self._random.random() >= weather.loss:
                late_s = weather.delay_s + self._random.random() * weather.jitter_s
                heapq.heappush(self._flying, (now + late_s, self._sent))
            self._sent += 1

    def _pass(self, until_s: float) -> None:
        """What happens before: arrivals, the timer of the buffer, silence."""
        while True:
            arrival = self._flying[0][0] if self._flying else float("inf")
            due = self.buffer.due_s()
            silence = self.intake.idle_due_s()
            now = min(arrival, float("inf") if due is None else due, silence)
            if now >= until_s:
                return
            if now == arrival:
                _, number = heapq.heappop(self._flying)
                self.buffer.put(now, number % (1 << 16), number * 960 % (1 << 32), 960, str(number).encode())
            for slot in self.buffer.take(now):
                self.intake.hear(now, slot.pts, SOUND)
                if slot.payload is not None:
                    self.ages_s.append((now, now - int(slot.payload) * 0.02 / self._pace))
            self.intake.idle(now + 1e-6)

    @property
    def now_s(self) -> float:
        """The time up to which packets were sent."""
        return self._sent * 0.02 / self._pace

    def lag_ms(self) -> float:
        """How far the line of sound lags its clock now."""
        return ticks_to_ms(self.intake.behind(self.now_s))


TROUBLES = {
    "loss": Weather(10, loss=0.05),
    "jitter": Weather(10, jitter_s=0.05),
    "wild": Weather(10, loss=0.2, jitter_s=0.2),
    "outage": Weather(2, loss=1.0),
    "longer way": Weather(10, delay_s=0.15),
    "far away": Weather(10, delay_s=0.8, jitter_s=0.03),
}


@pytest.mark.parametrize("name", TROUBLES)
@pytest.mark.parametrize("seed", range(3))
def test_after_trouble_sound_is_as_fresh_as_before(name: str, seed: int) -> None:
    street = Street(seed)
    street.run(Weather(5))
    fresh = max(age for _, age in street.ages_s[-100:])
    street.run(TROUBLES[name])
    calm_s = street.now_s
    street.run(Weather(6))
    after = [age for now, age in street.ages_s if now > calm_s + 4]
    assert len(after) > 80 and max(after) <= fresh + 0.001, "four seconds later there is no trace"
    soon = [age for now, age in street.ages_s if calm_s + 1 < now < calm_s + 2]
    assert soon and sorted(soon)[len(soon) // 2] <= fresh + MOST_HOLD_S
    assert -1 <= street.lag_ms() <= 41, "a packet is about to arrive, and one is on its way for 20 ms"


def test_trouble_is_bounded_while_it_lasts() -> None:
    street = Street(7)
    street.run(Weather(5))
    street.run(Weather(60, loss=0.1, jitter_s=0.3))
    assert max(age for _, age in street.ages_s) <= 0.02 + MOST_HOLD_S + PATIENCE_S + 0.02
    assert street.buffer.hold_s <= MOST_HOLD_S and street.intake.behind(65.0) <= SLACK_TICKS + PACKET_TICKS


@pytest.mark.parametrize("pace", [1.0, 1.0003, 0.9997])
def test_an_hour_of_changing_weather_and_foreign_clocks(pace: float) -> None:
    street, rng = Street(11, pace), random.Random(3)
    street.run(Weather(5))
    for _ in range(60):
        street.run(rng.choice([*TROUBLES.values()]))
        street.run(Weather(10, delay_s=0.02))
    ages = [age for now, age in street.ages_s[-200:]]
    assert max(ages) <= 0.021, "no delay is left after half an hour of it"
    assert -1 <= street.lag_ms() <= 41
