"""Painted pictures, prepared once for the pixel stages: 160 frames of one person at 128 x 128, a quarter held out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from svp_stream.diffusion.vae import Autoencoder, AutoencoderConfig
from svp_stream.training.frames import Frames, to_tensors
from svp_stream.training.pixels import WIDTH, PixelData, pixel_data
from svp_stream.training.video import with_tokens
from tests.fakes.painted_faces import painted_frames


@dataclass(frozen=True)
class Painted:
    """`heard` is `data` with made-up tokens of sound and style."""

    frames: Frames
    autoencoder: Autoencoder
    data: PixelData
    heard: PixelData


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Painted:
    frames = painted_frames(clips=4, frames=40, size=128)
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(widths=(16, 8, 8), depths=(1, 1, 1)))
    rgb, alpha = to_tensors(frames.pixels[::8])
    model.start_from_patches(rgb, alpha)
    model.measure_latents(rgb)
    model.eval().requires_grad_(False)
    data, _ = pixel_data(frames, model, tmp_path_factory.mktemp("work"))
    tokens = torch.randn(len(frames), 8, WIDTH)
    return Painted(frames, model, data, with_tokens(data, tokens, torch.randn(len(frames), 4, WIDTH)))
