"""Stage style-prior: batches that cannot be told apart by words, learning, export, the map to Manner, presets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from svp_stream.motion.manner import MANNER_DIM, Manner
from svp_stream.style.preset import load_preset
from svp_stream.style.prior import load_prior, save_prior
from svp_stream.synthetic.styles import HELD_OUT_CAST, TRAINING_CAST
from svp_stream.training.coefficients import CoefficientBank
from svp_stream.training.loop import run_stage
from svp_stream.training.ridge import ridge
from svp_stream.training.style_prior import WEIGHTS, PriorModel, StylePriorStage, StylePriorTrainConfig
from svp_stream.weights_file import sha256
from tests.fakes.coefficients import tiny_bank

CONFIG = StylePriorTrainConfig.model_validate({
    "loop": {"steps": 40, "batch": 6, "lr": 3e-3, "warmup": 4, "ema": 0.9, "precision": "fp32", "threads": 1},
    "width": 16, "layers": 1, "style_dim": 16, "decoder_layers": 1, "frames": 24, "takes": 3, "manner_styles": 60,
    "sigma_styles": 30, "preset_clips": 4,
})


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> CoefficientBank:
    """One bank for all tests of the file."""
    return tiny_bank(tmp_path_factory.mktemp("bank"))


def test_batch_says_the_same_words_in_every_style(bank: CoefficientBank) -> None:
    batch = StylePriorStage(CONFIG, bank).batch(np.random.default_rng(0), 6)
    assert batch["expression"].shape == (24, 24, 42) and batch["mask"].dtype == torch.bool
    assert batch["labels"].tolist() == [label for label in range(6) for _ in range(4)]
    same = batch["labels"][batch["partners"]] == batch["labels"]
    assert bool(same.all()) and bool((batch["partners"] != torch.arange(24)).all())
    assert bool(batch["mask"].any(1).all())
    # Two of three takes each: some pair of styles must share a take.
    assert CONFIG.takes < 2 * 6


def test_batch_hangs_on_its_generator_alone(bank: CoefficientBank) -> None:
    stage = StylePriorStage(CONFIG, bank)
    one, again = (stage.batch(np.random.default_rng(3), 4) for _ in range(2))
    assert all(torch.equal(one[k], again[k]) for k in one)


def test_training_styles_never_include_held_out_ones(bank: CoefficientBank) -> None:
    stage = StylePriorStage(CONFIG, bank)
    names = {s.name for i in range(30) for s in stage.styles(np.random.default_rng(i), 12)}
    assert not names & set(HELD_OUT_CAST) and len(names & set(TRAINING_CAST)) > 40


def test_ridge_finds_a_linear_map() -> None:
    torch.manual_seed(0)
    x, true = torch.randn(200, 5).double(), torch.randn(3, 5).double()
    weight, bias = ridge(x, x @ true.T + 2.0, 1e-6)
    torch.testing.assert_close(weight, true, atol=1e-4, rtol=0)
    torch.testing.assert_close(bias, torch.full((3,), 2.0).double(), atol=1e-4, rtol=0)


def test_trains_end_to_end_and_ships_presets(bank: CoefficientBank, tmp_path: Path) -> None:
    torch.manual_seed(0)
    stage = StylePriorStage(CONFIG, bank)
    batch = stage.batch(np.random.default_rng(99), 6)
    before = stage.loss(stage.model.eval(), batch, 1.0)[1]
    run_stage(stage, CONFIG.loop, tmp_path)
    after = stage.loss(stage.model.eval(), batch, 1.0)[1]
    assert after["contrast"] < 0.9 * before["contrast"] and after["rebuilt"] < 0.95 * before["rebuilt"]
    figures = stage.validate(stage.model)
    assert figures["r1"] > 2 * figures["r1_shuffled"] and set(figures) >= {"sigma_short_to_long", "r1_crowd_24"}
    prior = load_prior(tmp_path / WEIGHTS)
    assert prior.manner.weight.shape == (MANNER_DIM, 16) and float(prior.manner.weight.abs().sum()) > 0
    files = sorted((tmp_path / "styles").glob("*.npz"))
    assert sorted(f.stem for f in files) == sorted(TRAINING_CAST)
    presets = {f.stem: load_preset(f, prior=sha256(tmp_path / WEIGHTS), dim=16) for f in files}
    assert np.abs(presets["angry"].mu - presets["warm"].mu).max() > 0.1 and presets["warm"].description
    assert presets["warm-soft"].description == f"{presets['warm'].description} Held back."
    with torch.no_grad():
        read = prior.manner(torch.from_numpy(presets["bored"].mu)).numpy()
    assert isinstance(Manner.from_vector(read), Manner)


def test_goes_on_from_a_prior_that_heard_through_another_encoder(bank: CoefficientBank, tmp_path: Path) -> None:
    """Where the features of two encoders are a linear map apart, the prior says the same of a clip heard by either."""
    torch.manual_seed(0)
    first = StylePriorStage(CONFIG, bank)
    assert isinstance(first.model, PriorModel)
    save_prior(tmp_path / WEIGHTS, first.model.prior)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((bank.audio_dim, bank.audio_dim)))[0]
    turned = CoefficientBank(*(tuple(replace(t, tokens=(t.tokens.astype(np.float32) @ turn).astype(np.float16))
                                     for t in side) for side in (bank.train, bank.held_out)))
    onward = StylePriorStage(CONFIG.model_copy(update={"start": tmp_path / WEIGHTS}), turned, bank)
    deaf = StylePriorStage(CONFIG.model_copy(update={"start": tmp_path / WEIGHTS}), turned)
    batches = [StylePriorStage.batch(s, np.random.default_rng(4), 6) for s in (first, onward)]
    mu = []
    for stage, b in ((first, batches[0]), (onward, batches[1]), (deaf, batches[1])):
        assert isinstance(stage.model, PriorModel)
        mu.append(stage.model.eval().prior.encoder(b["expression"], b["audio"], b["mask"])[0].detach())
    assert (mu[1] - mu[0]).abs().max() < 0.2 * (mu[2] - mu[0]).abs().max()
    before = {k: v.clone() for k, v in onward.model.state_dict().items()}
    run_stage(onward, CONFIG.loop.model_copy(update={"steps": 2}), tmp_path / "run")
    after = onward.model.state_dict()
    assert not before["prior.encoder.mu.0.weight"].equal(after["prior.encoder.mu.0.weight"])
    assert not before["prior.decoder.enter.weight"].equal(after["prior.decoder.enter.weight"])


def test_shipped_profile_is_the_default() -> None:
    path = Path(__file__).parents[2] / "configs" / "train" / "style-prior.yaml"
    assert StylePriorTrainConfig.model_validate(yaml.safe_load(path.read_text())) == StylePriorTrainConfig()
