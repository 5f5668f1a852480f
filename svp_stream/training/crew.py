"""The processes of one run: started by `accelerate launch` or torchrun, alone without. One writes, all learn the same.

In: a model in each process, its gradients. Out: the same weights everywhere, the mean of the gradients, one number that
all agree on. Remembers: accelerate's state, one for the process. Gradients are averaged after `backward`, whatever of
the model a loss has called, so that every stage is parallel without knowing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, parse_flag_from_env, reduce
from torch import Tensor, nn

PATIENCE: Final = timedelta(hours=12)
"""How long processes wait for the first one, which prepares data, validates and writes."""


def crew() -> PartialState:
    """This process among those of the run; the first call joins them. That processes are to run on the CPU is said by a
    variable, ACCELERATE_USE_CPU, that accelerate's `Accelerator` reads, but its `PartialState` does not."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def agreed(value: float) -> float:
    """The first process's number, in every process."""
    if crew().num_processes == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64, device=crew().device)
    return float(broadcast(told))


def share_weights(tensors: Iterable[Tensor]) -> None:
    """The first process's values, into the tensors of every process."""
    if crew().num_processes > 1:
        for x in tensors:
            x.copy_(broadcast(x.clone(memory_format=torch.contiguous_format)))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Mean over the processes; one that has no gradient for a parameter counts as zero, and where none has, none is."""
    if crew().num_processes == 1:
        return
    every = list(parameters)
    there = torch.tensor([p.grad is not None for p in every], dtype=torch.float32, device=crew().device)
    for p, count in zip(every, reduce(there, "sum").tolist(), strict=True):
        if count:
            own = torch.zeros_like(p) if p.grad is None else p.grad
            p.grad = reduce(own.contiguous(), "mean").view_as(p)
