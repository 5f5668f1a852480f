"""Does a long session wander? The same half minute of held-out speech again and again, through one session.

In: an engine, held-out clips of one person. Out: a `Row` for each turn: PSNR against the renderer's frames, lips,
flicker, mean colour. Remembers: the journal's rows, turn by turn; a session cannot be begun in the middle, so a run
that was cut off makes its frames again, and measures only the turns that are missing.

Words, poses, styles and truth are the same in every turn, so whatever differs between the first and the last is drift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS, WIRE_RATE_HZ
from svp_stream.errors import MediaError
from svp_stream.evaluation import metrics
from svp_stream.evaluation.ablation import Journal, Row, Variant
from svp_stream.evaluation.evaluate import LIP, Bench
from svp_stream.evaluation.report import cell
from svp_stream.evaluation.trials import Scripted, Subject, Trial
from svp_stream.packets import AudioChunk, Bytes, Frame
from svp_stream.pipeline.session import Session

TURN_S = 30.0
WANTED_DB = 0.5
_COLUMNS = ("psnr", "psnr_face", "lip_open_r", "flicker", "red", "green", "blue")


@dataclass(frozen=True)
class Loop:
    """Whole clips of one person, one after another: a turn."""

    trials: tuple[Trial, ...]

    @property
    def frames(self) -> int:
        """Frames in a turn."""
        return sum(t.clip.frames for t in self.trials)


def one_turn(trials: Sequence[Trial], seconds: float = TURN_S) -> Loop:
    """The first clips of the person with the most of them, up to at least `seconds`, or all there are."""
    heads: dict[str, list[Trial]] = {}
    for trial in trials:
        heads.setdefault(trial.clip.avatar, []).append(trial)
    if not heads:
        raise MediaError("no held-out clip to make a long session of")
    mine = max(heads.values(), key=lambda ts: sum(t.clip.frames for t in ts))
    chosen: list[Trial] = []
    for trial in mine:
        if sum(t.clip.frames for t in chosen) >= seconds * FRAME_RATE_HZ:
            break
        chosen.append(trial)
    return Loop(tuple(chosen))


def drift(engine: Subject, bench: Bench, loop: Loop, turns: int, journal: Journal, base: Variant) -> list[Row]:
    """A row for each turn of one session."""
    setting = base.setting() | {"seed": bench.seed, "clips": [t.clip.id for t in loop.trials]}
    made = films(engine, bench, loop, turns)
    rows: list[Row] = []
    for turn in bench.counted("drift", list(range(turns))):
        late = _Late(made, turn, lambda film: _measured(bench, loop, film))
        rows.append(journal.row(setting | {"turn": turn}, late))
    return rows


@dataclass
class _Late:
    """The row of a turn, made when asked for, with all turns before it."""

    films: Iterator[tuple[int, Bytes]]
    turn: int
    measure: Callable[[Bytes], Row]

    def __call__(self) -> Row:
        for number, film in self.films:
            if number == self.turn:
                return self.measure(film)
        raise MediaError(f"the session ended before turn {self.turn}")


def films(engine: Subject, bench: Bench, loop: Loop, turns: int) -> Iterator[tuple[int, Bytes]]:
    """(turn, pictures uint8 [T, H, W, 3]) of one session."""
    poses = [pose for _ in range(turns) for t in loop.trials for pose in t.poses]
    first = loop.trials[0].clip
    session = Session(Scripted(engine, poses), bench.vad, avatar=first.avatar, style=bench.style(first.style),
                      seed=bench.seed)
    owed: list[Frame] = []
    done = at = 0
    for turn in range(turns):
        for trial in loop.trials:
            session.set_style(bench.style(trial.clip.style))
            for start in range(0, len(trial.sound), FRAME_TICKS):
                owed += session.push(AudioChunk(at, trial.sound[start : start + FRAME_TICKS], WIRE_RATE_HZ))
                at += FRAME_TICKS
            if len(owed) >= loop.frames:
                yield done, np.stack([f.rgb for f in owed[: loop.frames]])
                owed, done = owed[loop.frames :], done + 1
        if turn == turns - 1:
            owed += session.flush()
    while len(owed) >= loop.frames:
        yield done, np.stack([f.rgb for f in owed[: loop.frames]])
        owed, done = owed[loop.frames :], done + 1


def _measured(bench: Bench, loop: Loop, made: Bytes) -> Row:
    """Means over the clips of a turn."""
    rows, start = [], 0
    for trial in loop.trials:
        part = made[start : start + trial.clip.frames]
        start += trial.clip.frames
        read = bench.evaluator.gauge.read(part)[:, LIP]
        rows.append([
            metrics.psnr(part, trial.rgb), metrics.psnr(part, trial.rgb, trial.boxes),
            metrics.pearson(read, trial.readings[:, LIP]), metrics.flicker(part, metrics.still(trial.rgb)),
            *part.mean((0, 1, 2)),
        ])  # fmt: skip
    return dict(zip(_COLUMNS, map(float, np.nanmean(rows, 0)), strict=True))


def markdown(rows: Sequence[Row], loop: Loop, about: str) -> str:
    """The turns, and what is left between the first and the last."""
    seconds = loop.frames / FRAME_RATE_HZ
    heads = ("turn", "from", "PSNR whole", "PSNR face", "LipOpen r", "flicker", "mean red", "green", "blue")
    lines = [f"one session of {seconds * len(rows):.0f} s, {len(rows)} turns over the same {len(loop.trials)} clips "
             f"({seconds:.1f} s), {about}", "", f"| {' | '.join(heads)} |", "|---:" * len(heads) + "|"]
    for n, row in enumerate(rows):
        lines.append(f"| {n + 1} | {n * seconds:.0f} s | {' | '.join(cell(row[k]) for k in _COLUMNS)} |")
    lost = {k: rows[0][k] - rows[-1][k] for k in ("psnr", "psnr_face")}
    lines += ["", f"First turn less last: {lost['psnr']:+.3f} dB whole, {lost['psnr_face']:+.3f} dB face "
                  f"(wanted: less than {WANTED_DB} dB lost)."]
    return "\n".join(lines) + "\n"


