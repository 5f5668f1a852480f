"""Two processes on gloo: gradients are averaged, weights are the same, one writes, a cut-off run goes on exactly."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from svp_stream.training import loop as room
from svp_stream.training.crew import agreed, average_gradients
from tests.fakes.crew_worker import TRAINED
from tests.house.source import ROOT
from tests.training.test_loop import Line

PROCESSES = 2


def launch(command: list[str], processes: int = PROCESSES) -> None:
    """Run `command` in so many processes that know of each other; fails with what they said."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    known = os.environ | {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                          "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": str(processes)}
    running = [
        subprocess.Popen(command, cwd=ROOT, env=known | {"RANK": str(i), "LOCAL_RANK": str(i)},
                         stderr=subprocess.PIPE, text=True)
        for i in range(processes)
    ]
    told = [p.communicate(timeout=240)[1] for p in running]
    assert all(p.returncode == 0 for p in running), "\n".join(t[-2000:] for t in told)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("crew")
    launch([sys.executable, "-m", "tests.fakes.crew_worker", str(out)])
    return out


def left(out: Path, name: str) -> list[dict[str, Any]]:
    return [torch.load(out / f"{name}.{i}.pt", weights_only=True) for i in range(PROCESSES)]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=tolerance)


def by_hand(processes: int) -> dict[str, torch.Tensor]:
    """What averaging over so many batches a step must lead to, in one process."""
    line = Line()
    parameters = list(line.model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=TRAINED.lr, weight_decay=0, betas=(0.9, 0.99))
    for step in range(TRAINED.steps):
        progress = step / TRAINED.steps
        optimiser.param_groups[0]["lr"] = TRAINED.lr * room._lr_scale(TRAINED, step, progress)
        for rank in range(processes):
            rng = np.random.default_rng([TRAINED.seed, step, rank])
            torch.manual_seed(int(rng.integers(2**31)))
            loss, _ = line.loss(line.model, line.batch(rng, TRAINED.batch), progress)
            (loss / processes).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, TRAINED.grad_clip)
        optimiser.step()
        optimiser.zero_grad()
    return dict(line.model.state_dict())


def test_gradients_are_averaged(trained: Path) -> None:
    first, second = left(trained, "whole")
    assert_same(first["model"], by_hand(2), tolerance=1e-6)
    assert_same(first["model"], second["model"])
    alone = by_hand(1)
    assert max(float((v - alone[k]).abs().max()) for k, v in first["model"].items()) > 1e-3, "the second batch counts"


def test_the_average_is_the_same_in_both(trained: Path) -> None:
    first, second = left(trained, "whole")
    assert_same(first["average"], second["average"])
    assert any(not torch.equal(v, first["model"][k]) for k, v in first["average"].items())


def test_the_first_alone_writes(trained: Path) -> None:
    first, second = left(trained, "whole")
    assert first["steps"] == second["steps"] == TRAINED.steps
    assert first["validated"] == 1 and first["exported"] > 0
    assert second["validated"] == second["exported"] == 0
    rows = [json.loads(r) for r in (trained / "whole" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "loss" in r] == list(range(1, TRAINED.steps + 1))
    assert [p.name for p in (trained / "whole" / "sheets").iterdir()] == [f"{TRAINED.steps:07d}.png"]


def test_a_cut_off_run_goes_on_exactly(trained: Path) -> None:
    for resumed, whole in zip(left(trained, "cut"), left(trained, "whole"), strict=True):
        assert resumed["steps"] == 3, "the second half"
        assert_same(resumed["model"], whole["model"])
        assert_same(resumed["average"], whole["average"])


def test_alone_nothing_is_sent() -> None:
    p = nn.Parameter(torch.zeros(2))
    average_gradients([p])
    assert p.grad is None and agreed(0.3) == 0.3
