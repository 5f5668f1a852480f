"""Stage `video`: a frame after another. The denoiser learns to go on from the frame before, warm, in one step.

Pairs of consecutive frames with the conditioner's tokens (their expression token corrected to the truth most of the
time, so that what is drawn is what is asked for) and the style's tokens. Half of the batch starts warm: the input is
the previous clean latent, noised to the warm timestep, the target is this frame. The previous latent is corrupted as
Hallo2 does (arXiv 2410.07718, section 3.2: noise, and patches dropped) with the noise level told to the network, and in
part replaced by the network's own last estimate, so that errors do not feed themselves. Deep features of the frame
before stand in for this frame's some of the time, so that they may at run time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from svp_stream.diffusion import sampler
from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.diffusion.unet import Conditions
from svp_stream.diffusion.vae import Autoencoder
from svp_stream.training.frames import Indices
from svp_stream.training.image import ALPHA, SIGMA, ImageStage, ImageTrainConfig, bound
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.pixels import PixelData, expression_tokens

SERVED_HISTORY = 0.05
"""The noise level that the server tells the network of its own, clean, previous latent."""


class VideoTrainConfig(ImageTrainConfig):
    """Profile `configs/train/video.yaml`."""

    loop: LoopConfig = LoopConfig(steps=20000, batch=32, lr=3e-4, warmup=100, ema=0.998)
    warm_share: float = Field(0.5, ge=0, le=1)
    own_history: float = Field(0.4, ge=0, le=1)
    history_noise: float = Field(0.3, ge=0)
    patch_drop: float = Field(0.25, ge=0, le=1)
    no_history: float = Field(0.1, ge=0, le=1)
    true_expression: float = Field(0.75, ge=0, le=1)
    deep_reuse: float = Field(0.1, ge=0, le=1)
    style_dropout: float = Field(0.1, ge=0, le=1)
    change_weight: float = Field(0.5, ge=0)


class VideoStage(ImageStage):
    """See the card; `data` must hold tokens and style tokens."""

    config: VideoTrainConfig

    def __init__(
        self, config: VideoTrainConfig, data: PixelData, autoencoder: Autoencoder, start: nn.Module | None = None
    ) -> None:
        """`start`: the denoiser of the stage before; none where `config.start` names a file."""
        super().__init__(config, data, autoencoder)
        if start is not None:
            self._model.load_state_dict(start.state_dict())
        pairs = data.frames.pairs()
        self.train_pairs = pairs[data.frames.split[pairs] == "train"]
        self.held_pairs = pairs[data.frames.split[pairs] != "train"]

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """The later frame of pairs, and a timestep for each: warm, cold, or any."""
        t = np.where(rng.random(size) < 0.6, SCHEDULE.cold, rng.integers(1, TIMESTEPS, size=size))
        warm = rng.random(size) < self.config.warm_share
        t[warm] = np.clip(SCHEDULE.warm + rng.integers(-20, 21, size=size)[warm], 1, TIMESTEPS - 1)
        at = rng.choice(self.train_pairs, size)
        return {"at": torch.from_numpy(at), "t": torch.from_numpy(t), "warm": torch.from_numpy(warm)}

    def heard(self, at: Indices, *, exact: bool) -> tuple[Tensor, Tensor]:
        """Audio and style tokens of frames; `exact` always sets the true expression."""
        assert self.data.tokens is not None and self.data.style is not None
        tokens, style = self.data.tokens[at].float(), self.data.style[at].float()
        true = expression_tokens(torch.from_numpy(self.data.speech[at]), tokens)
        if exact:
            return true, style
        keep = (torch.rand(len(at)) < self.config.true_expression)[:, None, None]
        dropped = (torch.rand(len(at)) < self.config.style_dropout)[:, None, None]
        return torch.where(keep, true, tokens), torch.where(dropped, 0.0, style)

    def corrupted(self, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Previous latents as training shows them, and the noise level told of each (-1: none given)."""
        c, (b, _, h, w) = self.config, previous.shape
        level = torch.rand(b) * c.history_noise
        shown = previous + level[:, None, None, None] * torch.randn_like(previous)
        patches = torch.rand(b, 1, h // 4, w // 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        holes = (patches < c.patch_drop) & (torch.rand(b) < 0.5)[:, None, None, None]
        none = torch.rand(b) < c.no_history
        shown = torch.where(holes | none[:, None, None, None], 0.0, shown)
        return shown, torch.where(none, -1.0, level)

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Weighted square error of the clean latent, and of its change since the frame before."""
        at, t, warm = batch["at"].numpy(), batch["t"], batch["warm"]
        x0, before = self.data.latents[at].float(), self.data.latents[at - 1].float()
        previous, deep = self.past(model, at, before)
        shown, level = self.corrupted(previous)
        tokens, style = self.heard(at, exact=False)
        c = self.data.conditions(at, tokens=tokens, style=style, previous=shown, history=level)
        start = torch.where(warm[:, None, None, None], previous, x0)
        x_t = ALPHA[t][:, None, None, None] * start + SIGMA[t][:, None, None, None] * torch.randn_like(x0)
        reuse = deep if deep is not None and float(torch.rand(())) < self.config.deep_reuse else None
        estimate, _ = model(x_t, t.float() / TIMESTEPS, c, reuse)
        weight = self.data.weight[at].float()
        error = ((estimate.float() - x0).square() * weight).mean((1, 2, 3))
        change = (((estimate.float() - previous) - (x0 - before)).square() * weight).mean((1, 2, 3))
        loss = error.mean() + self.config.change_weight * change[warm].mean() if bool(warm.any()) else error.mean()
        logs = {"warm": float(error.detach()[warm].mean()) if bool(warm.any()) else 0.0}
        return loss, logs | {"rest": float(error.detach()[~warm].mean()) if not bool(warm.all()) else 0.0}

    @torch.no_grad()
    def past(self, model: nn.Module, at: Indices, before: Tensor) -> tuple[Tensor, Tensor | None]:
        """Clean latents that stand before the frames `at`: the truth, or for a share of the batches what the network
        itself makes of that frame (then with its deep features)."""
        if float(torch.rand(())) >= self.config.own_history:
            return before, None
        tokens, style = self.heard(at - 1, exact=False)
        none, never = torch.zeros_like(before), -torch.ones(len(at))
        c = self.data.conditions(at - 1, tokens=tokens, style=style, previous=none, history=never)
        made, deep = model(torch.randn_like(before), torch.full((len(at),), SCHEDULE.cold / TIMESTEPS), c)
        return made.float(), deep

    @torch.no_grad()
    def roll(self, model: nn.Module, first: int, count: int, *, cold_steps: int = 2) -> Tensor:
        """`count` frames from frame `first` on as the server makes them: a cold start, then warm. [count, 4, h, w]."""
        made: list[Tensor] = []
        for at in (np.array([n]) for n in range(first, first + count)):
            tokens, style = self.heard(at, exact=True)
            noise = torch.randn(1, *self.data.latents.shape[1:], generator=torch.Generator().manual_seed(int(first)))
            past = made[-1] if made else torch.zeros_like(noise)
            level = torch.tensor([SERVED_HISTORY if made else -1.0])
            c = self.data.conditions(at, tokens=tokens, style=style, previous=past, history=level)
            denoise = bound(model, c)
            if made:
                made.append(sampler.warm(denoise, past, noise, SCHEDULE))
            else:
                made.append(sampler.cold(denoise, noise, SCHEDULE, steps=cold_steps))
        return torch.cat(made)

    def conditions(self, at: Indices, *, exact: bool = False) -> Conditions:
        """A cold start with style."""
        tokens, style = self.heard(at, exact=exact)
        none = torch.zeros_like(self.data.latents[at], dtype=torch.float32)
        return self.data.conditions(at, tokens=tokens, style=style, previous=none, history=-torch.ones(len(at)))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Single frames as in `image`, and held-out runs of 25 frames made as the server makes them."""
        figures = super().validate(model)
        starts = self.held_pairs[np.linspace(0, len(self.held_pairs) - 30, 3).astype(int)]
        made, true = [], []
        for first in starts:
            run = np.arange(first, first + 25)
            run = run[self.data.frames.clip[run] == self.data.frames.clip[first]]
            made.append(self.roll(model, int(first), len(run)))
            true.append(run)
        figures |= self.figures(torch.cat(made), np.concatenate(true), "warm")
        moved = torch.cat([m.diff(dim=0).abs().mean()[None] for m in made]).mean()
        real = torch.stack([self.data.latents[r].float().diff(dim=0).abs().mean() for r in true]).mean()
        return figures | {"motion_ratio": float(moved / real)}


def with_tokens(data: PixelData, tokens: Tensor, style: Tensor) -> PixelData:
    """The same frames with what the conditioner says of each: [F, 8, 128] and [F, 4, 128]."""
    return replace(data, tokens=tokens.half(), style=style.half())
