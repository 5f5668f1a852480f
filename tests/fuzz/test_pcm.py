"""Messages of anybody on the agents' socket, text and binary in any order: an order, sound, or words."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from server.control import Ping
from server.pcm_wire import (
    MAX_AUDIO_BYTES,
    End,
    Interrupt,
    Interrupted,
    PlaybackFinished,
    Start,
    WireError,
    parse,
    samples,
    write,
)
from server.playout import Bounds, Playout, PlayoutEvent

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
kinds = st.sampled_from(["start", "end", "interrupt", "ping", "welcome", "dance"])
fields = st.sampled_from(["id", "segment", "rate_hz", "t", "x"])
texts = (
    st.builds(
        lambda kind, version, rest: json.dumps({**rest, "type": kind, "v": version}),
        kinds | values, st.just(1) | values, st.dictionaries(fields, st.just(16_000) | values, max_size=4),
    )
    | st.text(max_size=300)
    | values.map(json.dumps)
)  # fmt: skip
good = st.builds(
    lambda kind, rate: json.dumps({"type": kind, "v": 1, "rate_hz": rate}),
    kinds, st.sampled_from([16_000, 24_000, 48_000]),
)  # fmt: skip
sounds = st.binary(max_size=3000) | st.integers(0, MAX_AUDIO_BYTES + 3).map(bytes)


@settings(max_examples=500, deadline=None)
@given(texts)
def test_any_text(text: str) -> None:
    try:
        order = parse(text)
    except WireError as error:
        assert error.code == "malformed" and str(error)
        return
    if isinstance(order, Start):
        assert order.rate_hz in (16_000, 24_000, 48_000)


@settings(max_examples=200, deadline=None)
@given(sounds)
def test_any_bytes(data: bytes) -> None:
    try:
        assert samples(data).tobytes() == data
    except WireError as error:
        assert error.code == ("too_large" if len(data) > MAX_AUDIO_BYTES else "malformed")


@settings(max_examples=150, deadline=None)
@given(st.lists(good | texts | sounds | st.floats(0, 2), max_size=40))
def test_any_order_of_messages_is_bounded_and_ends_what_it_began(messages: list[str | bytes | float]) -> None:
    playout, now_s, started = Playout(0.1, Bounds(2.0, 1.0, 0.5)), 0.0, 0
    events: list[PlayoutEvent] = []
    for message in messages:
        try:
            if isinstance(message, bytes):
                playout.feed(now_s, samples(message))
            elif isinstance(message, float):
                now_s += message
            else:
                match parse(message):
                    case Start(rate_hz=rate, segment=name):
                        playout.start(rate, name)
                        started += 1
                    case End():
                        playout.end()
                    case Interrupt(id=id):
                        events += playout.interrupt(now_s, id)
                    case Ping() | None:
                        pass
        except WireError:
            continue
        packets, told = playout.step(now_s)
        events += told
        assert len(packets) <= 3 and playout.buffered <= 2 * 48_000
    events += playout.interrupt(now_s)
    assert sum(isinstance(event, PlaybackFinished) for event in events) == started
    assert isinstance(events[-1], Interrupted)
    assert all(json.loads(write(event))["v"] == 1 for event in events)
