"""Stage `image`: one frame alone. The denoiser learns to draw an expression, a pose and a face.

Mostly plain regression of the clean latent from pure noise (at a zero-terminal-SNR start the input holds nothing but
the conditions), the rest of the time ordinary diffusion at random noise levels with min-SNR weighting (arXiv
2303.09556), so that one and two steps, and more, all stand on the same network. Audio tokens carry the true expression
exactly (`expression_tokens`); no previous frame, no style yet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from svp_stream.diffusion import sampler
from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.diffusion.unet import Conditions, Denoiser, DenoiserConfig, load_denoiser, save_denoiser
from svp_stream.diffusion.vae import Autoencoder
from svp_stream.training.autoencoder import psnr
from svp_stream.training.frames import Indices, face_boxes, to_tensors
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.pixels import STYLE_TOKENS, WIDTH, PixelData, expression_tokens
from svp_stream.training.sheets import tile, write_png

WEIGHTS = "denoiser.safetensors"
ALPHA = torch.from_numpy(SCHEDULE.alpha.copy()).float()
SIGMA = torch.from_numpy(SCHEDULE.sigma.copy()).float()


class ImageTrainConfig(BaseModel):
    """Profile `configs/train/image.yaml`."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig(steps=20000, batch=32, lr=6e-4, warmup=100, ema=0.998)
    widths: tuple[int, int, int, int] = (64, 96, 192, 256)
    pure_noise: float = Field(0.7, ge=0, le=1)
    min_snr: float = Field(5.0, gt=0)
    kps_dropout: float = Field(0.05, ge=0, le=1)
    start: Path | None = Field(None, description="denoiser to go on from, at its sizes; none: the stage before")


class ImageStage:
    """See the card; `data` holds the frames of all splits."""

    def __init__(self, config: ImageTrainConfig, data: PixelData, autoencoder: Autoencoder) -> None:
        self.config = config
        self.data = data
        self.autoencoder = autoencoder
        self.train = np.flatnonzero(data.frames.split == "train")
        self.held_out = np.flatnonzero(data.frames.split != "train")
        if config.start is None:
            self._model = Denoiser(DenoiserConfig(widths=config.widths))
        else:
            self._model = load_denoiser(config.start).train().requires_grad_(True)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def model(self) -> nn.Module:
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Frames by number, and a timestep for each."""
        t = rng.integers(1, TIMESTEPS, size=size)
        t[rng.random(size) < self.config.pure_noise] = SCHEDULE.cold
        return {"at": torch.from_numpy(rng.choice(self.train, size)), "t": torch.from_numpy(t)}

    def conditions(self, at: Indices, *, exact: bool = False) -> Conditions:
        """A cold start without style; `exact` leaves out the training noise."""
        speech = torch.from_numpy(self.data.speech[at])
        tokens = expression_tokens(speech)
        if exact:
            tokens = expression_tokens(speech, torch.zeros_like(tokens))
        none = torch.zeros_like(self.data.latents[at], dtype=torch.float32)
        style = torch.zeros(len(at), STYLE_TOKENS, WIDTH)
        return self.data.conditions(at, tokens=tokens, style=style, previous=none, history=-torch.ones(len(at)))

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Weighted square error of the clean latent."""
        at, t = batch["at"].numpy(), batch["t"]
        x0 = self.data.latents[at].float()
        c = self.conditions(at)
        drop = (torch.rand(len(at)) < self.config.kps_dropout)[:, None, None, None]
        c = c._replace(kps=torch.where(drop, 0.0, c.kps))
        x_t = ALPHA[t][:, None, None, None] * x0 + SIGMA[t][:, None, None, None] * torch.randn_like(x0)
        estimate, _ = model(x_t, t.float() / TIMESTEPS, c)
        error = ((estimate.float() - x0).square() * self.data.weight[at].float()).mean((1, 2, 3))
        snr = (ALPHA[t] / SIGMA[t]).square()
        loss = (error * snr.clamp(max=self.config.min_snr).clamp(min=1.0)).mean()
        cold = t == SCHEDULE.cold
        return loss, {"cold": float(error.detach()[cold].mean()) if bool(cold.any()) else 0.0}

    @torch.no_grad()
    def draw(self, model: nn.Module, at: Indices, steps: int = 1) -> Tensor:
        """Clean latents [B, 4, h, w] of frames, from noise alone."""
        c = self.conditions(at, exact=True)
        noise = torch.randn(c.previous.shape, generator=torch.Generator().manual_seed(0))
        out: Tensor = sampler.cold(bound(model, c), noise, SCHEDULE, steps=steps)
        return out

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Pixel PSNR in dB on held-out frames, whole and face: reference alone, one step, two steps."""
        at = self.held_out[np.linspace(0, len(self.held_out) - 1, 64).astype(int)]
        figures = self.figures(self.data.references[at].float(), at, "reference")
        for steps in (1, 2):
            figures |= self.figures(self.draw(model, at, steps), at, f"steps{steps}")
        return figures

    @torch.no_grad()
    def figures(self, latents: Tensor, at: Indices, name: str) -> dict[str, float]:
        """PSNR of decoded `latents` against the pictures `at`."""
        rgb, _ = to_tensors(self.data.frames.pixels[at])
        square = (self.autoencoder.decode(latents)[:, :3].clamp(-1, 1) - rgb).square().mean(1)
        boxes = face_boxes(self.data.frames.kps[at], self.data.frames.size).astype(int)
        face = [float(s[y0:y1, x0:x1].mean()) for s, (x0, y0, x1, y1) in zip(square, boxes, strict=True)]
        return {f"{name}_psnr": psnr(float(square.mean())), f"{name}_face": psnr(float(np.mean(face)))}

    @torch.no_grad()
    def sheet(self, model: nn.Module, path: Path) -> None:
        """Rows: picture, reference latent decoded, one step decoded."""
        at = self.held_out[np.linspace(0, len(self.held_out) - 1, 8).astype(int)]
        rgb, _ = to_tensors(self.data.frames.pixels[at])
        rows = [self.autoencoder.decode(z)[:, :3] for z in (self.data.references[at].float(), self.draw(model, at))]
        write_png(path, tile([rgb, *rows]))

    def export(self, model: nn.Module, out: Path) -> None:
        """Write `denoiser.safetensors`."""
        assert isinstance(model, Denoiser)
        save_denoiser(out / WEIGHTS, model)


def bound(model: nn.Module, c: Conditions) -> Callable[[Tensor, int], Tensor]:
    """The model under fixed conditions, as samplers want it."""

    def denoise(x_t: Tensor, t: int) -> Tensor:
        x0: Tensor = model(x_t, torch.full((len(x_t),), t / TIMESTEPS), c)[0]
        return x0.float()

    return denoise
