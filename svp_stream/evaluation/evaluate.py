"""`svp evaluate`: held-out speech through the very same session as the server, measured against the renderer.

In: an engine, held-out clips, presets, the evaluator networks. Out: a `Report`. Remembers: nothing.
The sound was never heard in training (held-out voice, held-out sentences); the style of a clip is asked for by its
preset. Lips and pictures are made under the renderer's own poses, so that they can be laid over its frames; styles,
blinks and determinism under the engine's own motion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from svp_stream.audio.vad import Vad
from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS
from svp_stream.errors import MediaError
from svp_stream.evaluation import metrics
from svp_stream.evaluation.controls import autoencoder_psnr, reference_pictures
from svp_stream.evaluation.judge_training import utterance
from svp_stream.evaluation.measure import READING, READINGS, SPEECH_READINGS, WEIGHTS, Evaluator, load_evaluator
from svp_stream.evaluation.metrics import bootstrap, pearson
from svp_stream.evaluation.report import Figure, Report
from svp_stream.evaluation.style_judge import LEAST_FRAMES
from svp_stream.evaluation.trials import Subject, Trial, open_trials, play
from svp_stream.packets import Bytes, Float32
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.style.preset import StylePreset
from svp_stream.synthetic.articulation import articulate
from svp_stream.synthetic.styles import NAMED
from svp_stream.weights_file import sha256

STYLE_CLIPS: Final = 3
"""Clips that each preset is judged on."""
STYLE_S: Final = 4.0
DIVERSITY_SEEDS: Final = 5
LAW_S: Final = 2.0
CHUNKS: Final = (FRAME_TICKS, 997)
"""Samples in a push, in the two runs that must agree."""
LIP: Final = READING["lip_open"]
EYE: Final = READING["eye_open_left"]
Progress = Callable[[str, int, int], None]
"""What is being done, how many are done, how many in all."""


class Shelf(Protocol):
    """Presets by name."""

    def names(self) -> tuple[str, ...]:
        """What there is, sorted."""
        ...

    def get(self, name: str) -> StylePreset:
        """One of them; raises `PresetError`."""
        ...


@dataclass(frozen=True)
class Bench:
    """What every part of the evaluation uses."""

    engine: Subject
    vad: Vad | None
    evaluator: Evaluator
    shelf: Shelf
    seed: int
    progress: Progress

    def style(self, name: str, temperature: float = 0.0) -> StyleRequest:
        """A preset as asked for by a caller."""
        preset = self.shelf.get(name)
        return StyleRequest(name, preset.mu, preset.log_var, temperature, preset.strength)

    def rng(self, salt: int) -> np.random.Generator:
        """A generator for one part."""
        return np.random.default_rng([self.seed, salt])

    def counted(self, what: str, things: list[Any]) -> Iterator[Any]:
        """The things, with progress."""
        for i, thing in enumerate(things):
            self.progress(what, i, len(things))
            yield thing


def evaluate(
    engine: Subject, corpus: Path, *, shelf: Shelf, weights: Path, vad: Vad | None, seed: int = 0,
    limit: int | None = None, progress: Progress = lambda what, done, total: None,
) -> Report:
    """Every figure. `weights` is the folder of the engine's files and `evaluator.safetensors`; `limit` bounds the clips
    (and the clips for each style), for a quick look.

    Raises MediaError without held-out clips, WeightsError without evaluator, PresetError for a preset that does not
    fit.
    """
    bench = Bench(engine, vad, load_evaluator(weights / WEIGHTS), shelf, seed, progress)
    held = open_trials(corpus, engine.avatars)
    trials = [t for t in held if t.clip.style in shelf.names()][:limit]
    if not trials:
        known = ", ".join(shelf.names()) or "none"
        raise MediaError(f"{corpus}: no held-out clip is in a style that there is a preset of; presets: {known}")
    rows, figures = lips_and_pictures(bench, trials)
    figures |= autoencoder_psnr(weights, trials)
    styles, more = style_figures(bench, trials, STYLE_CLIPS if limit is None else min(limit, STYLE_CLIPS))
    figures |= more | diversity_figures(bench, trials[0]) | law_figures(bench, trials[0])
    about = {
        "engine": engine.name, "prior": (engine.prior or "none")[:12], "evaluator": sha256(weights / WEIGHTS)[:12],
        "clips": str(len(trials)), "seconds": f"{sum(t.clip.frames for t in trials) / FRAME_RATE_HZ:.1f}",
        "voices": " ".join(sorted({t.clip.voice for t in trials})), "seed": str(seed),
    }  # fmt: skip
    return Report(about, figures, rows, styles)


def lips_and_pictures(bench: Bench, trials: list[Trial]) -> tuple[list[dict[str, Any]], dict[str, Figure]]:
    """Clip by clip under the renderer's poses, and the means."""
    rows, hidden = [], []
    for number, trial in enumerate(bench.counted("lips and pictures", trials)):
        clip = trial.clip
        made = play(bench.engine, bench.vad, trial.sound, avatar=clip.avatar, style=bench.style(clip.style),
                    seed=bench.seed + number, script=trial.poses)
        row = {"clip": clip.id, "style": clip.style, "frames": clip.frames}
        rows.append(row | _lips(bench, trial, made, number))
        hidden.append(_pictures(bench, trial, made))
    rng = bench.rng(1)
    figures = {key: Figure.of(title, bootstrap([row[key] for row in rows], rng), unit, wanted, control)
               for key, title, unit, wanted, control in _LIP_LINES}
    figures |= {key: Figure.of(title, bootstrap([row[key] for row in hidden], rng), unit, wanted, control)
                for key, title, unit, wanted, control in _PICTURE_LINES}
    return [row | {"psnr_face": h["psnr_face"]} for row, h in zip(rows, hidden, strict=True)], figures


_Lines = tuple[tuple[str, str, str, str, bool], ...]
_LIP_LINES: Final[_Lines] = (
    ("lip_open_r", "LipOpen r", "", ">= 0.7", False),
    ("lip_open_r_gauge", "LipOpen r of the renderer's own frames: the gauge's limit", "", "", True),
    ("lip_open_r_shuffled", "LipOpen r against the truth turned by > 2 s", "", "<= 0.2", True),
    ("lip_open_r_static", "LipOpen r of one picture standing still (no movement counts as 0)", "", "", True),
    ("lip_open_gain", "LipOpen amplitude, ratio of deviations", "", "", False),
    ("lip_width_r", "lip width r", "", "", False),
    ("lag_ms", "lag of the lips behind the truth", "ms", "within 40 either way", False),
    ("silence_ratio", "lip motion in silence over speech", "", "", False),
    ("silence_ratio_true", "the same in the renderer's truth", "", "", True),
    ("silence_ratio_gauge", "the same as the gauge reads the renderer's own frames", "", "", True),
    ("silence_speed", "lip motion in silence, a frame, in 1/1000 of the distance between the eyes", "", "", False),
    ("silence_speed_gauge", "the same as the gauge reads the renderer's own frames: 1.1 of it at most", "", "", True),
)
_PICTURE_LINES: Final[_Lines] = (
    ("psnr", "PSNR of generated frames, whole", "dB", "", False),
    ("psnr_reference", "PSNR of the reference alone (true expression, closed form), whole", "dB", "", True),
    ("psnr_static", "PSNR of the clip's first true frame, whole", "dB", "", True),
    ("psnr_face", "PSNR of generated frames, face", "dB", "", False),
    ("psnr_face_reference", "PSNR of the reference alone, face", "dB", "", True),
    ("psnr_face_static", "PSNR of the clip's first true frame, face", "dB", "", True),
    ("flicker", "flicker where the truth stands still", "levels", "", False),
    ("flicker_ratio", "flicker over that of the renderer", "", "", False),
)


def _lips(bench: Bench, trial: Trial, made: Bytes, number: int) -> dict[str, float]:
    gauge, true = bench.evaluator.gauge, trial.readings
    read, limit = gauge.read(made), gauge.read(trial.rgb)
    width = READING["lip_width"]
    return {
        "lip_open_r": pearson(read[:, LIP], true[:, LIP]),
        "lip_open_r_gauge": pearson(limit[:, LIP], true[:, LIP]),
        "lip_open_r_shuffled": metrics.shuffled(read[:, LIP], true[:, LIP], bench.rng(100 + number)),
        "lip_open_r_static": 0.0,
        "lip_open_gain": float(read[:, LIP].std() / max(float(true[:, LIP].std()), 1e-6)),
        "lip_width_r": pearson(read[:, width], true[:, width]),
        "lag_ms": metrics.lag_ms(read[:, LIP], true[:, LIP]),
        "silence_ratio": metrics.silence_ratio(read[:, LIP], trial.speaking),
        "silence_ratio_true": metrics.silence_ratio(true[:, LIP], trial.speaking),
        "silence_ratio_gauge": metrics.silence_ratio(limit[:, LIP], trial.speaking),
        "silence_speed": 1000 * metrics.silent_speed(read[:, LIP], trial.speaking),
        "silence_speed_gauge": 1000 * metrics.silent_speed(limit[:, LIP], trial.speaking),
    }


def _pictures(bench: Bench, trial: Trial, made: Bytes) -> dict[str, float]:
    rgb, boxes = trial.rgb, trial.boxes
    reference = reference_pictures(bench.engine, trial)
    first = np.broadcast_to(rgb[0], rgb.shape)
    mask = metrics.still(rgb)
    nan = float("nan")
    figures = {"flicker": metrics.flicker(made, mask)}
    figures["flicker_ratio"] = figures["flicker"] / max(metrics.flicker(rgb, mask), 1e-3)
    for key, box in (("psnr", None), ("psnr_face", boxes)):
        figures[key] = metrics.psnr(made, rgb, box)
        figures[f"{key}_static"] = metrics.psnr(first[1:], rgb[1:], None if box is None else box[1:])
        figures[f"{key}_reference"] = nan if reference is None else metrics.psnr(reference, rgb, box)
    return figures


def style_figures(bench: Bench, trials: list[Trial], clips: int) -> tuple[dict[str, float], dict[str, Figure]]:
    """Every preset on held-out sound under the engine's own motion: is the style seen? Blinks are counted too."""
    judge, classes = bench.evaluator.judge, bench.evaluator.judge.config.styles
    names = [n for n in bench.shelf.names() if n in classes]
    plan = [(name, i, trials[i % len(trials)]) for name in names for i in range(clips)]
    right, ceiling, guesses, eyes = [], [], [], []
    for name, i, trial in bench.counted("styles", plan):
        sound, start = excerpt(trial, i // len(trials))
        made = play(bench.engine, bench.vad, sound, avatar=bench.engine.avatars[i % len(bench.engine.avatars)],
                    style=bench.style(name), seed=bench.seed + 1000 + i)
        read = bench.evaluator.gauge.read(made)
        guesses.append(judge.name(read[:, SPEECH_READINGS]))
        right.append(float(guesses[-1] == name))
        true = articulate(utterance(trial.clip), NAMED[name], trial.clip.frames, bench.rng(300 + i))
        ceiling.append(float(judge.name(true[start : start + len(read)]) == name))
        eyes.append((read[:, EYE], trial.readings[:, EYE]))
    rng = bench.rng(2)
    mixed = np.mean([np.array(guesses)[rng.permutation(len(plan))] == [n for n, _, _ in plan] for _ in range(200)], 0)
    chance = 1 / max(len(classes), 1)
    truth = bootstrap(ceiling, rng)
    figures = {
        "style_acc": Figure.of("StyleAcc over the presets", bootstrap(right, rng), "", f">= {5 * chance:.2f}"),
        "style_acc_truth": Figure.of("StyleAcc of true coefficients, same words", truth, control=True),
        "style_acc_shuffled": Figure.of("StyleAcc with labels shuffled", bootstrap(list(mixed), rng), control=True),
        "style_chance": Figure("StyleAcc of a guess", chance, len(classes), control=True),
    } | _blinks(eyes)
    return {n: float(np.mean([r for r, p in zip(right, plan, strict=True) if p[0] == n])) for n in names}, figures


def excerpt(trial: Trial, turn: int) -> tuple[Float32, int]:
    """Up to `STYLE_S` of the sound, another part each turn, and the frame that it starts at."""
    frames = trial.clip.frames
    length = min(round(STYLE_S * FRAME_RATE_HZ), frames)
    start = (turn * length) % max(frames - length + 1, 1)
    return trial.sound[start * FRAME_TICKS : (start + length) * FRAME_TICKS], start


def _blinks(eyes: list[tuple[Float32, Float32]]) -> dict[str, Figure]:
    minutes = [sum(len(track[i]) for track in eyes) / FRAME_RATE_HZ / 60 for i in (0, 1)]
    counts = [sum(metrics.blinks(track[i]) for track in eyes) for i in (0, 1)]
    rates = [c / m if m else float("nan") for c, m in zip(counts, minutes, strict=True)]
    return {"blinks": Figure("blinks seen, engine's own motion", rates[0], counts[0], "a minute"),
            "blinks_true": Figure("blinks in the renderer's clips", rates[1], counts[1], "a minute", control=True)}


def diversity_figures(bench: Bench, trial: Trial) -> dict[str, Figure]:
    """The same sound and poses with other seeds: how far do the faces differ, in deviations of the true readings?"""
    figures = {}
    for temperature, control in ((1.0, False), (0.0, True)):
        films = renderings(bench, trial, temperature)
        title = f"diversity over {DIVERSITY_SEEDS} seeds at temperature {temperature:g}"
        value = spread(bench, trial, films)
        figures[f"diversity_{temperature:g}"] = Figure(title, value, len(films), "deviations", control=control)
    return figures


def renderings(bench: Bench, trial: Trial, temperature: float) -> list[Bytes]:
    """A few seconds of a clip under its own poses, once for each of `DIVERSITY_SEEDS` seeds."""
    sound, start = excerpt(trial, 0)
    style = bench.style(trial.clip.style, temperature)
    return [play(bench.engine, bench.vad, sound, avatar=trial.clip.avatar, seed=bench.seed + 500 + seed, style=style,
                 script=trial.poses[start:])
            for seed in bench.counted(f"diversity at {temperature:g}", list(range(DIVERSITY_SEEDS)))]


def spread(bench: Bench, trial: Trial, films: list[Bytes]) -> float:
    """How far films of one sound lie apart, in deviations of the coefficients that move in the truth."""
    columns = [i for i in range(*SPEECH_READINGS.indices(len(READINGS))) if trial.readings[:, i].std() > 0.02]
    tracks = np.stack([bench.evaluator.gauge.read(film)[:, columns] for film in films])
    return metrics.diversity(tracks, trial.readings[:, columns].std(0))


def law_figures(bench: Bench, trial: Trial) -> dict[str, Figure]:
    """The same sound in other pieces gives the same pictures."""
    sound = trial.sound[: max(round(LAW_S * FRAME_RATE_HZ), LEAST_FRAMES) * FRAME_TICKS]
    runs = [play(bench.engine, bench.vad, sound, avatar=trial.clip.avatar, style=bench.style(trial.clip.style),
                 seed=bench.seed, chunk=chunk).astype(np.int16)
            for chunk in bench.counted("stream == offline", [len(sound), *CHUNKS])]
    worst = float(max(np.abs(run - runs[0]).max() for run in runs[1:]))
    title = f"stream against offline: largest difference in levels, pushes of {' and '.join(map(str, CHUNKS))} samples"
    return {"stream_offline": Figure(title, worst, len(runs[0]), "levels", wanted="0 to 1")}
