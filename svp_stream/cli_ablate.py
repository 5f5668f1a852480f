"""`svp ablate`: what steps, cache and look-ahead are worth, and whether a long session drifts; `svp films` for people.

In: arguments. Out: Markdown on standard output and in the folder of the runs; with `--write-card` in the card of the
weights. `cli` hangs them beside its own; heavy libraries are imported when a command runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from svp_stream.cli_research import counter

if TYPE_CHECKING:
    from svp_stream.evaluation.ablation import Table, Variant

CorpusOption = Annotated[Path, typer.Option(help="Folder that `svp corpus` made, with held-out clips.")]
OutOption = Annotated[Path, typer.Option(help="Folder of journal and tables; a run that was cut off goes on.")]
WeightsOption = Annotated[Path | None, typer.Option(help="Folder with the engine's files and the evaluator.")]
ClipsOption = Annotated[int, typer.Option(min=1, help="So many held-out clips, the shortest of each person first.")]
SeedOption = Annotated[int, typer.Option(min=0)]
CardOption = Annotated[bool, typer.Option("--write-card", help="Put the table into the card of the weights.")]
ProfileOption = Annotated[Path | None, typer.Option("--profile", help="Profile, a YAML file; see configs/.")]


def register(app: typer.Typer) -> None:
    """Hang the commands on `app`."""
    ablate = typer.Typer(no_args_is_help=True, help="What each part of the avatar is worth, on held-out clips.")
    app.add_typer(ablate, name="ablate")
    ablate.command("steps")(steps)
    ablate.command("cache")(cache)
    ablate.command("look-ahead")(look_ahead)
    ablate.command("drift")(drift)
    app.command()(films)


def steps(
    corpus: CorpusOption, out: OutOption = Path("runs"), weights: WeightsOption = None, clips: ClipsOption = 4,
    styles: Annotated[int, typer.Option(min=0, help="Takes of each preset for StyleAcc; 0 leaves it out.")] = 1,
    seed: SeedOption = 0, write: CardOption = False, profile: ProfileOption = None,
) -> None:
    """25 steps cold against 2 cold against 1 warm."""
    from svp_stream.evaluation import sweeps

    def table(desk: _Desk) -> Table:
        return desk.run("Few steps", sweeps.steps(desk.base), style_clips=styles)

    _table(table, "steps", corpus, out, weights, clips, seed, write, profile)


def cache(
    corpus: CorpusOption, out: OutOption = Path("runs"), weights: WeightsOption = None, clips: ClipsOption = 4,
    seed: SeedOption = 0, write: CardOption = False, profile: ProfileOption = None,
) -> None:
    """Each mechanism of the latent cache on and off."""
    from svp_stream.evaluation import sweeps

    def table(desk: _Desk) -> Table:
        return desk.run("Latent cache", sweeps.cache(desk.base))

    _table(table, "cache", corpus, out, weights, clips, seed, write, profile)


def look_ahead(
    corpus: CorpusOption, out: OutOption = Path("runs"), weights: WeightsOption = None, clips: ClipsOption = 4,
    seed: SeedOption = 0, write: CardOption = False, profile: ProfileOption = None,
) -> None:
    """How much sound beyond its own a frame needs: 0, 40, 80 and 120 ms."""
    from svp_stream.evaluation import sweeps

    def table(desk: _Desk) -> Table:
        return desk.run("Look-ahead", sweeps.look_ahead(desk.base, desk.most_look_ahead))

    _table(table, "look-ahead", corpus, out, weights, clips, seed, write, profile)


def drift(
    corpus: CorpusOption, out: OutOption = Path("runs"), weights: WeightsOption = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the session.")] = 5.0,
    seed: SeedOption = 0, write: CardOption = False, profile: ProfileOption = None,
) -> None:
    """One session of five minutes over the same half minute of speech: is its last picture as good as its first?"""
    from svp_stream.clock import FRAME_RATE_HZ
    from svp_stream.evaluation import drift as room

    with counter() as progress:
        desk = _desk(corpus, out, weights, None, seed, profile, progress)
        loop = room.one_turn(desk.trials)
        turns = max(2, round(minutes * 60 * FRAME_RATE_HZ / loop.frames))
        rows = room.drift(desk.engines(desk.base), desk.bench, loop, turns, desk.journal, desk.base)
    _tell("Drift", room.markdown(rows, loop, f"weights {desk.journal.about}"), "drift", desk, write)


def films(
    corpus: CorpusOption,
    out: Annotated[Path, typer.Option(help="Folder of the films.")] = Path("docs"),
    styles: Annotated[str, typer.Option(help="Up to three presets, with commas between.")] = "warm,newsreader,sad",
    seconds: Annotated[float, typer.Option(min=1, max=60)] = 20.0,
    weights: WeightsOption = None, seed: SeedOption = 0, profile: ProfileOption = None,
) -> None:
    """Up to three heads in up to three styles, saying what no training heard: an MP4 each, under the engine's own
    motion."""
    from svp_stream.evaluation.films import make_films

    with counter() as progress:
        desk = _desk(corpus, out, weights, None, seed, profile, progress)
        names = [name.strip() for name in styles.split(",") if name.strip()][:3]
        made = make_films(out, desk.engines(desk.base), desk.bench, desk.trials, names, seconds)
    for path in made:
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


@dataclass
class _Desk:
    """What every ablation works with."""

    engines: Any
    base: Variant
    most_look_ahead: int
    bench: Any
    trials: list[Any]
    journal: Any
    folder: Path
    out: Path

    def run(self, title: str, variants: list[Variant], *, style_clips: int = 0) -> Table:
        """The table of these variants."""
        from svp_stream.evaluation.ablation import ablate

        return ablate(title, variants, self.engines, self.bench, self.trials, self.journal, style_clips=style_clips)


def _table(
    make: Any, name: str, corpus: Path, out: Path, weights: Path | None, clips: int, seed: int, write: bool,
    profile: Path | None,
) -> None:
    with counter() as progress:
        desk = _desk(corpus, out, weights, clips, seed, profile, progress)
        table = make(desk)
    _tell(table.title, table.markdown(), name, desk, write)


def _tell(title: str, told: str, name: str, desk: _Desk, write: bool) -> None:
    """To the folder, to the card if wanted, and to standard output."""
    from svp_stream.evaluation.report import write_ablation

    (desk.out / f"ablate-{name}.md").write_text(told, encoding="utf-8")
    if write:
        write_ablation(title, told, desk.folder)
    typer.echo(told)


def _desk(
    corpus: Path, out: Path, weights: Path | None, clips: int | None, seed: int, profile: Path | None,
    progress: Any,
) -> _Desk:
    from dataclasses import replace
    from functools import cache as remembered

    from svp_stream.config import MINI_WEIGHTS, load_config
    from svp_stream.evaluation.ablation import Journal, Variant, shortest_of_each, weights_key
    from svp_stream.evaluation.evaluate import Bench
    from svp_stream.evaluation.measure import WEIGHTS, load_evaluator
    from svp_stream.evaluation.trials import open_trials
    from svp_stream.pipeline import build

    config = load_config(profile)
    folder = weights or config.model.weights or MINI_WEIGHTS
    build.set_threads(config, "mini")

    @remembered
    def engine(precision: str) -> Any:
        model = config.model.model_copy(update={"precision": precision})
        return build.build_mini(config.model_copy(update={"model": model}), folder)

    def engines(variant: Variant) -> Any:
        return replace(engine(variant.precision), rule=variant.rule, look_ahead=variant.look_ahead)

    served = engine(config.model.precision)
    shelf = build.build_shelf(config, served)
    trials = [t for t in open_trials(corpus, served.avatars) if t.clip.style in shelf.names()]
    bench = Bench(served, build.build_vad(config), load_evaluator(folder / WEIGHTS), shelf, seed, progress)
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / "ablate.jsonl", weights_key(folder))
    base = Variant("as served", served.rule, served.look_ahead, served.precision)
    chosen = trials if clips is None else shortest_of_each(trials, clips)
    return _Desk(engines, base, served.conditioner.config.max_look_ahead, bench, chosen, journal, folder, out)
