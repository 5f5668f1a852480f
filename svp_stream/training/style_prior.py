"""Stage `style-prior`: clips of one manner of speaking come together as Gaussians, clips of others move apart.

In: takes of speech, articulated in named and sampled styles. Out: `style_prior.safetensors`, whose SHA-256 is the
`prior` that presets carry. Every batch says the same few takes in every style, so that words and voices cannot tell
styles apart; half of the takes are heard noisy. Some clips are short or corrupted: only a larger sigma answers those.
Loss: InfoNCE over a distance of Gaussians + calibration of sigma + KL + reconstruction of another clip of the style. At
export sigma is fitted (`style_sigma`), and a linear map from mu to the `Manner` of motion in closed form (ridge
regression), kept in the same file.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from svp_stream.arkit import SPEECH
from svp_stream.motion.manner import MANNER_DIM
from svp_stream.style.distance import DistanceName
from svp_stream.style.prior import KIND, PriorConfig, StylePrior, draw, save_prior
from svp_stream.synthetic.styles import (
    CAST,
    TRAINING_CAST,
    TRAINING_STYLES,
    SpeakingStyle,
    grades,
    intensify,
    sample,
)
from svp_stream.training.coefficients import CoefficientBank, CoefficientConfig, load_bank
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.losses_style import (
    Temperature,
    calibration_loss,
    contrastive_loss,
    kl_to_standard,
    reconstruction_loss,
)
from svp_stream.training.presets import write_presets
from svp_stream.training.ridge import fold, ridge
from svp_stream.training.style_clips import Clip, posterior, spoil, stack, two_cuts
from svp_stream.training.style_prior_check import check, draw_check
from svp_stream.training.style_sigma import fit_sigma
from svp_stream.weights_file import load_into, read_weights

logger = logging.getLogger(__name__)
WEIGHTS: Final = "style_prior.safetensors"
STATISTICS_TAKES: Final = 24
HEARING_RIDGE: Final = 10.0


class StylePriorTrainConfig(BaseModel):
    """Profile `configs/train/style-prior.yaml`; the loop's batch counts styles."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig.model_validate(
        {"steps": 1500, "batch": 12, "lr": 4e-4, "warmup": 60, "weight_decay": 0.01, "ema": 0.995, "precision": "fp32",
         "threads": 1}
    )
    data: CoefficientConfig = CoefficientConfig()
    start: Path | None = Field(default=None, description="style_prior.safetensors to go on from, at its sizes")
    start_encoder: Path | None = Field(default=None, description="audio encoder that `start` hears; none: the same")
    width: int = Field(default=128, ge=8)
    layers: int = Field(default=3, ge=1)
    style_dim: int = Field(default=128, ge=8)
    decoder_layers: int = Field(default=3, ge=1)
    frames: int = Field(default=72, ge=16, description="length of a clip")
    takes: int = Field(default=8, ge=2, description="different takes in a batch")
    named_share: float = Field(default=0.5, ge=0, le=1)
    distance: DistanceName = "bhatt"
    resolution: float = Field(default=0.5, ge=0, description="sigma that the contrast blurs every clip with")
    kl: tuple[float, float] = (1e-4, 5e-4)
    calibration: float = Field(default=1.0, ge=0, description="weight of the likelihood that keeps sigma honest")
    intensity: tuple[float, float] = (0.5, 1.4)
    """How far sampled styles are drawn out from the plain one."""
    reconstruction: float = Field(default=0.7, ge=0)
    short_share: float = Field(default=0.25, ge=0, le=1)
    noisy_share: float = Field(default=0.25, ge=0, le=1)
    ridge: float = Field(default=1.0, gt=0)
    preset_clips: int = Field(default=24, ge=1, description="clips that each preset is pooled from")
    sigma_styles: int = Field(default=92, ge=4, description="styles that sigma is fitted on, half of them the cast's")
    manner_styles: int = Field(default=400, ge=20, description="styles that the map to Manner is fitted on")


class PriorModel(nn.Module):
    """What is trained: the prior and the temperature of its contrast."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.prior = StylePrior(config)
        self.temperature = Temperature()


class StylePriorStage:
    """See the card."""

    def __init__(
        self, config: StylePriorTrainConfig, bank: CoefficientBank, heard_before: CoefficientBank | None = None
    ) -> None:
        """`heard_before`: the same takes through the audio encoder that `config.start` hears."""
        self.config, self.bank = config, bank
        sizes = PriorConfig(
            expression_dim=len(SPEECH), audio_dim=bank.audio_dim, width=config.width, layers=config.layers,
            style_dim=config.style_dim, decoder_layers=config.decoder_layers, manner_dim=MANNER_DIM, evidence=True,
        )
        self._model = PriorModel(sizes)
        if config.start is None:
            self._set_statistics()
        else:
            load_into(self._model.prior, read_weights(config.start, KIND)[1], config.start)
            for part in (self._model.prior.encoder, self._model.prior.decoder):
                part.train().requires_grad_(True)
            if heard_before is not None:
                fit = hear_as(self._model.prior, bank, heard_before)
                logger.info("sound told in the earlier encoder's terms: R^2 %.3f", fit)
        self.check_takes = [t for t in bank.held_out if not t.silent().all()][:24]

    def _set_statistics(self) -> None:
        """Mean and deviation of the coefficients over training takes and styles."""
        rng = np.random.default_rng([self.config.data.seed, 11])
        takes = [self.bank.train[i] for i in rng.integers(len(self.bank.train), size=STATISTICS_TAKES)]
        faces = [t.expression(style, rng) for t in takes for style in self.styles(rng, 2)]
        every = torch.from_numpy(np.concatenate(faces))
        # Rare movements must not be blown up to thousands of deviations.
        self._model.prior.encoder.set_statistics(every.mean(0), every.std(0).clamp(min=0.02))

    @property
    def model(self) -> nn.Module:
        """See TrainingStage."""
        return self._model

    def styles(self, rng: np.random.Generator, count: int) -> list[SpeakingStyle]:
        """Different training styles, some named, two intensities of a family each, the others sampled between them."""
        named = min(round(count * self.config.named_share), len(TRAINING_STYLES))
        chosen: list[str] = []
        for i in rng.permutation(len(TRAINING_STYLES)):
            chosen += [str(n) for n in rng.permutation(grades(TRAINING_STYLES[i]))[:2]]
        return [CAST[n] for n in chosen[:named]] + [self.sampled(rng) for _ in range(count - named)]

    def sampled(self, rng: np.random.Generator) -> SpeakingStyle:
        """A style between the training ones, at an intensity of its own."""
        style = sample(rng)
        return intensify(style, float(rng.uniform(*self.config.intensity)), style.name)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """`size` styles x 4 clips: two takes each out of the batch's few, two clips of each take."""
        c = self.config
        some = [self.bank.train[i] for i in rng.integers(len(self.bank.train), size=c.takes)]
        clips, labels, partners = [], [], []
        for label, style in enumerate(self.styles(rng, size)):
            for j in rng.choice(c.takes, 2, replace=False):
                clips += [self._worsen(clip, rng) for clip in two_cuts(some[j], style, c.frames, rng)]
            labels += [label] * 4
            partners += [4 * label + k for k in (2, 3, 0, 1)]
        return stack(clips) | {"labels": torch.tensor(labels), "partners": torch.tensor(partners)}

    def _worsen(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """Sometimes shorter, sometimes with a jittery, half-blind expression, as a tracker gives for bad video."""
        length, expression = clip.length, clip.expression
        if rng.random() < self.config.short_share:
            length = min(length, int(rng.integers(2, self.config.frames // 2)))
        if rng.random() < self.config.noisy_share:
            expression = spoil(expression, float(rng.uniform(0.1, 1)), rng)
        return Clip(expression, clip.audio, length)

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Contrast, calibration, KL, reconstruction of the partner clip, which says other words in the same style."""
        assert isinstance(model, PriorModel)
        c, prior, mask = self.config, model.prior, batch["mask"]
        mu, log_var = prior.encoder(batch["expression"], batch["audio"], mask)
        labels = batch["labels"]
        contrast = contrastive_loss(mu, log_var, labels, c.distance, model.temperature(), c.resolution)
        honest = calibration_loss(mu, log_var, labels)
        kl = kl_to_standard(mu, log_var)
        other = batch["partners"]
        s = draw(mu, log_var, torch.randn_like(mu))
        truth = prior.encoder.standardise(batch["expression"][other])
        rebuilt = reconstruction_loss(prior.decoder(batch["audio"][other], s), truth, mask[other])
        beta = c.kl[0] + (c.kl[1] - c.kl[0]) * min(1.0, 2 * progress)
        total = contrast + c.calibration * honest + beta * kl + c.reconstruction * rebuilt
        return total, {
            "contrast": contrast.item(), "rebuilt": rebuilt.item(), "kl": kl.item(), "calibration": honest.item(),
            "sigma": (log_var / 2).exp().mean().item(), "tau": model.temperature().item(),
        }

    def validate(self, model: nn.Module) -> dict[str, float]:
        """See `style_prior_check.check` and `rebuilt`."""
        assert isinstance(model, PriorModel)
        figures = check(model.prior.encoder, self.check_takes, self.config.frames, self.config.distance)
        return figures | {"rebuilt": self.rebuilt(model)}

    @torch.no_grad()
    def rebuilt(self, model: nn.Module) -> float:
        """Mean absolute error, in deviations, of held-out words rebuilt in cast styles from mu of other words."""
        assert isinstance(model, PriorModel)
        prior, rng = model.prior, np.random.default_rng([self.config.data.seed, 16])
        errors = []
        for name in TRAINING_CAST[::3]:
            told, said = (stack([two_cuts(t, CAST[name], self.config.frames, rng)[0] for t in takes])
                          for takes in (self.check_takes[:4], self.check_takes[4:8]))
            mu, _ = prior.encoder(told["expression"], told["audio"], told["mask"])
            truth = prior.encoder.standardise(said["expression"])
            errors.append(float(reconstruction_loss(prior.decoder(said["audio"], mu), truth, said["mask"])))
        return float(np.mean(errors))

    def sheet(self, model: nn.Module, path: Path) -> None:
        """Held-out words rebuilt in named styles from mu alone."""
        assert isinstance(model, PriorModel)
        draw_check(model.prior, self.check_takes, self.config.frames, path)

    def export(self, model: nn.Module, out: Path) -> None:
        """Fit the map to Manner, write `style_prior.safetensors` and, in the folder `styles`, the presets that ship."""
        assert isinstance(model, PriorModel)
        logger.info("manner: held-out R^2 %.3f", self.fit_manner(model))
        logger.info("sigma: %.3f nats a dimension, %.3f fitted", *self.fit_sigma(model))
        digest = save_prior(out / WEIGHTS, model.prior)
        files = write_presets(out / WEIGHTS, self.bank, out / "styles", clips=self.config.preset_clips)
        logger.info("style prior %s, %d presets", digest, len(files))

    def fit_sigma(self, model: nn.Module) -> tuple[float, float]:
        """See `style_sigma.fit_sigma`: over styles of the cast and as many sampled ones."""
        assert isinstance(model, PriorModel)
        rng = np.random.default_rng([self.config.data.seed, 15])
        cast = rng.permutation(TRAINING_CAST)[: self.config.sigma_styles // 2]
        styles = [CAST[n] for n in cast] + [self.sampled(rng) for _ in range(self.config.sigma_styles - len(cast))]
        talking = [t for t in self.bank.train if not t.silent().all()]
        return fit_sigma(model.prior.encoder, styles, talking, self.config.frames, rng)

    def fit_manner(self, model: nn.Module) -> float:
        """Ridge regression of mu to Manner over named and sampled styles; returns R^2 on a fifth that is left out."""
        assert isinstance(model, PriorModel)
        rng = np.random.default_rng([self.config.data.seed, 13])
        styles = [CAST[n] for n in TRAINING_CAST]
        styles += [self.sampled(rng) for _ in range(self.config.manner_styles - len(styles))]
        talking = [t for t in self.bank.train if not t.silent().all()]
        mu = []
        for i, style in enumerate(styles):
            takes = [talking[j] for j in rng.integers(len(talking), size=3)]
            mu.append(posterior(model.prior.encoder, [style], takes, self.config.frames, i).mu.mean(0))
        x, y = torch.stack(mu).double(), torch.from_numpy(np.stack([s.manner.vector() for s in styles])).double()
        held = torch.from_numpy(rng.permutation(len(styles)) < len(styles) // 5)
        weight, bias = ridge(x[~held], y[~held], self.config.ridge)
        varies = y.std(0) > 1e-6
        error = (y[held] - x[held] @ weight.T - bias).square().sum(0)[varies]
        r2 = 1 - error / (y[held] - y[~held].mean(0)).square().sum(0)[varies]
        weight, bias = ridge(x, y, self.config.ridge)
        with torch.no_grad():
            model.prior.manner.weight.copy_(weight)
            model.prior.manner.bias.copy_(bias)
        return float(r2.mean())


def hear_as(prior: StylePrior, bank: CoefficientBank, before: CoefficientBank) -> float:
    """Let `prior`, made for the encoder that `before` was heard by, hear through that of `bank`: a ridge regression of
    one's features to the other's over the same takes, folded into the layers that hear. Returns R^2 over the takes."""
    x, y = (torch.from_numpy(np.concatenate([t.features(v) for t in b.train for v in (0, 1)])).double()
            for b in (bank, before))
    weight, bias = ridge(x, y, HEARING_RIDGE)
    if prior.encoder.audio is not None:
        hears = prior.encoder.audio[0]
        assert isinstance(hears, nn.Linear)
        fold(hears, weight, bias)
    fold(prior.decoder.enter, weight, bias)
    error = (y - x @ weight.T - bias).square().sum()
    return 1 - float(error / (y - y.mean(0)).square().sum())


def make_style_prior_stage(config: StylePriorTrainConfig, corpus: Path, out: Path) -> StylePriorStage:
    """The stage over speech made on the spot; `corpus` has pixels, which this stage does not need.

    The audio encoder is `config.data.encoder` or that of the run beside `out`. Raises WeightsError when it is missing.
    """
    encoder = config.data.encoder or out.parent / "audio" / "audio_encoder.safetensors"
    cache = out.parent / "coefficients"
    before = load_bank(config.data, config.start_encoder, cache) if config.start and config.start_encoder else None
    return StylePriorStage(config, load_bank(config.data, encoder, cache), before)

