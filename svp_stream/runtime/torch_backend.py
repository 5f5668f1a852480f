"""The reference backend: plain eager torch, fp32, no gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from svp_stream.runtime.backend import Program


class TorchBackend:
    """Runs the module itself."""

    name = "torch"

    def compile(self, name: str, module: nn.Module, example: Sequence[Tensor]) -> Program:
        """See `backend.Backend.compile`."""
        module = module.eval()

        def program(*arrays: NDArray) -> tuple[NDArray, ...]:  # type: ignore[type-arg]
            with torch.inference_mode():
                out = module(*(torch.from_numpy(a) for a in arrays))
            return tuple(o.numpy() for o in (out if isinstance(out, tuple) else (out,)))

        return program
