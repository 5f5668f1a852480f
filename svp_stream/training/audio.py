"""Stage 'audio': the streaming encoder learns what is said and what the face does with it.

In: a tape of labelled speech. Out: `audio_encoder.safetensors`. The heads serve training alone and are not exported:
phonemes aligned in time (cross entropy) and in order (CTC, Graves et al. 2006), log-mel from the convolutional features
(a pretext that makes raw-wave filters learn in minutes), and the 42 speech coefficients with 80 ms of look-ahead given
the clip's crude style, in value and in velocity.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from svp_stream.arkit import SPEECH, SPEECH_INDEX
from svp_stream.audio.wav2vec import HOP, RECEPTIVE, TAIL, EncoderConfig, Wav2VecEncoder, load_encoder, save_encoder
from svp_stream.errors import WeightsError
from svp_stream.packets import Float32
from svp_stream.training import augment
from svp_stream.training.audio_sheet import draw_sheet
from svp_stream.training.augment import AugmentConfig
from svp_stream.training.clips import Clips
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.mel import LogMel
from svp_stream.training.speech_tape import (
    FRAME_SAMPLES,
    SILENCE,
    SYMBOLS,
    LabelledClip,
    Tape,
    corpus_clips,
    join,
    speak_clips,
)

logger = logging.getLogger(__name__)
PAST_TOKENS, FUTURE_TOKENS = 6, 4
"""Frame n is told by tokens 2n - 6 to 2n + 5: 80 ms of look-ahead beyond its own two."""
STILL = 0.005
"""Deviation of a coefficient below which a crop says nothing about correlation."""
WEIGHTS_NAME = "audio_encoder.safetensors"


class TapeConfig(BaseModel):
    """Speech to learn from: `minutes` spoken on the spot, and with `corpus` the training clips of the corpus too."""

    model_config = ConfigDict(extra="forbid")

    minutes: float = Field(150.0, ge=0)
    corpus: bool = False
    pitch: float = Field(0.35, ge=0)
    pace: float = Field(0.25, ge=0)
    held_out_minutes: float = Field(2.5, gt=0)
    seed: int = 0


class LossConfig(BaseModel):
    """Weights of the terms; that of `mel` falls to a tenth over the run."""

    model_config = ConfigDict(extra="forbid")

    phoneme: float = Field(1.0, ge=0)
    ctc: float = Field(0.1, ge=0)
    mel: float = Field(0.5, ge=0)
    expression: float = Field(1.0, ge=0)
    velocity: float = Field(0.5, ge=0)


class AudioTrainConfig(BaseModel):
    """configs/train/audio.yaml."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig(
        steps=20000, batch=8, lr=1e-3, warmup=100, final_lr=0.02, weight_decay=0.01, ema=0.998, threads=1,
        sheet_every_s=150,
    )
    encoder: EncoderConfig = EncoderConfig()
    tape: TapeConfig = TapeConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    crop_frames: int = Field(80, ge=8)
    start: Path | None = Field(None, description="audio_encoder.safetensors to go on from; none: from scratch")

    @field_validator("encoder", mode="before")
    @classmethod
    def _encoder(cls, value: Any) -> Any:
        return EncoderConfig.from_mapping(value) if isinstance(value, dict) else value


class AudioHeads(nn.Module):
    """What is read from the tokens while training."""

    def __init__(self, width: int, mels: int, spread: Float32) -> None:
        super().__init__()
        self.mel = nn.Linear(width, mels)
        self.ctc = nn.Linear(width, len(SYMBOLS) + 1)
        self.phoneme = nn.Sequential(nn.Conv1d(width, 256, 7), nn.GELU(), nn.Conv1d(256, len(SYMBOLS), 1))
        self.window = nn.Conv1d(width, 256, PAST_TOKENS + 2 + FUTURE_TOKENS, stride=2)
        self.condition = nn.Linear(2 * len(SPEECH), 256)
        self.face = nn.Sequential(nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, len(SPEECH)))
        self.spread: Tensor
        self.register_buffer("spread", torch.from_numpy(spread))

    def phonemes(self, tokens: Tensor) -> Tensor:
        """[B, T, d] to logits [B, T, symbols]; sees tokens t - 2 to t + 4."""
        logits: Tensor = self.phoneme(F.pad(tokens.transpose(1, 2), (2, FUTURE_TOKENS)))
        return logits.transpose(1, 2)

    def expression(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """[B, 2F, d] and condition [B, F, 84] to [B, F, 42]; the condition's mean is what the voice is laid upon."""
        read: Tensor = self.window(F.pad(tokens.transpose(1, 2), (PAST_TOKENS, FUTURE_TOKENS))).transpose(1, 2)
        mean, deviation = condition.chunk(2, dim=-1)
        unit = torch.cat([mean / self.spread, deviation / self.spread], dim=-1)
        residual: Tensor = self.face(read + self.condition(unit))
        return mean + residual.float() * (deviation + 0.1 * self.spread)


class AudioModel(nn.Module):
    """The encoder and its heads: everything that the loop trains."""

    def __init__(self, encoder: Wav2VecEncoder, heads: AudioHeads) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = heads


class AudioStage:
    """`TrainingStage` over one tape to learn from and one to be tested on."""

    def __init__(self, config: AudioTrainConfig, train: Tape, held_out: Tape) -> None:
        self._config = config
        self._train, self._held_out = train, held_out
        spread = np.maximum(train.expression.std(0), 0.02).astype(np.float32)
        torch.manual_seed(config.loop.seed)
        self._mel = LogMel()
        heads = AudioHeads(config.encoder.width, self._mel.bands, spread)
        encoder = load_encoder(config.start) if config.start else Wav2VecEncoder(config.encoder)
        if encoder.config != config.encoder:
            raise WeightsError(f"{config.start} is of another size than the profile's `encoder`: {encoder.config}")
        self._model = AudioModel(encoder.train().requires_grad_(True), heads)
        self._examples = self._test_batch(clean=True), self._test_batch(clean=False)

    @property
    def model(self) -> AudioModel:
        """Encoder and heads."""
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """wav [B, N], phonemes [B, T], expression [B, F, 42], condition [B, F, 84]."""
        items = [self._item(rng) for _ in range(size)]
        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of the terms."""
        assert isinstance(model, AudioModel)
        tokens, features = model.encoder.encode_both(batch["wav"])
        terms = {
            "phoneme": self._phoneme_loss(model.heads.phonemes(tokens), batch["phonemes"]),
            "ctc": _ctc_loss(model.heads.ctc(tokens), batch["phonemes"]),
            "mel": F.l1_loss(model.heads.mel(features).float(), self._mel(model.encoder.level(batch["wav"]))),
        }
        face = model.heads.expression(tokens, batch["condition"])
        error = (face - batch["expression"]) / model.heads.spread
        terms["expression"] = F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.3)
        terms["velocity"] = error.diff(dim=1).abs().mean()
        weights = self._config.loss.model_dump()
        weights["mel"] *= 1 - 0.9 * progress
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return total, {name: float(term.detach()) for name, term in terms.items()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Held-out voice and sentences: token accuracy, correlations of jaw and lip opening; clean and noisy."""
        assert isinstance(model, AudioModel)
        figures: dict[str, float] = {}
        for name, batch in zip(("", "noisy_"), self._examples, strict=True):
            tokens = model.encoder.encode(batch["wav"])
            truth = batch["phonemes"]
            right = (model.heads.phonemes(tokens).argmax(-1) == truth).float()
            figures[f"{name}phoneme"] = float(right[truth != SILENCE].mean())
            figures[f"{name}token"] = float(right.mean())
            face = model.heads.expression(tokens, batch["condition"])
            figures |= {f"{name}{k}": v for k, v in _correlations(face.numpy(), batch["expression"].numpy()).items()}
        return figures

    def sheet(self, model: nn.Module, path: Path) -> None:
        """Spectrogram, true and heard phonemes, true and told jaw of four held-out crops."""
        assert isinstance(model, AudioModel)
        batch = {k: v[:4] for k, v in self._examples[0].items()}
        tokens = model.encoder.encode(batch["wav"])
        heard = model.heads.phonemes(tokens).argmax(-1).numpy()
        face = model.heads.expression(tokens, batch["condition"]).numpy()
        jaw = SPEECH_INDEX["jawOpen"]
        mel = self._mel(model.encoder.level(batch["wav"])).numpy()
        truth = batch["phonemes"].numpy(), batch["expression"].numpy()[:, :, jaw]
        draw_sheet(path, mel, (truth[0], heard), (truth[1], face[:, :, jaw]), SYMBOLS)

    def export(self, model: nn.Module, out: Path) -> None:
        """The encoder alone, fp16."""
        assert isinstance(model, AudioModel)
        save_encoder(out / WEIGHTS_NAME, model.encoder)

    def _item(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        config, samples = self._config.augment, self._samples
        speed = float(np.exp(rng.uniform(*np.log(config.speed)))) if rng.random() < config.speed_share else 1.0
        taken = augment.input_length(samples, speed)
        start = int(rng.integers(0, max(1, len(self._train.sound) - taken)))
        wav = augment.shape(self._cut(self._train, start, taken, rng), samples, config, rng)
        if rng.random() < config.throat:
            wav = augment.throat(wav, config.throat_spread, rng)
        if rng.random() < config.noise:
            wav = augment.mix(wav, self._disturbance(rng), rng.uniform(*config.noise_snr_db))
        if rng.random() < config.gap:
            wav = augment.gap(wav, rng)
        wav = augment.level(wav, config, rng)
        return {"wav": wav, **self._labels(self._train, start, taken)}

    def _disturbance(self, rng: np.random.Generator) -> Float32:
        """Coloured noise, or three other people at once."""
        if rng.random() < 0.7:
            return augment.noise(self._samples, rng)
        starts = rng.integers(0, len(self._train.sound) - self._samples, size=3)
        return np.asarray(sum(self._train.sound[s : s + self._samples].astype(np.float32) for s in starts) / 32767)

    @property
    def _samples(self) -> int:
        return self._config.crop_frames * FRAME_SAMPLES + TAIL

    def _cut(self, tape: Tape, start: int, taken: int, rng: np.random.Generator | None) -> Float32:
        source = tape.wire if rng is not None and rng.random() < self._config.augment.opus else tape.sound
        piece = source[start : start + taken].astype(np.float32) / np.float32(32767)
        return np.pad(piece, (0, taken - len(piece)))

    def _labels(self, tape: Tape, start: int, taken: int) -> dict[str, NDArray[Any]]:
        """What is true at the middle of each token and each frame of a crop."""
        frames = self._config.crop_frames
        tokens = np.arange(2 * frames, dtype=np.float64) * HOP + RECEPTIVE / 2
        middles = (np.arange(frames, dtype=np.float64) + 0.5) * FRAME_SAMPLES
        face, condition = tape.expression_at(start + augment.source_position(middles, self._samples, taken))
        symbols = tape.symbols_at(start + augment.source_position(tokens, self._samples, taken))
        return {"phonemes": symbols, "expression": face, "condition": condition}

    def _test_batch(self, clean: bool) -> Batch:
        """Crops end to end over the held-out tape: as they are, or with speech-like noise at 10 dB."""
        rng = np.random.default_rng(7)
        plain = AugmentConfig(speed_share=0, reverb=0, equaliser=0, band_limit=0, band_stop=0, opus=0)
        taken = augment.input_length(self._samples, 1.0)
        items = []
        for start in range(0, max(1, len(self._held_out.sound) - taken), self._samples):
            wav = augment.shape(self._cut(self._held_out, start, taken, None), self._samples, plain, rng)
            if not clean:
                wav = augment.mix(wav, augment.noise(self._samples, rng), 10.0)
            items.append({"wav": wav, **self._labels(self._held_out, start, taken)})
        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}

    def _phoneme_loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1).float(), truth.flatten(), label_smoothing=0.05)


def _ctc_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Order without times: runs of equal labels are one; silence counts as a symbol; the last class is the blank."""
    changed = torch.ones_like(truth, dtype=torch.bool)
    changed[:, 1:] = truth[:, 1:] != truth[:, :-1]
    targets, lengths = truth[changed], changed.sum(1)
    log_probabilities = logits.float().log_softmax(-1).transpose(0, 1)
    times = torch.full_like(lengths, logits.shape[1])
    return F.ctc_loss(log_probabilities, targets, times, lengths, blank=len(SYMBOLS), zero_infinity=True)


def _correlations(face: Float32, truth: Float32) -> dict[str, float]:
    """Mean Pearson r of the crops where the truth moves: the jaw, the gap of the lips (jawOpen - mouthClose)."""
    jaw, close = SPEECH_INDEX["jawOpen"], SPEECH_INDEX["mouthClose"]
    pairs = {"jaw_r": (face[..., jaw], truth[..., jaw])}
    pairs["lip_r"] = face[..., jaw] - face[..., close], truth[..., jaw] - truth[..., close]
    figures = {}
    for name, (told, true) in pairs.items():
        moving = [_pearson(x, y) for x, y in zip(told, true, strict=True) if y.std() > STILL]
        figures[name] = float(np.mean(moving)) if moving else 0.0
    return figures


def _pearson(a: Float32, b: Float32) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.sqrt((a**2).sum() * (b**2).sum()) + 1e-9))


def make_audio_stage(config: AudioTrainConfig, corpus: Path, out: Path) -> AudioStage:
    """Tapes come from `out` where they were made before; otherwise they are made now and kept there.

    Raises MediaError when a synthesiser is missing, or the corpus where the profile asks for it.
    """
    tape, seed = config.tape, config.tape.seed
    read = corpus_clips(Clips.open(corpus).where(split="train")) if tape.corpus else ()
    clips = chain(speak_clips(tape.minutes, False, seed, (tape.pitch, tape.pace)), read)
    train = _kept(out / "tape_train.npz", clips, config)
    held_out = speak_clips(tape.held_out_minutes, True, seed)
    return AudioStage(config, train, _kept(out / "tape_heldout.npz", held_out, config))


def _kept(path: Path, clips: Iterable[LabelledClip], config: AudioTrainConfig) -> Tape:
    """The tape at `path`, made from `clips` when it is not there."""
    if not path.exists():
        logger.info("collecting speech for %s", path)
        path.parent.mkdir(parents=True, exist_ok=True)
        join(clips, config.augment.opus, config.tape.seed).save(path)
    return Tape.open(path)
