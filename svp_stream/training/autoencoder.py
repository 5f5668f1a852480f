"""Stage `autoencoder`: RGB to 4 latent channels at an eighth of the size, back to RGB + alpha.

Starts from patch PCA in closed form, or from the weights that `start` names, then learns on random crops, half of them
over the face (mouth and eyes hold what people look at). Loss: Charbonnier on colour (mouth and eyes counted more), the
same on image gradients (edges), L1 on the matte. A little noise on the latents in training makes the decoder forgiving
of the denoiser's errors. With the encoder kept, latents stay what a trained denoiser knows (as with the decoders that
were tuned for Stable Diffusion).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.diffusion.vae import Autoencoder, AutoencoderConfig, load_autoencoder, save_autoencoder
from svp_stream.training.frames import Frames, Indices, face_boxes, to_tensors
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.sheets import tile, write_png

WEIGHTS = "autoencoder.safetensors"


class AutoencoderTrainConfig(BaseModel):
    """Profile `configs/train/autoencoder.yaml`."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig(steps=20000, batch=16, lr=1e-3, warmup=100, ema=0.999)
    latent: int = Field(4, ge=1)
    widths: tuple[int, int, int] = (128, 64, 32)
    depths: tuple[int, int, int] = (2, 1, 1)
    crop: int = Field(128, ge=32, multiple_of=8)
    face_crops: float = Field(0.6, ge=0, le=1)
    face_weight: float = Field(2.0, ge=0)
    gradient_weight: float = Field(1.0, ge=0)
    alpha_weight: float = Field(0.2, ge=0)
    latent_noise: float = Field(0.03, ge=0)
    start_pictures: int = Field(400, ge=8)
    start: Path | None = Field(None, description="autoencoder.safetensors to go on from, at its sizes; none: patch PCA")
    keep_encoder: bool = Field(False, description="with `start`: train the decoder alone")

    @model_validator(mode="after")
    def _kept(self) -> AutoencoderTrainConfig:
        if self.keep_encoder and self.start is None:
            raise ValueError("keep_encoder keeps that of `start`, which names no file")
        return self


class AutoencoderStage:
    """See the card; `frames` are the training pictures, `held_out` others of the same people."""

    def __init__(self, config: AutoencoderTrainConfig, frames: Frames, held_out: Frames) -> None:
        self.config = config
        self.frames = frames
        self.held_out = held_out
        self.boxes = face_boxes(frames.kps, frames.size)
        if config.start is None:
            self._model = Autoencoder(AutoencoderConfig(config.latent, config.widths, config.depths))
            rgb, alpha = to_tensors(frames.pixels[self._some(config.start_pictures)])
            self._model.start_from_patches(rgb, alpha)
        else:
            self._model = load_autoencoder(config.start).train().requires_grad_(True)
            self._model.encoder.requires_grad_(not config.keep_encoder)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _some(self, count: int) -> Indices:
        rng = np.random.default_rng(1)
        return np.sort(rng.choice(len(self.frames), min(count, len(self.frames)), replace=False))

    @property
    def model(self) -> nn.Module:
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Crops [B, 4, c, c] uint8 and the weight of each pixel [B, 1, c, c]."""
        crop, side = self.config.crop, self.frames.size
        pixels, weights = [], []
        for i in rng.integers(len(self.frames), size=size):
            x0, y0, x1, y1 = self.boxes[i]
            if rng.random() < self.config.face_crops:
                cx, cy = rng.uniform(x0, x1), rng.uniform(y0, y1)
                left, top = int(np.clip(cx - crop / 2, 0, side - crop)), int(np.clip(cy - crop / 2, 0, side - crop))
            else:
                left, top = (int(v) for v in rng.integers(side - crop + 1, size=2))
            pixels.append(self.frames.pixels[i, top : top + crop, left : left + crop])
            weight = np.ones((crop, crop), np.float32)
            inside = np.clip([y0 - top, y1 - top, x0 - left, x1 - left], 0, crop).astype(int)
            weight[inside[0] : inside[1], inside[2] : inside[3]] += self.config.face_weight
            weights.append(weight)
        return {"pixels": torch.from_numpy(np.stack(pixels)), "weight": torch.from_numpy(np.stack(weights))[:, None]}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Weighted colour, edge and matte losses."""
        assert isinstance(model, Autoencoder)
        rgb, alpha = to_tensors(batch["pixels"])
        rgb = rgb.contiguous(memory_format=torch.channels_last)
        raw = model.encoder(rgb)
        spread = raw.detach().float().std((0, 2, 3), keepdim=True)
        out = model.decoder(raw + self.config.latent_noise * spread * torch.randn_like(raw)).float()
        weight = batch["weight"]
        error = out[:, :3] - rgb
        colour = (weight * charbonnier(error)).mean() / weight.mean()
        edges = sum((charbonnier(torch.diff(error, dim=d)).mean() for d in (2, 3)), torch.zeros(()))
        matte = F.l1_loss(out[:, 3:], alpha)
        c = self.config
        loss = colour + 0.5 * c.gradient_weight * edges + c.alpha_weight * matte
        logs = {"colour": float(colour.detach()), "matte": float(matte.detach())}
        return loss, logs | {"psnr": psnr(float(error.detach().square().mean()))}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR in dB on held-out pictures: whole frame and face box; mean absolute error of the matte in [0, 1]."""
        assert isinstance(model, Autoencoder)
        chosen = np.linspace(0, len(self.held_out) - 1, min(96, len(self.held_out))).astype(int)
        return reconstruction(model, self.held_out, chosen)

    def sheet(self, model: nn.Module, path: Path) -> None:
        """Rows: picture, reconstruction, matte."""
        assert isinstance(model, Autoencoder)
        chosen = np.linspace(0, len(self.held_out) - 1, 6).astype(int)
        rgb, _ = to_tensors(self.held_out.pixels[chosen])
        out = model.decode(model.encode(rgb))
        write_png(path, tile([rgb, out[:, :3], out[:, 3:].expand(-1, 3, -1, -1)]))

    def export(self, model: nn.Module, out: Path) -> None:
        """Measure the latent scale, unless the encoder was kept, and write `autoencoder.safetensors`."""
        assert isinstance(model, Autoencoder)
        if not self.config.keep_encoder:
            model.measure_latents(to_tensors(self.frames.pixels[self._some(256)])[0])
        save_autoencoder(out / WEIGHTS, model)


def charbonnier(x: Tensor, eps: float = 0.01) -> Tensor:
    """sqrt(x^2 + eps^2) - eps: quadratic near zero, linear far away."""
    return (x**2 + eps**2).sqrt() - eps


def psnr(mse: float, peak: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB; `peak` is the range of the values."""
    return float(10 * np.log10(peak**2 / max(mse, 1e-12)))


@torch.no_grad()
def reconstruction(model: Autoencoder, frames: Frames, chosen: Indices) -> dict[str, float]:
    """Autoencoder figures over `chosen` frames: `psnr`, `psnr_face` in dB, `matte` mean absolute error in [0, 1]."""
    boxes = face_boxes(frames.kps, frames.size)
    whole, face, matte = [], [], []
    for i in chosen:
        rgb, alpha = to_tensors(frames.pixels[i : i + 1])
        out = model.decode(model.encode(rgb)).clamp(-1, 1)
        square = (out[:, :3] - rgb) ** 2
        x0, y0, x1, y1 = (int(v) for v in boxes[i])
        whole.append(float(square.mean()))
        face.append(float(square[..., y0:y1, x0:x1].mean()))
        matte.append(float((out[:, 3:] - alpha).abs().mean()) / 2)
    mean = {"psnr": psnr(float(np.mean(whole))), "psnr_face": psnr(float(np.mean(face)))}
    return mean | {"matte": float(np.mean(matte))}
