"""What a speed room offers: `compile` turns a module with fixed input shapes into a function of arrays.

    torch_backend      the reference: the module itself, without gradients
    openvino_backend   the same graph through OpenVINO in fp32; converted once, then read from a cache

`SVP_BACKEND=torch` switches speed off. Every backend must agree with torch within the tolerance that its test states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from numpy.typing import NDArray
from torch import Tensor, nn

from svp_stream.errors import ConfigError

Program = Callable[..., tuple[NDArray, ...]]  # type: ignore[type-arg]
BACKENDS = ("openvino", "torch")


class Backend(Protocol):
    """Compiles modules; called from any thread, its programs from the inference thread only."""

    @property
    def name(self) -> str: ...

    def compile(self, name: str, module: nn.Module, example: Sequence[Tensor]) -> Program:
        """A function of numpy arrays of the `example`'s shapes and types, which returns a tuple of numpy arrays.

        `module` takes and returns flat tensors. Outputs may be overwritten by the next call. Raises EngineError when
        the graph cannot be compiled; the message names the switch.
        """
        ...


def open_backend(name: str, threads: int = 0) -> Backend:
    """The backend `openvino`, `torch`, or `auto` (OpenVINO). Raises ConfigError for any other name."""
    if name == "torch":
        from svp_stream.runtime.torch_backend import TorchBackend

        return TorchBackend()
    if name in ("openvino", "auto"):
        from svp_stream.runtime.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(threads)
    raise ConfigError(f"no backend '{name}'; there are auto, {', '.join(BACKENDS)}")
