"""The four sd15 stages one after another on a world of latents that a small network can learn in half a minute: the
loss of each falls or holds, and clips made on their own past come to beat a photograph and the wrong sound and pose.

The world: a head whose place is told by HEAD-Kps alone and whose mouth by the sound alone, drawn into 8 x 8 latents by
a fixed linear map. Rendered faces behind a random autoencoder (`test_sd15`) are too much for a network of this size.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from svp_stream.diffusion.sd15 import Sd15
from svp_stream.motion.kps import raster_batch
from svp_stream.style.projection import ProjectionConfig, StyleProjection
from svp_stream.training.checkpoint import read_checkpoint
from svp_stream.training.loop import run_stage
from svp_stream.training.sd15 import Sd15Stage, Sd15TrainConfig
from svp_stream.training.sd15_data import Sd15Clip, Sd15Data, mouth_mask
from tests.fakes.sd15_clips import tiny_loop
from tests.fakes.tiny_sd15 import AUDIO_DIM, CONFIG, WIDTH

FRAMES, STYLE = 32, 16
RUNS = {"image": (60, 12, 4e-3), "video": (40, 4, 3e-3), "consistency": (50, 4, 2e-3), "rollout": (20, 4, 1.5e-3)}
"""Steps, batch and learning rate."""


def clip(seed: int, *, held_out: bool = False) -> Sd15Clip:
    world, rng, time = np.random.default_rng(7), np.random.default_rng(seed + 100), np.arange(FRAMES) / 25
    drawing, sounding = world.standard_normal((4, 11)), world.standard_normal(AUDIO_DIM)
    waves = [np.sin(2 * np.pi * rng.uniform(0.7, 1.3) * time + rng.uniform(0, 6)) for _ in "xy"]
    rest = np.array([[0.38, 0.40], [0.62, 0.40], [0.5, 0.52]])
    points = (rest + 0.15 * np.stack(waves, 1)[:, None]).astype(np.float32)
    eyes = np.zeros((FRAMES, 4), np.float32)
    voice = np.sin(2 * np.pi * rng.uniform(1.5, 3) * time + rng.uniform(0, 6))
    latents = np.einsum("ck,tkhw->tchw", drawing, raster_batch(points, eyes, 8))
    latents = (latents - latents.mean()) / latents.std()
    latents[:, :1] += voice[:, None, None, None] * mouth_mask(points, 8).numpy()
    audio = np.repeat(voice, 2)[:, None] * sounding + 0.1 * rng.standard_normal((2 * FRAMES, AUDIO_DIM))
    return Sd15Clip(
        f"c{seed}", "ann", held_out, torch.from_numpy(latents).half(), points, eyes, torch.from_numpy(audio).float(),
        torch.zeros(STYLE), torch.full((STYLE,), -2.0), np.zeros(FRAMES * 640, np.int16),
    )  # fmt: skip


def graft() -> tuple[Sd15, StyleProjection]:
    """Everything is learned; nobody is shown, as there is only one person."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(24, 24), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip
    config = replace(CONFIG, reference="none", kps_scale=1, kps_channels=(16,) * 4, temporal_levels=(0,), tuned=("",))
    return Sd15(unet, config), StyleProjection(ProjectionConfig(STYLE, 4, WIDTH))


def test_every_stage_learns_and_the_clip_beats_its_controls(tmp_path: Path) -> None:
    clips = [clip(i) for i in range(6)] + [clip(i, held_out=True) for i in (8, 9)]
    data = Sd15Data(clips, CONFIG.audio.around, 1)
    model, projection = graft()
    held: dict[str, dict[str, float]] = {}
    losses: dict[str, Any] = {}
    for kind, (steps, batch, lr) in RUNS.items():
        config = Sd15TrainConfig.model_validate({
            "kind": kind, "frames": 1 if kind == "image" else 4, "checkpointing": False, "film_frames": 0, "stages": 2,
            "noise_offset": 0.0, "loop": tiny_loop(steps=steps, batch=batch, lr=lr, warmup=5, ema=0.95, final_lr=0.1),
        })  # fmt: skip
        stage = Sd15Stage(config, data, model, projection)
        if not held:
            with torch.no_grad():
                held["start"] = stage.validate(stage.model.eval())
        run_stage(stage, config.loop, tmp_path / kind)
        # The next stage begins with the average, as it would from the folder.
        stage.model.load_state_dict(read_checkpoint(tmp_path / kind / "checkpoint.pt").average)
        rows = [json.loads(r) for r in (tmp_path / kind / "log.jsonl").read_text().splitlines()]
        told = [r["loss"] for r in rows if "loss" in r]
        losses[kind] = np.mean(told[:8]), np.mean(told[-8:])
        held[kind] = rows[-1]
    for kind, fell in (("image", 0.6), ("video", 0.8), ("rollout", 1.0)):
        assert losses[kind][1] < fell * losses[kind][0], f"{kind}: {losses}"
    # Consistency moves its own target, so that its loss says nothing; one step from pure noise does.
    assert held["consistency"]["cold_error"] < 0.6 * held["video"]["cold_error"], held
    assert held["image"]["rolled_error"] < 0.2 * held["start"]["rolled_error"], held
    assert held["video"]["warm_error"] < 0.3 * held["start"]["warm_error"], held
    end = held["rollout"]
    assert end["rolled_error"] < 0.75 * held["consistency"]["rolled_error"], "what the rollout is for"
    assert end["rolled_error"] < 0.65 * end["photo_error"] and end["rolled_error"] < 0.65 * end["shuffled_error"], end
    assert held["start"]["shuffled_error"] > 0.95 * held["start"]["rolled_error"], "an untrained one hears nobody"
