"""Tiny random models of the same classes as the real ones: Stable Diffusion's UNet and autoencoder, wav2vec2.

In: sizes and a seed. Out: modules, or a folder that `svp_stream.pipeline.sd15` reads. Nothing here is trained.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from transformers import Wav2Vec2Config, Wav2Vec2Model

from svp_stream.audio.wav2vec_rolling import measure_statistics, save_statistics
from svp_stream.diffusion.sd15 import Sd15, Sd15Config
from svp_stream.diffusion.sd15_audio import AudioProjectionConfig
from svp_stream.diffusion.sd15_files import fingerprint, save_adapters
from svp_stream.diffusion.sd15_folder import AudioCard, AvatarCard, Card, write_card
from svp_stream.motion.manner import Manner
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.sd15 import Sd15Engine
from svp_stream.style.preset import StylePreset, load_preset, save_preset
from svp_stream.style.prior import PriorConfig, StylePrior, save_prior
from svp_stream.style.projection import KIND as PROJECTION_KIND
from svp_stream.style.projection import ProjectionConfig, StyleProjection
from svp_stream.weights_file import save_weights

AVATARS = ("pat", "kim")
PRESETS = ("plain", "warm")
PRIOR = PriorConfig(audio_dim=16, width=16, layers=1, heads=2, style_dim=16, dropout=0.0, decoder_layers=1)
WIDTH = 16
"""Of audio and style tokens."""
AUDIO_DIM = 24
CONFIG = Sd15Config(
    audio=AudioProjectionConfig(audio_dim=AUDIO_DIM, dim=16, depth=1, heads=2, head_dim=8, queries=5, feed=2),
    kps_channels=(4, 4, 8, 8), kps_scale=8, temporal_window=3, temporal_heads=2, temporal_levels=(0, 1),
)


def tiny_unet(seed: int = 0) -> Any:
    """Two levels, cross attention on both and in the middle, 8 and 16 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=WIDTH,
            attention_head_dim=2, norm_num_groups=4,
        ).eval()  # fmt: skip


def tiny_vae(seed: int = 0, *, taesd: bool = False) -> Any:
    """Factor 8, 4 latent channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if taesd:
            return AutoencoderTiny(
                encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
                num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
            ).eval()  # fmt: skip
        return AutoencoderKL(
            block_out_channels=(4, 4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, norm_num_groups=4, latent_channels=4,
        ).eval()  # fmt: skip


def tiny_wav2vec2(norm: str = "group", seed: int = 0) -> Any:
    """`Wav2Vec2Model` with the real convolutions' kernels and strides, 24 wide, two layers."""
    config = Wav2Vec2Config(
        hidden_size=AUDIO_DIM, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        feat_extract_norm=norm, do_stable_layer_norm=norm == "layer", conv_bias=norm == "layer",
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, mask_time_prob=0.0, mask_feature_prob=0.0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Wav2Vec2Model(config).eval()
        for name, p in model.named_parameters():
            # transformers begins with deviations of 0.02, at which attention of this size does nothing.
            if p.ndim == 2:
                torch.nn.init.normal_(p, std=p.shape[1] ** -0.5)
            elif name.endswith("conv.weight") and p.ndim == 3:
                torch.nn.init.kaiming_normal_(p)
        return model


def write_tiny_sd15(folder: Path, *, seed: int = 0, size: int = 64, awake: bool = True, norm: str = "group") -> None:
    """A folder of every part: base, adapters, wav2vec2 with statistics, prior, projection, two avatars, two presets."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = tiny_unet(seed)
        unet.save_pretrained(folder / "base" / "unet")
        tiny_vae(seed).save_pretrained(folder / "base" / "vae")
        mark = fingerprint(unet)
        model = Sd15(unet, CONFIG)
        if awake:
            awaken(model)
        save_adapters(folder / "adapters.safetensors", model, mark)
        _sound(folder, norm)
        prior = StylePrior(PRIOR)
        with torch.no_grad():
            prior.manner.weight.normal_(std=0.02)
            prior.manner.bias.copy_(torch.from_numpy(Manner().vector()))
        mark = save_prior(folder / "style_prior.safetensors", prior)
        projection = ProjectionConfig(style_dim=PRIOR.style_dim, tokens=4, width=WIDTH)
        tensors = {f"projection.{k}": v for k, v in StyleProjection(projection).state_dict().items()}
        save_weights(folder / "style_projection.safetensors", PROJECTION_KIND, {"projection": asdict(projection)},
                     tensors, half=False)
    rng = np.random.default_rng(seed)
    (folder / "avatars").mkdir(exist_ok=True)
    (folder / "styles").mkdir(exist_ok=True)
    for name in AVATARS:
        Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(folder / "avatars" / f"{name}.png")
    for i, name in enumerate(PRESETS):
        mu = (i * rng.standard_normal(PRIOR.style_dim)).astype(np.float32)
        save_preset(folder / "styles" / f"{name}.npz",
                    StylePreset(name, mu, np.full(PRIOR.style_dim, -2, np.float32), mark))
    write_card(folder, Card(
        base="base", size=size, avatars={n: AvatarCard(image=f"avatars/{n}.png") for n in AVATARS},
        audio=AudioCard(model="wav2vec2", norm="wav2vec_norm.safetensors" if norm == "group" else None, window=8,
                        look_ahead=1),
    ))  # fmt: skip


def _sound(folder: Path, norm: str) -> None:
    wav2vec2 = tiny_wav2vec2(norm)
    wav2vec2.save_pretrained(folder / "wav2vec2")
    if norm == "group":
        noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
        save_statistics(folder / "wav2vec_norm.safetensors", measure_statistics(wav2vec2, [noise]))


def awaken(model: Sd15) -> None:
    """No gate and no way out is zero, so that every condition shows."""
    with torch.no_grad():
        for name, p in model.adapters.named_parameters():
            if "gate" in name or name.startswith("reference"):
                p.fill_(0.7)
            elif "leave" in name or name.startswith("previous") or "distance" in name:
                p.normal_(std=0.3)


@cache
def _tiny() -> tuple[Sd15Engine, dict[str, StyleRequest]]:
    with TemporaryDirectory() as name:
        write_tiny_sd15(Path(name))
        presets = [load_preset(Path(name) / "styles" / f"{n}.npz") for n in PRESETS]
        styles = {p.name: StyleRequest(p.name, p.mu, p.log_var, p.temperature, p.strength) for p in presets}
        return Sd15Engine.load(Path(name), "cpu", 1), styles


def tiny_sd15_engine() -> Sd15Engine:
    """The engine of a tiny folder, made once a test run; look-ahead 1 in the encoder and 1 in the projection."""
    return _tiny()[0]


def tiny_sd15_styles() -> dict[str, StyleRequest]:
    """The styles that belong to it."""
    return _tiny()[1]
