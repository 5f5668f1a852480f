"""Messages from anybody on the data channel: an order, nothing, or words; never anything else."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from server.control import ControlError, StyleOrder, parse

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
kinds = st.sampled_from(["style", "avatar", "mute", "echo", "listen", "background", "ping", "dance"])
fields = st.sampled_from(["id", "name", "weights", "strength", "temperature", "on", "color", "t", "x"])
messages = st.builds(
    lambda kind, version, rest: json.dumps({**rest, "type": kind, "v": version}),
    kinds | values, st.just(1) | values, st.dictionaries(fields, values, max_size=4),
)  # fmt: skip


def check(text: str) -> None:
    try:
        order = parse(text)
    except ControlError as error:
        assert str(error)
        return
    if isinstance(order, StyleOrder):
        for number in (order.strength, order.temperature, *(order.weights or {}).values()):
            assert number is None or (math.isfinite(number) and 0 <= number <= 2)


@settings(max_examples=500, deadline=None)
@given(messages)
def test_messages_of_the_right_shape_with_any_content(text: str) -> None:
    check(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300) | values.map(json.dumps))
def test_any_text(text: str) -> None:
    check(text)
