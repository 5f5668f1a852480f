"""One form for all log lines, ours and uvicorn's.

In: a level. Out: lines on standard error: time, level, logger, words. Remembers: nothing.
The noisy libraries below us speak from WARNING on: aioice logs each candidate pair at INFO.
"""

from __future__ import annotations

import logging
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"
_NOISY: Final = ("aioice", "aiortc", "uvicorn.access", "libav")


def configure(level: str) -> None:
    """Once, at the start of the process; raises ValueError for a level that `logging` does not know."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}; there are debug, info, warning, error")
    logging.basicConfig(level=number, format=FORMAT, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING) if number > logging.DEBUG else logging.INFO)
