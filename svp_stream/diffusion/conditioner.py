"""Frame conditioner: what was heard around a frame and the style become the expression and the tokens of that frame.

In: a window of audio tokens [B, W, A] with a mask of those that were heard, style tokens [B, S, C], strength [B].
Out: `Condition` (tokens [B, N, C] for the denoiser's cross attention, expression [B, 42] in ARKit order `SPEECH`).
Remembers: nothing; each frame reads its own window, so that a stream and a whole file agree by construction.
Latency: the look-ahead L that the caller waits for, 0..3 video frames of 40 ms; tokens later than L count as unheard.

The window of frame n is [2n-P .. 2n+1+2 L_max] (METHOD 4.4). Attention to audio and style is decoupled:
`W_o [Attn(q, K_aud, V_aud) + strength Attn(q, K_sty, V_sty)]` (METHOD 1.5; IP-Adapter, arXiv 2308.06721).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from svp_stream.arkit import SPEECH
from svp_stream.errors import WeightsError
from svp_stream.packets import Float32
from svp_stream.weights_file import load_into, read_weights

KIND: Final = "conditioner"
PREFIX: Final = "conditioner."
"""The weights file holds the style projection as well, under its own prefix."""

READOUT_SCALE: Final = 0.2
"""Expression units for one unit of the token: keeps a strong expression well inside a normalised token."""


@dataclass(frozen=True, slots=True)
class ConditionerConfig:
    """Sizes of the conditioner; stored with the weights."""

    audio_dim: int = 192
    dim: int = 128
    heads: int = 4
    layers: int = 3
    tokens: int = 8
    style_dim: int = 128
    past: int = 14
    """Audio tokens (20 ms) before those of the frame itself."""
    max_look_ahead: int = 3
    """Video frames (40 ms, two tokens)."""

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if min(self.tokens, self.layers, self.max_look_ahead + 1, self.past + 1) < 1:
            raise ValueError(f"sizes of a conditioner are positive, got {self}")

    @property
    def window(self) -> int:
        """W, the number of audio tokens that a frame may read."""
        return self.past + 2 + 2 * self.max_look_ahead


class Condition(NamedTuple):
    """tokens [B, N, C] for the denoiser; expression [B, 42], not yet clipped to 0..1."""

    tokens: Tensor
    expression: Tensor


def gather_windows(audio: Tensor, frames: Tensor, look_ahead: int, config: ConditionerConfig) -> tuple[Tensor, Tensor]:
    """Windows of several frames out of one run of audio tokens.

    audio [T, A], two tokens a video frame; frames int64 [F]; look_ahead in frames.
    Returns (windows [F, W, A], heard [F, W] of 0 and 1). Raises ValueError when look_ahead is out of range.
    """
    if not 0 <= look_ahead <= config.max_look_ahead:
        raise ValueError(f"look-ahead is 0..{config.max_look_ahead} frames, got {look_ahead}")
    offset = torch.arange(-config.past, 2 + 2 * config.max_look_ahead, device=audio.device)
    at = 2 * frames[:, None] + offset
    heard = (at >= 0) & (at < audio.shape[0]) & (offset < 2 + 2 * look_ahead)
    return audio[at.clamp(0, audio.shape[0] - 1)], heard.to(audio.dtype)


class DecoupledAttention(nn.Module):
    """Queries read audio and style through their own keys and values; the style's share is scaled by `strength`."""

    def __init__(self, dim: int, heads: int, style_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.audio_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.style_k = nn.Linear(style_dim, dim, bias=False)
        self.style_v = nn.Linear(style_dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)
        # The style path starts silent and grows from the audio-only solution.
        nn.init.zeros_(self.style_v.weight)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, audio: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """x [B, N, C], audio [B, W, C], style [B, S, D], strength [B] -> [B, N, C]."""
        q = self._split(self.query(x))
        k, v = (self._split(part) for part in self.audio_kv(audio).chunk(2, dim=-1))
        heard = functional.scaled_dot_product_attention(q, k, v)
        k_style, v_style = self._split(self.style_k(style)), self._split(self.style_v(style))
        styled = functional.scaled_dot_product_attention(q, k_style, v_style)
        mixed = heard + strength[:, None, None, None] * styled
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Queries talk among themselves, read audio and style, and pass a feed-forward layer; pre-norm."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm_self, self.norm_cross, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mix = nn.Linear(dim, 3 * dim, bias=False)
        self.mix_out = nn.Linear(dim, dim)
        self.heads = config.heads
        self.cross = DecoupledAttention(dim, config.heads, config.style_dim)
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, audio: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        """Shapes as in DecoupledAttention."""
        parts = self.mix(self.norm_self(x)).chunk(3, dim=-1)
        q, k, v = (p.reshape(p.shape[0], p.shape[1], self.heads, -1).transpose(1, 2) for p in parts)
        x = x + self.mix_out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.cross(self.norm_cross(x), audio, style, strength)
        out: Tensor = x + self.feed(self.norm_feed(x))
        return out


def expression_readout(dim: int) -> nn.Linear:
    """The frozen map from the expression token to the 42 coefficients: orthogonal rows, the same in every training.

    Because it is fixed, the denoiser can learn to draw an expression before any conditioner has been trained.
    """
    frozen = nn.Linear(dim, len(SPEECH))
    drawn = torch.randn(dim, len(SPEECH), generator=torch.Generator().manual_seed(42), dtype=torch.float64)
    rows = torch.linalg.qr(drawn).Q.T
    with torch.no_grad():
        frozen.weight.copy_(READOUT_SCALE * rows)
        frozen.bias.zero_()
    return frozen.requires_grad_(False)


OPENING: Final = (
    "jawOpen", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "mouthFunnel",
    "mouthPucker",
)


def widened(tokens: Float32, expression: Float32, gain: float) -> tuple[Float32, Float32]:
    """Tokens [B, N, C] and expression [B, 42], clipped to [0, 1], with the opening of the mouth scaled by `gain`.

    A regression under uncertainty says too little on average; `gain` restores the size of the movement. The expression
    token follows exactly, through the frozen readout.
    """
    scale = np.array([gain if name in OPENING else 1.0 for name in SPEECH], np.float32)
    wide = np.clip(expression * scale, 0.0, 1.0).astype(np.float32)
    moved = tokens.copy()
    gap = wide - np.clip(expression, 0.0, 1.0)
    moved[:, 0] += gap @ _readout_rows(tokens.shape[2]) / np.float32(READOUT_SCALE**2)
    return moved, wide


@lru_cache(maxsize=4)
def _readout_rows(dim: int) -> Float32:
    """float32 [42, dim]: the weight of `expression_readout`."""
    rows: Float32 = expression_readout(dim).weight.numpy()
    return rows


class Conditioner(nn.Module):
    """Audio window and style tokens of one frame -> `Condition`; every frame of a batch stands alone.

    Token 0 is the expression token: it holds the expression and nothing else, in the row space of one frozen linear
    readout, so that a trainer that knows the true expression can set it exactly (`with_expression`), and a denoiser
    trained on `with_expression(zeros, truth)` meets nothing unknown in it here.
    """

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.listen = nn.Sequential(
            nn.LayerNorm(config.audio_dim), nn.Linear(config.audio_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.place = nn.Parameter(torch.randn(config.window, dim) * 0.1)
        self.unheard = nn.Parameter(torch.zeros(dim))
        self.ahead = nn.Embedding(config.max_look_ahead + 1, dim)
        self.queries = nn.Parameter(torch.randn(config.tokens, dim) * 0.5)
        self.hear = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self.express = nn.Linear(dim, len(SPEECH))
        self.readout = expression_readout(dim)

    def forward(self, audio: Tensor, heard: Tensor, style: Tensor, strength: Tensor) -> Condition:
        """audio [B, W, A], heard [B, W] (1 heard, 0 not), style [B, S, C], strength [B] in 0..2.

        What `audio` holds where `heard` is 0 has no influence.
        """
        mask = heard[..., None]
        a = self.listen(audio * mask) * mask + self.unheard * (1 - mask) + self.place
        ahead = (heard[:, self.config.past + 2 :].sum(1) / 2).long()
        a = self.hear(a + self.ahead(ahead)[:, None])
        x = self.queries.expand(audio.shape[0], -1, -1)
        for block in self.blocks:
            x = block(x, a, style, strength)
        hidden = self.norm(x)
        expression = self.express(hidden[:, 0])
        # The rows of the readout are orthogonal and of one length, so its pseudo-inverse is its scaled transpose.
        first = functional.linear(expression, self.readout.weight.T / READOUT_SCALE**2)
        return Condition(torch.cat([first[:, None], hidden[:, 1:]], dim=1), expression)

    def with_expression(self, tokens: Tensor, expression: Tensor) -> Tensor:
        """Tokens [B, N, C] whose readout is `expression` [B, 42]: the least change of token 0 that does it.

        Gradients flow to both arguments.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            first, weight = tokens[:, 0].float(), self.readout.weight.float()
            gap = expression.float() - functional.linear(first, weight, self.readout.bias.float())
            change = gap @ weight / READOUT_SCALE**2
        return torch.cat([(first + change).to(tokens.dtype)[:, None], tokens[:, 1:]], dim=1)


def load_conditioner(path: Path) -> Conditioner:
    """Frozen, in eval mode. Raises WeightsError when the file is missing, damaged or of another architecture."""
    config, tensors = read_weights(path, KIND)
    try:
        model = Conditioner(ConditionerConfig(**config["conditioner"]))
    except (KeyError, TypeError, ValueError) as e:
        raise WeightsError(f"weights {path} carry a configuration that this version does not know: {e}") from e
    load_into(model, {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}, path)
    return model
