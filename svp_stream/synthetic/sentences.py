"""Sentences to speak: written for this project, kept beside this file, one a line; English ones, and some in other
languages.

In: nothing. Out: the sentences, and for each whether it belongs to training or is held out; the split hangs on the
words alone, so that it stays the same when sentences are added.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final, Literal

HELD_OUT_SHARE: Final = 0.10
SOURCE: Final = Path(__file__).with_name("sentences.txt")
ABROAD: Final = Path(__file__).with_name("sentences_abroad.txt")


@cache
def load() -> tuple[str, ...]:
    """Every English sentence in the order of the file; blank lines and lines that begin with '#' are skipped."""
    return _lines(SOURCE)


@cache
def abroad() -> dict[str, tuple[str, ...]]:
    """Language code to its sentences."""
    rows = [line.split("|", 1) for line in _lines(ABROAD)]
    return {code: tuple(text for own, text in rows if own == code) for code in dict.fromkeys(own for own, _ in rows)}


def _lines(path: Path) -> tuple[str, ...]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def split(sentence: str) -> Literal["train", "heldout"]:
    """Where a sentence belongs, by a hash of its words: case, spacing and punctuation do not matter."""
    words = "".join(c if c.isalnum() else " " for c in sentence.lower()).split()
    digest = hashlib.sha256(" ".join(words).encode()).digest()
    return "heldout" if int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32 else "train"
