"""The probabilistic style prior: how somebody speaks in a clip becomes a Gaussian.

In: a clip's expression [B, T, K] and audio features [B, T, A] at 25 fps. Out: N(mu, sigma^2) as mu, log_var [B, D].
Remembers: nothing. Runs on whole clips, off the street.

After SVP (arXiv 2409.03270: an intrinsic style learned from paired audio and expressions). The network is our own,
shaped like StyleTalk's encoder (AAAI 2023): a small transformer with self-attention pooling. Audio goes in because
style is what the expression is, given what is being said. `StyleDecoder` speaks other words in a style; its error in
training keeps in the style what is needed to generate, where contrast alone keeps only what discriminates.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from svp_stream.arkit import SPEECH
from svp_stream.errors import WeightsError
from svp_stream.weights_file import load_into, read_weights, save_module

KIND = "style_prior"
LOG_VAR_LOW, LOG_VAR_HIGH = -6.0, 2.0
_LONGEST_WAVE = 10_000.0


@dataclass(frozen=True, slots=True)
class PriorConfig:
    """Sizes and switches of the encoder and decoder; stored with the weights."""

    expression_dim: int = len(SPEECH)
    audio_dim: int = 128
    width: int = 128
    layers: int = 3
    heads: int = 4
    style_dim: int = 128
    pool: Literal["attention", "mean"] = "attention"
    audio_in_style: bool = True
    dropout: float = 0.1
    decoder_layers: int = 4
    manner_dim: int = 12
    evidence: bool = False
    """Whether sigma is told how long the clip is and how far its mean stood from nothing."""

    def __post_init__(self) -> None:
        sizes = (self.expression_dim, self.audio_dim, self.width, self.layers, self.heads, self.style_dim)
        if min(sizes) < 1 or self.decoder_layers < 1 or self.manner_dim < 1:
            raise ValueError(f"sizes of a style prior are positive, got {self}")
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must divide by twice the {self.heads} heads")
        if self.pool not in ("attention", "mean"):
            raise ValueError(f"pool is '{self.pool}'; use attention or mean")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; use 0 to below 1")


class Block(nn.Module):
    """One pre-norm transformer layer over [B, T, d]."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attend_norm, self.mix_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mix = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B, T, d]; mask bool [B, T], True where there is a frame."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.attend_norm(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.drop(self.out(y.transpose(1, 2).reshape(b, t, d)))
        out: Tensor = x + self.drop(self.mix(self.mix_norm(x)))
        return out


class AttentionPool(nn.Module):
    """h = sum_t softmax_t(w2 Mish(W1 x_t)) x_t: frames that show the style weigh more (StyleTalk)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Mish(), nn.Linear(width, 1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, T, d] and bool [B, T] to [B, d]."""
        scores = self.score(x).squeeze(-1).masked_fill(~mask, -torch.inf)
        return torch.einsum("bt,btd->bd", scores.softmax(-1), x)


class StyleEncoder(nn.Module):
    """A clip to (mu, log_var).

    mu has unit variance over its dimensions (a LayerNorm without gain), so that its scale against sigma is one number
    that training cannot run away with. log_var is squashed into [-6, 2] smoothly: a hard clamp has no gradient outside.
    A mean over T frames has a variance of about 1/T, and a direction one of about 1/length^2: with `evidence` the logs
    of both are features of log_var, linear there; pooling and LayerNorm hide them.
    """

    expression_mean: Tensor
    expression_std: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        self.register_buffer("expression_mean", torch.zeros(config.expression_dim))
        self.register_buffer("expression_std", torch.ones(config.expression_dim))
        self.expression = nn.Sequential(nn.Linear(config.expression_dim, d), nn.LayerNorm(d))
        self.audio = nn.Sequential(nn.Linear(config.audio_dim, d), nn.LayerNorm(d)) if config.audio_in_style else None
        self.blocks = nn.ModuleList(Block(d, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d)
        self.pool = AttentionPool(d) if config.pool == "attention" else None
        level = nn.LayerNorm(config.style_dim, elementwise_affine=False)
        self.mu = nn.Sequential(nn.Linear(d, config.style_dim), level)
        self.spread = nn.Linear(d + 2 * config.evidence, config.style_dim)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Keep the corpus' mean and standard deviation [K] with the weights; a still coefficient counts as 1."""
        self.expression_mean.copy_(mean)
        self.expression_std.copy_(torch.where(std > 1e-4, std, torch.ones_like(std)))

    def standardise(self, expression: Tensor) -> Tensor:
        """Coefficients [..., K] to z scores."""
        return (expression - self.expression_mean) / self.expression_std

    def restore(self, z: Tensor) -> Tensor:
        """Inverse of `standardise`."""
        return z * self.expression_std + self.expression_mean

    def forward(self, expression: Tensor, audio: Tensor | None = None, mask: Tensor | None = None
                ) -> tuple[Tensor, Tensor]:
        """expression [B, T, K], audio [B, T, A], mask bool [B, T] (True: a frame; None: all) to mu, log_var [B, D].

        Raises ValueError when a shape is wrong, audio is wanted and missing, or a clip has no frame.
        """
        raw, told = self.summary(expression, audio, mask)
        return self.mu[1](raw), self.log_var(told)

    def log_var(self, told: Tensor) -> Tensor:
        """What `summary` tells of a clip to log sigma^2 [B, D]."""
        middle, half = (LOG_VAR_HIGH + LOG_VAR_LOW) / 2, (LOG_VAR_HIGH - LOG_VAR_LOW) / 2
        return middle + half * torch.tanh(self.spread(told) / half)

    def summary(self, expression: Tensor, audio: Tensor | None = None, mask: Tensor | None = None
                ) -> tuple[Tensor, Tensor]:
        """The mean before its LayerNorm [B, D], and what sigma is read off [B, d or d + 2]; arguments as `forward`."""
        mask = self._check(expression, audio, mask)
        x = self.expression(self.standardise(expression))
        if self.audio is not None:
            x = x + self.audio(audio)
        x = x + _positions(x.shape[1], x.shape[2]).to(x)
        # What lies in the padding (NaN included) must not reach a sum, where 0 * NaN would be NaN.
        x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        weights = mask.to(x) / mask.sum(1, keepdim=True)
        h = torch.einsum("bt,btd->bd", weights, x) if self.pool is None else self.pool(x, mask)
        raw: Tensor = self.mu[0](h)
        if not self.config.evidence:
            return raw, h
        length, reach = mask.sum(1).to(h).log(), raw.detach().std(1).clamp(min=1e-6).log()
        return raw, torch.cat([h, torch.stack([length, reach], 1)], 1)

    def _check(self, expression: Tensor, audio: Tensor | None, mask: Tensor | None) -> Tensor:
        c = self.config
        if expression.ndim != 3 or expression.shape[2] != c.expression_dim or not expression.shape[1]:
            raise ValueError(f"expression has shape [B, T, {c.expression_dim}], got {tuple(expression.shape)}")
        wanted = (*expression.shape[:2], c.audio_dim)
        if self.audio is not None and (audio is None or audio.shape != wanted):
            raise ValueError(f"audio has shape {list(wanted)}, got {None if audio is None else list(audio.shape)}")
        if mask is None:
            return torch.ones(expression.shape[:2], dtype=torch.bool, device=expression.device)
        if mask.shape != expression.shape[:2] or mask.dtype != torch.bool or not bool(mask.any(1).all()):
            raise ValueError(f"mask is bool {list(expression.shape[:2])} with a frame in each clip")
        return mask


class StyleDecoder(nn.Module):
    """Audio features [B, T, A] spoken in a style s [B, D] to standardised expression [B, T, K].

    Residual convolutions over 5 frames, each scaled and shifted by the style (FiLM, Perez et al. 2018): enough for
    coarticulation, too short-sighted to learn sentences by heart.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        d = config.width
        self.enter = nn.Linear(config.audio_dim, d)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(config.decoder_layers))
        self.films = nn.ModuleList(nn.Linear(config.style_dim, 2 * d) for _ in range(config.decoder_layers))
        self.convs = nn.ModuleList(nn.Conv1d(d, d, 5, padding=2) for _ in range(config.decoder_layers))
        self.leave = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, config.expression_dim))

    def forward(self, audio: Tensor, s: Tensor) -> Tensor:
        """See the class."""
        x = self.enter(audio)
        for norm, film, conv in zip(self.norms, self.films, self.convs, strict=True):
            scale, shift = film(s).unsqueeze(1).chunk(2, dim=-1)
            y = norm(x) * (1 + scale) + shift
            x = x + conv(nn.functional.silu(y).transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.leave(x)
        return out


class StylePrior(nn.Module):
    """Encoder and decoder, trained together and kept together, and a linear map from mu to how the person moves."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = StyleEncoder(config)
        self.decoder = StyleDecoder(config)
        # Fitted in closed form after training; no gradient runs through it.
        self.manner = nn.Linear(config.style_dim, config.manner_dim).requires_grad_(False)


def draw(mu: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """s = mu + sigma * eps, the reparameterised sample [B, D] that gradients flow through; `eps` is standard normal."""
    return mu + (log_var / 2).exp() * eps


def pool(mu: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    """Gaussians of several clips of one style, [N, D] each, to one (mu, log_var) [D]: the mean, and by the law of total
    variance the mean of sigma^2 plus the variance of mu between clips (0 for one clip). A sample is as wide as clips of
    the style are."""
    between = mu.var(0, correction=int(len(mu) > 1))
    return mu.mean(0), (between + log_var.exp().mean(0)).log()


def save_prior(path: Path, prior: StylePrior) -> str:
    """Write weights and configuration; returns the hash that presets of this prior carry."""
    return save_module(path, KIND, asdict(prior.config), prior)


def load_prior(path: Path) -> StylePrior:
    """Read what `save_prior` wrote, in eval mode; raises WeightsError."""
    config, tensors = read_weights(path, KIND)
    prior = StylePrior(_config(config, path))
    load_into(prior, tensors, path)
    return prior


def _config(values: dict[str, Any], path: Path) -> PriorConfig:
    try:
        return PriorConfig(**values)
    except (TypeError, ValueError) as e:
        raise WeightsError(f"weights {path} have a configuration of another version: {e}") from e


def _positions(frames: int, width: int) -> Tensor:
    """Sinusoidal positions [T, d] (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(_LONGEST_WAVE) / width))
    angles = torch.arange(frames).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
