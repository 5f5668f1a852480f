"""What became of every clip: `report.md` with thumbnails, and `report.jsonl` for programs.

In: `Verdict`s. Out: files. Remembers: nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.packets import Bytes

THUMB: Final = 96
THUMBS: Final = "thumbnails"


@dataclass(frozen=True)
class Verdict:
    """A clip of a video: `first` to `end` in frames; why it was rejected, or empty `faults` and its `split`."""

    video: str
    id: str
    shot: int
    first: int
    end: int
    split: str
    faults: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether it became a clip."""
        return not self.faults


def write_thumbnail(folder: Path, name: str, rgb: Bytes) -> None:
    """`thumbnails/<name>.png`, its longer side 96 pixels."""
    picture = Image.fromarray(rgb)
    picture.thumbnail((THUMB, THUMB))
    path = folder / THUMBS / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{name}.part.png")
    picture.save(part)
    part.replace(path)


def write_report(folder: Path, verdicts: list[Verdict], failed: dict[str, str]) -> None:
    """`report.md` and `report.jsonl`; `failed` maps videos that could not be read to why."""
    rows = [json.dumps(asdict(v)) for v in verdicts]
    _put(folder / "report.jsonl", "".join(row + "\n" for row in rows))
    _put(folder / "report.md", markdown(verdicts, failed))


def markdown(verdicts: list[Verdict], failed: dict[str, str]) -> str:
    """The report for people."""
    kept = [v for v in verdicts if v.kept]
    seconds = [sum(v.end - v.first for v in group) / FRAME_RATE_HZ for group in (kept, verdicts)]
    held = sum(v.split == "heldout" for v in kept)
    lines = [
        "# What became of every clip", "",
        f"{len(kept)} of {len(verdicts)} clips kept ({seconds[0]:.1f} of {seconds[1]:.1f} s), {held} of them held out.",
        "",
    ]  # fmt: skip
    if failed:
        lines += ["## Videos that could not be read", "", *(f"- {why}" for why in failed.values()), ""]
    reasons = Counter(fault.split(":")[0] for v in verdicts for fault in v.faults)
    if reasons:
        lines += ["## Why clips were rejected", "", "| reason | clips |", "|---|---:|"]
        lines += [f"| {reason} | {count} |" for reason, count in reasons.most_common()] + [""]
    lines += ["## Clips", "", "| | clip | seconds | verdict |", "|---|---|---|---|"]
    for v in verdicts:
        span = f"{v.first / FRAME_RATE_HZ:.2f} to {v.end / FRAME_RATE_HZ:.2f}"
        word = f"kept, {v.split}" if v.kept else "; ".join(v.faults)
        lines.append(f"| ![]({THUMBS}/{v.id}.png) | {v.id} | {span} | {word} |")
    return "\n".join(lines) + "\n"


def _put(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
