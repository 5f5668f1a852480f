"""One form for all log lines, ours and uvicorn's: text for people or JSON for machines, with the session's key.

In: a level, a form. Out: lines on standard error: time, level, logger, session key, words. Remembers: the key of the
session that the running task or turn belongs to (a context variable: tasks inherit it).

No line shows what lets somebody in: ids and secrets in paths and queries, bearer tokens and SDP's ICE passwords are
masked in the finished line, whoever wrote it. The noisy libraries below us speak from WARNING on; uvicorn's WebSocket
side, which would show every header at DEBUG, from INFO on.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, Literal

Form = Literal["text", "json"]
FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s%(session)s  %(message)s"
MASK: Final = "…"
_NOISY: Final = ("aioice", "aiortc", "uvicorn.access", "libav", "asyncio")
_NEVER_DEBUG: Final = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "websockets", "httpcore", "httpx", "multipart")
_SECRETS: Final = re.compile(
    r"((?:/v1/(?:call|whip|whep|sessions)/)|(?:\btoken=)|(?:\bbearer\s+)|(?:\bice-(?:pwd|ufrag):))[^\s?&\"'<>,;)\]}]+",
    re.IGNORECASE,
)

_key: ContextVar[str] = ContextVar("session key", default="")


def bind(key: str) -> None:
    """From now on the lines of this task, and of the tasks that it starts, carry `key`."""
    _key.set(key)


@contextmanager
def about(key: str) -> Iterator[None]:
    """The lines within carry `key`."""
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)


def masked(text: str) -> str:
    """`text` without what lets somebody in."""
    return _SECRETS.sub(rf"\1{MASK}", text)


class _Text(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        key = _key.get()
        record.session = f" [{key}]" if key else ""
        return masked(super().format(record))


class _Json(logging.Formatter):
    """One JSON object a line: time (UTC, RFC 3339), level, logger, session (where there is one), message, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"time": at.replace("+00:00", "Z"), "level": record.levelname.lower(), "logger": record.name}
        if _key.get():
            fields["session"] = _key.get()
        fields["message"] = masked(record.getMessage())
        if record.exc_info:
            fields["traceback"] = masked(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


def configure(level: str, form: Form = "text") -> None:
    """Once, at the start of the process; raises ValueError for a level that `logging` does not know."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}; there are debug, info, warning, error")
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING) if number > logging.DEBUG else logging.INFO)
    for name in _NEVER_DEBUG:
        logging.getLogger(name).setLevel(max(number, logging.INFO))
