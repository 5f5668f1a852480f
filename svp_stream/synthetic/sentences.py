"""Sentences to speak: written for this project, kept beside this file, one a line.

In: nothing. Out: the sentences,
and for each whether it belongs to training or is held out; the split hangs on the words alone,
so that it stays the same when sentences are added.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final, Literal

HELD_OUT_SHARE: Final = 0.10
SOURCE: Final = Path(__file__).with_name("sentences.txt")


@cache
def load() -> tuple[str, ...]:
    """Every sentence in the order of the file; blank lines and lines that begin with '#' are skipped."""
    lines = (line.strip() for line in SOURCE.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def split(sentence: str) -> Literal["train", "heldout"]:
    """Where a sentence belongs, by a hash of its words: case, spacing and punctuation do not matter."""
    words = "".join(c if c.isalnum() else " " for c in sentence.lower()).split()
    digest = hashlib.sha256(" ".join(words).encode()).digest()
    return "heldout" if int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32 else "train"
