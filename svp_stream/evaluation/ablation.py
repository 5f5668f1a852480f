"""What a part of the engine is worth: the same held-out clips with it and without it, in one table.

In: an engine, held-out clips, `Variant`s. Out: a row of means for each variant, as Markdown and for the card.
Remembers: a journal, one line for each clip that a variant has said, so that a run which was cut off goes on. A line is
found again by the hash of the weights, the variant, the clip and the seed; after a change of code, delete the file.

Speed is processor time, of all threads, for each frame of the whole street without the voice detector: on a busy
machine wall time says little.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from svp_stream.diffusion.cache import CacheRule
from svp_stream.evaluation import metrics
from svp_stream.evaluation.evaluate import LIP, Bench, excerpt
from svp_stream.evaluation.measure import READING, SPEECH_READINGS
from svp_stream.evaluation.metrics import Interval, bootstrap
from svp_stream.evaluation.report import cell
from svp_stream.evaluation.trials import Subject, Trial, play
from svp_stream.packets import Bytes
from svp_stream.weights_file import HASHES

TRUTH, STATIC = "*control:* the renderer's own frames", "*control:* the first true frame, standing still"
COLUMNS: Final = (
    ("cpu_ms", "CPU ms a frame"), ("lip_open_r", "LipOpen r"), ("lag_ms", "lag ms"), ("psnr_face", "PSNR face"),
    ("psnr", "PSNR whole"), ("flicker", "flicker, levels"), ("flicker_ratio", "flicker / renderer's"),
    ("lip_open_gain", "LipOpen amplitude"), ("lip_width_r", "lip width r"), ("silence_ratio", "silence / speech"),
    ("style_right", "StyleAcc"),
)  # fmt: skip
RANGED: Final = ("lip_open_r", "style_right")
"""Figures that are told with their 95 % interval."""
WIDTH: Final = READING["lip_width"]
Row = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """One setting of an engine; `precision` is int8 or fp32."""

    name: str
    rule: CacheRule
    look_ahead: int
    precision: str

    def setting(self) -> dict[str, Any]:
        """Everything but the name, for a journal's key."""
        told = asdict(self)
        del told["name"]
        return told


Engines = Callable[[Variant], Subject]
"""The engine in a setting."""


class Journal:
    """Rows by key in a file of JSON lines; a last line that was cut off counts as not written."""

    def __init__(self, path: Path, about: str) -> None:
        self.path, self.about = path, about
        self._rows: dict[str, Row] = {}
        told_all = path.read_text(encoding="utf-8") if path.is_file() else ""
        self._glue = "" if told_all.endswith("\n") or not told_all else "\n"
        for line in told_all.splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                continue
            self._rows[told["key"]] = {k: float("nan") if v is None else v for k, v in told["row"].items()}

    def row(self, what: dict[str, Any], make: Callable[[], Row]) -> Row:
        """The row of `what`, made and written if it is not known."""
        key = hashlib.sha256(json.dumps([self.about, what], sort_keys=True).encode()).hexdigest()[:16]
        if key not in self._rows:
            self._rows[key] = made = make()
            plain = {k: None if np.isnan(v) else v for k, v in made.items()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as f:
                f.write(self._glue + json.dumps({"key": key, "what": what, "row": plain}) + "\n")
            self._glue = ""
        return self._rows[key]


def weights_key(folder: Path) -> str:
    """Changes with every file of a weights folder."""
    return hashlib.sha256((folder / HASHES).read_bytes()).hexdigest()[:12]


@dataclass(frozen=True)
class Table:
    """Rows of one ablation: for each name, what was measured of each clip (and of each style)."""

    title: str
    about: dict[str, str]
    rows: dict[str, list[Row]]

    def markdown(self) -> str:
        """One line a variant: means over clips, with intervals where they matter."""
        shown = [(k, t) for k, t in COLUMNS if any(k in row for rows in self.rows.values() for row in rows)]
        lines = [f"{self.title}: {', '.join(f'{k} {v}' for k, v in self.about.items())}", "",
                 f"| | {' | '.join(t for _, t in shown)} |", "|---" + "|---:" * len(shown) + "|"]
        for name, rows in self.rows.items():
            lines.append(f"| {name} | {' | '.join(_told(rows, key) for key, _ in shown)} |")
        return "\n".join(lines) + "\n"


def _told(rows: Sequence[Row], key: str) -> str:
    values = [row[key] for row in rows if key in row]
    if not values:
        return "-"
    if np.isinf(values).any():
        return "equal"
    mean: Interval = bootstrap(values, np.random.default_rng(0))
    spread = f" ({cell(mean.low)} to {cell(mean.high)})" if key in RANGED and mean.n > 1 else ""
    return f"{cell(mean.mean)}{spread}"


def ablate(
    title: str, variants: Sequence[Variant], engines: Engines, bench: Bench, trials: Sequence[Trial], journal: Journal,
    *, style_clips: int = 0,
) -> Table:
    """Every variant over every clip; with `style_clips`, so many clips of each preset are named by the style judge too.
    The controls stand in the first two rows."""
    rows: dict[str, list[Row]] = {
        TRUTH: [journal.row({"control": "truth", "clip": t.clip.id}, partial(_true, bench, t)) for t in trials],
        STATIC: [journal.row({"control": "static", "clip": t.clip.id}, partial(_static, t)) for t in trials],
    }
    for variant in variants:
        engine = engines(variant)
        setting = variant.setting() | {"seed": bench.seed}
        made = rows[variant.name] = []
        for number, trial in enumerate(bench.counted(variant.name, list(trials))):
            made.append(journal.row(setting | {"clip": trial.clip.id, "number": number},
                                    partial(_said, bench, engine, trial, number)))
        for name, take, trial in bench.counted(f"{variant.name}: styles", style_plan(bench, trials, style_clips)):
            made.append(journal.row(setting | {"style": name, "take": take, "clip": trial.clip.id},
                                    partial(_named, bench, engine, name, take, trial)))
    about = {"weights": journal.about, "clips": str(len(trials)), "frames": str(sum(t.clip.frames for t in trials)),
             "voices": " ".join(sorted({t.clip.voice for t in trials})), "seed": str(bench.seed)}
    return Table(title, about, rows)


def shortest_of_each(trials: Sequence[Trial], count: int) -> list[Trial]:
    """`count` clips, the people by turns, the shortest of each first: a small sample that costs little."""
    heads: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda t: (t.clip.frames, t.clip.id)):
        heads.setdefault(trial.clip.avatar, []).append(trial)
    longest = max(map(len, heads.values()), default=0)
    return [mine[i] for i in range(longest) for mine in heads.values() if i < len(mine)][:count]


def style_plan(bench: Bench, trials: Sequence[Trial], clips: int) -> list[tuple[str, int, Trial]]:
    """(preset, take, whose sound) for the style judge."""
    known = bench.evaluator.judge.config.styles
    return [(name, i, trials[i % len(trials)]) for name in bench.shelf.names() if name in known for i in range(clips)]


def _said(bench: Bench, engine: Subject, trial: Trial, number: int) -> Row:
    began = time.process_time()
    made = play(engine, bench.vad, trial.sound, avatar=trial.clip.avatar, style=bench.style(trial.clip.style),
                seed=bench.seed + number, script=trial.poses)
    spent = time.process_time() - began
    return {"cpu_ms": 1000 * spent / len(made)} | _shown(bench, trial, made)


def _shown(bench: Bench, trial: Trial, made: Bytes) -> Row:
    read, true = bench.evaluator.gauge.read(made), trial.readings
    lips, wanted = read[:, LIP], true[:, LIP]
    return {
        "lip_open_r": metrics.pearson(lips, wanted), "lag_ms": metrics.lag_ms(lips, wanted),
        "lip_open_gain": float(lips.std() / max(float(wanted.std()), 1e-6)),
        "lip_width_r": metrics.pearson(read[:, WIDTH], true[:, WIDTH]),
        "silence_ratio": metrics.silence_ratio(lips, trial.speaking),
    } | _pictures(trial, made)  # fmt: skip


def _pictures(trial: Trial, made: Bytes) -> Row:
    mask = metrics.still(trial.rgb)
    flicker = metrics.flicker(made, mask)
    return {
        "psnr_face": metrics.psnr(made, trial.rgb, trial.boxes), "psnr": metrics.psnr(made, trial.rgb),
        "flicker": flicker, "flicker_ratio": flicker / max(metrics.flicker(trial.rgb, mask), 1e-3),
    }  # fmt: skip


def _true(bench: Bench, trial: Trial) -> Row:
    return _shown(bench, trial, trial.rgb)


def _static(trial: Trial) -> Row:
    return {"lip_open_r": 0.0} | _pictures(trial, np.broadcast_to(trial.rgb[0], trial.rgb.shape))


def _named(bench: Bench, engine: Subject, style: str, take: int, trial: Trial) -> Row:
    sound, _ = excerpt(trial, take)
    avatar = engine.avatars[take % len(engine.avatars)]
    made = play(engine, bench.vad, sound, avatar=avatar, style=bench.style(style), seed=bench.seed + 1000 + take)
    named = bench.evaluator.judge.name(bench.evaluator.gauge.read(made)[:, SPEECH_READINGS])
    return {"style_right": float(named == style)}
