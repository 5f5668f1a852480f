"""The commands `svp style ...`: presets told, drawn, made from a film, blended, sampled; the style space measured.

In: arguments. Out: presets (`.npz`), pictures, tables. `cli` hangs them beside its own; heavy libraries are imported
when a command runs. What makes presets needs the style prior of the weights alone, and no engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from svp_stream.cli_research import LandmarkerOption, ReaderOption

if TYPE_CHECKING:
    from svp_stream.config import Config
    from svp_stream.packets import Bytes
    from svp_stream.pipeline.build import Shelf
    from svp_stream.pipeline.engine import Engine, StyleRequest
    from svp_stream.style.preset import StylePreset, StyleShelf

styles = typer.Typer(no_args_is_help=True, help="Style presets: look at them, make them, measure their space.")

ProfileOption = Annotated[Path | None, typer.Option("--profile", help="Profile, a YAML file; see configs/.")]
EngineOption = Annotated[str | None, typer.Option(help="mini (the trained avatar), noop (a drawn face) or sd15.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
PresetOut = Annotated[Path, typer.Option("-o", "--out", help="The preset, an .npz file.")]
WeightsOption = Annotated[Path | None, typer.Option(help="Folder with style prior and audio encoder; else what ships.")]
SeedOption = Annotated[int, typer.Option(min=0)]


@styles.command("list")
def style_list(engine: EngineOption = None, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """The presets there are, with what they say of themselves."""
    _, _, shelf = street(profile, engine)
    presets = [shelf.get(name) for name in shelf.names()]
    if as_json:
        typer.echo(json.dumps([{"name": p.name, "description": p.description} for p in presets], indent=2))
        return
    width = max((len(p.name) for p in presets), default=0)
    typer.echo("\n".join(f"{p.name:<{width}}  {p.description}" for p in presets) or "no presets")


@styles.command("show")
def style_show(
    name: Annotated[str | None, typer.Argument(help="A name, or the path of an .npz file; none: the map.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Draw where the presets lie, a .png file.")] = None,
    also: Annotated[list[Path] | None, typer.Option("--with", help="A preset of your own, on the map too.")] = None,
    size: Annotated[int, typer.Option(min=200, max=4000, help="Side of the map in pixels.")] = 900,
    weights: WeightsOption = None,
    engine: EngineOption = None,
    profile: ProfileOption = None,
) -> None:
    """One preset as JSON, or a map of all of them as a picture: principal plane and sigma ellipses."""
    if out is not None and name is None:
        from svp_stream.style.map import draw_map

        shelf = presets(profile, weights)
        shown = [*(shelf.get(n) for n in shelf.names()), *(shelf.get(str(path)) for path in also or [])]
        _write_png(out, draw_map(shown, size))
        typer.echo(f"{out}: {len(shown)} presets")
        return
    if name is None or out is not None or also:
        raise typer.BadParameter("give the name of a preset, or -o FILE.png for the map of all of them")
    import numpy as np

    p = street(profile, engine)[2].get(name)
    told = {
        "name": p.name, "description": p.description, "prior": p.prior, "dimensions": len(p.mu),
        "temperature": p.temperature, "strength": p.strength, "thumbnail": p.thumbnail is not None,
        "mu_norm": round(float(np.linalg.norm(p.mu)), 4),
        "sigma_mean": round(float(np.exp(0.5 * p.log_var).mean()), 4), "extra": sorted(p.extra),
    }  # fmt: skip
    typer.echo(json.dumps(told, indent=2, ensure_ascii=False))


@styles.command("sheet")
def style_sheet(
    speech: Annotated[Path, typer.Argument(help="Any file with sound that FFmpeg reads.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A .png: styles by moments; a .webp: a moving picture.")],
    names: Annotated[str, typer.Option("--styles", help="Names or paths, with commas between.")] = "warm,cheerful",
    columns: Annotated[int, typer.Option(min=1, help="Moments in a contact sheet.")] = 8,
    engine: EngineOption = None,
    profile: ProfileOption = None,
) -> None:
    """The same speech in several styles, as one picture."""
    from svp_stream.pipeline import build, sheet

    config, made, shelf = street(profile, engine)
    chosen = [asked_style(config, shelf, name.strip(), None, None) for name in names.split(",")]
    sound = sheet.read_speech(speech)
    vad, rule = build.build_vad(config), build.build_rule(config)
    if out.suffix == ".webp":
        sheet.write_moving(out, made, chosen, sound, vad=vad, rule=rule)
    else:
        sheet.write_sheet(out, made, chosen, sound, columns=columns, vad=vad, rule=rule)


@styles.command("extract")
def style_extract(
    clip: Annotated[Path, typer.Argument(help="A film: a clip of a corpus, or any video with a reader.")],
    out: PresetOut,
    name: Annotated[str | None, typer.Option(help="Name of the preset; else that of the film.")] = None,
    landmarker: LandmarkerOption = None,
    reader: ReaderOption = None,
    weights: WeightsOption = None,
) -> None:
    """A preset of how somebody speaks in a film: expressions from the sidecar beside it, or read by MediaPipe."""
    from svp_stream.cli_research import face_reader
    from svp_stream.config import MINI_WEIGHTS
    from svp_stream.preparing.extract import extract

    face = None if landmarker is None and reader is None else face_reader(landmarker, reader)
    _save(out, extract(clip, weights or MINI_WEIGHTS, name=name or "", reader=face))


@styles.command("blend")
def style_blend(
    parts: Annotated[list[str], typer.Argument(help="NAME:WEIGHT or FILE.npz:WEIGHT, two or more.")],
    out: PresetOut,
    name: Annotated[str | None, typer.Option(help="Name of the preset; else that of the file.")] = None,
    weights: WeightsOption = None,
    profile: ProfileOption = None,
) -> None:
    """A preset between presets: means and sigmas weighted, the 2-Wasserstein barycentre."""
    from svp_stream.errors import PresetError
    from svp_stream.style.blend import mix
    from svp_stream.style.preset import StylePreset

    shelf = presets(profile, weights)
    named, shares = [], []
    for part in parts:
        head, colon, tail = part.rpartition(":")
        try:
            shares.append(float(tail))
        except ValueError:
            colon = ""
        if not colon:
            raise PresetError(f"{part}: expected NAME:WEIGHT or FILE.npz:WEIGHT, as in warm:0.6")
        named.append(shelf.get(head))
    mu, log_var = mix(named, shares)
    told = ", ".join(f"{s / sum(shares):.2f} {p.name}" for p, s in zip(named, shares, strict=True))
    _save(out, StylePreset(name or out.stem, mu, log_var, named[0].prior, f"Blend of {told}.",
                           max(p.temperature for p in named)))


@styles.command("sample")
def style_sample(
    out: PresetOut,
    start: Annotated[str | None, typer.Option("--from", help="Around this preset; else anywhere between them.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="How far from there, in sigmas.")] = 1.0,
    seed: SeedOption = 0,
    name: Annotated[str | None, typer.Option(help="Name of the preset; else that of the file.")] = None,
    weights: WeightsOption = None,
    profile: ProfileOption = None,
) -> None:
    """A style that was not there before: a draw from a preset, or from a random blend of two or three of them."""
    import numpy as np

    from svp_stream.style.blend import random_blend, sample
    from svp_stream.style.preset import StylePreset

    shelf, rng = presets(profile, weights), np.random.default_rng(seed)
    if start is None:
        known = [shelf.get(n) for n in shelf.names()]
        mu, log_var, told = random_blend(known, rng)
        prior = known[0].prior
    else:
        base = shelf.get(start)
        mu, log_var, told, prior = base.mu, base.log_var, base.name, base.prior
    drawn = sample(mu, log_var, temperature, rng.standard_normal(len(mu)).astype(np.float32))
    _save(out, StylePreset(name or out.stem, drawn, log_var, prior,
                           f"Drawn at temperature {temperature:g} around {told}, seed {seed}."))


@styles.command("ablate")
def style_ablate(
    runs: Annotated[Path, typer.Option(help="Folder of all runs; `coefficients` is read, `ablation` made.")],
    steps: Annotated[int, typer.Option(min=4, help="Steps of each training.")] = 300,
    distances: Annotated[str, typer.Option(help="Names with commas between.")] = "bhatt,elk,w2,jeffreys",
    config: Annotated[Path | None, typer.Option(help="Profile; see configs/train/style-prior.yaml.")] = None,
    weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the style prior briefly under each distance, and print held-out figures side by side."""
    from typing import get_args

    from svp_stream.config import MINI_WEIGHTS
    from svp_stream.errors import ConfigError
    from svp_stream.preparing.extract import ENCODER
    from svp_stream.style.distance import DistanceName
    from svp_stream.training.coefficients import load_bank
    from svp_stream.training.stages import read_profile
    from svp_stream.training.style_ablation import ablate, table

    names = [d.strip() for d in distances.split(",") if d.strip()]
    if not names or not set(names) <= set(get_args(DistanceName)):
        raise ConfigError(f"--distances {distances}: expected some of {', '.join(get_args(DistanceName))}")
    settings = read_profile("style-prior", config)
    bank = load_bank(settings.data, (weights or MINI_WEIGHTS) / ENCODER, runs / "coefficients")
    rows = ablate(bank, settings, [d for d in get_args(DistanceName) if d in names], steps, runs / "ablation")
    typer.echo(json.dumps(rows, indent=2) if as_json else table(rows, settings.frames))


@styles.command("study")
def style_study(
    runs: Annotated[Path, typer.Option(help="Folder of all runs, for the speech in `coefficients`.")],
    corpus: Annotated[Path | None, typer.Option(help="Folder with rendered clips of two heads or more.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the way between presets, a .png file.")] = None,
    weights: WeightsOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the style space: probes, sigma, diversity at equal lip sync, ways between presets. Makes no pictures."""
    from svp_stream.config import MINI_WEIGHTS
    from svp_stream.evaluation.style_study import draw_ways, study, table

    shelf = presets(profile, weights)
    found, faces = study(weights or MINI_WEIGHTS, [shelf.get(n) for n in shelf.names()], runs / "coefficients", corpus)
    if figure is not None:
        _write_png(figure, draw_ways(faces))
    typer.echo(json.dumps(found, indent=2) if as_json else table(found))


def presets(profile: Path | None, weights: Path | None) -> StyleShelf:
    """The presets of the profile's folder (or what ships), all of the prior of `weights`; paths are taken too."""
    from svp_stream.config import MINI_WEIGHTS, STYLES, load_config
    from svp_stream.preparing.extract import PRIOR
    from svp_stream.style.preset import StyleShelf
    from svp_stream.style.prior import load_prior
    from svp_stream.weights_file import sha256

    config = load_config(profile)
    path = (weights or config.model.weights or MINI_WEIGHTS) / PRIOR
    dim = load_prior(path).config.style_dim
    return StyleShelf(config.style.folder or STYLES, sha256(path), dim, allow_paths=True)


def _save(out: Path, preset: StylePreset) -> None:
    from svp_stream.errors import PresetError
    from svp_stream.style.preset import save_preset

    if out.suffix != ".npz":
        raise PresetError(f"{out}: a preset's file ends in .npz")
    save_preset(out, preset)
    typer.echo(f"{out}: {preset.name}. {preset.description}")


def _write_png(out: Path, picture: Bytes) -> None:
    from PIL import Image

    from svp_stream.errors import MediaError

    if out.suffix != ".png":
        raise MediaError(f"{out}: the map is a picture, its file ends in .png")
    Image.fromarray(picture).save(out)


def street(profile: Path | None, engine: str | None, model: Path | None = None) -> tuple[Config, Engine, Shelf]:
    """Profile, engine and presets that the options name."""
    from svp_stream.config import load_config
    from svp_stream.pipeline import build

    config = load_config(profile)
    if model is not None:
        engine = engine or "sd15"
        config = config.model_copy(update={"model": config.model.model_copy(update={"folder": model})})
    build.set_threads(config, engine)
    made = build.build_engine(config, engine)
    if (cost := getattr(made, "cost", None)) is not None:
        typer.echo(cost.text(), err=True)
    return config, made, build.build_shelf(config, made, allow_paths=True)


def asked_style(
    config: Config, shelf: Shelf, name: str | None, strength: float | None, temperature: float | None
) -> StyleRequest:
    """A style as the options, and where they are silent the profile, ask for it."""
    from svp_stream.pipeline import build

    own = config.style
    return build.style_request(
        shelf,
        own.default if name is None else name,
        own.strength if strength is None else strength,
        own.temperature if temperature is None else temperature,
    )
