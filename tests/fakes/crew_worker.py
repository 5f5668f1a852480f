"""One of several processes that train a line together: run with RANK, WORLD_SIZE and a rendezvous in the environment,
as `accelerate launch` sets them. Leaves in the folder given what this process ended with, by rank.

Remembers: nothing; `seen` of a run is what the loop kept in this process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from svp_stream.training import loop as room
from svp_stream.training.crew import crew
from svp_stream.training.loop import run_stage
from tests.training.test_loop import Line, config

CUT_AT, LR = 3, 1e-2
TRAINED = config(lr=LR, checkpoint_every_s=0.0)


def train(out: Path, name: str, line: Line) -> None:
    """One run, and `<name>.<rank>.pt` beside it."""
    seen: dict[str, Any] = {}
    real = room._update_average

    def keeping(average: dict[str, torch.Tensor], model: nn.Module, decay: float, step: int) -> None:
        seen["average"] = average
        real(average, model, decay, step)

    room._update_average = keeping
    try:
        run_stage(line, TRAINED, out / name)
    except KeyboardInterrupt:
        pass
    finally:
        room._update_average = real
    state = {
        "model": dict(line.model.state_dict()), "average": seen["average"], "steps": len(line.steps),
        "validated": line.validated, "exported": len(line.exported),
    }  # fmt: skip
    torch.save(state, out / f"{name}.{crew().process_index}.pt")


def main(out: Path) -> None:
    """A whole run, and one that is cut off and gone on with. Each process begins with weights of its own."""
    torch.set_num_threads(1)

    def line(stop_at: int | None = None) -> Line:
        made = Line(stop_at=stop_at)
        with torch.no_grad():
            for p in made.model.parameters():
                p.add_(crew().process_index)
        return made

    train(out, "whole", line())
    train(out, "cut", line(stop_at=CUT_AT))
    train(out, "cut", line())
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
