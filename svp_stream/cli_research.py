"""The commands of research: `svp prepare` for real video, `svp person` for an avatar of it, `svp paper` for the tables
of a paper.

In: arguments. Out: files, tables. `cli` hangs them beside its own; heavy libraries are imported when a command runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from svp_stream.evaluation.face_reader import FaceReader
    from svp_stream.evaluation.landmark_gauge import Finder

JUDGES = ("evaluator", "landmarks", "syncnet")
"""What `svp train` makes beside the stages of the model."""
LandmarkerOption = Annotated[Path | None, typer.Option(help="MediaPipe's face_landmarker.task; needs the extra video.")]
ReaderOption = Annotated[str | None, typer.Option(help="module:function that returns a FaceReader, for a 3DMM.")]


def register(app: typer.Typer, bench: typer.Typer) -> None:
    """Hang the commands on `app` and its `bench`."""
    app.command()(prepare)
    app.command()(person)
    app.command()(paper)
    app.command()(recipe)
    bench.command("encoder")(bench_encoder)


def prepare(
    videos: Annotated[list[Path], typer.Argument(help="Videos, or folders of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the clips; what is there is kept.")],
    landmarker: LandmarkerOption = None,
    reader: ReaderOption = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/prepare.yaml.")] = None,
    matte: Annotated[str | None, typer.Option(help="module:function, crop to matte; opaque without.")] = None,
    syncnet: Annotated[Path | None, typer.Option(help="syncnet.safetensors: judges the offset of sound too.")] = None,
    features: Annotated[str | None, typer.Option(help="Encoder file, folder or hub id, to cache wav2vec.")] = None,
) -> None:
    """Make clips of real talking-head video: cuts, face, crop, numbers, judgement, report. Goes on where it stopped."""
    from svp_stream.preparing.config import PrepareConfig
    from svp_stream.preparing.prepare import Workshop
    from svp_stream.preparing.prepare import prepare as work

    settings = PrepareConfig.load(config)
    face = face_reader(landmarker, reader)
    with _bar() as advance:
        verdicts = work(videos, Workshop(out, settings, face, _function(matte), _offsets(syncnet), advance))
    if features is not None:
        from svp_stream.preparing.features import cache_features

        cache_features(out, features)
    kept = sum(v.kept for v in verdicts)
    typer.echo(f"{out}: {kept} of {len(verdicts)} clips kept; see {out / 'report.md'}")


def person(
    videos: Annotated[list[Path], typer.Argument(help="Videos of one person, or folders; two minutes or more.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of all that is made; a later run goes on there.")],
    landmarker: LandmarkerOption = None,
    reader: ReaderOption = None,
    minutes: Annotated[float, typer.Option(min=0, help="Of training; a later run with more of them goes on.")] = 45.0,
    name: Annotated[str | None, typer.Option(help="What the person is called; the name of the folder without.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/person.yaml.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights folder to go on from; else what ships.")] = None,
    matte: Annotated[str | None, typer.Option(help="module:function, crop to matte; opaque without.")] = None,
    syncnet: Annotated[Path | None, typer.Option(help="syncnet.safetensors: the table tells of sync too.")] = None,
) -> None:
    """Make an avatar of home video: clips, training from the shipped weights, a folder to serve, a table."""
    import logging
    import sys

    from svp_stream.config import MINI_WEIGHTS
    from svp_stream.person.order import Order, PersonConfig
    from svp_stream.person.person import make_person

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    reading = partial(face_reader, landmarker, reader)
    with _bar() as advance:
        order = Order(
            name or out.resolve().name, videos, out, PersonConfig.load(config), minutes, reading,
            weights or MINI_WEIGHTS, _function(matte), syncnet, None if landmarker is None else reading, advance)
        make_person(order)
    typer.echo((out / "report.md").read_text(encoding="utf-8"))
    typer.echo(f"Serve {order.name}:   python -m server --config {order.profile}\n"
               f"Make a film:   svp render speech.wav -o film.mp4 --profile {order.profile}")


def paper(
    real: Annotated[Path, typer.Option(help="Ground truth: a folder of clips; held-out ones count.")],
    made: Annotated[Path | None, typer.Option(help="Films named as the clips; without, the engine makes them.")] = None,
    name: Annotated[str, typer.Option(help="What the table calls the method.")] = "mini",
    weights: Annotated[Path | None, typer.Option(help="Folder with the evaluator (and the engine's files).")] = None,
    syncnet: Annotated[Path | None, typer.Option(help="syncnet.safetensors of `svp train syncnet`.")] = None,
    landmarks: Annotated[Path | None, typer.Option(help="landmarks.safetensors; else that of the weights.")] = None,
    landmarker: LandmarkerOption = None,
    reader: ReaderOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many clips only.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    diversity: Annotated[bool, typer.Option("--diversity", help="Five seeds of up to four clips too.")] = False,
    form: Annotated[Literal["markdown", "latex", "json"], typer.Option("--as", help="Form of the table.")] = "markdown",
    profile: Annotated[Path | None, typer.Option(help="Profile of the engine, a YAML file.")] = None,
) -> None:
    """The table of a paper: every figure beside ground truth, shuffled and static controls, with intervals."""
    from svp_stream.config import MINI_WEIGHTS, load_config
    from svp_stream.evaluation.measure import WEIGHTS, load_evaluator
    from svp_stream.evaluation.paper import measure_paper
    from svp_stream.evaluation.paper_films import Judges, engine_diversity, engine_films, films_in, real_trials
    from svp_stream.weights_file import sha256

    settings = load_config(profile)
    folder = weights or settings.model.weights or MINI_WEIGHTS
    trials = real_trials(real, limit)
    finder, found_by = _finder(landmarker, reader, landmarks, folder)
    judges = Judges(load_evaluator(folder / WEIGHTS), _syncnet(syncnet), finder, seed)
    parts = _engine(settings, folder) if made is None else None
    make = engine_films(*parts, seed) if parts is not None else films_in(made or real)
    about = {"method": name, "real": real.name, "evaluator": sha256(folder / WEIGHTS)[:12]} | found_by
    if syncnet is not None:
        about["syncnet"] = sha256(syncnet)[:12]
    with counter() as progress:
        found = measure_paper(trials, make, judges, about, progress)
        if diversity and parts is not None:
            found = replace(found, extra=engine_diversity(*parts, judges, trials))
    told = found.latex() if form == "latex" else found.markdown()
    typer.echo(json.dumps(found.json(), indent=2) if form == "json" else told)


def train_judge(stage: str, config: Path | None, corpus: Path, out: Path, minutes: float | None) -> None:
    """`svp train` of a stage in `JUDGES`: apart from the stages of the model, which must not see what judges them."""
    from svp_stream.config import load_yaml
    from svp_stream.evaluation.gauge_training import EvaluatorTrainConfig, make_evaluator_stage
    from svp_stream.evaluation.landmark_training import LandmarkTrainConfig, make_landmark_stage
    from svp_stream.evaluation.syncnet_training import SyncTrainConfig, make_sync_stage
    from svp_stream.training.loop import TrainingStage, run_stage
    from svp_stream.training.stages import packed

    kinds = EvaluatorTrainConfig, LandmarkTrainConfig, SyncTrainConfig
    profiles: dict[str, Any] = dict(zip(JUDGES, kinds, strict=True))
    profile: Any = profiles[stage]() if config is None else load_yaml(config, profiles[stage])
    if stage != "syncnet":
        packed(corpus, out / "frames")
    built: TrainingStage
    if stage == "evaluator":
        built = make_evaluator_stage(profile, corpus, out / "frames")
    elif stage == "landmarks":
        built = make_landmark_stage(profile, out / "frames")
    else:
        built = make_sync_stage(profile, corpus)
    run_stage(built, profile.loop, out / stage, minutes=minutes)


def _syncnet(path: Path | None) -> Any:
    from svp_stream.evaluation.syncnet import load_syncnet

    return None if path is None else load_syncnet(path)


def _engine(settings: Any, folder: Path) -> tuple[Any, Any, Any]:
    """Engine, presets and voice detector."""
    from svp_stream.pipeline import build

    build.set_threads(settings, "mini")
    engine = build.build_mini(settings, folder)
    return engine, build.build_shelf(settings, engine), build.build_vad(settings)


def face_reader(landmarker: Path | None, spec: str | None) -> FaceReader:
    """The reader that the options name. Raises ConfigError for none, or both."""
    from svp_stream.errors import ConfigError
    from svp_stream.evaluation.face_reader import load_reader

    if (landmarker is None) == (spec is None):
        raise ConfigError("give either --landmarker face_landmarker.task (MediaPipe, extra `video`) or "
                          "--reader module:function (a 3DMM or network of your own)")
    if landmarker is not None:
        from svp_stream.evaluation.mediapipe_reader import MediaPipeReader

        return MediaPipeReader(landmarker)
    return load_reader(str(spec))


def _finder(landmarker: Path | None, reader: str | None, landmarks: Path | None, folder: Path
            ) -> tuple[Finder | None, dict[str, str]]:
    """What finds landmarks, and what the table says of it: the reader of the options, or the gauge that is named or
    lies in the weights folder."""
    from svp_stream.errors import ConfigError
    from svp_stream.evaluation.landmark_gauge import WEIGHTS, load_landmark_gauge, reader_finder
    from svp_stream.weights_file import sha256

    if landmarker is not None or reader is not None:
        if landmarks is not None:
            raise ConfigError("give --landmarks, --landmarker or --reader: one finds the landmarks")
        return reader_finder(face_reader(landmarker, reader)), {"landmarks": reader or "MediaPipe"}
    path = landmarks or folder / WEIGHTS
    if landmarks is None and not path.is_file():
        return None, {}
    return load_landmark_gauge(path).find, {"landmarks": sha256(path)[:12]}


def _offsets(syncnet: Path | None) -> Callable[[Any], tuple[float, float] | None] | None:
    if syncnet is None:
        return None
    from svp_stream.evaluation.syncnet import clip_offset, load_syncnet

    return partial(clip_offset, load_syncnet(syncnet))


def _function(spec: str | None) -> Callable[[Any], Any] | None:
    import importlib

    from svp_stream.errors import ConfigError

    if spec is None:
        return None
    module, _, name = spec.partition(":")
    try:
        found: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise ConfigError(f"matte '{spec}': expected module:function that can be imported ({e})") from e
    return found


@contextmanager
def _bar() -> Iterator[Callable[[str, int], None]]:
    """A progress bar on standard error for frames of unknown number."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} frames"),
               TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("preparing", total=None)
        what = ""

        def advance(now: str, frames: int) -> None:
            nonlocal what
            if now != what:
                progress.reset(task, description=now, total=None)
                what = now
            progress.advance(task, frames)

        yield advance


@contextmanager
def counter() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error for work in parts: (what, done, in all)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def recipe(
    avatars: Annotated[Path, typer.Option(envvar="SVP_AVATARS", help="Folder of heads.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of everything; what is done in it is kept.")],
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/recipe.yaml.")] = None,
    hours: Annotated[float | None, typer.Option(min=0.001, help="Training time of all stages together.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the commands, run none.")] = False,
) -> None:
    """Corpus, all stages, weights and card by one command. Goes on where it stopped; more hours train on."""
    import logging
    import sys

    from svp_stream.training.recipe import cook, load_recipe, steps

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    told = load_recipe(config)
    found = steps(told, avatars, out, hours or told.hours)
    if plan:
        typer.echo("\n".join(f"svp {' '.join(step.words)}" for step in found))
        return
    cook(found, out)
    typer.echo(f"{out / 'report.md'}\npython -m server --config {out / 'profile.yaml'}")


def bench_encoder(
    model: Annotated[str, typer.Option(help="A wav2vec2 checkpoint: a folder, or a hub id.")],
    speech: Annotated[Path | None, typer.Option(help="A recording; made-up syllables without one.")] = None,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="How much of it.")] = 20.0,
    freeze: Annotated[Path | None, typer.Option(help="Write the frozen normalisation here, a .safetensors.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """What streaming a wav2vec2 costs: error against the offline pass by window and look-ahead, arithmetic, time."""
    from svp_stream.pipeline import encoder_bench
    from svp_stream.training.audio_distil import AudioDistilConfig

    report = encoder_bench.report(model, speech, seconds, freeze, AudioDistilConfig().encoder)
    typer.echo(json.dumps(report.as_dict(), indent=2) if as_json else report.table())
