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
from typing import Any, Final, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.diffusion.sd15 import Sd15
from svp_stream.diffusion.sd15_lora import ATTENTION
from svp_stream.style.prior import draw
from svp_stream.style.projection import StyleProjection
from svp_stream.training import sd15_losses as losses
from svp_stream.training.films import write_film
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.sd15_data import Cut, Sd15Data
from svp_stream.training.sd15_model import Trained
from svp_stream.training.sd15_roll import SERVED_HISTORY, clip_noise, rolled, unroll

Kind = Literal["image", "video", "consistency", "rollout"]
HELD_OUT: Final = 8
ROLLED: Final = 16
"""Held-out clips of a validation, and most frames that are made of each on their own past."""


class Dropout(BaseModel):
    """How often a condition is left out: the strong ones most, so that the weak are heard (V-Express [V])."""

    model_config = ConfigDict(extra="forbid")

    audio: float = Field(0.1, ge=0, le=1)
    style: float = Field(0.1, ge=0, le=1)
    kps: float = Field(0.2, ge=0, le=1)
    reference: float = Field(0.05, ge=0, le=1)
    previous: float = Field(0.1, ge=0, le=1)


class Lora(BaseModel):
    """Low-rank layers in place of full tuning, see `sd15_lora.LoraConfig`; nothing else is trained with them."""

    model_config = ConfigDict(extra="forbid")

    rank: int = Field(64, ge=1)
    alpha: float = Field(64.0, gt=0)
    targets: tuple[str, ...] = Field(ATTENTION, min_length=1)


class Sd15TrainConfig(BaseModel):
    """configs/train/sd15-*.yaml. `train`: words; parameters whose name holds one are trained (none: all there are)."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind = "image"
    loop: LoopConfig = LoopConfig(
        steps=40_000, batch=8, lr=1e-5, warmup=500, weight_decay=0.01, ema=0.9999, sheet_every_s=1800
    )
    frames: int = Field(1, ge=1)
    train: tuple[str, ...] = ()
    lora: Lora | None = None
    checkpointing: bool = True
    min_snr: float = Field(5.0, gt=0)
    mouth: float = Field(3.0, ge=0)
    noise_offset: float = Field(0.05, ge=0)
    warm_share: float = Field(0.5, ge=0, le=1)
    history_noise: float = Field(0.3, ge=0)
    patch_drop: float = Field(0.25, ge=0, le=1)
    anchor: float = Field(0.2, ge=0)
    stages: int = Field(6, ge=1)
    film_frames: int = Field(50, ge=0)
    film_steps: int = Field(10, ge=1)
    dropout: Dropout = Dropout()


class Sd15Stage:
    """A `TrainingStage`; see the card. `decode` draws sheets, `write` exports."""

    def __init__(
        self, config: Sd15TrainConfig, data: Sd15Data, model: Sd15, projection: StyleProjection, *, decode: Any = None,
        write: Any = None,
    ) -> None:
        self.config, self._data = config, data
        self._decode, self._write = decode, write
        self._model = Trained(model, projection, config.train, low_rank=config.lora is not None)
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
        if kind == "rollout":
            return self._rollout(batch)
        x0, before = batch["latents"][:, 1:].flatten(0, 1), batch["latents"][:, :-1].flatten(0, 1)
        t, warm = self._times(len(batch["mu"]), x0.device)
        noise = self._noise(batch["latents"][:, 1:])
        none = 1.0 if kind == "image" else c.dropout.previous
        previous, history = losses.corrupted(before, c.history_noise, c.patch_drop, none)
        origin = torch.where(warm[:, None, None, None], before, x0)
        told = model(batch, losses.noised(origin, noise, t), t, previous, history, c.frames)
        weight = 1 + c.mouth * batch["mask"]
        if kind == "consistency":
            return self._consistency(model, batch, (x0, noise, t, warm, previous, history), told, weight, progress)
        error = (told - x0) / losses.at(losses.SIGMA, t).clamp(min=0.05)
        total = (losses.min_snr(t, c.min_snr) * weight * error.square()).mean()
        return total, {"x0": float((told.detach() - x0).square().mean())}

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

    def _rollout(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Every estimate on the way against its true frame: two of the cold start, one of each frame that follows."""
        c, x0 = self.config, batch["latents"][:, 1:]
        weight = (1 + c.mouth * batch["mask"]).view(len(x0), c.frames, 1, *x0.shape[-2:])
        parts = [
            ((weight[:, f] * (told - x0[:, f]).abs()).mean(), (told.detach() - x0[:, f]).square().mean())
            for f, told in unroll(self._model, batch, self._noise(x0).view_as(x0))
        ]
        total, square = (torch.stack(part) for part in zip(*parts, strict=True))
        return total.mean(), {"first": float(square[1]), "last": float(square[-1])}

    def _times(self, clips: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Timesteps [B F], one a clip, and which rows start from the frame before."""
        c = self.config
        drawn = torch.randint(1, TIMESTEPS, (clips,))
        if c.kind == "consistency":
            drawn = losses.inference_times(clips)
        warm = torch.rand(clips) < (0.0 if c.kind == "image" else c.warm_share)
        jitter = SCHEDULE.warm + torch.randint(-20, 21, (clips,))
        t = torch.where(warm, jitter, drawn).clamp(1, TIMESTEPS - 1)
        return t.repeat_interleave(c.frames).to(device), warm.repeat_interleave(c.frames).to(device)

    def _noise(self, x0: Tensor) -> Tensor:
        """[B F, 4, h, w] for clips [B, F, 4, h, w], with an offset for each channel of a frame."""
        offset = torch.randn(*x0.shape[:3], 1, 1, device=x0.device)
        out: Tensor = (clip_noise(x0) + self.config.noise_offset * offset).flatten(0, 1)
        return out

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean squared errors of held-out latents, each beside what it has to beat.

        In one step: `cold` from pure noise and `warm` from the true frame before; `still` shows that frame again. Over
        a clip that is made on its own past (`rolled`): `shuffled` is told another clip's pose and sound, `photo` shows
        the reference all along.
        """
        b = self._held(HELD_OUT, self.config.frames)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            cold, warm, x0, before = self._made(model, b)
            errors = {"cold": cold - x0, "warm": warm - x0, "still": before - x0} | self._rolled_errors()
        return {f"{n}_error": float(x.square().mean()) for n, x in errors.items()}

    def _rolled_errors(self) -> dict[str, Tensor]:
        b = self._held(HELD_OUT, min(ROLLED, self._data.longest(held_out=True)))
        x0, alone = b["latents"][:, 1:], self.config.kind == "image"
        noise, frames = clip_noise(x0), x0.shape[1]
        others = {n: b[n].roll(frames, 0) for n in ("kps", "audio", "heard")}
        made, other = (rolled(self._model, b | told, noise, alone=alone) for told in ({}, others))
        return {"rolled": made - x0, "shuffled": other - x0, "photo": b["reference"][:, None] - x0}

    def _held(self, size: int, frames: int) -> Batch:
        return self._told(self._data.cut(np.random.default_rng(11), size, frames, held_out=True))

    def _told(self, cut: Cut) -> Batch:
        """With every condition, where the model is."""
        none = Dropout(audio=0, style=0, kps=0, reference=0, previous=0)
        device = next(self._model.parameters()).device
        told = self.conditions(cut.as_batch(), np.random.default_rng(11), none)
        return {k: v.to(device) for k, v in told.items()}

    def _made(self, model: nn.Module, b: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x0, before = b["latents"][:, 1:].flatten(0, 1), b["latents"][:, :-1].flatten(0, 1)
        noise, frames = clip_noise(b["latents"][:, 1:]).flatten(0, 1), self.config.frames
        t = torch.full((len(x0),), SCHEDULE.cold, device=x0.device)
        none, some = (torch.full((len(x0),), level, device=x0.device) for level in (-1.0, SERVED_HISTORY))
        cold = model(b, noise, t, torch.zeros_like(x0), none, frames)
        t = torch.full_like(t, SCHEDULE.warm)
        return cold, model(b, losses.noised(before, noise, t), t, before, some, frames), x0, before

    def sheet(self, model: nn.Module, path: Path) -> None:
        """Held-out frames: truth, from pure noise, from the frame before."""
        if self._decode is None:
            return
        with torch.random.fork_rng():
            torch.manual_seed(0)
            cold, warm, x0, _ = self._made(model, self._held(4, self.config.frames))
        rows = [np.concatenate([self._decode(z[None]) for z in x[:4]], 1) for x in (x0, cold, warm)]
        Image.fromarray(np.concatenate(rows, 0)).save(path)

    def film(self, model: nn.Module, path: Path) -> None:
        """A held-out clip with its sound: the truth, and beside it what is made of it frame after frame, by DDIM before
        consistency tuning (the teacher) and in few steps after."""
        c = self.config
        if self._decode is None or c.film_frames == 0:
            return
        few = c.kind in ("consistency", "rollout")
        cut, sound = self._data.scene(c.film_frames)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            b = self._told(cut)
            x0 = b["latents"][:, 1:]
            made = rolled(self._model, b, clip_noise(x0), steps=None if few else c.film_steps, alone=c.kind == "image")
        pairs = zip(x0[0], made[0], strict=True)
        pictures = [np.concatenate([self._decode(z[None]) for z in pair], 1) for pair in pairs]
        write_film(path, np.stack(pictures), sound)

    def export(self, model: nn.Module, out: Path) -> None:
        """By `write(out, model)`."""
        if self._write is not None:
            self._write(out, model)
