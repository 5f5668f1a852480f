"""What the training was worth: figures of the person's held-out clips before and after, beside their controls.

In: an `Order` whose weights are made. Out: `report.md` for people, `figures.json` for programs, `looks.png`: rows of
truth, before, after. Remembers: of each film one picture.

*Before* is the weights as they were with nothing but the new person's reference (a closed form) and head, *after* the
weights after training; both as they are served, in the profile's style, on clips that neither training nor reference
has seen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from svp_stream.config import Config, load_config
from svp_stream.evaluation.landmark_gauge import WEIGHTS as LANDMARKS
from svp_stream.evaluation.landmark_gauge import Finder, load_landmark_gauge, reader_finder
from svp_stream.evaluation.measure import WEIGHTS as EVALUATOR
from svp_stream.evaluation.measure import load_evaluator
from svp_stream.evaluation.paper import measure_paper
from svp_stream.evaluation.paper_films import Judges, Maker, engine_films, real_trials
from svp_stream.evaluation.paper_table import MADE, PaperTable
from svp_stream.evaluation.syncnet import load_syncnet
from svp_stream.evaluation.trials import Trial
from svp_stream.packets import Bytes
from svp_stream.person.order import Order
from svp_stream.person.steps import read_book, write_whole
from svp_stream.pipeline import build
from svp_stream.training.release import last_rows
from svp_stream.training.sheets import write_png
from svp_stream.weights_file import sha256

BEFORE, AFTER = "before", "after"
FIGURES: Final = {
    "psnr": "autoencoder, PSNR in dB, whole",
    "psnr_face": "autoencoder, PSNR in dB, face",
    "matte": "autoencoder, mean error of the matte, 0 to 1",
    "reference_psnr": "*control:* reference alone (closed form), PSNR, whole",
    "reference_face": "*control:* reference alone, PSNR, face",
    "steps1_psnr": "one cold step, PSNR, whole",
    "steps1_face": "one cold step, PSNR, face",
    "warm_psnr": "25 frames as served (warm), PSNR, whole",
    "warm_face": "25 frames as served (warm), PSNR, face",
    "motion_ratio": "motion between frames over the truth's",
}
"""Figures of single parts under the true expression, which leave sound and style out."""
LIMITS: Final = (
    "Intervals are over the held-out clips, which are few. The clips are of the same recording as those that were "
    "learned from, so the light, the clothes and the voice are known; another day's film would do worse. The folder "
    "serves this one person: the faces that the weights knew before are forgotten."
)


def write_table(order: Order, book: Path) -> None:
    """Measure and write. Raises MediaError without held-out clips, WeightsError for missing weights."""
    trials = real_trials(order.clips)
    config = load_config(order.profile)
    tables, looks = {}, [np.concatenate([_middle(t.rgb) for t in trials], 1)]
    for name, folder in ((BEFORE, order.before), (AFTER, order.weights)):
        shown: list[Bytes] = []
        tables[name] = _measured(order, trials, _maker(config, folder, shown), config.style.default)
        looks.append(np.concatenate(shown, 1))
    table = _joined(tables)
    parts = {BEFORE: json.loads((order.before / "figures.json").read_text(encoding="utf-8")),
             AFTER: last_rows(order.runs / "autoencoder" / "log.jsonl") | last_rows(order.runs / "video" / "log.jsonl")}
    trained = {stage: last_rows(order.runs / stage / "log.jsonl") for stage in ("autoencoder", "video")}
    steps = {name: row["seconds"] for name, row in read_book(book).items()}
    write_png(order.out / "looks.png", np.concatenate(looks))
    told: dict[str, Any] = {"parts": parts, "table": table.json(), "steps": steps, "trained": trained}
    write_whole(order.out / "figures.json", json.dumps(told, indent=1) + "\n")
    write_whole(order.out / "report.md", _markdown(order, table, told))


def _maker(config: Config, folder: Path, shown: list[Bytes]) -> Maker:
    """Films by the weights in `folder`, through the same session as live speech; the middle picture of each is kept."""
    build.set_threads(config, "mini")
    engine = build.build_mini(config, folder)
    make = engine_films(engine, build.build_shelf(config, engine), build.build_vad(config), 0, config.style.default)

    def kept(trial: Trial, number: int) -> Bytes:
        film = make(trial, number)
        shown.append(_middle(film))
        return film

    return kept


def _middle(film: Bytes) -> Bytes:
    return np.asarray(film[len(film) // 2], np.uint8)


def _measured(order: Order, trials: list[Trial], make: Maker, style: str) -> PaperTable:
    gauge = order.start / LANDMARKS
    finder: Finder | None = load_landmark_gauge(gauge).find if gauge.is_file() else None
    if order.judge is not None:
        finder = reader_finder(order.judge())
    judges = Judges(
        load_evaluator(order.start / EVALUATOR), None if order.syncnet is None else load_syncnet(order.syncnet), finder
    )
    about = {"person": order.name, "style": style, "evaluator": sha256(order.start / EVALUATOR)[:12]}
    return measure_paper(trials, make, judges, about)


def _joined(tables: dict[str, PaperTable]) -> PaperTable:
    """Both in one; the controls are those of `after` (truth and static are the same in both)."""
    after = tables[AFTER]
    cells = {row: after.cells[row] for row in after.rows if row != MADE}
    cells |= {name: table.cells[MADE] for name, table in tables.items()}
    return PaperTable(after.about, cells, after.notes, methods=(BEFORE, AFTER))


def _markdown(order: Order, table: PaperTable, told: dict[str, Any]) -> str:
    trained = ", ".join(f"{stage} {row['steps']} steps in {row['seconds'] / 60:.1f} min"
                        for stage, row in told["trained"].items())
    lines = [f"# {order.name}", "", f"Trained: {trained}. Served by `python -m server --config {order.profile}`.", "",
             "## Parts, given the true expression", "", "| held-out figure | before | after |", "|---|---:|---:|"]
    before, after = told["parts"][BEFORE], told["parts"][AFTER]
    lines += [f"| {words} | {before[key]:.3g} | {after[key]:.3g} |" for key, words in FIGURES.items()]
    lines += ["", "## The whole street, from sound to picture", "", "`shuffled` is of *after*. " + table.markdown(), "",
              LIMITS, "", "## Steps", "", "| step | seconds |", "|---|---:|",
              *(f"| {name} | {seconds:.0f} |" for name, seconds in told["steps"].items()), "",
              "![truth, before, after](looks.png)"]
    return "\n".join(lines) + "\n"
