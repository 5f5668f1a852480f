"""The fit of sigma: it foretells error on clips it was not fitted on, and leaves the means alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.synthetic.styles import CAST, TRAINING_CAST
from svp_stream.training.style_prior import PriorModel, StylePriorStage, StylePriorTrainConfig
from svp_stream.training.style_prior_check import sigma_figures
from svp_stream.training.style_sigma import fit_sigma
from tests.fakes.coefficients import tiny_bank

CONFIG = StylePriorTrainConfig.model_validate({
    "loop": {"steps": 4, "batch": 4, "precision": "fp32", "threads": 1},
    "width": 16, "layers": 1, "style_dim": 16, "decoder_layers": 1, "frames": 24, "takes": 3, "manner_styles": 60,
    "sigma_styles": 30, "preset_clips": 4,
})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> StylePriorStage:
    torch.manual_seed(0)
    return StylePriorStage(CONFIG, tiny_bank(tmp_path_factory.mktemp("bank")))


def test_fitted_sigma_foretells_error(stage: StylePriorStage, tmp_path: Path) -> None:
    assert isinstance(stage.model, PriorModel)
    encoder = stage.model.prior.encoder.eval()
    means = {k: v.clone() for k, v in encoder.state_dict().items() if not k.startswith("spread")}
    takes = [t for t in stage.bank.train if not t.silent().all()]
    styles = [CAST[n] for n in TRAINING_CAST[::2]]
    with torch.no_grad():
        blind = sigma_figures(encoder, stage.check_takes[:2], stage.check_takes[2:4], 24)
    before, after = fit_sigma(encoder, styles, takes, 24, np.random.default_rng(0))
    assert after < before - 0.1
    with torch.no_grad():
        told = sigma_figures(encoder, stage.check_takes[:2], stage.check_takes[2:4], 24)
    assert told["sigma_error_r"] > max(blind["sigma_error_r"] + 0.2, 0.4) and abs(told["sigma_error_r_shuffled"]) < 0.2
    assert told["sigma_spoiled_to_clean"] > 1.15 > blind["sigma_spoiled_to_clean"]
    assert told["sigma_short_to_long"] > 1.3 > blind["sigma_short_to_long"]
    ladder = [told[f"sigma_spoiled_{s:g}"] for s in (0.3, 0.6, 0.9)]
    assert ladder == sorted(ladder)
    assert all(torch.equal(means[k], v) for k, v in encoder.state_dict().items() if k in means)
    assert all(p.grad is None for p in encoder.parameters())
