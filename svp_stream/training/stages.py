"""What `svp train STAGE` runs: profile, data and model of each stage, wired.

Runs stand side by side under one folder, `<out>/<stage>/`; a stage finds in its neighbours what it builds on:

    autoencoder ─┐
    audio ─▶ style-prior ─▶ expression ─┤   (motion stands beside expression: it builds on the same two)
                 └─▶ image ─▶ video ─▶ consistency ─▶ finish
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from pydantic import BaseModel, ValidationError

from svp_stream.diffusion.avatar import Avatar, save_avatar
from svp_stream.diffusion.unet import load_denoiser
from svp_stream.diffusion.vae import Autoencoder, load_autoencoder
from svp_stream.errors import ConfigError
from svp_stream.training import autoencoder, image
from svp_stream.training.audio import AudioTrainConfig, make_audio_stage
from svp_stream.training.autoencoder import AutoencoderStage, AutoencoderTrainConfig
from svp_stream.training.clips import Clips, pack_frames
from svp_stream.training.consistency import ConsistencyStage, ConsistencyTrainConfig
from svp_stream.training.crew import crew
from svp_stream.training.expression import ExpressionTrainConfig, make_expression_stage
from svp_stream.training.finish import FinishStage, FinishTrainConfig
from svp_stream.training.frames import Frames, open_frames
from svp_stream.training.image import ImageStage, ImageTrainConfig
from svp_stream.training.loop import LoopConfig, TrainingStage, run_stage
from svp_stream.training.motion import MotionTrainConfig, make_motion_stage
from svp_stream.training.pixels import PixelData, geometries, pixel_data
from svp_stream.training.sd15_run import STAGES as SD15_STAGES
from svp_stream.training.sd15_run import run_sd15
from svp_stream.training.speech_tokens import frame_tokens
from svp_stream.training.style_prior import StylePriorTrainConfig, make_style_prior_stage
from svp_stream.training.video import VideoStage, VideoTrainConfig, with_tokens

logger = logging.getLogger(__name__)
CONFIGS: Final[dict[str, type[BaseModel]]] = {
    "autoencoder": AutoencoderTrainConfig,
    "audio": AudioTrainConfig,
    "style-prior": StylePriorTrainConfig,
    "expression": ExpressionTrainConfig,
    "motion": MotionTrainConfig,
    "image": ImageTrainConfig,
    "video": VideoTrainConfig,
    "consistency": ConsistencyTrainConfig,
    "finish": FinishTrainConfig,
}
STAGES: Final = tuple(CONFIGS)


def read_profile(stage: str, path: Path | None) -> Any:
    """The profile of `stage` from YAML, or its defaults. Raises ConfigError naming the file and the key."""
    if stage not in CONFIGS:
        raise ConfigError(f"no training stage '{stage}'; there are {', '.join(STAGES)}")
    if path is None:
        return CONFIGS[stage]()
    try:
        return CONFIGS[stage].model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError) as e:
        raise ConfigError(f"{path}: not a readable YAML file: {e}") from e
    except ValidationError as e:
        faults = "; ".join(f"{'.'.join(str(k) for k in x['loc'])}: {x['msg']}" for x in e.errors())
        raise ConfigError(f"{path}: {faults}") from e


def run(stage: str, config: Path | None, corpus: Path, out: Path, minutes: float | None = None) -> Path:
    """Train one stage into `out/<stage>`, going on where it stopped; returns that folder.

    Raises ConfigError for an unknown stage or a wrong profile, MediaError and WeightsError when something that the
    stage builds on is missing.
    """
    if stage in SD15_STAGES:
        return run_sd15(stage, config, corpus, out, minutes)
    return train(stage, read_profile(stage, config), corpus, out, minutes)


def train(stage: str, profile: Any, corpus: Path, out: Path, minutes: float | None = None) -> Path:
    """`run`, of a profile that has been read."""
    folder = out / stage
    folder.mkdir(parents=True, exist_ok=True)
    with crew().main_process_first():  # what is prepared once is found by the others
        built = _build(stage, profile, corpus, out)
    loop: LoopConfig = profile.loop
    run_stage(built, loop, folder, minutes=minutes)
    return folder


def _build(stage: str, profile: Any, corpus: Path, out: Path) -> TrainingStage:
    if stage == "audio":
        return make_audio_stage(profile, corpus, out / stage)
    if stage == "style-prior":
        return make_style_prior_stage(profile, corpus, out / stage)
    if stage == "expression":
        return make_expression_stage(profile, corpus, out / stage)
    if stage == "motion":
        return make_motion_stage(profile, corpus, out / stage)
    frames = packed(corpus, out / "frames")
    if stage == "autoencoder":
        train = frames.split == "train"
        return AutoencoderStage(profile, frames.select(train), frames.select(~train))
    model = load_autoencoder(out / "autoencoder" / autoencoder.WEIGHTS)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = prepared(frames, model, out)
    if stage == "image":
        return ImageStage(profile, data, model)
    heard = with_tokens(data, *frame_tokens(Clips.open(corpus), frames, out))
    kinds: dict[str, type[VideoStage]] = {"video": VideoStage, "consistency": ConsistencyStage, "finish": FinishStage}
    start = load_denoiser(_before(stage, out)) if profile.start is None else None
    return kinds[stage](profile, heard, model, start)


def _before(stage: str, out: Path) -> Path:
    """The denoiser that a stage goes on from; the finish takes the video stage's where nothing was tuned."""
    tuned = out / "consistency" / image.WEIGHTS
    if stage == "finish" and tuned.is_file():
        return tuned
    return out / ("image" if stage == "video" else "video") / image.WEIGHTS


def packed(corpus: Path, folder: Path) -> Frames:
    """The corpus's pictures, decoded once into `folder`."""
    pack_frames([c for c in Clips.open(corpus) if c.has_video], folder)
    return open_frames(folder)


def prepared(frames: Frames, model: Autoencoder, out: Path) -> PixelData:
    """Latents, references and heads; the avatars found on the way are written to `out/avatars`."""
    data, appearances = pixel_data(frames, model, out / "frames")
    for name, geometry in geometries(frames).items():
        save_avatar(out / "avatars", Avatar(name, appearances[name], geometry.vector()))
    return data


