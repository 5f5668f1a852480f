"""What the sd15 losses claim, each with a test that can fail: dropout of conditions, weights, zero terminal signal,
checkpointing, half precision, and a run that goes on exactly in every stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svp_stream.diffusion.schedule import SCHEDULE
from svp_stream.training import sd15_losses as losses
from svp_stream.training import sd15_roll
from svp_stream.training.checkpoint import read_checkpoint
from svp_stream.training.loop import Batch, run_stage
from svp_stream.training.sd15 import Dropout, Sd15Stage
from tests.fakes.sd15_clips import tiny_loop, tiny_stage
from tests.fakes.tiny_sd15 import CONFIG

KINDS = ("image", "video", "consistency", "rollout")
NONE = {"audio": 0, "style": 0, "kps": 0, "reference": 0, "previous": 0}


def batch_of(stage: Sd15Stage, size: int = 2, seed: int = 0) -> Batch:
    return stage.batch(np.random.default_rng(seed), size)


def loss_of(stage: Sd15Stage, batch: Batch, seed: int = 0, progress: float = 0.5) -> Tensor:
    torch.manual_seed(seed)
    return stage.loss(stage.model, batch, progress)[0]


class Told(nn.Module):
    """Stands for the model: estimates the truth but for what `error` says; keeps what it was shown."""

    def __init__(self, error: Tensor | float = 0.0) -> None:
        super().__init__()
        self.error, self.shown = error, dict[str, Tensor]()

    def forward(self, b: Batch, x_t: Tensor, t: Tensor, previous: Tensor, history: Tensor, frames: int) -> Tensor:
        self.shown = {"x_t": x_t, "t": t, "previous": previous, "history": history}
        return b["latents"][:, 1:].flatten(0, 1) + self.error


@pytest.mark.parametrize("condition", list(NONE))
def test_a_condition_left_out_has_no_say(condition: str) -> None:
    """With a share of 1 what the condition holds changes nothing, with 0 it changes the loss."""
    told = {"audio": "audio", "style": "mu", "kps": "kps", "reference": "reference", "previous": "latents"}[condition]
    changes = {}
    for share in (0, 1):
        stage = tiny_stage("video", dropout=NONE | {condition: share}, warm_share=0)
        cut = stage._data.cut(np.random.default_rng(0), 2, 3).as_batch()
        other = dict(cut)
        if condition == "previous":  # the frame before the first, of which no other frame is made
            other["latents"] = cut["latents"].clone()
            other["latents"][:, 0] += 1
        else:
            other[told] = cut[told] + 1
        found = [
            loss_of(stage, stage.conditions(c, np.random.default_rng(1), stage.config.dropout)) for c in (cut, other)
        ]
        changes[share] = float((found[0] - found[1]).abs().detach())
    assert changes[1] == 0
    assert changes[0] > 1e-6


def test_conditions_are_left_out_as_often_as_asked() -> None:
    shares = {"audio": 0.1, "style": 0.3, "kps": 0.2, "reference": 0.5}
    stage, rng = tiny_stage("image"), np.random.default_rng(3)
    cut = stage._data.cut(rng, 64, 1).as_batch()
    drawn = [stage.conditions(cut, rng, Dropout(**shares, previous=0)) for _ in range(30)]
    seen = {
        "audio": [b["heard"].amax(1) == 0 for b in drawn], "style": [b["style_on"] == 0 for b in drawn],
        "kps": [b["kps"].abs().amax((1, 2, 3)) == 0 for b in drawn],
        "reference": [b["reference_on"] == 0 for b in drawn],
    }  # fmt: skip
    for name, share in shares.items():
        rows = torch.cat(seen[name]).float()
        assert abs(float(rows.mean()) - share) < 4 * (share * (1 - share) / len(rows)) ** 0.5, name
    past = torch.cat([losses.corrupted(torch.randn(64, 4, 8, 8), 0.3, 0.25, 0.1)[1] == -1 for _ in range(30)]).float()
    assert abs(float(past.mean()) - 0.1) < 4 * (0.1 * 0.9 / len(past)) ** 0.5


@pytest.mark.parametrize("t", [20, 300, 600])
def test_min_snr_weighs_the_loss(t: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """min(SNR, gamma) / (SNR + 1) times the squared error of v (arXiv 2303.09556), for two gammas."""
    monkeypatch.setattr(Sd15Stage, "_times", lambda *a: (torch.full((2,), t), torch.zeros(2, dtype=torch.bool)))
    alpha, sigma = float(SCHEDULE.alpha[t]), float(SCHEDULE.sigma[t])
    snr = (alpha / sigma) ** 2
    for gamma in (1.0, 5.0):
        stage = tiny_stage("image", min_snr=gamma, mouth=0)
        loss, _ = stage.loss(Told(0.3), batch_of(stage), 0.5)
        v_error = (0.3 / max(sigma, 0.05)) ** 2
        assert float(loss) == pytest.approx(max(min(snr, gamma) / (snr + 1), losses.FLOOR) * v_error, rel=1e-4)


def test_pure_noise_tells_nothing_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero terminal signal (arXiv 2305.08891): at the last timestep x_t is the noise, and the target of v is -x0."""
    shown: dict[int, list[Tensor]] = {}
    for t in (999, 990):
        fixed = torch.full((2,), t), torch.zeros(2, dtype=torch.bool)
        monkeypatch.setattr(Sd15Stage, "_times", lambda *a, fixed=fixed: fixed)
        stage = tiny_stage("image")
        batch = batch_of(stage)
        shown[t] = []
        for latents in (batch["latents"], batch["latents"] + 1):
            told = Told()
            torch.manual_seed(0)
            stage.loss(told, batch | {"latents": latents}, 0.5)
            shown[t].append(told.shown["x_t"])
    assert torch.equal(*shown[999]) and not torch.equal(*shown[990])
    x0, noise, last = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([999])
    torch.testing.assert_close(losses.velocity(losses.noised(x0, noise, last), x0, last), -x0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mouth_weighs_more(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error at the mouth counts `1 + mouth` times as much as elsewhere (in the pseudo-Huber about its root)."""
    stage = tiny_stage(kind, mouth=3.0, anchor=0.0, dropout=NONE)
    batch = batch_of(stage)
    mask = batch["mask"]
    assert 0 < float(mask.mean()) < 0.5

    def loss(where: Tensor) -> float:
        error = 0.3 * where / where.sum((1, 2, 3), keepdim=True).clamp(min=1)
        torch.manual_seed(0)
        if kind == "rollout":
            x0, e = batch["latents"][:, 1:], error.view(2, 3, 1, 8, 8)
            made = [(f, x0[:, f] + e[:, f]) for f in (0, 0, 1, 2)]
            monkeypatch.setattr("svp_stream.training.sd15.unroll", lambda *a, **k: iter(made))
        if kind == "consistency":
            monkeypatch.setattr("svp_stream.training.sd15_losses.pseudo_huber", lambda e: e.square().flatten(1).sum(1))
        return float(stage.loss(Told(error), batch, 0.0)[0])

    one = torch.zeros_like(mask)
    one[..., 0, 0] = 1  # a corner, far from the mouth
    inside = torch.zeros_like(mask)
    inside.flatten(1)[torch.arange(len(mask)), mask.flatten(1).argmax(1)] = 1
    assert loss(inside) == pytest.approx(4 * loss(one), rel=1e-4)


@pytest.mark.parametrize("reference", ["own", "shared", "none"])
def test_checkpointing_changes_memory_alone(reference: Literal["own", "shared", "none"]) -> None:
    """Equal loss, equal gradients; and blocks do run a second time, in the backward pass."""
    found = {}
    for checkpointing in (False, True):
        stage = tiny_stage("video", replace(CONFIG, reference=reference), checkpointing=checkpointing, dropout=NONE)
        model, runs = stage.model.train(), [0]

        def count(*a: Any, runs: list[int] = runs) -> None:
            runs[0] += 1

        model.sd15.unet.down_blocks[0].resnets[0].register_forward_pre_hook(count)
        loss = loss_of(stage, batch_of(stage))
        before = runs[0]
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found[checkpointing] = (loss.detach(), gradients, runs[0] - before)
    (loss, gradients, again), (other, others, second) = found[False], found[True]
    assert again == 0 and second == (2 if reference == "shared" else 1), "a shared one also reads the reference"
    assert torch.equal(loss, other) and gradients.keys() == others.keys() and len(gradients) > 100
    for name, g in gradients.items():
        torch.testing.assert_close(others[name], g, rtol=1e-4, atol=1e-7)


class _CutOff(Exception):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_exactly(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, averages and the optimiser's state, the batches in their order and the noise, in every stage."""
    seen: list[tuple[Tensor, Tensor]] = []
    real, stop = Sd15Stage.loss, 99

    def watched(self: Sd15Stage, model: nn.Module, batch: Batch, progress: float) -> Any:
        if len(seen) == stop:
            raise _CutOff
        state = torch.get_rng_state()
        seen.append((batch["latents"].clone(), torch.rand(8)))
        torch.set_rng_state(state)
        return real(self, model, batch, progress)

    monkeypatch.setattr(Sd15Stage, "loss", watched)
    run = tiny_loop(checkpoint_every_s=0.0)
    run_stage(tiny_stage(kind), run, tmp_path / "whole")
    whole, seen[:], stop = list(seen), [], 1
    with pytest.raises(_CutOff):
        run_stage(tiny_stage(kind), run, tmp_path / "cut")
    stop = 99
    run_stage(tiny_stage(kind), run, tmp_path / "cut")
    assert len(seen) == len(whole) == run.steps
    assert all(torch.equal(a, b) for x, y in zip(seen, whole, strict=True) for a, b in zip(x, y, strict=True))
    a, b = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "cut"))
    assert a.step == b.step and a.model.keys() == b.model.keys()
    assert all(torch.equal(v, b.model[k]) and torch.equal(a.average[k], b.average[k]) for k, v in a.model.items())
    state, other = a.optimiser["state"], b.optimiser["state"]
    assert all(torch.equal(v, other[i][k]) for i, kept in state.items() for k, v in kept.items())


@pytest.mark.parametrize("kind", ["video", "rollout"])
def test_bf16_trains_fp32_weights(kind: Any, tmp_path: Path) -> None:
    ends = {}
    for precision in ("fp32", "bf16"):
        stage = tiny_stage(kind)
        run_stage(stage, tiny_loop(steps=2, precision=precision), tmp_path / precision)
        ends[precision] = stage.model.state_dict()
    assert all(v.dtype == torch.float32 and torch.isfinite(v).all() for v in ends["bf16"].values())
    apart = max(float((v - ends["fp32"][k]).abs().max()) for k, v in ends["bf16"].items())
    assert 0 < apart < 0.02, "another arithmetic, nearly the same steps (Adam moves 1e-3 a step)"


@torch.no_grad()
def test_unrolled_frames_stand_on_what_was_made() -> None:
    """Later frames change with the first one's noise; a frame that is alone does not; the past is within the window."""
    model = tiny_stage("rollout").model.eval()
    stage = tiny_stage("rollout", dropout=NONE)
    batch, noise = batch_of(stage), torch.randn(2, 3, 4, 8, 8)
    other = noise.clone()
    other[:, 0] += 1
    for alone in (False, True):
        one, two = (sd15_roll.rolled(model, batch, n, alone=alone) for n in (noise, other))
        assert not torch.equal(one[:, 0], two[:, 0])
        assert torch.equal(one[:, 2], two[:, 2]) is alone
    assert [f for f, _ in sd15_roll.unroll(model, batch, noise)] == [0, 0, 1, 2]
    assert [f for f, _ in sd15_roll.unroll(model, batch, noise, steps=3)] == [0] * 3 + [1] * 3 + [2] * 3


def test_gradients_stay_within_a_frame() -> None:
    stage = tiny_stage("rollout", dropout=NONE)
    batch, noise = batch_of(stage), torch.randn(2, 3, 4, 8, 8, requires_grad=True)
    told = [e for f, e in sd15_roll.unroll(stage.model, batch, noise) if f == 2]
    (gradient,) = torch.autograd.grad(told[-1].sum(), noise)
    assert gradient[:, 2].abs().sum() > 0 and not gradient[:, :2].any()
