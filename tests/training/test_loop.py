"""The loop: a run that was cut off goes on to the same weights; minutes bound it; one bad gradient does no harm."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svp_stream.errors import WeightsError
from svp_stream.training import loop as room
from svp_stream.training.loop import Batch, LoopConfig, in_half, run_stage


class Line:
    """Fits y = 2x - 1 with noise in the batch and in the model; counts what the loop asks of it."""

    def __init__(self, spoil: frozenset[int] = frozenset(), pause_s: float = 0.0, stop_at: int | None = None) -> None:
        torch.manual_seed(3)
        self._model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.spoil, self.pause_s, self.stop_at = spoil, pause_s, stop_at
        self.steps: list[float] = []
        self.validated = 0
        self.exported: list[Tensor] = []

    @property
    def model(self) -> nn.Module:
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        if len(self.steps) == self.stop_at:
            raise KeyboardInterrupt
        return {"x": torch.from_numpy(rng.standard_normal((size, 1), dtype=np.float32))}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        time.sleep(self.pause_s)
        x = batch["x"]
        bad = float("nan") if len(self.steps) in self.spoil else 1.0
        self.steps.append(progress)
        error = (model(x + 0.1 * torch.randn_like(x)) - (2 * x - 1)).square().mean()
        return error * bad, {"square": float(error.detach())}

    def validate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        self.validated += 1
        return {"held_out": 1.0}

    def sheet(self, model: nn.Module, path: Path) -> None:
        path.write_text("a picture")

    def export(self, model: nn.Module, out: Path) -> None:
        assert not model.training
        self.exported = weights(model)


def config(**changed: Any) -> LoopConfig:
    known: dict[str, Any] = {"steps": 6, "batch": 4, "lr": 1e-2, "warmup": 2, "precision": "fp32", "ema": 0.9,
                             "log_every_s": 0.0, "sheet_every_s": 600.0, "tensorboard": False}
    return LoopConfig(**{**known, **changed})


def weights(model: nn.Module) -> list[Tensor]:
    return [v.detach().clone() for v in model.state_dict().values()]


def assert_equal(a: list[Tensor], b: list[Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_cut_off_and_resumed_equals_never_stopped(tmp_path: Path) -> None:
    whole = Line()
    run_stage(whole, config(), tmp_path / "whole")
    first = Line(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        run_stage(first, config(checkpoint_every_s=0.0), tmp_path / "cut")
    second = Line()
    run_stage(second, config(), tmp_path / "cut")
    assert len(first.steps) == 3 and len(second.steps) == 3
    assert second.steps == whole.steps[3:], "the schedule goes on, too"
    assert_equal(weights(second.model), weights(whole.model))
    assert_equal(second.exported, whole.exported)


def test_a_finished_run_only_exports_again(tmp_path: Path) -> None:
    run_stage(Line(), config(), tmp_path)
    again = Line()
    run_stage(again, config(), tmp_path)
    assert again.steps == [] and again.exported


def test_what_is_exported_is_the_average(tmp_path: Path) -> None:
    line = Line()
    run_stage(line, config(steps=12), tmp_path)
    live = weights(line.model)
    assert any(not torch.equal(a, b) for a, b in zip(live, line.exported, strict=True))
    sharp = Line()
    run_stage(sharp, config(steps=12, ema=0.0), tmp_path / "sharp")
    assert_equal(sharp.exported, weights(sharp.model))
    assert_equal(weights(sharp.model), live)


def test_it_learns(tmp_path: Path) -> None:
    line = Line()
    run_stage(line, config(steps=150, batch=32, lr=3e-2), tmp_path)
    rows = [json.loads(r) for r in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in rows if "loss" in r]
    assert np.mean(losses[-20:]) < 0.4 * np.mean(losses[:5])
    assert rows[-1] == {"step": 150, "validation": True, "held_out": 1.0}
    assert (tmp_path / "sheets" / "0000150.png").is_file()


def test_a_step_with_a_bad_gradient_is_skipped(tmp_path: Path) -> None:
    line = Line(spoil=frozenset({2}))
    run_stage(line, config(), tmp_path)
    assert len(line.steps) == 6
    assert all(torch.isfinite(w).all() for w in [*weights(line.model), *line.exported])
    clean = Line()
    run_stage(clean, config(), tmp_path / "clean")
    assert any(not torch.equal(a, b) for a, b in zip(weights(line.model), weights(clean.model), strict=True))


def test_only_bad_gradients_change_nothing(tmp_path: Path) -> None:
    line = Line(spoil=frozenset(range(6)))
    before = weights(line.model)
    run_stage(line, config(), tmp_path)
    assert_equal(weights(line.model), before)


def test_minutes_bound_the_run_and_the_schedule(tmp_path: Path) -> None:
    line = Line(pause_s=0.02)
    run_stage(line, config(steps=100_000), tmp_path, minutes=0.3 / 60)
    assert 1 <= len(line.steps) <= 15, "0.3 s at 20 ms a step or more"
    assert line.steps == sorted(line.steps) and line.steps[0] == 0 and line.steps[-1] < 1
    assert line.exported


def test_training_time_counts_over_interruptions(tmp_path: Path) -> None:
    run_stage(Line(pause_s=0.02), config(steps=100_000), tmp_path, minutes=0.1 / 60)
    again = Line(pause_s=0.02)
    run_stage(again, config(steps=100_000), tmp_path, minutes=0.1 / 60)
    assert again.steps == []


def test_precision_may_differ_between_runs_of_one_process(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16", "fp32"):
        line = Line()
        run_stage(line, config(steps=2, precision=precision), tmp_path / f"{precision}{time.monotonic_ns()}")
        assert len(line.steps) == 2


def test_half_precision_is_used_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for able in ({"avx512_bf16": True}, {"avx512_bf16": False, "amx_bf16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert in_half("auto", cpu)
        assert not in_half("fp32", cpu)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    assert not in_half("auto", cpu)
    assert in_half("bf16", cpu)
    assert in_half("auto", gpu)


def test_a_checkpoint_of_another_model_says_what_to_do(tmp_path: Path) -> None:
    run_stage(Line(), config(steps=1), tmp_path)
    frozen = Line()
    next(iter(frozen.model.parameters())).requires_grad_(False)
    with pytest.raises(WeightsError, match="another model.*delete it to start"):
        run_stage(frozen, config(steps=2), tmp_path)


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="checkpoint.pt cannot be read.*delete it to start"):
        run_stage(Line(), config(), tmp_path)


@pytest.mark.parametrize("step, scale", [(0, 0.5), (1, 1.0), (2, 1.0)])
def test_warm_up(step: int, scale: float) -> None:
    assert room._lr_scale(config(), step, 0.0) == pytest.approx(scale)


@pytest.mark.parametrize("progress, scale", [(0.0, 1.0), (0.5, 0.525), (1.0, 0.05), (1.4, 0.05)])
def test_cosine(progress: float, scale: float) -> None:
    assert room._lr_scale(config(), 5, progress) == pytest.approx(scale)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"ema": 1.0}, {"precision": "fp8"}, {"speed": 3}])
def test_a_wrong_profile_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(**wrong)
