"""Stage expression: targets, learning, smoothness of what is exported, figures that tell right from wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from svp_stream.diffusion.conditioner import load_conditioner
from svp_stream.style.prior import PriorConfig, StylePrior
from svp_stream.style.projection import ProjectionConfig, StyleProjection, load_projection
from svp_stream.synthetic.styles import NAMED
from svp_stream.training.coefficients import CoefficientBank
from svp_stream.training.expression import (
    WEIGHTS,
    ExpressionModel,
    ExpressionStage,
    ExpressionTrainConfig,
    KnownStyle,
    translate,
)
from svp_stream.training.expression_check import gap, lag_ms, pearson, speak
from svp_stream.training.loop import run_stage
from tests.fakes.coefficients import tiny_bank

CONFIG = ExpressionTrainConfig.model_validate({
    "loop": {"steps": 100, "batch": 6, "lr": 4e-3, "warmup": 4, "ema": 0.9, "precision": "fp32", "threads": 1},
    "dim": 64, "layers": 1, "tokens": 2, "style_tokens": 2, "frames": 8, "styles": 48, "style_clips": 2,
    "style_frames": 16,
})


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> CoefficientBank:
    """One bank for all tests of the file."""
    return tiny_bank(tmp_path_factory.mktemp("bank"))


def stage_of(bank: CoefficientBank, config: ExpressionTrainConfig = CONFIG) -> ExpressionStage:
    """A stage over a random prior, which is enough to tell styles apart."""
    torch.manual_seed(0)
    prior = StylePrior(PriorConfig(expression_dim=42, audio_dim=16, width=16, layers=1, style_dim=16)).eval()
    return ExpressionStage(config, bank, prior.encoder, "0" * 64)


def test_batch_hangs_on_its_generator_alone(bank: CoefficientBank) -> None:
    stage = stage_of(bank)
    one, again = (stage.batch(np.random.default_rng(3), 5) for _ in range(2))
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert one["target"].shape == (5, 8, 42) and one["audio"].shape[:2] == (5, 8)


def test_strength_is_a_caricature_between_plain_and_beyond(bank: CoefficientBank) -> None:
    stage, take, style = stage_of(bank), bank.train[1], NAMED["cheerful"]
    plain, half, full, double = (stage._target(take, style, k, 7) for k in (0.0, 0.5, 1.0, 2.0))
    np.testing.assert_array_equal(full, take.expression(style, np.random.default_rng(7)))
    np.testing.assert_array_equal(plain, take.expression(NAMED["neutral"], np.random.default_rng(7)))
    np.testing.assert_allclose(half, (plain + full) / 2, atol=1e-6)
    assert np.abs(double - plain).mean() > np.abs(full - plain).mean()
    assert double.min() >= 0 and double.max() <= 1


def test_trains_end_to_end_and_loads_on_the_street(bank: CoefficientBank, tmp_path: Path) -> None:
    stage = stage_of(bank)
    batch = stage.batch(np.random.default_rng(99), 16)
    before = float(stage.loss(stage.model.eval(), batch, 1.0)[0].detach())
    run_stage(stage, CONFIG.loop, tmp_path)
    model = stage.model.eval()
    assert isinstance(model, ExpressionModel)
    assert float(stage.loss(model, batch, 1.0)[0].detach()) < 0.8 * before
    figures = stage.validate(model)
    assert figures["error"] < figures["error_wrong_style"]
    assert {"gap_r", "gap_r_shuffled", "lag_ms", "silent_opening", "gap_r_ahead_0"} <= set(figures)
    assert list((tmp_path / "sheets").glob("*.png"))

    class Loaded:
        conditioner = load_conditioner(tmp_path / WEIGHTS)
        projection = load_projection(tmp_path / WEIGHTS)

    s = torch.from_numpy(stage.known[1].mu[0])
    spoken = speak(Loaded(), bank.train[1], s)
    assert spoken.shape == (bank.train[1].frames, 42) and spoken.min() >= 0 and spoken.max() <= 1


def test_goes_on_from_weights_and_holds_on_to_their_free_tokens(bank: CoefficientBank, tmp_path: Path) -> None:
    first = stage_of(bank)
    first.export(first.model, tmp_path)
    onward = stage_of(bank, CONFIG.model_copy(update={"start": tmp_path / WEIGHTS}))
    batch = onward.batch(np.random.default_rng(1), 4)
    assert onward.loss(onward.model, batch, 0.0)[1]["drift"] == 0
    assert isinstance(onward.model, ExpressionModel)
    with torch.no_grad():
        onward.model.conditioner.queries.mul_(1.5)
    assert onward.loss(onward.model, batch, 0.0)[1]["drift"] > 1e-4
    assert "drift" not in first.loss(first.model, batch, 0.0)[1]


def test_a_timid_face_pays_for_its_manner(bank: CoefficientBank) -> None:
    """The mean of the truth has the least square error; level, spread, speed and style are of the truth alone."""
    stage = stage_of(bank)
    batch = stage.batch(np.random.default_rng(2), 8)
    truth, heard = batch["target"], batch["features"]
    timid = truth.mean(1, keepdim=True) + 0.3 * (truth - truth.mean(1, keepdim=True))
    assert stage._manner_loss(truth, truth).item() == 0 and stage._match_loss(truth, truth, heard).item() == 0
    assert stage._manner_loss(timid, truth).item() > 0.1
    other = truth.roll(1, 0)
    assert stage._match_loss(other, truth, heard).item() > stage._match_loss(timid, truth, heard).item() > 0
    guess = timid.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(stage._manner_loss(guess, truth) + stage._match_loss(guess, truth, heard), guess)
    assert torch.isfinite(slope).all() and slope.abs().sum() > 0


@pytest.mark.parametrize("shift", [-2, 0, 3])
def test_lag_is_found(shift: int) -> None:
    rng = np.random.default_rng(0)
    track = np.convolve(rng.standard_normal(300), np.hanning(9), mode="same")
    assert lag_ms(np.roll(track, shift), track) == pytest.approx(40 * shift, abs=4)


def test_pearson_and_gap() -> None:
    a = np.random.default_rng(1).standard_normal(200)
    assert pearson(a, 2 * a + 3) == pytest.approx(1) and pearson(a, -a) == pytest.approx(-1)
    assert pearson(a, np.zeros(200)) == 0
    shut = np.zeros((1, 42), dtype=np.float32)
    open_ = shut.copy()
    open_[0, 6] = 0.5
    assert float(gap(open_)[0]) == pytest.approx(0.5) and float(gap(shut)[0]) == 0


def test_shipped_profile_is_the_default() -> None:
    path = Path(__file__).parents[2] / "configs" / "train" / "expression.yaml"
    assert ExpressionTrainConfig.model_validate(yaml.safe_load(path.read_text())) == ExpressionTrainConfig()


def test_a_projection_is_folded_onto_another_prior() -> None:
    """Where one prior's means are a linear map of the other's, the folded projection gives the same tokens."""
    rng = np.random.default_rng(0)
    turn = rng.standard_normal((6, 6)).astype(np.float32)
    before = [KnownStyle(NAMED["warm"], m := rng.standard_normal((4, 6)).astype(np.float32), m * 0) for _ in range(60)]
    known = [KnownStyle(k.style, k.mu @ turn.T + 1, k.log_var) for k in before]
    torch.manual_seed(0)
    projection = StyleProjection(ProjectionConfig(style_dim=6, tokens=2, width=8))
    wanted = projection(torch.from_numpy(before[0].mu)).detach()
    lost = (projection(torch.from_numpy(known[0].mu)).detach() - wanted).abs().max()
    assert translate(known, before, projection) > 0.99
    folded = (projection(torch.from_numpy(known[0].mu)).detach() - wanted).abs().max()
    assert float(folded) < 0.1 * float(lost)
