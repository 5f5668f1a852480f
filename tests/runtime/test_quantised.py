"""Eight-bit convolutions: ranges, rounding against the plain convolution, OpenVINO's int8 against torch's rounding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from svp_stream.errors import WeightsError
from svp_stream.pipeline.bench import syllables
from svp_stream.pipeline.calibrate import calibrate
from svp_stream.pipeline.mini import MiniEngine, _ranges, pixel_modules
from svp_stream.runtime.openvino_backend import OpenVinoBackend
from svp_stream.runtime.quantised import (
    FILE,
    QuantisedConv,
    Ranges,
    convolutions,
    measure,
    quantised,
    read_ranges,
    write_ranges,
)
from svp_stream.runtime.torch_backend import TorchBackend


class Small(nn.Module):
    """Convolutions that read or write few channels, which stay, and two that are worth rounding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(4, 32, 3, padding=1)
        wide, narrow = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 4, 1)
        self.body = nn.Sequential(nn.SiLU(), wide, nn.SiLU(), nn.Conv2d(32, 32, 1), narrow)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(self.stem(x))
        return out


def inputs(n: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(1, 4, 8, 8, generator=generator)] for _ in range(n)]


def test_only_wide_convolutions_are_rounded() -> None:
    assert [name for name, _ in convolutions(Small())] == ["body.1", "body.3"]


def test_ranges_are_what_enters_the_convolution_without_its_oddest_moments() -> None:
    model, given = Small().eval(), inputs(41)
    given[7][0] *= 1000
    ranges = measure(model, given)
    assert set(ranges) == {"body.1", "body.3"}
    with torch.inference_mode():
        entering = [nn.functional.silu(model.stem(x[0])) for k, x in enumerate(given) if k != 7]
    low, high = ranges["body.1"]
    assert -0.3 < low < -0.2, "SiLU goes down to -0.278"
    assert 0.8 * max(float(e.max()) for e in entering) < high <= max(float(e.max()) for e in entering)
    with pytest.raises(ValueError, match="nothing to measure"):
        measure(model, [])


def test_rounding_costs_a_step_and_no_more() -> None:
    model, given = Small().eval(), inputs(20)
    ranges = measure(model, given)
    rounded = quantised(model, ranges)
    assert isinstance(rounded.get_submodule("body.1"), QuantisedConv)
    assert isinstance(model.get_submodule("body.1"), nn.Conv2d), "the original is left alone"
    with torch.inference_mode():
        plain = torch.cat([model(x[0]) for x in given])
        steps = torch.cat([rounded(x[0]) for x in given])
        coarse = torch.cat([quantised(model, {n: (100 * a, 100 * b) for n, (a, b) in ranges.items()})(x[0])
                            for x in given])
    error, much = (steps - plain).std() / plain.std(), (coarse - plain).std() / plain.std()
    assert 0 < error < 0.02 < much, (float(error), float(much))


def test_a_range_of_another_model_is_told() -> None:
    with pytest.raises(WeightsError, match=r"ranges.json names body.9, which is no convolution"):
        quantised(Small(), {"body.9": (-1.0, 1.0)})


def test_ranges_survive_the_file(tmp_path: Path) -> None:
    ranges: dict[str, Ranges] = {"paint": {"a.b": (-0.27846, 3.5)}, "denoise": {}}
    write_ranges(tmp_path / FILE, ranges)
    assert read_ranges(tmp_path / FILE) == ranges
    assert read_ranges(tmp_path / "none" / FILE) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "holds no ranges"),
        ("{", "holds no ranges"),
        ('{"paint": {"a": 3}}', "holds no ranges"),
        ('{"paint": {"a": ["x", 1]}}', "holds no ranges"),
        ('{"paint": {"a": [1, 2]}}', "paint, a: expected low <= 0 < high, found 1.0 and 2.0"),
        ('{"paint": {"a": [-1, NaN]}}', "expected low <= 0 < high"),
    ],
)
def test_malformed_ranges_are_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(WeightsError, match=words):
        read_ranges(tmp_path / FILE)


@pytest.fixture(scope="module")
def calibrated(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny weights with measured ranges."""
    folder = tmp_path_factory.mktemp("int8") / "tiny"
    shutil.copytree(tiny_weights, folder)
    speech = syllables(0.6)[::3].copy()
    assert calibrate(folder, [speech], styles=2, backend="torch") == folder / FILE
    return folder


def test_int8_of_openvino_is_the_rounding_of_torch(calibrated: Path, tmp_path: Path) -> None:
    """Of the decoder, picture by picture."""
    plain = pixel_modules(calibrated)["paint"]
    rounded = quantised(plain, read_ranges(calibrated / FILE)["paint"])
    latent = 0.7 * np.random.default_rng(3).standard_normal((1, 4, 32, 32), dtype=np.float32)
    given = latent, np.zeros((1, 2), np.float32)
    example = tuple(torch.from_numpy(a) for a in given)
    fast = OpenVinoBackend(threads=1, cache=tmp_path).compile("paint", rounded, example)
    programs = fast, TorchBackend().compile("paint", rounded, example), TorchBackend().compile("paint", plain, example)
    pictures: list[NDArray[np.float64]] = [np.array(p(*given)[0]).astype(np.float64) for p in programs]
    rounding = np.sqrt(np.mean((pictures[1] - pictures[2]) ** 2))
    apart = np.sqrt(np.mean((pictures[0] - pictures[1]) ** 2))
    assert 0 < rounding < 6, "rounding shows, a little"
    assert apart < 0.7 * rounding + 0.5, f"OpenVINO rounds where torch does: {apart:.2f} apart, rounding {rounding:.2f}"


def test_which_precision_is_taken(tiny_weights: Path, calibrated: Path) -> None:
    assert MiniEngine.load(calibrated, "torch", precision="int8").precision == "int8"
    assert MiniEngine.load(calibrated, "torch").precision == "fp32", "the reference is not rounded unasked"
    assert set(_ranges(calibrated, "auto", "openvino")) == {"denoise", "paint"}
    assert _ranges(tiny_weights, "auto", "openvino") == _ranges(calibrated, "fp32", "openvino") == {}
    with pytest.raises(WeightsError, match=r"has no ranges.json: run `svp ranges"):
        MiniEngine.load(tiny_weights, "torch", precision="int8")


def test_changed_ranges_are_damage(calibrated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(calibrated, folder)
    told = json.loads((folder / FILE).read_text())
    told["paint"] = {}
    (folder / FILE).write_text(json.dumps(told))
    with pytest.raises(WeightsError, match="damaged"):
        MiniEngine.load(folder, "torch", precision="int8")
