"""One training loop for every stage: seeded by step, averaged, resumable, bounded by steps or by minutes.

In: a `TrainingStage` (model, batches, loss, sheet, validation, export). Out: a run folder with `checkpoint.pt`, what
`journal` writes, and what the stage exports. A step draws its batch and its noise from (seed, step, process) alone, so
a run that was cut off goes on as if it had not been (to the step, on the same machine, in as many processes). In
several processes (`accelerate launch`) each has its own batch, gradients are averaged, and the first alone writes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from svp_stream.errors import WeightsError
from svp_stream.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from svp_stream.training.crew import agreed, average_gradients, crew, share_weights
from svp_stream.training.journal import Journal, open_accelerator

logger = logging.getLogger(__name__)
Batch = dict[str, Tensor]


class LoopConfig(BaseModel):
    """The part of every stage's profile that the loop reads. Times in seconds of wall clock."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(1000, ge=1)
    batch: int = Field(16, ge=1, description="in each process")
    lr: float = Field(3e-4, gt=0)
    warmup: int = Field(50, ge=0)
    final_lr: float = Field(0.05, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    grad_clip: float = Field(1.0, gt=0)
    ema: float = Field(0.999, ge=0, lt=1)
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the processor has it")
    threads: int = Field(0, ge=0, description="0 leaves torch's choice")
    seed: int = 0
    log_every_s: float = Field(20.0, ge=0)
    sheet_every_s: float = Field(240.0, ge=0)
    checkpoint_every_s: float = Field(120.0, ge=0)
    tensorboard: bool = True


class TrainingStage(Protocol):
    """What a stage brings to the loop."""

    @property
    def model(self) -> nn.Module:
        """Everything that is trained."""
        ...

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """A batch that depends on `rng` alone."""
        ...

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss and what to log; `progress` runs from 0 to 1 over the run."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Held-out figures of the averaged model."""
        ...

    def sheet(self, model: nn.Module, path: Path) -> None:
        """A picture of what the averaged model does, for people."""
        ...

    def export(self, model: nn.Module, out: Path) -> None:
        """Write what the next stages or the server load."""
        ...


@dataclass(slots=True)
class _Run:
    """The mutable state of one run; born and restored in `run_stage`."""

    step: int
    seconds: float
    average: dict[str, Tensor]


@contextmanager
def _swapped(model: nn.Module, average: dict[str, Tensor]) -> Iterator[None]:
    """The averaged weights stand in the model inside the block."""
    live = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(average)
    model.eval()
    try:
        yield
    finally:
        model.load_state_dict(live)
        model.train()


def _update_average(average: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average, with a short memory while the run is young."""
    d = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value.detach(), 1 - d)
        else:
            average[name].copy_(value)


def _lr_scale(config: LoopConfig, step: int, progress: float) -> float:
    """Linear warm-up, then a cosine down to `final_lr`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def run_stage(stage: TrainingStage, config: LoopConfig, out: Path, *, minutes: float | None = None) -> None:
    """Train until `config.steps` or until `minutes` of training time are spent, whichever comes first, then export.

    Goes on from `out/checkpoint.pt` when it is there. Raises WeightsError when that file is damaged or another model's,
    ConfigError for a tracker that is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    me = crew()
    accelerator = open_accelerator(out, tensorboard=config.tensorboard)
    model = stage.model.to(me.device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
    )
    share_weights(model.state_dict().values())
    run = _restore(model, optimiser, out / "checkpoint.pt")
    journal = Journal(accelerator, out, run.step, tensorboard=config.tensorboard)
    model.train()

    def save() -> None:
        if me.is_main_process:
            state = Checkpoint(run.step, run.seconds, model.state_dict(), run.average, optimiser.state_dict())
            write_checkpoint(out / "checkpoint.pt", state)

    def look() -> None:
        if me.is_main_process:
            with _swapped(model, run.average), torch.no_grad():
                journal.look(stage, model, run.step)

    last_log = last_sheet = last_save = time.monotonic()
    while (progress := agreed(_progress(run, config, minutes))) < 1.0:
        began = time.monotonic()
        row = _step(stage, config, optimiser, run, progress)
        now = time.monotonic()
        run.seconds += now - began
        if now - last_log >= config.log_every_s or run.step == 1:
            journal.row({"step": run.step, "s": round(run.seconds, 1), "progress": progress} | row)
            last_log = now
        if now - last_sheet >= config.sheet_every_s:
            look()
            last_sheet = time.monotonic()
        if now - last_save >= config.checkpoint_every_s:
            save()
            last_save = now
    save()
    look()
    journal.close()
    if me.is_main_process:
        with _swapped(model, run.average):
            stage.export(model, out)
    me.wait_for_everyone()


def _step(
    stage: TrainingStage, config: LoopConfig, optimiser: torch.optim.Optimizer, run: _Run, progress: float
) -> dict[str, float]:
    """One step, and what to log of this process's batch."""
    for group in optimiser.param_groups:
        group["lr"] = config.lr * _lr_scale(config, run.step, progress)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    me = crew()
    rng = np.random.default_rng([config.seed, run.step, me.process_index])
    torch.manual_seed(int(rng.integers(2**31)))
    batch = {k: v.to(me.device) for k, v in stage.batch(rng, config.batch).items()}
    with torch.autocast(me.device.type, torch.bfloat16, enabled=in_half(config.precision, me.device)):
        loss, logs = stage.loss(stage.model, batch, progress)
    loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(parameters)
    norm = nn.utils.clip_grad_norm_(parameters, config.grad_clip)
    if math.isfinite(float(norm)):
        optimiser.step()
    optimiser.zero_grad()
    _update_average(run.average, stage.model, config.ema, run.step)
    run.step += 1
    return {"loss": float(loss.detach()), "norm": float(norm)} | logs


def in_half(precision: str, device: torch.device) -> bool:
    """Whether a run computes in bf16. A CPU without bf16 of its own imitates it, at two to three times the cost of fp32
    (measured on AVX-512 without AVX512_BF16: 2.8 times for a step of the denoiser)."""
    if precision != "auto":
        return precision == "bf16"
    if device.type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _progress(run: _Run, config: LoopConfig, minutes: float | None) -> float:
    by_time = run.seconds / (60 * minutes) if minutes else 0.0
    return max(run.step / config.steps, by_time)


def _restore(model: nn.Module, optimiser: torch.optim.Optimizer, path: Path) -> _Run:
    own = model.state_dict()
    if not path.exists():
        return _Run(0, 0.0, {k: v.detach().clone() for k, v in own.items()})
    state = read_checkpoint(path)
    try:
        model.load_state_dict(state.model)
        optimiser.load_state_dict(state.optimiser)
    except (RuntimeError, ValueError) as e:
        why = str(e).splitlines()[-1].strip()
        raise WeightsError(f"checkpoint {path} is of another model than the profile's ({why}); delete it to start this "
                           "stage again, or train with the profile that it was made by") from e
    logger.info("resuming %s at step %d", path, state.step)
    return _Run(state.step, state.seconds, {k: v.to(own[k].device) for k, v in state.average.items()})
