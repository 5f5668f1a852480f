"""Stage `expression`: the frame conditioner and the style projection learn to move a face from speech and style.

In: takes of speech, the frozen style prior. Out: `conditioner.safetensors` with both modules. A style is always given
as a sample of the posterior of *another* clip, so that it can carry no words. Look-ahead is drawn for each clip.
Strength is taught as a caricature: with strength k the truth is `plain + k (styled - plain)`, with none the plain face.
Loss: Huber on coefficients in units of their deviation, the same on velocity and acceleration (frames know nothing of
one another, so smoothness is taught), and the gap between the lips, which counts more where they must meet. The mean of
all faces that fit a sound is a timid face, so a clip is held to its style as well: to the level, spread and speed of
every coefficient over the clip, and to what the frozen style encoder reads off the true clip.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.arkit import SPEECH, SPEECH_INDEX, UPPER
from svp_stream.diffusion.conditioner import KIND, Condition, Conditioner, ConditionerConfig, gather_windows
from svp_stream.packets import Float32
from svp_stream.style.prior import StyleEncoder, load_prior, pool
from svp_stream.style.projection import ProjectionConfig, StyleProjection
from svp_stream.synthetic.styles import CAST, NAMED, TRAINING_CAST, SpeakingStyle, intensify, sample
from svp_stream.training.coefficients import CoefficientBank, CoefficientConfig, Take, load_bank
from svp_stream.training.expression_check import check, draw_check
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.ridge import fold, ridge
from svp_stream.training.style_clips import stack, two_cuts
from svp_stream.weights_file import load_into, read_weights, save_weights, sha256

logger = logging.getLogger(__name__)
WEIGHTS: Final = "conditioner.safetensors"
PLAIN: Final = NAMED["neutral"]
TRANSLATION_RIDGE: Final = 1.0
INTENSITY: Final = (0.5, 1.4)
"""How far sampled styles are drawn out from the plain one."""
MATCH_FLOOR: Final = 0.1
"""Variance that is added to a posterior's own: what no short clip can tell."""
JAW, CLOSE = SPEECH_INDEX["jawOpen"], SPEECH_INDEX["mouthClose"]


class ExpressionTrainConfig(BaseModel):
    """Profile `configs/train/expression.yaml`; the loop's batch counts clips."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig.model_validate(
        {"steps": 3000, "batch": 12, "lr": 1e-3, "warmup": 80, "weight_decay": 0.01, "ema": 0.997, "precision": "fp32",
         "threads": 1}
    )
    data: CoefficientConfig = CoefficientConfig()
    prior: Path | None = Field(default=None, description="style_prior.safetensors; none: from the run `style-prior`")
    dim: int = Field(default=128, ge=8)
    layers: int = Field(default=3, ge=1)
    tokens: int = Field(default=8, ge=1)
    style_tokens: int = Field(default=4, ge=1)
    frames: int = Field(default=28, ge=4, description="consecutive frames of a clip")
    styles: int = Field(default=240, ge=len(TRAINING_CAST), description="styles to sample from, named ones first")
    style_clips: int = Field(default=4, ge=2, description="clips that each style is known from")
    style_frames: int = Field(default=72, ge=16)
    named_share: float = Field(default=0.5, ge=0, le=1)
    null_share: float = Field(default=0.1, ge=0, le=1)
    caricature_share: float = Field(default=0.25, ge=0, le=1)
    noisy_share: float = Field(default=0.4, ge=0, le=1)
    velocity: float = Field(default=1.0, ge=0)
    acceleration: float = Field(default=0.3, ge=0)
    closure: float = Field(default=2.0, ge=0)
    manner: float = Field(default=0.5, ge=0)
    style_match: float = Field(default=0.5, ge=0)
    upper_weight: float = Field(default=0.4, gt=0)
    start: Path | None = Field(default=None, description="conditioner.safetensors to go on from; none: from scratch")
    start_encoder: Path | None = Field(default=None, description="audio encoder that `start` hears; none: the same")
    start_prior: Path | None = Field(default=None, description="style prior that `start` speaks for; none: the same")
    keep: float = Field(default=1.0, ge=0, description="how firmly to hold the free tokens of `start`, and of style")


class ExpressionModel(nn.Module):
    """Projection and conditioner, trained together."""

    def __init__(self, conditioner: ConditionerConfig, projection: ProjectionConfig) -> None:
        super().__init__()
        self.conditioner = Conditioner(conditioner)
        self.projection = StyleProjection(projection)

    def forward(self, audio: Tensor, heard: Tensor, s: Tensor, styled: Tensor, strength: Tensor) -> Condition:
        """audio [B, F, W, A], heard [B, F, W], s [B, D], styled [B] (0: null style), strength [B].

        Returns tokens [B * F, N, C] and expression [B, F, 42].
        """
        b, f = audio.shape[:2]
        style = self.projection(s) * styled[:, None, None]
        rows = (x.repeat_interleave(f, dim=0) for x in (style, strength))
        found: Condition = self.conditioner(audio.flatten(0, 1), heard.flatten(0, 1), *rows)
        return Condition(found.tokens, found.expression.reshape(b, f, -1))


@dataclass(frozen=True, slots=True)
class KnownStyle:
    """A style and the posteriors of some of its clips, float32 [N, D] each."""

    style: SpeakingStyle
    mu: Float32
    log_var: Float32

    def draw(self, rng: np.random.Generator) -> Float32:
        """s = mu + t sigma eps, with a random temperature t in [0, 1]: of a random clip, or as often of them all taken
        together, as wide as a preset is."""
        i = int(rng.integers(2 * len(self.mu)))
        eps = rng.standard_normal(self.mu.shape[1]) * rng.random()
        if i >= len(self.mu):
            mu, log_var = (x.numpy() for x in pool(torch.from_numpy(self.mu), torch.from_numpy(self.log_var)))
        else:
            mu, log_var = self.mu[i], self.log_var[i]
        return np.asarray(mu + np.exp(log_var / 2) * eps, dtype=np.float32)


@torch.no_grad()
def know(
    encoder: StyleEncoder, style: SpeakingStyle, takes: Sequence[Take], frames: int, rng: np.random.Generator
) -> KnownStyle:
    """The posterior of one clip from each of `takes`, spoken in `style`."""
    b = stack([two_cuts(take, style, frames, rng)[0] for take in takes])
    mu, log_var = encoder(b["expression"], b["audio"], b["mask"])
    return KnownStyle(style, mu.numpy(), log_var.numpy())


@torch.no_grad()
def translate(known: Sequence[KnownStyle], before: Sequence[KnownStyle], projection: StyleProjection) -> float:
    """Let `projection`, made for the prior that `before` was read by, take styles as `known` was read: a ridge
    regression of one mean to the other over the same clips, folded into its first layer. Returns R^2 over the clips."""
    x, y = (torch.from_numpy(np.concatenate([k.mu for k in side])).double() for side in (known, before))
    weight, bias = ridge(x, y, TRANSLATION_RIDGE)
    fold(projection.expand, weight, bias)
    error = (y - x @ weight.T - bias).square().sum()
    return 1 - float(error / (y - y.mean(0)).square().sum())


class ExpressionStage:
    """See the card."""

    def __init__(
        self, config: ExpressionTrainConfig, bank: CoefficientBank, encoder: StyleEncoder, prior: str,
        heard_before: CoefficientBank | None = None, encoder_before: StyleEncoder | None = None,
    ) -> None:
        """`heard_before`: the same takes through the audio encoder that `config.start` was made for; `encoder_before`:
        the style encoder that it was made for, where that is another than `encoder`."""
        self.config, self.bank, self.encoder, self.prior = config, bank, encoder, prior
        self.heard_before = heard_before or bank
        style_dim = encoder.config.style_dim
        self._model = ExpressionModel(
            ConditionerConfig(audio_dim=bank.audio_dim, dim=config.dim, layers=config.layers, tokens=config.tokens,
                              style_dim=config.dim),
            ProjectionConfig(style_dim=style_dim, tokens=config.style_tokens, width=config.dim),
        )
        self.known = self._know_styles(encoder)
        self.known_before = self.known if encoder_before is None else self._know_styles(encoder_before)
        mean, self.deviation = self._statistics()
        self.before: ExpressionModel | None = None
        if config.start:
            self.before = copy.deepcopy(self._model)
            load_into(self.before, read_weights(config.start, KIND)[1], config.start)
            self._model.load_state_dict(self.before.state_dict())
            if encoder_before is not None:
                fit = translate(self.known, self.known_before, self._model.projection)
                logger.info("styles told in the earlier prior's terms: R^2 %.3f", fit)
        else:
            with torch.no_grad():
                self._model.conditioner.express.bias.copy_(mean)
                self._model.conditioner.express.weight.mul_(self.deviation[:, None])
        self.weight = torch.ones(len(SPEECH))
        self.weight[[SPEECH_INDEX[n] for n in UPPER]] = config.upper_weight

    def _know_styles(self, encoder: StyleEncoder) -> list[KnownStyle]:
        c = self.config
        rng = np.random.default_rng([c.data.seed, 21])
        talking = [t for t in self.bank.train if not t.silent().all()]
        styles = [CAST[n] for n in TRAINING_CAST]
        styles += [intensify(s, float(rng.uniform(*INTENSITY)), s.name)
                   for s in (sample(rng) for _ in range(c.styles - len(styles)))]
        clips = [[talking[i] for i in rng.integers(len(talking), size=c.style_clips)] for _ in styles]
        return [know(encoder, s, takes, c.style_frames, rng) for s, takes in zip(styles, clips, strict=True)]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean [42] and deviation [42] of the coefficients over styles; a nearly still one counts as moving by 0.03."""
        rng = np.random.default_rng([self.config.data.seed, 22])
        takes = rng.integers(len(self.bank.train), size=40)
        faces = [self.bank.train[i].expression(self.known[k % len(self.known)].style, rng) for k, i in enumerate(takes)]
        every = torch.from_numpy(np.concatenate(faces))
        return every.mean(0), every.std(0).clamp(min=0.03)

    @property
    def model(self) -> nn.Module:
        """See TrainingStage."""
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """`size` clips of F consecutive frames."""
        rows = [self._clip(rng) for _ in range(size)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _clip(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One clip: windows, a style seen on other words, and the face that belongs to both."""
        c = self.config
        number = int(rng.integers(len(self.bank.train)))
        take = self.bank.train[number]
        named = rng.random() < c.named_share
        which = int(rng.integers(len(TRAINING_CAST) if named else len(self.known)))
        known, chance = self.known[which], int(rng.integers(2**31))
        start = int(rng.integers(max(take.frames - c.frames, 0) + 1))
        frames = np.minimum(np.arange(start, start + c.frames), take.frames - 1)
        variant = int(rng.random() < c.noisy_share)
        ahead = int(rng.choice(4, p=[0.12, 0.2, 0.5, 0.18]))
        windows, heard = self._windows(take.audio(variant), frames, ahead)
        draw = rng.random()
        styled, strength = float(draw >= c.null_share), 1.0
        if c.null_share <= draw < c.null_share + c.caricature_share:
            strength = float(rng.uniform(0, 2))
        target = self._target(take, known.style, styled * strength, int(rng.integers(2**31)))
        before = {}
        if self.before is not None:
            # The same clip and the same chance: what the earlier prior makes of just what this one is given.
            s_before = self.known_before[which].draw(np.random.default_rng(chance))
            before = {"audio_before": self._windows(self.heard_before.train[number].audio(variant), frames, ahead)[0],
                      "s_before": torch.from_numpy(s_before)}
        return before | {
            "audio": windows, "heard": heard, "styled": torch.tensor(styled),
            "s": torch.from_numpy(known.draw(np.random.default_rng(chance))), "strength": torch.tensor(strength),
            "target": torch.from_numpy(target[frames]), "features": torch.from_numpy(take.features(variant)[frames]),
        }

    def _windows(self, audio: Float32, frames: NDArray[np.int64], ahead: int) -> tuple[Tensor, Tensor]:
        config = self._model.conditioner.config
        return gather_windows(torch.from_numpy(audio), torch.from_numpy(frames), ahead, config)

    @staticmethod
    def _target(take: Take, style: SpeakingStyle, strength: float, seed: int) -> Float32:
        """The face [T, 42] at a strength; plain and styled share what chance decides."""
        styled = take.expression(style, np.random.default_rng(seed)) if strength else np.zeros(())
        if strength == 1.0:
            return np.asarray(styled, dtype=np.float32)
        plain = take.expression(PLAIN, np.random.default_rng(seed))
        return np.asarray(np.clip(plain + strength * (styled - plain), 0, 1), dtype=np.float32)

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See the card."""
        assert isinstance(model, ExpressionModel)
        c, truth = self.config, batch["target"]
        given = [batch[name] for name in ("audio", "heard", "s", "styled", "strength")]
        tokens, guess = model(*given)
        error = (guess - truth) / self.deviation
        value = (self.weight * F.huber_loss(error, torch.zeros_like(error), reduction="none")).mean()
        velocity, acceleration = (error.diff(n=n, dim=1) for n in (1, 2))
        speed = (self.weight * F.huber_loss(velocity, torch.zeros_like(velocity), reduction="none")).mean()
        smooth = (self.weight * acceleration.square()).mean()
        gap, true_gap = (x[..., JAW] - x[..., CLOSE] for x in (guess, truth))
        shut = (truth[..., CLOSE] / truth[..., JAW].clamp(min=0.02)).clamp(max=1)
        lips = ((1 + 3 * shut) * (gap - true_gap).abs()).mean() / self.deviation[JAW]
        total = value + c.velocity * speed + c.acceleration * smooth + 0.25 * c.closure * lips
        logs = {"value": value.item(), "velocity": speed.item(), "lips": lips.item()}
        if c.manner:
            manner = self._manner_loss(guess, truth)
            total, logs = total + c.manner * manner, logs | {"manner": manner.item()}
        if c.style_match:
            match = self._match_loss(guess, truth, batch["features"])
            total, logs = total + c.style_match * match, logs | {"match": match.item()}
        if self.before is not None and c.keep:
            with torch.no_grad():
                known = self.before(batch["audio_before"], given[1], batch["s_before"], *given[3:]).tokens
                look = self.before.projection(batch["s_before"])
            # The denoiser reads both: the tokens of sound, and those of style.
            drift = (tokens[:, 1:] - known[:, 1:]).square().mean()
            drift = drift + (model.projection(batch["s"]) - look).square().mean()
            total, logs = total + c.keep * drift, logs | {"drift": drift.item()}
        return total, logs

    def _manner_loss(self, guess: Tensor, truth: Tensor) -> Tensor:
        """How far level, spread and speed of each coefficient over the clip are off, in deviations."""
        told, true = (x / self.deviation for x in (guess, truth))
        pairs = [(x.mean(1), x.var(1).add(1e-4).sqrt(), x.diff(dim=1).abs().mean(1)) for x in (told, true)]
        return torch.stack([(self.weight * (a - b).abs()).mean() for a, b in zip(*pairs, strict=True)]).sum()

    def _match_loss(self, guess: Tensor, truth: Tensor, features: Tensor) -> Tensor:
        """Mean square distance of the posterior means of the told and the true clip, in the true one's deviations."""
        every = torch.ones(guess.shape[:2], dtype=torch.bool)
        told = self.encoder(guess, features, every)[0]
        with torch.no_grad():
            true, log_var = self.encoder(truth, features, every)
        distance: Tensor = ((told - true).square() / (log_var.exp() + MATCH_FLOOR)).clamp(max=25).mean()
        return distance

    def validate(self, model: nn.Module) -> dict[str, float]:
        """See `expression_check.check`."""
        assert isinstance(model, ExpressionModel)
        return check(model, self.encoder, self.bank)

    def sheet(self, model: nn.Module, path: Path) -> None:
        """Curves of a held-out sentence in three styles."""
        assert isinstance(model, ExpressionModel)
        draw_check(model, self.encoder, self.bank, path)

    def export(self, model: nn.Module, out: Path) -> None:
        """Write `conditioner.safetensors`: both modules, their sizes and the hash of the prior that they speak for."""
        assert isinstance(model, ExpressionModel)
        config = {
            "conditioner": asdict(model.conditioner.config), "projection": asdict(model.projection.config),
            "prior": self.prior,
        }
        save_weights(out / WEIGHTS, KIND, config, model.state_dict(), half=True)


def make_expression_stage(config: ExpressionTrainConfig, corpus: Path, out: Path) -> ExpressionStage:
    """The stage over speech made on the spot; `corpus` has pixels, which this stage does not need.

    Raises WeightsError when the audio encoder or the style prior is missing.
    """
    heard = config.data.encoder or out.parent / "audio" / "audio_encoder.safetensors"
    prior = config.prior or out.parent / "style-prior" / "style_prior.safetensors"
    encoder = load_prior(prior).encoder
    encoder_before = load_prior(config.start_prior).encoder if config.start and config.start_prior else None
    cache = out.parent / "coefficients"
    before = load_bank(config.data, config.start_encoder, cache) if config.start and config.start_encoder else None
    return ExpressionStage(config, load_bank(config.data, heard, cache), encoder, sha256(prior), before,
                           encoder_before)
