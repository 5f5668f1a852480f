"""Families of styles, read off their names: `warm-soft`, `warm` and `warm-strong` are one manner in three intensities.

In: names of presets. Out: where each belongs. Remembers: nothing.
A suffix alone makes no family: where only one of the three is there, its whole name stands for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

Intensity = Literal["soft", "medium", "strong"]
INTENSITIES: Final[tuple[Intensity, ...]] = ("soft", "medium", "strong")
"""From the mildest to the most marked; the plain name is the one in the middle."""
_SUFFIXES: Final[dict[str, Intensity]] = {"-soft": "soft", "-strong": "strong"}


@dataclass(frozen=True, slots=True)
class Kinship:
    """The family of a style, and which of its members it is; None for a style that is alone in its family."""

    family: str
    intensity: Intensity | None

    @property
    def rank(self) -> tuple[str, int]:
        """Sorts families by name, their members from the mildest on."""
        return self.family, INTENSITIES.index(self.intensity or "medium")


def kinships(names: Collection[str]) -> dict[str, Kinship]:
    """Where each of `names` belongs, in their order. Members of a family differ in intensity."""
    split = {name: _split(name) for name in names}
    sizes = Counter(family for family, _ in split.values())
    return {
        name: Kinship(family, intensity) if sizes[family] > 1
        # a lone `x-soft` beside `x-soft-soft` and `x-soft-strong` is what they are soft and strong of
        else Kinship(name, "medium" if sizes[name] > 1 else None)
        for name, (family, intensity) in split.items()
    }


def _split(name: str) -> tuple[str, Intensity]:
    for suffix, intensity in _SUFFIXES.items():
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix), intensity
    return name, "medium"
