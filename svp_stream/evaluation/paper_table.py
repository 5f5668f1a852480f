"""The table of a paper: films in rows, figures in columns, every cell with its interval; Markdown, LaTeX, JSON.

In: cells. Out: text. Remembers: nothing. A cell that was not measured stays empty; why is said below the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from svp_stream.evaluation.metrics import Interval

MADE: Final = "made"
TRUTH: Final = "ground truth"
STATIC: Final = "static"
SHUFFLED: Final = "shuffled"
Better = Literal["up", "down", "zero"]
ARROWS: Final = {"up": "\u2191", "down": "\u2193", "zero": "\u21920"}
LATEX_ARROWS: Final = {"up": r"$\uparrow$", "down": r"$\downarrow$", "zero": r"$\rightarrow 0$"}


@dataclass(frozen=True, slots=True)
class Column:
    """A figure: its name, unit, which way is better, and what it is."""

    name: str
    better: Better
    what: str
    unit: str = ""


COLUMNS: Final[dict[str, Column]] = {
    "psnr": Column("PSNR", "up", "whole picture against the ground truth", "dB"),
    "psnr_face": Column("PSNR face", "up", "inside the face box", "dB"),
    "ssim": Column("SSIM", "up", "Wang et al. 2004, on luma, whole picture"),
    "fd": Column("FD-own", "down", "Frechet distance in features of our gauge, every 5th picture; not FID"),
    "fvd": Column("FVD-own", "down", "Frechet distance in features of our SyncNet's eyes (5 mouths); not FVD"),
    "m_lmd": Column("M-LMD", "down", "16 points of the mouth after Procrustes, % of the distance between the eyes; of "
                    "the ground truth: the finder's own error"),
    "f_lmd": Column("F-LMD", "down", "all 38 points as they lie, % of the distance between the eyes; ditto"),
    "sync_c": Column("Sync-C-own", "up", "median - min over +-15 shifts, our SyncNet"),
    "sync_d": Column("Sync-D-own", "down", "min over +-15 shifts, our SyncNet"),
    "sync_acc": Column("acc@+-1", "up", "windows of 200 ms whose nearest sound is within a frame; a guess: 0.10"),
    "offset": Column("A/V offset", "zero", "of picture and sound, either way, our SyncNet", "ms"),
    "lip_r": Column("LipOpen r", "up", "opening of the lips as our gauge reads it, against the ground truth"),
    "style_sim": Column("StyleSim", "up", "centred cosine in our style judge's hidden layer"),
}
"""Every figure there is, in the order of the table."""


@dataclass(frozen=True)
class PaperTable:
    """`cells[row][column]`; `about` what was measured; `notes` what was not, and why; `extra` lines of their own;
    `methods` the rows that are no controls."""

    about: dict[str, str]
    cells: dict[str, dict[str, Interval]]
    notes: Sequence[str] = ()
    extra: dict[str, Interval] = field(default_factory=dict)
    methods: tuple[str, ...] = (MADE,)

    @property
    def rows(self) -> list[str]:
        """Those that there are, in the order of the table."""
        return [row for row in (TRUTH, *self.methods, SHUFFLED, STATIC) if row in self.cells]

    @property
    def columns(self) -> list[str]:
        """Those with a figure in any row."""
        return [c for c in COLUMNS if any(c in row for row in self.cells.values())]

    def markdown(self) -> str:
        """For people."""
        heads = [f"{COLUMNS[c].name} {ARROWS[COLUMNS[c].better]}" for c in self.columns]
        lines = [", ".join(f"{k} {v}" for k, v in self.about.items()), "", f"| film | {' | '.join(heads)} |",
                 "|---|" + "---:|" * len(heads)]
        for name in self.rows:
            shown = name if name in self.methods else f"*{name}*"
            cells = [_cell(self.cells[name].get(c), " [{}, {}]") for c in self.columns]
            lines.append(f"| {shown} | {' | '.join(cells)} |")
        lines += ["", "Mean [95 % bootstrap interval over clips]. *Controls* in italics: " + CONTROLS, ""]
        lines += [f"- {COLUMNS[c].name}{_unit(c)}: {COLUMNS[c].what}" for c in self.columns]
        lines += [f"- {name}: {_cell(value, ' [{}, {}]')} (n {value.n})" for name, value in self.extra.items()]
        return "\n".join([*lines, *(f"- not measured: {note}" for note in self.notes)]) + "\n"

    def latex(self) -> str:
        """A `tabular` for `booktabs`."""
        heads = [f"{_tex(COLUMNS[c].name)} {LATEX_ARROWS[COLUMNS[c].better]}" for c in self.columns]
        about = ", ".join(f"{k} {v}" for k, v in self.about.items())
        lines = [f"% {about}", "% mean with 95 % bootstrap interval over clips", *(f"% not measured: {n}" for n in
                 self.notes), r"\begin{tabular}{l" + "r" * len(heads) + "}", r"\toprule",
                 " & ".join(["Film", *heads]) + r" \\", r"\midrule"]
        for name in self.rows:
            shown = name if name in self.methods else rf"\textit{{{name}}}"
            cells = [_cell(self.cells[name].get(c), r" {{\scriptsize [{}, {}]}}") for c in self.columns]
            lines.append(" & ".join([shown, *cells]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def json(self) -> dict[str, Any]:
        """For `json.dumps`; what is not finite is null."""
        def plain(i: Interval) -> dict[str, Any]:
            return {"mean": _finite(i.mean), "low": _finite(i.low), "high": _finite(i.high), "n": i.n}
        return {"about": self.about, "notes": list(self.notes), "extra": {k: plain(v) for k, v in self.extra.items()},
                "cells": {row: {c: plain(v) for c, v in cells.items()} for row, cells in self.cells.items()}}


CONTROLS: Final = (
    "*ground truth* is the real film put in the place of the made one (for FD-own and FVD-own: one half of the real "
    "clips against the other, which has half the features and so is no floor); *shuffled* pairs each made film with "
    "another clip's sound, style and lips; *static* is the first real picture standing still."
)


def _cell(value: Interval | None, form: str) -> str:
    if value is None or math.isnan(value.mean):
        return ""
    if math.isinf(value.mean):
        return "equal"
    bounds = "" if math.isnan(value.low) else form.format(_number(value.low), _number(value.high))
    return _number(value.mean) + bounds


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _unit(column: str) -> str:
    return f" ({COLUMNS[column].unit})" if COLUMNS[column].unit else ""


def _tex(text: str) -> str:
    return text.replace("+-1", r"$\pm$1").replace("%", r"\%").replace("|offset|", r"$|$offset$|$")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
