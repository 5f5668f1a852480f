"""The agents' wire, both directions: what is read, what is refused and in which words, what events look like."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from server.control import ListenOrder, Ping
from server.pcm_wire import (
    MAX_AUDIO_BYTES,
    AgentOrder,
    Backpressure,
    End,
    Event,
    Interrupt,
    Interrupted,
    PlaybackFinished,
    PlaybackStarted,
    Pong,
    Refused,
    Start,
    State,
    Welcome,
    WireError,
    parse,
    samples,
    write,
)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ('{"type":"start","v":1,"rate_hz":16000}', Start(rate_hz=16_000)),
        ('{"type":"start","v":1,"rate_hz":24000,"segment":"s1","id":4}', Start(rate_hz=24_000, segment="s1", id=4)),
        ('{"type":"start","v":1,"rate_hz":48000,"mood":"new"}', Start(rate_hz=48_000)),
        ('{"type":"end","v":1}', End()),
        ('{"type":"interrupt","v":1,"id":"x"}', Interrupt(id="x")),
        ('{"type":"listen","v":1,"on":true}', ListenOrder(on=True)),
        ('{"type":"ping","v":1,"t":12.25,"id":2}', Ping(t=12.25, id=2)),
        ('{"type":"dance","v":1}', None),
        ('{"type":"dance","v":9,"start":{}}', None),
        ('{"type":"style","v":1}', None),
    ],
)
def test_what_is_read(text: str, order: AgentOrder | None) -> None:
    assert parse(text) == order


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"v":1}', "'type' is missing"),
        ('{"type":"start","rate_hz":16000}', "'v' is missing"),
        ('{"type":"start","v":2,"rate_hz":16000}', "speaks version 1"),
        ('{"type":"start","v":1}', "rate_hz: .*[Ff]ield required"),
        ('{"type":"start","v":1,"rate_hz":44100}', "rate_hz: .*16000, 24000 or 48000"),
        ('{"type":"start","v":1,"rate_hz":"16000"}', "rate_hz"),
        ('{"type":"start","v":1,"rate_hz":16000,"segment":""}', "segment: .*at least 1 character"),
        ('{"type":"start","v":1,"rate_hz":16000,"segment":7}', "segment: .*string"),
        ('{"type":"start","v":1,"rate_hz":16000,"segment":"' + "s" * 101 + '"}', "at most 100"),
        ('{"type":"ping","v":1,"t":NaN}', "NaN is no JSON number"),
        ('{"type":"ping","v":1,"x":"' + "x" * 16_400 + '"}', "longer than 16384"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(WireError, match=words) as caught:
        parse(text)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (
            Welcome("s", 126.14, 60_000.0, 30_000.0, 10_000.0),
            {"type": "welcome", "session": "s", "street_latency_ms": 126.1, "bound_ms": 60_000, "high_ms": 30_000,
             "low_ms": 10_000, "rates_hz": [16_000, 24_000, 48_000]},
        ),
        (PlaybackStarted("a"), {"type": "playback_started", "segment": "a"}),
        (
            PlaybackFinished("a", 1234.56, True),
            {"type": "playback_finished", "segment": "a", "position_ms": 1234.6, "interrupted": True},
        ),
        (
            Interrupted(("a", "b"), 10.0, "i"),
            {"type": "interrupted", "segments": ["a", "b"], "dropped_ms": 10.0, "id": "i"},
        ),
        (Interrupted((), 0.0), {"type": "interrupted", "segments": [], "dropped_ms": 0.0}),
        (Backpressure(True, 30_000.0), {"type": "backpressure", "on": True, "buffered_ms": 30_000.0}),
        (State("speaking"), {"type": "state", "state": "speaking"}),
        (Pong(12.345678), {"type": "pong", "t": 12.345678}),
        (Refused("malformed", "words"), {"type": "error", "code": "malformed", "message": "words"}),
        (
            Refused("overflow", "words", "a", 20.04),
            {"type": "error", "code": "overflow", "message": "words", "segment": "a", "dropped_ms": 20.0},
        ),
    ],
)  # fmt: skip
def test_what_is_written(event: Event, fields: dict[str, object]) -> None:
    assert json.loads(write(event)) == {"v": 1, **fields}


def test_events_hold_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        write(Pong(math.nan))


def test_sound_is_little_endian() -> None:
    assert samples(b"\x01\x00\xff\x7f\x00\x80").tolist() == [1, 32767, -32768]
    assert samples(b"").dtype == np.int16 and len(samples(b"")) == 0


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [(b"abc", "malformed", "3 bytes; PCM16 has two"), (bytes(MAX_AUDIO_BYTES + 2), "too_large", "at most 1048576")],
)
def test_sound_that_is_refused(data: bytes, code: str, words: str) -> None:
    with pytest.raises(WireError, match=words) as caught:
        samples(data)
    assert caught.value.code == code
