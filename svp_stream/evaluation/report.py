"""The table of an evaluation: every figure with how many it is over, its interval, and the controls beside it.

In: `Figure`s and rows by clip. Out: Markdown for people, a dictionary for JSON, the card of the weights.
Remembers: nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from svp_stream.errors import WeightsError
from svp_stream.evaluation.metrics import Interval
from svp_stream.training.release import write_readme


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: `title`, `value` in `unit` over `n` things, 95 % interval where it was taken, `wanted` in words where
    something is; a `control` is there to compare with and says nothing about the model."""

    title: str
    value: float
    n: int
    unit: str = ""
    low: float | None = None
    high: float | None = None
    wanted: str = ""
    control: bool = False

    @classmethod
    def of(
        cls, title: str, interval: Interval, unit: str = "", wanted: str = "", control: bool = False
    ) -> Figure:
        """A mean with its interval."""
        return cls(title, interval.mean, interval.n, unit, interval.low, interval.high, wanted, control)


@dataclass(frozen=True)
class Report:
    """`figures` by key, `rows` by clip, `styles` the share of each style that was named rightly, `about` what was
    evaluated: engine, prior, corpus, voices, seed."""

    about: dict[str, str]
    figures: dict[str, Figure]
    rows: list[dict[str, Any]] = field(default_factory=list)
    styles: dict[str, float] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """For `json.dumps`; figures that are not defined are null."""
        figures = {key: asdict(figure) for key, figure in self.figures.items()}
        told: dict[str, Any] = _plain({"about": self.about, "figures": figures, "rows": self.rows,
                                       "styles": self.styles})
        return told

    def markdown(self) -> str:
        """Tables: figures, clips, styles."""
        about = ", ".join(f"{k} {v}" for k, v in self.about.items())
        lines = [about, "", "| Figure | Value | 95 % | n | Wanted |", "|---|---:|---:|---:|---|"]
        for figure in self.figures.values():
            title = f"*control:* {figure.title}" if figure.control else figure.title
            value = f"{_number(figure.value)} {figure.unit}".strip()
            lines.append(f"| {title} | {value} | {_range(figure)} | {figure.n} | {figure.wanted} |")
        if self.rows:
            heads = list(self.rows[0])
            lines += ["", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
            lines += ["| " + " | ".join(cell(row[h]) for h in heads) + " |" for row in self.rows]
        if self.styles:
            lines += ["", "| Style | named rightly |", "|---|---:|"]
            lines += [f"| {name} | {_number(share)} |" for name, share in self.styles.items()]
        return "\n".join(lines) + "\n"


def write_card(report: Report, folder: Path) -> None:
    """Put the figures into `card.json` and `README.md` of a weights folder. Raises WeightsError without a card."""
    path = folder / "card.json"
    card = _card(path)
    card["figures"] = report.json() | {"markdown": report.markdown()}
    path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    write_readme(folder)


def write_ablation(title: str, markdown: str, folder: Path) -> None:
    """Put a table of `svp ablate` into the card under its title, in place of the one that is there. Raises WeightsError
    without a card."""
    path = folder / "card.json"
    card = _card(path)
    card["ablations"] = card.get("ablations", {}) | {title: markdown}
    path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    write_readme(folder)


def _card(path: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise WeightsError(f"{path}: no readable card to write figures into; `svp train release` makes it ({e})") from e
    return card


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "equal"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _range(figure: Figure) -> str:
    if figure.low is None or figure.high is None or math.isnan(figure.low):
        return ""
    return f"{_number(figure.low)} to {_number(figure.high)}"


def cell(value: Any) -> str:
    """A figure in three digits or so; what is not defined is a dash."""
    return _number(value) if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """NaN and infinities, which JSON has not, become None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
