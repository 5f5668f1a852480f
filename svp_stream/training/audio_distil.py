"""Stage 'audio', distilled: the causal encoder learns to give the hidden states of a real wav2vec2 checkpoint.

In: a `Wav2Vec2Model` from a folder or hub id, and a tape of speech (labels are not read). Out: `audio_encoder`, the
causal LayerNorm copy that streams without a window, and `audio_readout`, the map of its tokens to the checkpoint's
width: together they stand in the checkpoint's place in an sd15 folder.

The teacher hears the clean crop whole, as it was trained to; the student hears it with noise, block by block. Loss
after FeatherHuBERT (METHOD 4.3 [V]): squared error, cosine, first and second differences over time, and the norm,
against states standardised over the tape [R].
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from svp_stream.audio.ears import READOUT_KIND
from svp_stream.audio.wav2vec import TAIL, EncoderConfig, Wav2VecEncoder, save_encoder
from svp_stream.audio.wav2vec_rolling import load_wav2vec2
from svp_stream.config import load_yaml
from svp_stream.packets import Float32
from svp_stream.training import augment
from svp_stream.training.audio import WEIGHTS_NAME, TapeConfig
from svp_stream.training.clips import Clips
from svp_stream.training.loop import Batch, LoopConfig, run_stage
from svp_stream.training.speech_tape import FRAME_SAMPLES, Tape, corpus_clips, join, speak_clips
from svp_stream.weights_file import save_weights

logger = logging.getLogger(__name__)
FOLDER: Final = "audio-distil"
READOUT_NAME: Final = "audio_readout.safetensors"


class DistilLossConfig(BaseModel):
    """Weights of the terms."""

    model_config = ConfigDict(extra="forbid")

    mse: float = Field(1.0, ge=0)
    cosine: float = Field(1.0, ge=0)
    delta: float = Field(0.5, ge=0)
    delta2: float = Field(0.25, ge=0)
    norm: float = Field(0.1, ge=0)


class AudioDistilConfig(BaseModel):
    """configs/train/audio-distil.yaml."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig(steps=100_000, batch=16, lr=5e-4, warmup=500, weight_decay=0.01, ema=0.999)
    encoder: EncoderConfig = EncoderConfig(
        channels=(128,) * 7, width=256, layers=6, heads=8, feedforward=1024, position_groups=16
    )
    tape: TapeConfig = TapeConfig(corpus=True)
    loss: DistilLossConfig = DistilLossConfig()
    crop_frames: int = Field(100, ge=8)
    noise: float = Field(0.5, ge=0, le=1)
    noise_snr_db: tuple[float, float] = (5.0, 25.0)

    @field_validator("encoder", mode="before")
    @classmethod
    def _encoder(cls, value: Any) -> Any:
        return EncoderConfig.from_mapping(value) if isinstance(value, dict) else value


class Student(nn.Module):
    """The encoder and the readout of its tokens, in standardised units of the teacher."""

    def __init__(self, config: EncoderConfig, width: int) -> None:
        super().__init__()
        self.encoder = Wav2VecEncoder(config)
        self.readout = nn.Linear(config.width, width)

    def forward(self, wav: Tensor) -> Tensor:
        """[B, N] to [B, T, width]."""
        told: Tensor = self.readout(self.encoder.encode(wav))
        return told


class AudioDistilStage:
    """`TrainingStage` over one tape to learn from, one to be tested on, and a teacher that does not change."""

    def __init__(self, config: AudioDistilConfig, teacher: Any, train: Tape, held_out: Tape) -> None:
        self._config, self._train = config, train
        self._teacher = teacher.eval().requires_grad_(False)
        self._samples = config.crop_frames * FRAME_SAMPLES + TAIL
        rng = np.random.default_rng([config.loop.seed, 7])
        self._mean, self._std = self._statistics(self._cuts(train, rng, 16))
        torch.manual_seed(config.loop.seed)
        self._model = Student(config.encoder, teacher.config.hidden_size)
        self._examples = torch.from_numpy(self._cuts(held_out, np.random.default_rng(7), 8))

    @property
    def model(self) -> Student:
        """Encoder and readout."""
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """`clean` and `wav` [B, N]: what the teacher hears, and the student."""
        clean = self._cuts(self._train, rng, size)
        heard = clean.copy()
        for i in range(size):
            if rng.random() < self._config.noise:
                disturbance = augment.noise(self._samples, rng)
                heard[i] = augment.mix(heard[i], disturbance, rng.uniform(*self._config.noise_snr_db))
        return {"clean": torch.from_numpy(clean), "wav": torch.from_numpy(heard)}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of the terms."""
        truth, told = self.targets(batch["clean"]), model(batch["wav"]).float()
        terms = {
            "mse": F.mse_loss(told, truth),
            "cosine": 1 - F.cosine_similarity(told, truth, dim=-1).mean(),
            "delta": F.mse_loss(told.diff(dim=1), truth.diff(dim=1)),
            "delta2": F.mse_loss(told.diff(n=2, dim=1), truth.diff(n=2, dim=1)),
            "norm": F.l1_loss(told.norm(dim=-1), truth.norm(dim=-1)) / truth.shape[-1] ** 0.5,
        }
        weights = self._config.loss.model_dump()
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return total, {name: float(term.detach()) for name, term in terms.items()}

    def targets(self, clean: Tensor) -> Tensor:
        """The teacher's states [B, T, d] over whole crops, standardised."""
        return (self._states(clean) - self._mean.to(clean.device)) / self._std.to(clean.device)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Held-out speech: relative error and mean cosine in standardised units."""
        device = next(model.parameters()).device
        clean = self._examples.to(device)
        truth, told = self.targets(clean), model(clean).float()
        error = float((told - truth).norm() / truth.norm())
        return {"error": error, "cosine": float(F.cosine_similarity(told, truth, dim=-1).mean())}

    def sheet(self, model: nn.Module, path: Path) -> None:
        """The first two crops: the teacher's states above the student's."""
        clean = self._examples[:2].to(next(model.parameters()).device)
        both = torch.cat([self.targets(clean), model(clean).float()], 2).cpu().numpy()
        grey = np.clip(128 + 42 * both.transpose(0, 2, 1).reshape(-1, both.shape[1]), 0, 255).astype(np.uint8)
        Image.fromarray(grey).resize((4 * grey.shape[1], grey.shape[0])).save(path)

    def export(self, model: nn.Module, out: Path) -> None:
        """Encoder, and the readout with the standardisation undone."""
        assert isinstance(model, Student)
        save_encoder(out / WEIGHTS_NAME, model.encoder)
        weight, bias = model.readout.weight.detach().cpu(), model.readout.bias.detach().cpu()
        tensors = {"weight": self._std[:, None] * weight, "bias": self._std * bias + self._mean}
        save_weights(out / READOUT_NAME, READOUT_KIND, {"width": len(bias)}, tensors, half=False)

    def _states(self, clean: Tensor) -> Tensor:
        self._teacher.to(clean.device)
        with torch.no_grad(), torch.autocast(clean.device.type, enabled=False):
            mean, var = clean.mean(1, keepdim=True), clean.var(1, keepdim=True)
            states: Tensor = self._teacher((clean - mean) * (var + 1e-7).rsqrt()).last_hidden_state
        return states.float()

    def _statistics(self, clean: Float32) -> tuple[Tensor, Tensor]:
        states = self._states(torch.from_numpy(clean)).flatten(0, 1)
        return states.mean(0), states.std(0).clamp(min=1e-3)

    def _cuts(self, tape: Tape, rng: np.random.Generator, count: int) -> Float32:
        """Crops float32 [count, N]."""
        starts = rng.integers(0, max(1, len(tape.sound) - self._samples), count)
        cuts = [tape.sound[s : s + self._samples].astype(np.float32) / np.float32(32767) for s in starts]
        return np.stack([np.pad(c, (0, self._samples - len(c))) for c in cuts])


def run_distil(config: Path | None, teacher: str, corpus: Path, out: Path, minutes: float | None = None) -> Path:
    """Distil the checkpoint `teacher` into `out/audio-distil`, going on where it stopped; returns that folder.

    Raises WeightsError when the checkpoint cannot be loaded, ConfigError for a profile, MediaError without speech.
    """
    profile = AudioDistilConfig() if config is None else load_yaml(config, AudioDistilConfig)
    folder, taught = out / FOLDER, load_wav2vec2(teacher)
    read = corpus_clips(Clips.open(corpus).where(split="train")) if profile.tape.corpus else ()
    spoken = speak_clips(profile.tape.minutes, False, profile.tape.seed) if profile.tape.minutes else ()
    train = _kept(folder / "tape_train.npz", [*spoken, *read], profile)
    held_out = _kept(folder / "tape_heldout.npz", speak_clips(profile.tape.held_out_minutes, True, 0), profile)
    run_stage(AudioDistilStage(profile, taught, train, held_out), profile.loop, folder, minutes=minutes)
    return folder


def _kept(path: Path, clips: Any, profile: AudioDistilConfig) -> Tape:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        join(clips, 0.0, profile.tape.seed).save(path)
    return Tape.open(path)
