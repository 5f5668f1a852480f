"""Landmarks."""

from __future__ import annotations
from dataclasses import dataclass
LANDMARKS = ("nose_tip",)

@dataclass(frozen=True)
class Mark:
    part: int
    vertex: int

def choose(parts, joints):
    p = parts[0].file.positions
    return (Mark(0, int(p[:, 2].argmax())),)
