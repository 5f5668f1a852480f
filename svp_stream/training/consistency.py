"""Stage `consistency`: few steps without drift. ECT-style consistency tuning (arXiv 2406.14548) from the video stage,
and a finish on decoded pixels.

For a time t the network's estimate is drawn to its own estimate, without gradient, at an earlier time r on the same
noise and under the same conditions; r moves towards t as training goes on (r = t (1 - 2^-(stage + 1)) in flow time; at
stage 0 r is 0 and the target is the data). Half of the times are exactly those that the sampler visits. The anchor of
the video stage, warm pairs included, stays in the loss: it is what keeps consistency tuning from wandering (FACM's
finding). The finish decodes a crop over the mouth or the eyes and compares pixels and edges there.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.diffusion.unet import Conditions
from svp_stream.training.autoencoder import charbonnier
from svp_stream.training.frames import Indices, to_tensors
from svp_stream.training.image import ALPHA, SIGMA
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.video import VideoStage, VideoTrainConfig

SHARE = SIGMA / (ALPHA + SIGMA)
CROP = 16
MARGIN = 2


class ConsistencyTrainConfig(VideoTrainConfig):
    """Profile `configs/train/consistency.yaml`."""

    loop: LoopConfig = LoopConfig(steps=4000, batch=32, lr=1e-4, warmup=50, ema=0.995)
    stages: int = Field(5, ge=1)
    consistency_weight: float = Field(0.5, ge=0)
    pixel_weight: float = Field(2.0, ge=0)
    pixel_frames: int = Field(8, ge=0)


class ConsistencyStage(VideoStage):
    """See the card."""

    config: ConsistencyTrainConfig

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Anchor (the video stage's loss), consistency, pixels."""
        anchor, logs = super().loss(model, batch, progress)
        at = batch["at"].numpy()
        half = at[: max(1, len(at) // 2)]
        drift, estimate = self.consistency(model, half, progress)
        pixels = self.pixels(estimate[: self.config.pixel_frames], half[: self.config.pixel_frames])
        loss = anchor + self.config.consistency_weight * drift + self.config.pixel_weight * pixels
        return loss, logs | {"consistency": float(drift.detach()), "pixels": float(pixels.detach())}

    def consistency(self, model: nn.Module, at: Indices, progress: float) -> tuple[Tensor, Tensor]:
        """Pseudo-Huber distance between the estimates at t and r, and the estimate at t with gradient."""
        x0 = self.data.latents[at].float()
        c = self.conditions(at)
        t = self.times(len(at))
        stage = min(int(progress * self.config.stages), self.config.stages - 1)
        r = earlier(t, stage)
        noise = torch.randn_like(x0)
        with torch.no_grad():
            target = self._at(model, x0, noise, r, c) if stage else x0
            target = torch.where((r == 0)[:, None, None, None], x0, target)
        estimate = self._at(model, x0, noise, t, c)
        weight = self.data.weight[at].float()
        gap = ((estimate - target).square() * weight).sum((1, 2, 3))
        scale = 0.00054 * x0[0].numel() ** 0.5
        distance = ((gap + scale**2).sqrt() - scale) / x0[0].numel() ** 0.5
        return distance.mean(), estimate

    def times(self, count: int) -> Tensor:
        """Timesteps [count]: half at the sampler's two, half log-normal in sigma / alpha."""
        u = torch.exp(-0.8 + 1.6 * torch.randn(count))
        t = torch.searchsorted(SHARE.contiguous(), u / (1 + u)).clamp(1, TIMESTEPS - 1)
        exact = torch.where(torch.rand(count) < 0.6, SCHEDULE.cold, SCHEDULE.warm)
        return torch.where(torch.rand(count) < 0.5, exact, t)

    def _at(self, model: nn.Module, x0: Tensor, noise: Tensor, t: Tensor, c: Conditions) -> Tensor:
        x_t = ALPHA[t][:, None, None, None] * x0 + SIGMA[t][:, None, None, None] * noise
        return torch.as_tensor(model(x_t, t.float() / TIMESTEPS, c)[0]).float()

    def pixels(self, latents: Tensor, at: Indices) -> Tensor:
        """Charbonnier on decoded colour and its gradients in a crop over mouth or eyes."""
        if len(at) == 0:
            return torch.zeros(())
        cells, targets = [], []
        for latent, i in zip(latents, at, strict=True):
            top, left = self._crop(int(i), latent.shape[-1])
            cells.append(latent[:, top : top + CROP, left : left + CROP])
            px = [8 * top, 8 * (top + CROP), 8 * left, 8 * (left + CROP)]
            targets.append(self.data.frames.pixels[np.array([i])][0, px[0] : px[1], px[2] : px[3]])
        rgb, _ = to_tensors(np.stack(targets))
        inner = slice(8 * MARGIN, -8 * MARGIN)
        error = (self.autoencoder.decode(torch.stack(cells))[:, :3].float() - rgb)[..., inner, inner]
        edges = charbonnier(error.diff(dim=2)).mean() + charbonnier(error.diff(dim=3)).mean()
        return charbonnier(error).mean() + 0.5 * edges

    def _crop(self, i: int, cells: int) -> tuple[int, int]:
        return self.place(i, cells, 1.05 if float(torch.rand(())) < 0.7 else 0.0)

    def place(self, i: int, cells: int, down: float) -> tuple[int, int]:
        """Top and left, in cells, of the crop of frame `i` that lies `down` distances between the eyes under them."""
        eyes, d = self.data.points[i, :2].mean(0), np.linalg.norm(self.data.points[i, 1] - self.data.points[i, 0])
        centre = np.array([eyes[1] + down * d, eyes[0]]) * cells
        top, left = np.clip(np.round(centre - CROP / 2), 0, cells - CROP).astype(int)
        return int(top), int(left)


def earlier(t: Tensor, stage: int) -> Tensor:
    """Timesteps r < t: flow time t (1 - 2^-stage), 0 (clean data) at stage 0."""
    share = SHARE[t] * (1 - 2.0**-stage)
    r = torch.searchsorted(SHARE.contiguous(), share)
    return torch.where(torch.tensor(stage == 0), torch.zeros_like(t), torch.minimum(r, t - 1).clamp(min=0))
