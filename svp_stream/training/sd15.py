"""Stages `image`, `video`, `consistency` and `rollout` of the sd15 model: one stage class, one profile each.

In: `Sd15Data`, a grafted `Sd15` and a style projection. Out: adapters and projection, and a whole folder that serves.

    image        single frames; everything but attention over time                    v-prediction, min-SNR
    video        F frames, warm and cold, on a corrupted past                          v-prediction, min-SNR
    consistency  the same, to few steps (ECT, arXiv 2406.14548)                        pseudo-Huber and an anchor
    rollout      the same, on the network's own estimates of the frames before         x0 at the warm step

Order and what is trained in each after V-Express [V]; consistency and rollout are ours [R] (METHOD 2.3, 3). Noise of a
clip is shared in part between its frames (PYoCo, arXiv 2305.10474), as it is when served.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.diffusion.sd15 import Reference, Sd15, Steering
from svp_stream.style.prior import draw
from svp_stream.style.projection import StyleProjection
from svp_stream.training import sd15_losses as losses
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.sd15_data import Sd15Data

Kind = Literal["image", "video", "consistency", "rollout"]
RHO = 0.9


class Dropout(BaseModel):
    """How often a condition is left out: the strong ones most, so that the weak are heard (V-Express [V])."""

    model_config = ConfigDict(extra="forbid")

    audio: float = Field(0.1, ge=0, le=1)
    style: float = Field(0.1, ge=0, le=1)
    kps: float = Field(0.2, ge=0, le=1)
    reference: float = Field(0.05, ge=0, le=1)
    previous: float = Field(0.1, ge=0, le=1)


class Sd15TrainConfig(BaseModel):
    """configs/train/sd15-*.yaml. `train`: words; parameters whose name holds one are trained (none: all there are)."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind = "image"
    loop: LoopConfig = LoopConfig(steps=40_000, batch=8, lr=1e-5, warmup=500, weight_decay=0.01, ema=0.9999)
    frames: int = Field(1, ge=1)
    train: tuple[str, ...] = ()
    checkpointing: bool = True
    min_snr: float = Field(5.0, gt=0)
    mouth: float = Field(3.0, ge=0)
    noise_offset: float = Field(0.05, ge=0)
    warm_share: float = Field(0.5, ge=0, le=1)
    history_noise: float = Field(0.3, ge=0)
    patch_drop: float = Field(0.25, ge=0, le=1)
    anchor: float = Field(0.2, ge=0)
    stages: int = Field(6, ge=1)
    dropout: Dropout = Dropout()


class Trained(nn.Module):
    """Model and projection; its state is what is trained alone, so that checkpoints and averages leave out the base."""

    def __init__(self, model: Sd15, projection: StyleProjection, words: tuple[str, ...]) -> None:
        super().__init__()
        self.sd15, self.projection = model, projection
        model.requires_grad_(False)
        projection.requires_grad_(True)
        for name, p in model.parameters_to_train().items():
            p.requires_grad_(not words or any(w in name for w in words))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trained parameters by name."""
        return {n: p.detach() for n, p in self.named_parameters() if p.requires_grad}

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """What `state_dict` gave; strict."""
        with torch.no_grad():
            for name, p in self.named_parameters():
                if p.requires_grad:
                    p.copy_(state_dict[name])

    def forward(self, b: Batch, x_t: Tensor, t: Tensor, previous: Tensor, history: Tensor, frames: int) -> Tensor:
        """x0 estimates [B F, 4, h, w] under the conditions of a batch (see `Sd15Stage.conditions`)."""
        sd15 = self.sd15
        tokens = self.projection(b["s"]) * b["style_on"][:, None, None]
        shown = bool(b["reference_on"].item())
        reference = sd15.read_reference(b["reference"]) if shown else Reference()
        steering: Steering = sd15.steer(
            b["kps"], b["audio"], b["heard"], sd15.style_keys(tokens), torch.ones_like(b["style_on"]), reference
        )
        v, _ = sd15(x_t, t, previous, history, steering, frames=frames)
        return losses.estimate(x_t, v.float(), t)


class Sd15Stage:
    """A `TrainingStage`; see the card. `decode` draws sheets, `write` exports."""

    def __init__(
        self, config: Sd15TrainConfig, data: Sd15Data, model: Sd15, projection: StyleProjection, *, decode: Any = None,
        write: Any = None,
    ) -> None:
        self.config, self._data = config, data
        self._decode, self._write = decode, write
        self._model = Trained(model, projection, config.train)
        if config.checkpointing:
            model.unet.enable_gradient_checkpointing()

    @property
    def model(self) -> Trained:
        """Everything that is trained, and the frozen base inside."""
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """See `sd15_data.Cut`, and which conditions are left out."""
        return self.conditions(self._data.cut(rng, size, self.config.frames).as_batch(), rng, self.config.dropout)

    def conditions(self, b: Batch, rng: np.random.Generator, drop: Dropout) -> Batch:
        """Draw the style and leave out conditions: `heard` and `kps` by frame, style by clip, reference by batch."""
        clips, frames = len(b["mu"]), len(b["kps"])

        def kept(count: int, share: float) -> Tensor:
            return torch.from_numpy((rng.random(count) >= share).astype(np.float32))

        eps = torch.from_numpy(rng.standard_normal(b["mu"].shape, dtype=np.float32))
        return b | {
            "s": draw(b["mu"], b["log_var"], eps), "style_on": kept(clips, drop.style),
            "reference_on": kept(1, drop.reference), "heard": b["heard"] * kept(frames, drop.audio)[:, None],
            "kps": b["kps"] * kept(frames, drop.kps)[:, None, None, None],
        }  # fmt: skip

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """By the stage's kind; scalar and its parts."""
        c, kind = self.config, self.config.kind
        x0, before = batch["latents"][:, 1:].flatten(0, 1), batch["latents"][:, :-1].flatten(0, 1)
        t, warm = self._times(len(batch["mu"]), x0.device)
        noise = self._noise(x0, len(batch["mu"]))
        none = 1.0 if kind == "image" else c.dropout.previous
        previous, history = losses.corrupted(before, c.history_noise, c.patch_drop, none)
        if kind == "rollout":
            before = self._own(model, batch, x0, before, noise, t)
            previous, history = before, torch.full_like(history, 0.05)
        origin = torch.where(warm[:, None, None, None], before, x0)
        x_t = losses.noised(origin, noise, t)
        told = model(batch, x_t, t, previous, history, c.frames)
        weight = 1 + c.mouth * batch["mask"]
        if kind in ("image", "video"):
            error = (told - x0) / losses.at(losses.SIGMA, t).clamp(min=0.05)
            total = (losses.min_snr(t, c.min_snr) * weight * error.square()).mean()
            return total, {"x0": float((told.detach() - x0).square().mean())}
        if kind == "rollout":
            total = (weight * (told - x0).abs()).mean()
            return total, {"x0": float((told.detach() - x0).square().mean())}
        return self._consistency(model, batch, (x0, noise, t, warm, previous, history), told, weight, progress)

    def _consistency(
        self, model: nn.Module, batch: Batch, given: tuple[Tensor, ...], told: Tensor, weight: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """ECT: the estimate at t against that at an earlier r, same noise and conditions, the gap halved by stages."""
        c, (x0, noise, t, warm, previous, history) = self.config, given
        r = losses.earlier(t, min(c.stages, int(progress * (c.stages + 1))))
        with torch.no_grad():
            there = model(batch, losses.noised(x0, noise, r), r, previous, history, c.frames)
        # Warm rows have no trajectory of their own: they lead straight to the clean frame (a learned bridge [R]).
        clean = (r == 0) | warm
        target = torch.where(clean[:, None, None, None], x0, there)
        share = losses.SHARE.to(t.device)
        scale = (1 / (share[t] - torch.where(clean, 0.0, 1.0) * share[r]).clamp(min=1e-2)).clamp(max=20.0)
        consistent = (scale * losses.pseudo_huber(weight.sqrt() * (told - target))).mean() / told[0].numel() ** 0.5
        anchor = (weight * (told - x0).abs()).mean()
        return consistent + c.anchor * anchor, {"ct": float(consistent.detach()), "anchor": float(anchor.detach())}

    def _own(self, model: nn.Module, batch: Batch, x0: Tensor, before: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network makes of the frames before: its estimates, moved on by a frame."""
        frames = self.config.frames
        with torch.no_grad():
            level = torch.full((len(x0),), 0.05, device=x0.device)
            made: Tensor = model(batch, losses.noised(before, noise, t), t, before, level, frames).to(x0.dtype)
        shifted = made.view(-1, frames, *made.shape[1:]).roll(1, 1).clone()
        shifted[:, 0] = before.view_as(shifted)[:, 0]
        out: Tensor = shifted.flatten(0, 1)
        return out

    def _times(self, clips: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Timesteps [B F], one a clip, and which rows start from the frame before."""
        c = self.config
        drawn = torch.randint(1, TIMESTEPS, (clips,))
        if c.kind == "consistency":
            drawn = losses.inference_times(clips)
        warm = torch.rand(clips) < (1.0 if c.kind == "rollout" else 0.0 if c.kind == "image" else c.warm_share)
        jitter = SCHEDULE.warm + torch.randint(-20, 21, (clips,))
        t = torch.where(warm, jitter, drawn).clamp(1, TIMESTEPS - 1)
        return t.repeat_interleave(c.frames).to(device), warm.repeat_interleave(c.frames).to(device)

    def _noise(self, x0: Tensor, clips: int) -> Tensor:
        """[B F, 4, h, w] of unit variance, shared in part within a clip, with an offset for each channel."""
        frames = self.config.frames
        shared = torch.randn_like(x0.view(clips, frames, *x0.shape[1:])[:, :1]).expand(-1, frames, -1, -1, -1)
        mixed = RHO**0.5 * shared.flatten(0, 1) + (1 - RHO) ** 0.5 * torch.randn_like(x0)
        offset = torch.randn(len(x0), x0.shape[1], 1, 1, device=x0.device)
        out: Tensor = mixed + self.config.noise_offset * offset
        return out

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Held-out frames: mean squared error of the latent from pure noise and from the frame before, in one step;
        `still` is that of showing the frame before again."""
        b = self._held(8)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            cold, warm, x0, before = self._made(model, b)
        errors = {"cold": cold, "warm": warm, "still": before}
        return {f"{n}_error": float((x - x0).square().mean()) for n, x in errors.items()}

    def _held(self, size: int) -> Batch:
        rng = np.random.default_rng(11)
        none = Dropout(audio=0, style=0, kps=0, reference=0, previous=0)
        cut = self._data.cut(rng, size, self.config.frames, held_out=True).as_batch()
        device = next(self._model.parameters()).device
        return {k: v.to(device) for k, v in self.conditions(cut, rng, none).items()}

    def _made(self, model: nn.Module, b: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x0, before = b["latents"][:, 1:].flatten(0, 1), b["latents"][:, :-1].flatten(0, 1)
        noise, frames = torch.randn_like(x0), self.config.frames
        t = torch.full((len(x0),), SCHEDULE.cold, device=x0.device)
        none, some = torch.full((len(x0),), -1.0, device=x0.device), torch.full((len(x0),), 0.05, device=x0.device)
        cold = model(b, noise, t, torch.zeros_like(x0), none, frames)
        t = torch.full_like(t, SCHEDULE.warm)
        return cold, model(b, losses.noised(before, noise, t), t, before, some, frames), x0, before

    def sheet(self, model: nn.Module, path: Path) -> None:
        """Held-out frames: truth, from pure noise, from the frame before."""
        if self._decode is None:
            return
        with torch.random.fork_rng():
            torch.manual_seed(0)
            cold, warm, x0, _ = self._made(model, self._held(4))
        rows = [np.concatenate([self._decode(z[None]) for z in x[:4]], 1) for x in (x0, cold, warm)]
        Image.fromarray(np.concatenate(rows, 0)).save(path)

    def export(self, model: nn.Module, out: Path) -> None:
        """By `write(out, model)`."""
        if self._write is not None:
            self._write(out, model)
