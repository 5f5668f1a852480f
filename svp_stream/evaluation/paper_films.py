"""The films that a table compares: ground truth, and what an engine or a folder made of the same sound.

In: clips, held out; an engine, or a folder of films. Out: pictures [T, H, W, 3] of the truth's size, one clip at a
time. Remembers: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from svp_stream.audio.vad import Vad
from svp_stream.errors import MediaError
from svp_stream.evaluation.evaluate import DIVERSITY_SEEDS, Bench, Shelf, renderings, spread
from svp_stream.evaluation.landmark_gauge import Finder
from svp_stream.evaluation.measure import Evaluator
from svp_stream.evaluation.metrics import Interval, bootstrap
from svp_stream.evaluation.picture_metrics import landmark_distances
from svp_stream.evaluation.syncnet import SyncNet
from svp_stream.evaluation.trials import Subject, Trial, play
from svp_stream.packets import Bytes
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.synthetic.video import read_pictures
from svp_stream.training.clips import Clips

DIVERSITY_CLIPS: Final = 4
Maker = Callable[[Trial, int], Bytes]
"""A clip and its number to the film made of its sound, uint8 [T, H, W, 3]."""


@dataclass(frozen=True)
class Judges:
    """What measures. `seed` draws the shuffled control and the intervals."""

    evaluator: Evaluator
    syncnet: SyncNet | None = None
    finder: Finder | None = None
    seed: int = 0


def real_trials(folder: Path, limit: int | None = None) -> list[Trial]:
    """The held-out clips of `folder` with a picture. Raises MediaError when there is none."""
    held = list(Clips.open(folder).where(split="heldout", has_video=True))[:limit]
    if not held:
        raise MediaError(f"{folder} holds no clip of split 'heldout' with a picture; `svp corpus` and `svp prepare` "
                         "hold some out")
    return [Trial(clip) for clip in held]


def films_in(folder: Path) -> Maker:
    """Films that lie in `folder` as `<clip id>.mp4`, by whatever method; another size is drawn to the truth's."""
    def make(trial: Trial, number: int) -> Bytes:
        path = folder / f"{trial.clip.id}.mp4"
        if not path.is_file():
            raise MediaError(f"{path}: there is no such film; make one of every held-out clip's sound, named as it")
        return fitted(read_pictures(path, None), trial, path)

    return make


def fitted(made: Bytes, trial: Trial, path: Path) -> Bytes:
    """`made` cut to the truth's length and drawn to its size. Raises MediaError when it is shorter by over 3 frames."""
    frames, side = trial.clip.frames, trial.rgb.shape[1]
    if len(made) < frames - 3:
        raise MediaError(f"{path}: has {len(made)} pictures for a clip of {frames}; films are 25 pictures a second")
    if made.shape[1:3] != (side, side):
        drawn = [np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.LANCZOS)) for p in made[:frames]]
        made = np.stack(drawn)
    return np.ascontiguousarray(np.concatenate([made, made[-1:].repeat(3, 0)])[:frames])


def engine_diversity(engine: Subject, shelf: Shelf, vad: Vad | None, judges: Judges, trials: list[Trial]
                     ) -> dict[str, Interval]:
    """How far the faces of one sound lie apart over five seeds, at style temperature 1 and, for comparison, 0: means
    over up to `DIVERSITY_CLIPS` clips, in deviations of the readings and, where landmarks can be found, in M-LMD.

    Empty when no clip is in a style that there is a preset of.
    """
    known = [t for t in trials if t.clip.style in shelf.names() and t.clip.avatar in engine.avatars]
    chosen = known[:: max(-(-len(known) // DIVERSITY_CLIPS), 1)]
    bench = Bench(engine, vad, judges.evaluator, shelf, judges.seed, lambda what, done, total: None)
    found: dict[str, Interval] = {}
    for temperature in (1.0, 0.0) if chosen else ():
        rows = [_apart(bench, trial, renderings(bench, trial, temperature), judges.finder) for trial in chosen]
        for unit, values in zip(("deviations", "M-LMD"), zip(*rows, strict=True), strict=True):
            title = f"diversity over {DIVERSITY_SEEDS} seeds at temperature {temperature:g} ({unit})"
            told = bootstrap(list(values), bench.rng(61))
            found |= {title: told} if told.n else {}
    return found


def _apart(bench: Bench, trial: Trial, films: list[Bytes], finder: Finder | None) -> tuple[float, float]:
    """Mean distance between every two films, in both units; NaN for M-LMD without a finder."""
    marks = [] if finder is None else [finder(film) for film in films]
    pairs = [landmark_distances(a, b)[0] for i, a in enumerate(marks) for b in marks[:i]]
    return spread(bench, trial, films), float(np.mean(pairs)) if pairs else float("nan")


def engine_films(engine: Subject, shelf: Shelf, vad: Vad | None, seed: int, otherwise: str | None = None) -> Maker:
    """What `engine` makes of a clip's sound under the truth's head poses, in the preset of the clip's style; where
    there is none, in `otherwise`, or without it in the shelf's first. Raises MediaError for a person whom the engine
    does not know."""
    def make(trial: Trial, number: int) -> Bytes:
        clip = trial.clip
        if clip.avatar not in engine.avatars:
            raise MediaError(f"clip {clip.id} shows '{clip.avatar}', whom the engine does not know; it knows "
                             f"{', '.join(engine.avatars)}")
        names = shelf.names()
        preset = shelf.get(clip.style if clip.style in names else otherwise or names[0])
        style = StyleRequest(preset.name, preset.mu, preset.log_var, 0.0, preset.strength)
        return play(engine, vad, trial.sound, avatar=clip.avatar, style=style, seed=seed + number, script=trial.poses)

    return make
