"""`svp`: corpus, training, rendering, evaluation, benchmarks and styles on the command line.

In: arguments. Out: files, tables or JSON on standard output, progress on standard error. Every error that the project
raises on purpose is one clear line on standard error and exit code 2. Heavy libraries are imported by the command that
needs them, so that `svp --help` answers at once.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from svp_stream import cli_ablate, cli_research, cli_style
from svp_stream.errors import SvpError

EXIT_WRONG = 2
STAGES = ("autoencoder", "audio", "style-prior", "expression", "motion", "image", "video", "consistency", "finish")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="SVP Stream.")
bench = typer.Typer(no_args_is_help=True, help="Measure speed and delay on this machine.")
app.add_typer(bench, name="bench")
app.add_typer(cli_style.styles, name="style")
cli_research.register(app, bench)
cli_ablate.register(app)

ProfileOption = Annotated[Path | None, typer.Option("--profile", help="Profile, a YAML file; see configs/.")]
EngineOption = Annotated[str | None, typer.Option(help="mini (the trained avatar), noop (a drawn face) or sd15.")]
StyleOption = Annotated[str | None, typer.Option(help="Style preset: a name, or the path of an .npz file.")]
ModelOption = Annotated[Path | None, typer.Option("--model", help="Of the engine sd15: what its training wrote.")]
AvatarOption = Annotated[str | None, typer.Option(help="Who is shown.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Entry point of the console script."""
    try:
        app(prog_name="svp")
    except SvpError as e:
        typer.echo(f"svp: {e}", err=True)
        sys.exit(EXIT_WRONG)
    except BrokenPipeError:  # `svp ... | head`: whoever read has seen enough
        sys.stderr.close()
        sys.exit(1)


@app.command()
def corpus(
    avatars: Annotated[Path, typer.Option(envvar="SVP_AVATARS", help="Folder of heads.")],
    out: Annotated[Path, typer.Option(help="Folder of the corpus; what is there is kept.")],
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/corpus.yaml.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    only: Annotated[Literal["speech", "rendered"] | None, typer.Option(help="Without pictures, or with.")] = None,
) -> None:
    """Render talking heads with their truth: MP4, matte and sidecar. Goes on where it was cut off."""
    from svp_stream.synthetic.corpus import CorpusConfig, make_corpus

    _log()
    make_corpus(CorpusConfig() if config is None else CorpusConfig.load(config), avatars, out, workers, only)


@app.command()
def train(
    stage: Annotated[str, typer.Argument(help=f"{', '.join((*STAGES, *cli_research.JUDGES))}, or sd15-image and on.")],
    corpus: Annotated[Path, typer.Option(help="Folder that `svp corpus` made.")],
    out: Annotated[Path, typer.Option(help="Folder of all runs; each stage has its own inside, with log and sheets.")],
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/train/.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this long; a later run goes on.")] = None,
    distil_from: Annotated[str | None, typer.Option(help="Of the stage audio: a wav2vec2 to copy, by folder.")] = None,
) -> None:
    """Train one stage of the model, or what judges it (evaluator, landmarks, syncnet). Goes on where it stopped."""
    _log()
    if distil_from is not None:
        from svp_stream.training.audio_distil import run_distil

        if stage != "audio":
            raise typer.BadParameter(f"--distil-from belongs to the stage audio, not to {stage}")
        run_distil(config, distil_from, corpus, out, minutes)
        return
    if stage in cli_research.JUDGES:
        cli_research.train_judge(stage, config, corpus, out, minutes)
        return
    from svp_stream.training.stages import run

    run(stage, config, corpus, out, minutes)


@app.command()
def release(
    runs: Annotated[Path, typer.Option(help="Folder of all runs, as given to `svp train --out`.")],
    to: Annotated[Path | None, typer.Option(help="Weights folder to write; without it, the one that ships.")] = None,
    denoiser: Annotated[str | None, typer.Option(help="Stage whose denoiser ships; without it, the last one.")] = None,
) -> None:
    """Gather what the stages exported into a weights folder, with hashes, licences and card."""
    from svp_stream.config import MINI_WEIGHTS
    from svp_stream.training.release import release as gather

    typer.echo(str(gather(runs, to or MINI_WEIGHTS, denoiser)))
    ranges(to)


@app.command("ranges")
def ranges(
    weights: Annotated[Path | None, typer.Option(help="Folder with the engine's files; else what ships.")] = None,
) -> None:
    """Measure what int8 needs to know of a weights folder, and write it to `ranges.json` there."""
    from svp_stream.config import MINI_WEIGHTS
    from svp_stream.pipeline.calibrate import calibrate
    from svp_stream.training.release import list_files

    folder = weights or MINI_WEIGHTS
    typer.echo(str(calibrate(folder)))
    list_files(folder)


@app.command()
def render(
    speech: Annotated[Path, typer.Argument(help="Any file with sound that FFmpeg reads.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The film, an .mp4 file.")],
    style: StyleOption = None,
    avatar: AvatarOption = None,
    strength: Annotated[float | None, typer.Option(help="Weight of the style, 0 to 2.")] = None,
    temperature: Annotated[float | None, typer.Option(help="How freely it is sampled, 0 to 1.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    engine: EngineOption = None,
    model: ModelOption = None,
    profile: ProfileOption = None,
) -> None:
    """Make a film of the avatar saying a recording, through the very same session as live speech."""
    from svp_stream.pipeline import build, offline

    config, made, shelf = cli_style.street(profile, engine, model)
    request = cli_style.asked_style(config, shelf, style, strength, temperature)
    who = build.first_avatar(config, made) if avatar is None else avatar
    with _bar(speech.name) as progress:
        film = offline.render(
            speech, out, made, request, who,
            vad=build.build_vad(config), rule=build.build_rule(config), seed=seed, progress=progress,
        )  # fmt: skip
    typer.echo(f"{film.path}: {film.frames} frames, {film.seconds:.2f} s, style {request.name}, avatar {who}")


@app.command()
def evaluate(
    corpus: Annotated[Path, typer.Option(help="Folder that `svp corpus` made, with held-out clips.")],
    weights: Annotated[Path | None, typer.Option(help="Folder with the engine's files and the evaluator.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many clips only, for a quick look.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    write: Annotated[bool, typer.Option("--write-card", help="Put the figures into the card of the weights.")] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Held-out speech through the very same session as live speech, measured against the renderer, as Markdown."""
    from svp_stream.config import MINI_WEIGHTS, load_config
    from svp_stream.evaluation.evaluate import evaluate as measure
    from svp_stream.evaluation.report import write_card
    from svp_stream.pipeline import build

    config = load_config(profile)
    folder = weights or config.model.weights or MINI_WEIGHTS
    build.set_threads(config, "mini")
    engine = build.build_mini(config, folder)
    with cli_research.counter() as progress:
        report = measure(
            engine, corpus, shelf=build.build_shelf(config, engine), weights=folder, vad=build.build_vad(config),
            seed=seed, limit=limit, progress=progress,
        )  # fmt: skip
    if write:
        write_card(report, folder)
    typer.echo(json.dumps(report.json(), indent=2) if as_json else report.markdown())


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 10.0,
    sessions: Annotated[int, typer.Option(min=1, help="Callers with a microphone.")] = 1,
    viewers: Annotated[int, typer.Option(min=0, help="WHEP viewers, spread over the sessions.")] = 0,
    engine: Annotated[str, typer.Option(help="mini (the trained avatar) or noop (a drawn face).")] = "noop",
    as_json: JsonOption = False,
) -> None:
    """Real peers against a real server: does delay, memory or anything else creep? Exit code 1 when it does."""
    arguments = [f"--{name}={value}" for name, value in
                 (("minutes", minutes), ("sessions", sessions), ("viewers", viewers), ("engine", engine))]  # fmt: skip
    # a process of its own: this package knows nothing of the server
    done = subprocess.run([sys.executable, "-m", "server.soak", *arguments, *["--json"] * as_json], check=False)
    sys.exit(done.returncode)


@bench.command("street")
def bench_street(
    speech: Annotated[Path | None, typer.Option(help="A recording; made-up syllables without one.")] = None,
    seconds: Annotated[float, typer.Option(min=1, max=40, help="How much of it.")] = 20.0,
    effort: Annotated[int, typer.Option(min=0, max=4, help="Rung of the ladder.")] = 0,
    style: StyleOption = None,
    avatar: AvatarOption = None,
    engine: EngineOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Milliseconds for each stage and frames a second: one session at full speed."""
    from svp_stream.pipeline import bench, build

    config, made, shelf = cli_style.street(profile, engine)
    figures = bench.run_street(
        made,
        build.build_vad(config),
        cli_style.asked_style(config, shelf, style, None, None),
        build.first_avatar(config, made) if avatar is None else avatar,
        bench.syllables(seconds) if speech is None else bench.read_speech(speech, seconds),
        rule=build.build_rule(config),
        effort=effort,
        backend="none" if made.name == "noop" else f"{build.build_backend(config)} {getattr(made, 'precision', '')}",
    )
    typer.echo(json.dumps(figures.as_dict(), indent=2) if as_json else figures.table())


@bench.command("latency")
def bench_latency(
    vowels: Annotated[int, typer.Option(min=2, max=500, help="How many sounds; 1.6 s each, twice.")] = 20,
    engine: EngineOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Microphone to lips through a real Chromium on this machine, beside the floor of the transport."""
    from svp_stream.config import load_config
    from svp_stream.evaluation.latency import measure_latency

    f = measure_latency(engine or load_config(profile).model.engine, profile, vowels)
    if as_json:
        typer.echo(json.dumps(f.as_dict(), indent=2))
        return
    typer.echo(f"{f.machine.processor}, {f.machine.cores} cores, load {f.machine.load}\n")
    columns = ("min", "p50", "p95", "declared", "fps", "sounds", "missed")
    typer.echo(f"{'ms from sound to lips':<24}" + "".join(f"{column:>10}" for column in columns))
    for name, d in ((f.engine, f.lips), ("floor of the transport", f.floor)):
        row = (d.min_ms, d.p50_ms, d.p95_ms, d.street_ms, d.fps, d.count, d.missed)
        typer.echo(f"{name:<24}" + "".join(f"{figure:>10}" for figure in row))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def doctor(context: typer.Context) -> None:
    """Say what will and will not connect, and why: ports, STUN, TURN, TLS, codecs, model, processor."""
    import subprocess

    # the server is a shell around this package, which therefore starts it like any other program
    ended = subprocess.run([sys.executable, "-m", "server.doctor", *context.args], check=False)
    raise typer.Exit(ended.returncode)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[float, float | None], None]]:
    """A progress bar on standard error, by seconds of sound."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.1f} s"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)


if __name__ == "__main__":
    main()
