"""`svp paper`: the table of a paper, every figure beside its controls, over held-out clips, with intervals.

In: ground-truth clips, a way to get the film that a method made of each, the evaluator, and where given a SyncNet and
what finds landmarks. Out: a `PaperTable`. Remembers: of each film a few numbers a frame, never pictures.

What judges was never trained on what it judges: gauge, judge and SyncNet see only the truth. No figure here can be set
beside one of a paper that used public networks: FD-own, FVD-own, Sync-C-own and StyleSim are our networks' alone.
Landmarks are found in every film, the true one too, and held against those that the clip itself tells: so the row of
the ground truth is what the finder alone is off by, and no film can be shown to be nearer than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn import functional as F

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.evaluation import metrics
from svp_stream.evaluation.measure import READING, SPEECH_READINGS, shrink
from svp_stream.evaluation.metrics import Interval, bootstrap, pearson
from svp_stream.evaluation.paper_films import Judges, Maker
from svp_stream.evaluation.paper_table import MADE, SHUFFLED, STATIC, TRUTH, PaperTable
from svp_stream.evaluation.picture_metrics import deranged, frechet, landmark_distances, ssim, style_similarity
from svp_stream.evaluation.style_judge import LEAST_FRAMES, StyleJudge, describe
from svp_stream.evaluation.syncnet import MOST_SHIFT, mouths, shift_distances, sync_scores
from svp_stream.evaluation.trials import Trial
from svp_stream.packets import Bytes, Float32, Floats

EVERY: Final = 5
"""Every so many pictures count in FD-own; neighbours are nearly the same."""
LIP: Final = READING["lip_open"]
DRAWS: Final = 200
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Seen:
    """One film: gauge features [T/5, d] and readings [T, 49]; features of its mouths [T-4, d]; landmarks [T, 38, 2],
    NaN where no face was found; what comes from laying it over the truth."""

    looks: Floats
    readings: Float32
    mouths: Float32 | None
    landmarks: Float32 | None
    laid: dict[str, float]


@dataclass(frozen=True)
class Measured:
    """One clip: its sound's features [T-4, d], its films by row, and its own landmarks [T, 38, 2]."""

    heard: Float32 | None
    films: dict[str, Seen]
    landmarks: Float32 | None = None


def measure_paper(trials: list[Trial], make: Maker, judges: Judges, about: dict[str, str],
                  progress: Progress = lambda what, done, total: None) -> PaperTable:
    """The table. Raises MediaError when a film is missing or too short."""
    clips = []
    for number, trial in enumerate(trials):
        progress("clips", number, len(trials))
        clips.append(measure(trial, make(trial, number), judges))
    notes = []
    if judges.syncnet is None:
        notes.append("Sync-C-own, Sync-D-own, acc@+-1, offset, FVD-own (give --syncnet; `svp train syncnet` makes it)")
    if judges.finder is None:
        notes.append("M-LMD, F-LMD (`svp train landmarks` makes a gauge; or give --landmarker or --reader)")
    seconds = sum(t.clip.frames for t in trials) / FRAME_RATE_HZ
    told = about | {"clips": str(len(trials)), "seconds": f"{seconds:.1f}", "seed": str(judges.seed)}
    return PaperTable(told, table(clips, judges), notes)


def measure(trial: Trial, made: Bytes, judges: Judges) -> Measured:
    """All that the table needs of one clip and the film made of it."""
    rgb = trial.rgb
    static = np.broadcast_to(rgb[:1], rgb.shape)
    heard = None if judges.syncnet is None else judges.syncnet.heard(trial.clip.audio)
    films = {name: _see(film, trial, judges) for name, film in ((TRUTH, rgb), (MADE, made), (STATIC, static))}
    return Measured(heard, films, None if judges.finder is None else trial.clip.landmarks)


def _see(film: Bytes, trial: Trial, judges: Judges) -> Seen:
    kps, rgb = trial.clip.kps, trial.rgb
    gauge = judges.evaluator.gauge
    with torch.inference_mode():
        small = shrink(torch.from_numpy(np.ascontiguousarray(film[::EVERY])), gauge.config.side)
        looks = torch.cat([gauge.look(part / 127.5 - 1) for part in torch.split(small, 32)]).double().numpy()
    laid = {"psnr": metrics.psnr(film, rgb), "psnr_face": metrics.psnr(film, rgb, trial.boxes),
            "ssim": float(ssim(film, rgb).mean())}
    seen = None if judges.syncnet is None else judges.syncnet.seen(mouths(film, kps))
    found = None if judges.finder is None else judges.finder(np.ascontiguousarray(film))
    return Seen(looks, gauge.read(np.ascontiguousarray(film)), seen, found, laid)


def table(clips: list[Measured], judges: Judges) -> dict[str, dict[str, Interval]]:
    """Cells by row and column."""
    rng = np.random.default_rng([judges.seed, 41])
    order = deranged(len(clips), rng)
    cells: dict[str, dict[str, Interval]] = {}
    for name in (TRUTH, MADE, STATIC, SHUFFLED):
        turned = order if name == SHUFFLED else np.arange(len(clips))
        source = MADE if name == SHUFFLED else name
        if name == SHUFFLED and len(clips) < 2:
            continue
        rows = [_row(clips[i].films[source], clips[j], laid=name != SHUFFLED) for i, j in enumerate(turned)]
        styles = _styles([c.films[source] for c in clips], [clips[j].films[TRUTH] for j in turned], clips, judges)
        cells[name] = {key: _interval([row.get(key, np.nan) for row in rows], rng) for key in rows[0]} | {
            "style_sim": _interval(list(styles), rng)}
        if name != SHUFFLED:
            cells[name] |= _distances(clips, name, rng)
    return {name: {k: v for k, v in row.items() if v.n} for name, row in cells.items()}


def _interval(values: list[float], rng: np.random.Generator) -> Interval:
    """A mean with its interval; infinite (a PSNR of equal films) when any clip's is, without one."""
    if np.isinf(values).any():
        return Interval(float("inf"), float("nan"), float("nan"), len(values))
    return bootstrap(values, rng)


def _row(film: Seen, clip: Measured, laid: bool) -> dict[str, float]:
    """Figures of one film against one clip; `laid` when it is the clip that it was made of."""
    true = clip.films[TRUTH]
    count = min(len(film.readings), len(true.readings))
    figures = dict(film.laid) if laid else {}
    figures["lip_r"] = pearson(film.readings[:count, LIP], true.readings[:count, LIP])
    if film.mouths is not None and clip.heard is not None:
        n = min(len(film.mouths), len(clip.heard))
        if n > 2 * MOST_SHIFT:
            sync = sync_scores(shift_distances(film.mouths[:n], clip.heard[:n]))
            figures |= {"sync_c": sync.confidence, "sync_d": sync.distance, "sync_acc": sync.accuracy,
                        "offset": abs(sync.offset_ms)}
    if film.landmarks is not None and clip.landmarks is not None:
        figures["m_lmd"], figures["f_lmd"] = landmark_distances(film.landmarks[:count], clip.landmarks[:count])
    return figures


def _styles(films: list[Seen], truths: list[Seen], clips: list[Measured], judges: Judges) -> Floats:
    """StyleSim of each film with the truth that it is paired with; the centre is the mean over all true clips."""
    judge = judges.evaluator.judge
    centre = np.mean([style_embedding(judge, c.films[TRUTH].readings) for c in clips], axis=0)
    made, true = (np.stack([style_embedding(judge, f.readings) for f in group]) for group in (films, truths))
    return style_similarity(made, true, centre)


@torch.inference_mode()
def style_embedding(judge: StyleJudge, readings: Float32) -> Floats:
    """The judge's hidden layer [width] for readings [T, 49]; zeros for less than a second. The judge has a seed and
    data of its own and shares nothing with the style prior."""
    if len(readings) < LEAST_FRAMES:
        return np.zeros(judge.config.width)
    features = torch.from_numpy(describe(readings[:, SPEECH_READINGS]))[None]
    hidden = judge.net[1](((features - judge.mean) / judge.std).clamp(-6, 6))
    return np.asarray(F.gelu(hidden)[0].double().numpy())


def _distances(clips: list[Measured], name: str, rng: np.random.Generator) -> dict[str, Interval]:
    """FD-own and FVD-own of a row against the truth, with the interval over redrawn clips."""
    def heap(pick: list[int], row: str, what: str) -> Floats:
        return np.concatenate([np.asarray(getattr(clips[i].films[row], what), np.float64) for i in pick])

    found = {}
    for key, what in (("fd", "looks"), ("fvd", "mouths")):
        if getattr(clips[0].films[TRUTH], what) is None or (name == TRUTH and len(clips) < 2):
            continue

        order = [int(i) for i in rng.permutation(len(clips))]
        # The truth is held against itself by halves, which share no clip, nor do their redraws.
        halves = [order[: len(order) // 2], order[len(order) // 2 :]] if name == TRUTH else [order]

        def distance(picks: list[list[int]], what: str = what) -> float:
            return frechet(heap(picks[0], name, what), heap(picks[-1], TRUTH, what))

        whole = distance(halves)
        redrawn = [distance([rng.choice(half, len(half)).tolist() for half in halves]) for _ in range(DRAWS)]
        low, high = np.quantile(redrawn, (0.025, 0.975)) if len(clips) > 1 else (np.nan, np.nan)
        found[key] = Interval(whole, float(low), float(high), len(clips))
    return found
