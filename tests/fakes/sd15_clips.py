"""Clips as the sd15 stages read them, made of numbers alone: no film, no autoencoder, no wav2vec2; and tiny stages.

In: seeds. Out: `Sd15Data`, `Sd15Stage`. Remembers: nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from svp_stream.diffusion.sd15 import Sd15, Sd15Config
from svp_stream.motion import kps
from svp_stream.style.projection import ProjectionConfig, StyleProjection
from svp_stream.training.loop import LoopConfig
from svp_stream.training.sd15 import Sd15Stage, Sd15TrainConfig
from svp_stream.training.sd15_data import Sd15Clip, Sd15Data
from tests.fakes import painted_faces
from tests.fakes.tiny_sd15 import AUDIO_DIM, CONFIG, PRIOR, WIDTH, awaken, tiny_unet

FRAMES = 16


def tiny_clip(seed: int, *, held_out: bool = False) -> Sd15Clip:
    """Random latents and embeddings of a head that moves as painted ones do."""
    g = torch.Generator().manual_seed(seed)
    pose, _ = painted_faces.course(FRAMES, seed)
    return Sd15Clip(
        f"c{seed}", "ann", held_out, torch.randn(FRAMES, 4, 8, 8, generator=g).half(),
        kps.project_batch(painted_faces.HEAD, pose), pose[:, 5:9], torch.randn(2 * FRAMES, AUDIO_DIM, generator=g),
        torch.randn(PRIOR.style_dim, generator=g), torch.full((PRIOR.style_dim,), -2.0),
        np.zeros(FRAMES * 640, np.int16),
    )  # fmt: skip


def tiny_data() -> Sd15Data:
    """Two clips to learn from, one held out."""
    return Sd15Data([tiny_clip(0), tiny_clip(1), tiny_clip(2, held_out=True)], CONFIG.audio.around, CONFIG.kps_scale)


def tiny_loop(**changed: Any) -> LoopConfig:
    """A few steps of two clips."""
    known: dict[str, Any] = {"steps": 3, "batch": 2, "lr": 1e-3, "warmup": 1, "ema": 0.9, "precision": "fp32",
                             "log_every_s": 0.0, "sheet_every_s": 600.0, "tensorboard": False}
    return LoopConfig(**known | changed)


def tiny_graft(config: Sd15Config = CONFIG, *, awake: bool = True) -> tuple[Sd15, StyleProjection]:
    """Model and projection; awake, every condition shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = Sd15(tiny_unet(), config)
        if awake:
            awaken(model)
        return model, StyleProjection(ProjectionConfig(PRIOR.style_dim, 4, WIDTH))


def tiny_stage(kind: Any, graft: Sd15Config = CONFIG, *, awake: bool = True, **changed: Any) -> Sd15Stage:
    """A stage of `kind` over `tiny_data`; `changed` keys of its profile."""
    known: dict[str, Any] = {"kind": kind, "frames": 1 if kind == "image" else 3, "checkpointing": False,
                             "loop": tiny_loop(), "film_frames": 0}
    config = Sd15TrainConfig.model_validate(known | changed)
    return Sd15Stage(config, tiny_data(), *tiny_graft(graft, awake=awake))
