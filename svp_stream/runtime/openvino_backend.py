"""OpenVINO on the CPU, fp32: eager torch is two to three times slower for graphs of this size.

A graph is converted once for each version of its weights and kept as a compiled blob under the cache folder
(`SVP_CACHE`, else `$XDG_CACHE_HOME/svp-stream`, else `~/.cache/svp-stream`), so a second start takes a fraction of a
second. Switch off with `SVP_BACKEND=torch`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from svp_stream.errors import EngineError
from svp_stream.runtime.backend import Program

logger = logging.getLogger(__name__)


class OpenVinoBackend:
    """One OpenVINO core; `threads` 0 leaves the number of cores to OpenVINO."""

    name = "openvino"

    def __init__(self, threads: int = 0, cache: Path | None = None) -> None:
        self._cache = cache or cache_folder()
        self._core = ov.Core()
        self._properties: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": "1",
        }
        if threads:
            self._properties["INFERENCE_NUM_THREADS"] = str(threads)

    def compile(self, name: str, module: nn.Module, example: Sequence[Tensor]) -> Program:
        """See `backend.Backend.compile`."""
        blob = self._cache / f"{name}-{self._key(module, example)}.blob"
        compiled = self._read(blob)
        if compiled is None:
            compiled = self._convert(name, module, example)
            self._keep(blob, compiled)
        request = compiled.create_infer_request()
        outputs = len(compiled.outputs)

        def program(*arrays: NDArray) -> tuple[NDArray, ...]:  # type: ignore[type-arg]
            request.infer(list(arrays), share_inputs=True)
            return tuple(request.get_output_tensor(i).data for i in range(outputs))

        return program

    def _convert(self, name: str, module: nn.Module, example: Sequence[Tensor]) -> Any:
        shapes = [ov.PartialShape(list(t.shape)) for t in example]
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # The converter traces, which torch deprecates, and warns of shapes taken as constant: as wanted here.
                warnings.simplefilter("ignore")
                model = ov.convert_model(module.eval(), example_input=tuple(example), input=shapes)
            return self._core.compile_model(model, "CPU", self._properties)
        except Exception as e:  # the converter and the compiler raise many kinds; all end the same way for the user
            raise EngineError(f"OpenVINO cannot compile '{name}': {e}; set SVP_BACKEND=torch to run without it") from e

    def _read(self, blob: Path) -> Any:
        if not blob.is_file():
            return None
        try:
            return self._core.import_model(blob.read_bytes(), "CPU", self._properties)
        except Exception:  # a blob of another machine or version: make it again
            logger.info("cached graph %s does not load here; converting again", blob.name)
            return None

    def _keep(self, blob: Path, compiled: Any) -> None:
        try:
            blob.parent.mkdir(parents=True, exist_ok=True)
            part = blob.with_suffix(f".{os.getpid()}.part")
            part.write_bytes(compiled.export_model().getvalue())
            part.replace(blob)
        except OSError as e:
            logger.warning("cannot keep the compiled graph in %s (%s); the next start converts again", blob.parent, e)

    def _key(self, module: nn.Module, example: Sequence[Tensor]) -> str:
        """Changes with the weights, the graph's inputs, the code of the module's class and OpenVINO's version."""
        digest = hashlib.sha256(f"{ov.__version__} {self._properties} {module}".encode())
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(value.detach().numpy()).tobytes())
        for t in example:
            digest.update(f"{tuple(t.shape)} {t.dtype}".encode())
        return digest.hexdigest()[:20]


def cache_folder() -> Path:
    """Where compiled graphs are kept."""
    if "SVP_CACHE" in os.environ:
        return Path(os.environ["SVP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "svp-stream"
