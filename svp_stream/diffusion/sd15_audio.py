"""Audio projection: the wav2vec2 embeddings around a frame become the few tokens of its cross attention.

In: a window of hidden states [B, W, A], two a video frame, with a mask of those heard. Out: tokens [B, Q, C].
Remembers: nothing. Latency: the look-ahead that the caller waits for, 0 to `around` frames of 40 ms.

A Perceiver resampler (arXiv 2103.03206, as in IP-Adapter-plus) over the frame and two frames on either side, 10
embeddings to 5 tokens, 4 layers of 12 heads of 64: V-Express [V]. Unheard embeddings are masked, so that look-ahead is
a setting of the moment [R].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class AudioProjectionConfig:
    """Sizes of the projection; stored with the adapters. `around`: video frames on either side of the frame."""

    audio_dim: int = 768
    dim: int = 768
    depth: int = 4
    heads: int = 12
    head_dim: int = 64
    queries: int = 5
    feed: int = 4
    around: int = 2

    def __post_init__(self) -> None:
        sizes = (self.audio_dim, self.dim, self.depth, self.heads, self.head_dim, self.queries, self.feed)
        if min(sizes) < 1 or self.around < 0:
            raise ValueError(f"sizes of an audio projection are positive, got {self}")

    @property
    def window(self) -> int:
        """W, embeddings that a frame may read."""
        return 2 * (2 * self.around + 1)


class ResamplerLayer(nn.Module):
    """Latent queries read the embeddings and each other, then a feed-forward layer; pre-norm."""

    def __init__(self, config: AudioProjectionConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.norm_media, self.norm_latents = nn.LayerNorm(config.dim), nn.LayerNorm(config.dim)
        self.to_q = nn.Linear(config.dim, inner, bias=False)
        self.to_kv = nn.Linear(config.dim, 2 * inner, bias=False)
        self.out = nn.Linear(inner, config.dim, bias=False)
        wide = config.feed * config.dim
        self.feed = nn.Sequential(
            nn.LayerNorm(config.dim), nn.Linear(config.dim, wide, bias=False), nn.GELU(),
            nn.Linear(wide, config.dim, bias=False),
        )  # fmt: skip

    def forward(self, latents: Tensor, media: Tensor, mask: Tensor) -> Tensor:
        """latents [B, Q, D], media [B, W, D], mask bool [B, 1, 1, W + Q] -> [B, Q, D]."""
        own = self.norm_latents(latents)
        k, v = self.to_kv(torch.cat([self.norm_media(media), own], 1)).chunk(2, -1)
        q, k, v = (x.view(len(x), x.shape[1], self.heads, -1).transpose(1, 2) for x in (self.to_q(own), k, v))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        latents = latents + self.out(read)
        out: Tensor = latents + self.feed(latents)
        return out


class AudioProjection(nn.Module):
    """See the card."""

    def __init__(self, config: AudioProjectionConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.randn(config.queries, config.dim) * config.dim**-0.5)
        self.place = nn.Parameter(torch.randn(config.window, config.dim) * 0.02)
        self.enter = nn.Linear(config.audio_dim, config.dim)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.depth))
        self.leave = nn.Linear(config.dim, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, audio: Tensor, heard: Tensor) -> Tensor:
        """audio [B, W, A], heard [B, W] (1 heard, 0 not) -> tokens [B, Q, width].

        What `audio` holds where `heard` is 0 has no influence.
        """
        media = self.enter(audio * heard[..., None].to(audio.dtype)) + self.place
        latents = self.latents.expand(len(audio), -1, -1).to(media.dtype)
        mask = torch.cat([heard > 0.5, torch.ones_like(heard[:, :1], dtype=torch.bool).expand(-1, latents.shape[1])], 1)
        for layer in self.layers:
            latents = layer(latents, media, mask[:, None, None])
        out: Tensor = self.norm(self.leave(latents))
        return out


def windows(audio: Tensor, frames: Tensor, look_ahead: int, config: AudioProjectionConfig) -> tuple[Tensor, Tensor]:
    """Windows of several frames out of one run of embeddings [T, A], two a frame; frames int64 [F].

    Returns (windows [F, W, A], heard [F, W]). Raises ValueError when look_ahead is not 0 to `around`.
    """
    if not 0 <= look_ahead <= config.around:
        raise ValueError(f"look-ahead is 0..{config.around} frames, got {look_ahead}")
    offset = torch.arange(-2 * config.around, 2 + 2 * config.around, device=audio.device)
    at = 2 * frames[:, None] + offset
    heard = (at >= 0) & (at < len(audio)) & (offset < 2 + 2 * look_ahead)
    return audio[at.clamp(0, len(audio) - 1)], heard.to(audio.dtype)
