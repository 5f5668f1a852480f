"""The back ends on a graph of one layer: the cache of compiled graphs, its faults, the switch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from svp_stream.config import Config
from svp_stream.errors import ConfigError, EngineError
from svp_stream.pipeline.build import BACKEND_VARIABLE, build_engine
from svp_stream.pipeline.mini import MiniEngine
from svp_stream.runtime import openvino_backend
from svp_stream.runtime.backend import BACKENDS, open_backend
from svp_stream.runtime.openvino_backend import OpenVinoBackend, cache_folder

X = np.array([[1.0, -2.0, 0.5]], np.float32)
EXAMPLE = (torch.zeros(1, 3),)


class Pair(nn.Module):
    """Two outputs of two types."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), (x * 100).to(torch.int32)


class Unspeakable(nn.Module):
    """Raises while it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such operation")


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the graphs that OpenVINO converted since."""
    made: list[str] = []
    convert = openvino_backend.OpenVinoBackend._convert

    def counted(self: OpenVinoBackend, name: str, module: nn.Module, example: tuple[Tensor, ...]) -> object:
        made.append(name)
        return convert(self, name, module, example)

    monkeypatch.setattr(OpenVinoBackend, "_convert", counted)
    return made


def expected(model: nn.Module) -> list[NDArray[Any]]:
    with torch.no_grad():
        return [t.numpy() for t in model(torch.from_numpy(X))]


def test_both_say_the_same(tmp_path: Path) -> None:
    for backend in (OpenVinoBackend(1, tmp_path), open_backend("torch")):
        out = backend.compile("pair", Pair(), EXAMPLE)(X)
        assert isinstance(out, tuple)
        for said, meant in zip(out, expected(Pair()), strict=True):
            assert said.dtype == meant.dtype
            np.testing.assert_allclose(said, meant, rtol=1e-5)


def test_one_output_is_a_tuple_too() -> None:
    out = open_backend("torch").compile("one", nn.Linear(3, 2), EXAMPLE)(X)
    assert isinstance(out, tuple) and len(out) == 1


def test_the_cache_is_used(tmp_path: Path, conversions: list[str]) -> None:
    for _ in range(2):
        OpenVinoBackend(1, tmp_path).compile("pair", Pair(), EXAMPLE)
    assert conversions == ["pair"] and len(list(tmp_path.iterdir())) == 1


def test_other_weights_are_another_graph(tmp_path: Path, conversions: list[str]) -> None:
    outs = [OpenVinoBackend(1, tmp_path).compile("pair", Pair(seed), EXAMPLE)(X)[0].copy() for seed in (0, 1)]
    assert len(conversions) == 2 and not np.allclose(outs[0], outs[1])


@pytest.mark.parametrize("damage", [b"", b"not a graph", None], ids=["empty", "foreign", "cut"])
def test_a_damaged_blob_is_made_again(tmp_path: Path, conversions: list[str], damage: bytes | None) -> None:
    OpenVinoBackend(1, tmp_path).compile("pair", Pair(), EXAMPLE)
    blob = next(tmp_path.glob("*.blob"))
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    out = OpenVinoBackend(1, tmp_path).compile("pair", Pair(), EXAMPLE)(X)
    np.testing.assert_allclose(out[0], expected(Pair())[0], rtol=1e-5)
    assert len(conversions) == 2
    OpenVinoBackend(1, tmp_path).compile("pair", Pair(), EXAMPLE)
    assert len(conversions) == 2, "the blob was mended"


def test_without_a_place_for_blobs_it_works_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        out = OpenVinoBackend(1, tmp_path / "file").compile("pair", Pair(), EXAMPLE)(X)
    np.testing.assert_allclose(out[0], expected(Pair())[0], rtol=1e-5)
    assert "cannot keep the compiled graph" in caplog.text


def test_what_cannot_be_compiled_names_the_switch(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="(?s)'odd'.*SVP_BACKEND=torch"):
        OpenVinoBackend(1, tmp_path).compile("odd", Unspeakable(), EXAMPLE)


def test_where_blobs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVP_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("SVP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b" / "svp-stream"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert cache_folder() == tmp_path / "c" / ".cache" / "svp-stream"


def test_open_by_name() -> None:
    assert {name: open_backend(name).name for name in BACKENDS} == {name: name for name in BACKENDS}
    assert open_backend("auto").name == "openvino"


@pytest.mark.parametrize("name", ["cuda", "", "Torch"])
def test_an_unknown_backend_lists_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}'.*auto, openvino, torch"):
        open_backend(name)


def test_the_switch_reaches_the_engine(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, "torch")
    monkeypatch.setattr(OpenVinoBackend, "compile", None)
    config = Config.model_validate({"model": {"engine": "mini", "backend": "openvino", "weights": tiny_weights}})
    engine = build_engine(config)
    assert isinstance(engine, MiniEngine) and engine.backend == "torch"
