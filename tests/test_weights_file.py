"""Weights files: round trip, half precision, hashes, and what every fault is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from svp_stream.errors import WeightsError
from svp_stream.weights_file import HASHES, count, load_into, read_weights, save_module, save_weights, sha256

TENSORS = {"a": torch.arange(6.0).reshape(2, 3) / 7, "n": torch.tensor([3, 4])}


def save(folder: Path, *, half: bool = False) -> Path:
    save_weights(folder / "x.safetensors", "thing", {"size": [2, 3], "name": "é"}, TENSORS, half=half)
    return folder / "x.safetensors"


@pytest.mark.parametrize("half", [False, True])
def test_round_trip(tmp_path: Path, half: bool) -> None:
    config, tensors = read_weights(save(tmp_path / "deep" / "folder", half=half), "thing")
    assert config == {"size": [2, 3], "name": "é"}
    assert tensors["a"].dtype == torch.float32 and tensors["n"].dtype == torch.int64
    torch.testing.assert_close(tensors["a"], TENSORS["a"], rtol=1e-3 if half else 0, atol=0)
    torch.testing.assert_close(tensors["n"], TENSORS["n"])


def test_half_is_half_the_bytes(tmp_path: Path) -> None:
    sizes = []
    for half in (False, True):
        save_weights(tmp_path / "y.safetensors", "thing", {}, {"w": torch.zeros(5000)}, half=half)
        sizes.append((tmp_path / "y.safetensors").stat().st_size)
    assert sizes[0] - sizes[1] == pytest.approx(10_000, abs=64)


def test_hashes_are_listed_and_kept(tmp_path: Path) -> None:
    path = save(tmp_path)
    other = save_weights(tmp_path / "b.safetensors", "thing", {}, TENSORS, half=False)
    listed = json.loads((tmp_path / HASHES).read_text())
    assert listed == {"b.safetensors": other, "x.safetensors": sha256(path)}
    assert not list(tmp_path.glob("*.tmp"))


def test_same_weights_same_hash(tmp_path: Path) -> None:
    assert sha256(save(tmp_path / "one")) == sha256(save(tmp_path / "two"))


def test_missing_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="x.safetensors are missing; `svp train`"):
        read_weights(tmp_path / "x.safetensors", "thing")


@pytest.mark.parametrize("place", [-1, 200])
def test_one_flipped_bit_is_found(tmp_path: Path, place: int) -> None:
    path = save(tmp_path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged: SHA-256"):
        read_weights(path, "thing")


@pytest.mark.parametrize("data", [b"", b"\x80\x04not a pickle either", b"\xff" * 64])
def test_no_safetensors(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_weights(path, "thing")


def test_cut_short(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / HASHES).unlink()
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_weights(path, "thing")


def test_without_a_list_of_hashes_it_loads(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / HASHES).unlink()
    assert set(read_weights(path, "thing")[1]) == {"a", "n"}


def test_another_kind(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="hold 'thing', expected 'engine'"):
        read_weights(save(tmp_path), "engine")


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_what_does_not_fit_is_named(tmp_path: Path, change: str) -> None:
    tensors = dict(nn.Linear(3, 2).state_dict())
    if change == "missing":
        del tensors["bias"]
    elif change == "more":
        tensors["gain"] = torch.ones(2)
    else:
        tensors["bias"] = torch.ones(5)
    with pytest.raises(WeightsError, match="gain" if change == "more" else "bias"):
        load_into(nn.Linear(3, 2), tensors, tmp_path / "x.safetensors")


def test_a_module_comes_back_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, back = nn.Linear(3, 2), nn.Linear(3, 2)
    save_module(tmp_path / "m.safetensors", "linear", {"in": 3}, model, half=False)
    load_into(back, read_weights(tmp_path / "m.safetensors", "linear")[1], tmp_path)
    torch.testing.assert_close(back.weight, model.weight, rtol=0, atol=0)
    assert not back.training and not back.weight.requires_grad
    assert count(back) == 8
