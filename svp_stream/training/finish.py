"""Stage `finish`: the last touch, on what the server will really make.

From the consistency stage (or the video stage). Short runs of frames are rolled out as the server rolls them: warm,
one step, each from the stage's own last frame (Self-Forcing's cure for drift, arXiv 2506.08009, without its critic of
scores), under a session's mixed noise. Every frame of a run is held to the truth in five ways:

    latent     weighted L1 of the clean latent                                 what keeps the rest honest
    pixels     Charbonnier of decoded colour and its edges in a crop, heavy on mouth and eyes
    features   L1 of what the frozen autoencoder's encoder sees in that crop   a perceptual loss without foreign weights
    change     L1 of the step from the frame before: what stands still must stand still
    critic     hinge loss of a patch critic on crops of the mouth, with R1 (off unless asked for)

The evaluator's networks are not used here: nothing that is trained may see what judges it. Our reconstruction.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.diffusion.unet import Denoiser
from svp_stream.diffusion.vae import FACTOR, Autoencoder, Encoder
from svp_stream.training.autoencoder import charbonnier
from svp_stream.training.consistency import CROP, MARGIN, ConsistencyStage, ConsistencyTrainConfig
from svp_stream.training.frames import Indices, to_tensors
from svp_stream.training.image import ALPHA, SIGMA
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.pixels import PixelData
from svp_stream.training.video import SERVED_HISTORY, VideoStage

MOUTH = 1.05
"""Of a mouth's centre: how far under the middle of the eyes, in distances between them."""


class FinishTrainConfig(ConsistencyTrainConfig):
    """Profile `configs/train/finish.yaml`."""

    loop: LoopConfig = LoopConfig(steps=1500, batch=16, lr=3e-5, warmup=50, ema=0.99)
    rollout: int = Field(3, ge=1)
    rollout_runs: int = Field(4, ge=1)
    noise_mix: float = Field(0.9, ge=0, le=1)
    latent_weight: float = Field(1.0, ge=0)
    feature_weight: float = Field(0.1, ge=0)
    step_weight: float = Field(0.5, ge=0)
    critic_weight: float = Field(0.0, ge=0)
    r1: float = Field(1.0, ge=0)


class Critic(nn.Module):
    """Which patches of a crop [B, 3, H, W] in [-1, 1] are drawn by the renderer: logits [B, 1, H/8, W/8]."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 1))

    def forward(self, crops: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.net(crops)
        return out


class Finishing(nn.Module):
    """What is trained: the denoiser and, where asked for, its critic."""

    def __init__(self, denoiser: Denoiser, critic: Critic | None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.critic = critic


class FinishStage(ConsistencyStage):
    """See the card."""

    config: FinishTrainConfig

    def __init__(
        self, config: FinishTrainConfig, data: PixelData, autoencoder: Autoencoder, start: nn.Module | None = None
    ) -> None:
        super().__init__(config, data, autoencoder, start)
        longest = [np.isin(self.train_pairs + k, self.train_pairs) for k in range(config.rollout)]
        self.starts = self.train_pairs[np.all(longest, axis=0)]
        self._both = Finishing(self._model, Critic() if config.critic_weight > 0 else None)

    @property
    def model(self) -> nn.Module:
        """See TrainingStage."""
        return self._both

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Pairs for the anchor, and the first frames of the runs."""
        return super().batch(rng, size) | {"runs": torch.from_numpy(rng.choice(self.starts, self.config.rollout_runs))}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """The video stage's loss, which keeps cold starts as they are, and the card's five over a rollout."""
        assert isinstance(model, Finishing)
        anchor, logs = VideoStage.loss(self, model.denoiser, batch, progress)
        runs, terms = batch["runs"].numpy(), dict.fromkeys(("latent", "pixels", "features", "change", "critic"), 0.0)
        total = anchor
        before = self.data.latents[runs - 1].float()
        for k, (made, past) in enumerate(self.rollout(model.denoiser, runs)):
            at = runs + k
            for name, (value, weight) in self.terms(model, made, past, before, at).items():
                total = total + weight * value / self.config.rollout
                terms[name] += float(value.detach()) / self.config.rollout
            before = self.data.latents[at].float()
        return total, logs | terms

    def rollout(self, denoiser: nn.Module, runs: Indices) -> list[tuple[Tensor, Tensor]]:
        """For each frame of the runs [B]: what the denoiser makes of it (with gradient) and what it went on from
        (without), [B, 4, h, w]. The first goes on from the truth's latent."""
        past = self.data.latents[runs - 1].float()
        session = torch.randn_like(past)
        share = self.config.noise_mix
        made: list[tuple[Tensor, Tensor]] = []
        for k in range(self.config.rollout):
            tokens, style = self.heard(runs + k, exact=False)
            level = torch.full((len(runs),), SERVED_HISTORY)
            c = self.data.conditions(runs + k, tokens=tokens, style=style, previous=past, history=level)
            noise = share**0.5 * session + (1 - share) ** 0.5 * torch.randn_like(past)
            x_t = ALPHA[SCHEDULE.warm] * past + SIGMA[SCHEDULE.warm] * noise
            x0, _ = denoiser(x_t, torch.full((len(runs),), SCHEDULE.warm / TIMESTEPS), c)
            made.append((x0.float(), past))
            past = x0.detach().float()
        return made

    def terms(
        self, model: Finishing, made: Tensor, past: Tensor, before: Tensor, at: Indices
    ) -> dict[str, tuple[Tensor, float]]:
        """Each loss of frames `at` and its weight; `before` the true latents of the frames before."""
        c, x0 = self.config, self.data.latents[at].float()
        found = {
            "latent": (((made - x0).abs() * self.data.weight[at].float()).mean(), c.latent_weight),
            "change": (((made - past) - (x0 - before)).abs().mean(), c.step_weight),
        }
        drawn, true, weight = self.crops(made, at)
        error = drawn - true
        edges = charbonnier(error.diff(dim=2)).mean() + charbonnier(error.diff(dim=3)).mean()
        found["pixels"] = ((charbonnier(error) * weight).mean() + 0.5 * edges, c.pixel_weight)
        found["features"] = (feature_distance(self.autoencoder.encoder, drawn, true), c.feature_weight)
        if model.critic is not None:
            found["critic"] = (self.duel(model.critic, drawn, true), c.critic_weight)
        return found

    def crops(self, latents: Tensor, at: Indices) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded and true colour [B, 3, s, s] over the mouths of frames `at`, and the loss' weight of each pixel
        [B, 1, s, s], 1 in the mean."""
        cells, targets, weights = [], [], []
        for latent, i in zip(latents, at, strict=True):
            top, left = self.place(int(i), latent.shape[-1], MOUTH)
            window = slice(top, top + CROP), slice(left, left + CROP)
            cells.append(latent[(slice(None), *window)])
            weights.append(self.data.weight[int(i)][(slice(None), *window)].float())
            rows, columns = (slice(FACTOR * w.start, FACTOR * w.stop) for w in window)
            targets.append(self.data.frames.pixels[np.array([i])][0, rows, columns])
        rgb, _ = to_tensors(np.stack(targets))
        inner = slice(FACTOR * MARGIN, -FACTOR * MARGIN)
        drawn = self.autoencoder.decode(torch.stack(cells))[:, :3].float()
        weight = F.interpolate(torch.stack(weights), scale_factor=float(FACTOR))[..., inner, inner]
        return drawn[..., inner, inner], rgb[..., inner, inner], weight / weight.mean()

    def duel(self, critic: Critic, drawn: Tensor, true: Tensor) -> Tensor:
        """Hinge loss of critic and denoiser in one: the critic's own sees detached pictures, the denoiser's a critic
        whose weights are held. R1 (Mescheder et al. 2018) on the true crops."""
        with torch.autocast("cpu", enabled=False):
            held = {k: v.detach() for k, v in critic.named_parameters()}
            fooling = -functional_call(critic, held, (drawn,)).mean()
            real = true.detach().requires_grad_()
            on_real, on_made = critic(real), critic(drawn.detach())
            (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            telling = F.relu(1 - on_real).mean() + F.relu(1 + on_made).mean()
            steep: Tensor = slope.square().sum((1, 2, 3)).mean()
            return torch.as_tensor(fooling + telling + 0.5 * self.config.r1 * steep)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """As in `video`."""
        return super().validate(_denoiser(model))

    def sheet(self, model: nn.Module, path: Path) -> None:
        """As in `image`."""
        super().sheet(_denoiser(model), path)

    def export(self, model: nn.Module, out: Path) -> None:
        """Write `denoiser.safetensors`; the critic stays behind."""
        super().export(_denoiser(model), out)


def _denoiser(model: nn.Module) -> Denoiser:
    assert isinstance(model, Finishing)
    return model.denoiser


def feature_distance(encoder: Encoder, drawn: Tensor, true: Tensor) -> Tensor:
    """Mean L1 over three depths of the encoder's activations of two pictures [B, 3, H, W] in [-1, 1], each in units of
    the true picture's deviation there."""
    distances = []
    with torch.no_grad():
        seen = looks(encoder, true)
    for a, b in zip(looks(encoder, drawn), seen, strict=True):
        distances.append((a - b).abs().mean() / b.std().clamp(min=1e-3))
    return torch.stack(distances).mean()


def looks(encoder: Encoder, picture: Tensor) -> list[Tensor]:
    """Activations at a half, a quarter and an eighth of the size of [B, 3, H, W]."""
    high = encoder.high(encoder.stem(F.pixel_unshuffle(picture, 2)))
    mid = encoder.mid(encoder.to_mid(F.pixel_unshuffle(high, 2)))
    low = encoder.low(encoder.to_low(F.pixel_unshuffle(mid, 2)))
    return [high, mid, low]
