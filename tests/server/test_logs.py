"""Log lines: their form, the session's key, and that nothing in them lets anybody in."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from server import logs
from server.logs import MASK, Form, masked


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What was written; all levels and handlers are as before at the end."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in (*logs._NOISY, *logs._NEVER_DEBUG)}
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def opened(stream: io.StringIO, form: Form, level: str = "info") -> logging.Logger:
    logs.configure(level, form)
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    return logging.getLogger("server.test")


def test_text_says_when_how_bad_who_and_what(lines: io.StringIO) -> None:
    logger = opened(lines, "text")
    logger.info("a call of %d", 3)
    with logs.about("0a1b2c3d"):
        logger.warning("it is late")
    first, second = lines.getvalue().splitlines()
    assert first.endswith("INFO    server.test  a call of 3")
    assert second.endswith("WARNING server.test [0a1b2c3d]  it is late")


def test_json_is_an_object_a_line(lines: io.StringIO) -> None:
    logger = opened(lines, "json")
    with logs.about("0a1b2c3d"):
        logger.info("Größe\n%s", "two lines")
    try:
        raise ValueError("at /v1/call/s3cret")
    except ValueError:
        logger.exception("it broke")
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert first["session"] == "0a1b2c3d" and first["message"] == "Größe\ntwo lines" and first["level"] == "info"
    assert first["time"].endswith("Z") and first["logger"] == "server.test"
    assert "session" not in second and "ValueError" in second["traceback"] and "s3cret" not in second["traceback"]


async def test_tasks_inherit_the_key_and_neighbours_do_not(lines: io.StringIO) -> None:
    logger = opened(lines, "json")

    async def inner(words: str) -> None:
        await asyncio.sleep(0)
        logger.info(words)

    async def session(key: str) -> None:
        logs.bind(key)
        logger.info("outer")
        await asyncio.create_task(inner("inner"))

    await asyncio.gather(asyncio.create_task(session("aaaaaaaa")), asyncio.create_task(session("bbbbbbbb")))
    await inner("nobody")
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [f.get("session") for f in found if f["message"] == "inner"] == ["aaaaaaaa", "bbbbbbbb"]
    assert [f.get("session") for f in found if f["message"] == "nobody"] == [None]


def test_a_thread_says_for_whom_it_works(lines: io.StringIO) -> None:
    logger = opened(lines, "json")

    def turn() -> None:
        for key in ("aaaaaaaa", "bbbbbbbb"):
            with logs.about(key):
                logger.info("turn")
        logger.info("rest")

    thread = threading.Thread(target=turn)
    thread.start()
    thread.join()
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [f.get("session") for f in found] == ["aaaaaaaa", "bbbbbbbb", None]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('"WebSocket /v1/sessions/s3cret/audio?rate=1" [accepted]', f'"WebSocket /v1/sessions/{MASK}?rate=1"'),
        ("DELETE /v1/whep/s3cret/s3cret2", f"DELETE /v1/whep/{MASK}"),
        ("DELETE /v1/call/s3cret-_x", f"DELETE /v1/call/{MASK}"),
        ("http://a/v1/whep/s3cret?layout=packed", f"http://a/v1/whep/{MASK}?layout=packed"),
        ("open http://a/#token=s3cret", f"token={MASK}"),
        ("Authorization: Bearer s3cret", f"Authorization: Bearer {MASK}"),
        ("('authorization', 'Bearer s3cret')", f"Bearer {MASK}')"),
        ("a=ice-pwd:s3cret\r\n", f"a=ice-pwd:{MASK}"),
    ],
)
def test_what_is_masked(line: str, shown: str) -> None:
    assert shown in masked(line) and "s3cret" not in masked(line)


def test_ordinary_words_stay() -> None:
    line = "call 0a1b2c3d: cheerful as ada; token buckets bear no secrets; /v1/styles"
    assert masked(line) == line


def test_libraries_that_show_headers_never_speak_at_debug(lines: io.StringIO) -> None:
    opened(lines, "text", "debug")
    for name in logs._NEVER_DEBUG:
        assert not logging.getLogger(name).isEnabledFor(logging.DEBUG), name
    with pytest.raises(ValueError, match="loud"):
        logs.configure("loud")
