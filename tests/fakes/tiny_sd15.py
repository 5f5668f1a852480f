"""Tiny random models of the same classes as the real ones: Stable Diffusion's UNet and autoencoder, wav2vec2.

In: sizes and a seed. Out: modules, or a folder that `svp_stream.pipeline.sd15` reads. Nothing here is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import Wav2Vec2Config, Wav2Vec2Model

from svp_stream.diffusion.sd15 import Sd15Config
from svp_stream.diffusion.sd15_audio import AudioProjectionConfig

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
