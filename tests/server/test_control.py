"""Messages of the data channel: what is read, what is ignored, what is refused and in which words."""

from __future__ import annotations

import json
import math

import pytest

from server.control import (
    AvatarOrder,
    BackgroundOrder,
    ControlError,
    EchoOrder,
    ListenOrder,
    MuteOrder,
    Order,
    Ping,
    StyleOrder,
    parse,
    write,
)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ('{"type":"style","v":1,"name":"warm"}', StyleOrder(name="warm")),
        ('{"type":"style","v":1,"weights":{"a":0.25,"b":1},"id":3}', StyleOrder(weights={"a": 0.25, "b": 1.0}, id=3)),
        ('{"type":"style","v":1,"strength":2,"temperature":0}', StyleOrder(strength=2.0, temperature=0.0)),
        ('{"type":"style","v":1,"name":"warm","mood":"new"}', StyleOrder(name="warm")),
        ('{"type":"avatar","v":1,"name":"ada"}', AvatarOrder(name="ada")),
        ('{"type":"mute","v":1,"on":true}', MuteOrder(on=True)),
        ('{"type":"listen","v":1,"on":true}', ListenOrder(on=True)),
        ('{"type":"background","v":1,"color":"#00Ff00"}', BackgroundOrder(color="#00Ff00")),
        ('{"type":"background","v":1,"color":null,"id":1}', BackgroundOrder(color=None, id=1)),
        ('{"type":"echo","v":1,"on":false,"id":"x"}', EchoOrder(on=False, id="x")),
        ('{"type":"ping","v":1,"t":12.5}', Ping(t=12.5)),
        ('{"type":"dance","v":1}', None),
        ('{"type":"dance","v":7,"style":{}}', None),
    ],
)
def test_what_is_read(text: str, order: Order | None) -> None:
    assert parse(text) == order


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[" * 3000, "not JSON"),
        ("[]", "not a JSON object"),
        ('{"v":1}', "'type' is missing"),
        ('{"type":7,"v":1}', "'type' is missing or not a string"),
        ('{"type":"style"}', "'v' is missing"),
        ('{"type":"style","v":true,"name":"a"}', "'v' is missing"),
        ('{"type":"style","v":2,"name":"a"}', "speaks version 1"),
        ('{"type":"style","v":1}', "at least one of"),
        ('{"type":"style","v":1,"name":""}', "name: .*at least 1 character"),
        ('{"type":"style","v":1,"name":"a","weights":{"b":1}}', "not both"),
        ('{"type":"style","v":1,"weights":{}}', "weights"),
        ('{"type":"style","v":1,"weights":{"a":0}}', "all be zero"),
        ('{"type":"style","v":1,"weights":{"a":-1}}', "weights.a: .*greater than or equal to 0"),
        ('{"type":"style","v":1,"strength":2.1}', "strength: .*less than or equal to 2"),
        ('{"type":"style","v":1,"strength":"1"}', "strength: .*number"),
        ('{"type":"style","v":1,"temperature":NaN}', "NaN is no JSON number"),
        ('{"type":"style","v":1,"temperature":1e999}', "temperature"),
        ('{"type":"mute","v":1,"on":"yes"}', "on: .*boolean"),
        ('{"type":"listen","v":1}', "on: .*required"),
        ('{"type":"avatar","v":1}', "name: .*[Ff]ield required"),
        ('{"type":"ping","v":1,"t":"' + "x" * 16400 + '"}', "longer than 16384"),
        ('{"type":"style","v":1,"weights":{' + ",".join(f'"{i}":1' for i in range(17)) + "}}", "at most 16"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(ControlError, match=words):
        parse(text)


def test_binary_is_refused() -> None:
    with pytest.raises(ControlError, match="binary"):
        parse(b'{"type":"ping","v":1}')


def test_events_carry_type_and_version() -> None:
    assert json.loads(write("stats", fps=25.0, mic=None)) == {"type": "stats", "v": 1, "fps": 25.0, "mic": None}


def test_events_hold_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        write("stats", fps=math.nan)
