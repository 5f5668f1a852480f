"""Steps that know when they are done: a run that was cut off, or is asked for more, goes on at the right one.

In: steps in order. Out: each is done once. Remembers: `steps.json`, what each step was made of and how long it took. A
step is done while its inputs, and those of all steps before it, are what they were, and what it made is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svp_stream.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """`inputs`: whatever it depends on, in words; `makes`: what stands there when it is done."""

    name: str
    inputs: str
    makes: tuple[Path, ...]
    work: Callable[[], None]


def follow(steps: Sequence[Step], book: Path) -> list[str]:
    """Do what is not done yet; returns the names of the steps that were done now.

    Raises ConfigError for a book that cannot be read, and whatever a step raises; what was done before that stays.
    """
    known = read_book(book)
    key, done = "", []
    for number, step in enumerate(steps, 1):
        key = hashlib.sha256(f"{key} {step.name} {step.inputs}".encode()).hexdigest()[:16]
        row = known.get(step.name, {})
        if row.get("key") == key and all(path.exists() for path in step.makes):
            logger.info("step %d of %d, %s: done before", number, len(steps), step.name)
            continue
        logger.info("step %d of %d: %s", number, len(steps), step.name)
        began = time.monotonic()
        step.work()
        known[step.name] = {"key": key, "seconds": round(time.monotonic() - began, 1)}
        write_whole(book, json.dumps(known, indent=1) + "\n")
        done.append(step.name)
    return done


def read_book(path: Path) -> dict[str, dict[str, Any]]:
    """Step to its key and seconds; empty where nothing was done. Raises ConfigError for a damaged file."""
    if not path.is_file():
        return {}
    try:
        rows: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ConfigError(f"{path}: is damaged ({e}); delete it, what is finished will be found again") from e
    return rows


def write_whole(path: Path, text: str) -> None:
    """Either the old file or the new one is there, whole."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
