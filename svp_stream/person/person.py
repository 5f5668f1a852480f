"""`svp person`: home video of one person becomes a weights folder, a profile to serve it by, and a table.

In: an `Order`. Out, in its folder: `clips/`, `runs/`, `before/` (the weights to start from with the new reference),
`weights/` and `<name>.yaml` (to serve), `report.md`, `figures.json`, `looks.png`. Remembers: the folder, see `steps`.

Ears, style prior, conditioner, motion and the autoencoder's encoder stay as they are: what is heard and what latents
mean does not hang on who is shown. Decoder and denoiser go on from where they stand, on the new face alone, so that
they forget the faces they knew: the folder serves this one person. The denoiser's one stage is `video`, half of which
starts cold.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import Final

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.diffusion.avatar import Avatar, save_avatar
from svp_stream.diffusion.unet import load_denoiser
from svp_stream.diffusion.vae import FACTOR, load_autoencoder
from svp_stream.errors import ConfigError, MediaError, WeightsError
from svp_stream.person.order import Order
from svp_stream.person.steps import Step, follow, write_whole
from svp_stream.person.table import write_table
from svp_stream.pipeline.calibrate import calibrate
from svp_stream.pipeline.mini import LATENT_CELLS
from svp_stream.preparing.prepare import Workshop, find_videos, identity, prepare
from svp_stream.runtime.quantised import FILE as RANGES
from svp_stream.training import stages
from svp_stream.training.autoencoder import WEIGHTS as AUTOENCODER
from svp_stream.training.autoencoder import AutoencoderStage
from svp_stream.training.clips import Clips
from svp_stream.training.frames import Frames
from svp_stream.training.image import WEIGHTS as DENOISER
from svp_stream.training.pixels import geometries, pixel_data
from svp_stream.training.release import OPTIONAL, PARTS, list_files, release
from svp_stream.training.speech_tokens import frame_tokens
from svp_stream.training.video import VideoStage, with_tokens
from svp_stream.weights_file import record_hash, sha256

logger = logging.getLogger(__name__)
BOOK: Final = "steps.json"
KEPT: Final = ("audio", "style-prior", "expression", "evaluator")
"""Stages whose weights the person shares with those that it starts from; motion too, where they have it."""
CHECKPOINTS_BYTES: Final = 500_000_000
"""Checkpoints, weights and clips; pictures come on top."""


def make_person(order: Order) -> list[str]:
    """Do what is not done yet; returns the names of the steps that were done now.

    Raises ConfigError (a wrong value, a foreign folder, a missing reader), MediaError (no fit film, no room on disk)
    and WeightsError (what it starts from is missing or damaged).
    """
    videos = [identity(path, name) for path, name in find_videos(order.videos, order.out)]
    _check(order)
    order.out.mkdir(parents=True, exist_ok=True)
    c, start, clips, runs = order.config, order.start, order.clips, order.runs
    share, seed = c.autoencoder_share, f"seed {c.seed} {c.most_steps} {c.threads} {c.warmup}"
    minutes = (share * order.minutes, (1 - share) * order.minutes)
    parts = [name for stage, name in PARTS.items() if stage in KEPT]
    made = [f"avatar_{order.name}.safetensors", "denoiser.safetensors", RANGES]
    steps = [
        Step("prepare", f"{order.preparation.model_dump_json()} {c.least_s} {videos}", (clips / "report.md",),
             lambda: _prepare(order)),
        Step("share", " ".join(sha256(start / name) for name in (*parts, AUTOENCODER, DENOISER, *_motion(start))),
             (*(runs / s / PARTS[s] for s in KEPT), *(order.before / n for n in (*PARTS.values(), DENOISER))),
             lambda: _share(order)),
        Step("before", "", (order.before / made[0], order.before / "figures.json"), lambda: _before(order)),
        Step("autoencoder", f"{minutes[0]} {c.keep_encoder} {c.autoencoder_lr} {c.autoencoder_batch} {seed}",
             (runs / "autoencoder" / AUTOENCODER,),
             lambda: _done(stages.train("autoencoder", order.autoencoder(), clips, runs, minutes[0]))),
        Step("denoiser", f"{minutes[1]} {c.denoiser_lr} {c.denoiser_batch}", (runs / "video" / DENOISER,),
             lambda: _done(stages.train("video", order.denoiser(), clips, runs, minutes[1]))),
        Step("release", "", (order.profile, *(order.weights / name for name in made)), lambda: _release(order)),
        Step("table", f"{order.syncnet} {order.judge is not None}", (order.out / "report.md",),
             lambda: write_table(order, order.out / BOOK)),
    ]  # fmt: skip
    return follow(steps, order.out / BOOK)


def _motion(start: Path) -> list[str]:
    """Learned motion, where the weights to start from have it."""
    name = OPTIONAL["motion"]
    return [name] if (start / name).is_file() else []


def _done(folder: Path) -> None:
    logger.info("written to %s", folder)


def _check(order: Order) -> None:
    """A folder of ours or an empty one; weights to start from that are all there."""
    if order.out.exists() and not order.out.is_dir():
        raise ConfigError(f"{order.out}: is a file; give a folder with -o")
    if order.out.is_dir() and any(order.out.iterdir()) and not (order.clips / ".prepare").is_dir():
        raise ConfigError(f"{order.out}: holds other things; give a folder of its own with -o")
    missing = [n for n in (*PARTS.values(), DENOISER) if not (order.start / n).is_file()]
    if missing:
        raise WeightsError(f"{order.start}: lacks {', '.join(missing)}; give a whole weights folder with --weights")
    if order.config.prepare.size != FACTOR * LATENT_CELLS:
        raise ConfigError(f"prepare.size is {order.config.prepare.size}; the engine mini draws {FACTOR * LATENT_CELLS}")


def _prepare(order: Order) -> None:
    """The clips, and whether they are enough."""
    shop = Workshop(order.clips, order.preparation, order.reader(), order.matte, None, order.advance)
    verdicts = prepare(order.videos, shop)
    kept = [v for v in verdicts if v.kept]
    seconds = {split: sum(v.end - v.first for v in kept if v.split == split) / FRAME_RATE_HZ
               for split in ("train", "heldout")}
    why = Counter(fault for v in verdicts for fault in v.faults).most_common(1)
    told = f"; most often: {why[0][0]}" if why else ""
    if not kept:
        raise MediaError(f"none of {len(verdicts)} clips is fit to learn from{told}; see {order.clips / 'report.md'}")
    if seconds["train"] < order.config.least_s or not seconds["heldout"]:
        raise MediaError(
            f"{seconds['train']:.1f} s of film to learn from and {seconds['heldout']:.1f} s to measure on are too "
            f"little: at least {order.config.least_s:g} s of it and two clips are needed, two minutes are better"
            f"{told}; see {order.clips / 'report.md'}")


def _share(order: Order) -> None:
    """What stays as it is, beside the runs; and all of it in `before`."""
    for stage in KEPT:
        _copy(order.start / PARTS[stage], order.runs / stage)
    for name in (*PARTS.values(), DENOISER, *_motion(order.start)):
        _copy(order.start / name, order.before)
        record_hash(order.before / name)
    for name in _motion(order.start):
        _copy(order.start / name, order.runs / "motion")
    if (order.start / RANGES).is_file():
        _copy(order.start / RANGES, order.before)


def _copy(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{path.name}.part"
    shutil.copyfile(path, part)
    part.replace(folder / path.name)


def _before(order: Order) -> None:
    """The person's reference in the latents of the weights as they are, and what they make of the true expression."""
    clips = Clips.open(order.clips)
    _room(order, sum(c.frames for c in clips))
    frames = stages.packed(order.clips, order.runs / "frames")
    model = load_autoencoder(order.before / AUTOENCODER)
    data, appearances = pixel_data(frames, model, order.runs / "frames")
    geometry = geometries(frames)[order.name]
    heard = with_tokens(data, *frame_tokens(clips, frames, order.runs))
    denoiser = load_denoiser(order.before / DENOISER)
    figures = _picture(order, frames) | VideoStage(order.denoiser(), heard, model).validate(denoiser)
    save_avatar(order.before, Avatar(order.name, appearances[order.name], geometry.vector()))
    write_whole(order.before / "figures.json", json.dumps(figures, indent=1) + "\n")


def _picture(order: Order, frames: Frames) -> dict[str, float]:
    """What the autoencoder makes of held-out pictures before it has seen the person."""
    train = frames.split == "train"
    stage = AutoencoderStage(order.autoencoder(), frames.select(train), frames.select(~train))
    return stage.validate(stage.model)


def _room(order: Order, frames: int) -> None:
    """Raises MediaError when the pictures, decoded, would fill the disk."""
    side = order.preparation.size
    there = sum(p.stat().st_size for p in order.runs.rglob("*") if p.is_file())
    needed = frames * (4 * side**2 + 2 * 4 * 2 * LATENT_CELLS**2) + CHECKPOINTS_BYTES - there
    free = shutil.disk_usage(order.out).free
    if needed > free:
        raise MediaError(f"{order.out}: needs {needed / 1e9:.1f} GB for {frames} pictures and what is learned of them, "
                         f"{free / 1e9:.1f} GB are free; give a folder on another disk with -o, or less video")


def _release(order: Order) -> None:
    """Weights, their int8 ranges, and the profile that serves them."""
    release(order.runs, order.weights)
    calibrate(order.weights)
    list_files(order.weights)
    write_whole(order.profile, PROFILE.format(name=order.name))


PROFILE: Final = """\
# {name}, as `svp person` made it.

server:
  capacity: 1            # one face is about what two cores can make in real time

model:
  engine: mini
  weights: weights       # knows this one person
  avatar: {name}
"""
