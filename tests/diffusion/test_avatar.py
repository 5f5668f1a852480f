"""Avatar files: what is saved comes back, and what is wrong is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.diffusion.appearance import fit_appearance
from svp_stream.diffusion.avatar import KIND, Avatar, avatar_files, load_avatar, save_avatar
from svp_stream.errors import WeightsError
from svp_stream.motion.kps import HeadGeometry
from svp_stream.weights_file import read_weights, save_weights, sha256
from tests.fakes.painted_faces import HEAD


def avatar(name: str = "pat") -> Avatar:
    rng = np.random.default_rng(0)
    pose, face = (rng.standard_normal((40, n)).astype(np.float32) for n in (3, 46))
    latents = rng.standard_normal((40, 4, 2, 2)).astype(np.float32)
    return Avatar(name, fit_appearance(pose, face, latents, attitudes=8, bends=6, rank=5), HEAD.vector())


def test_round_trip(tmp_path: Path) -> None:
    a = avatar()
    digest = save_avatar(tmp_path, a)
    path = tmp_path / "avatar_pat.safetensors"
    b = load_avatar(path)
    assert b.name == "pat" and digest == sha256(path)
    assert b.appearance.shape == (4, 2, 2) and b.appearance.width_deg == a.appearance.width_deg
    np.testing.assert_allclose(HeadGeometry.from_vector(b.geometry).points, HEAD.points, atol=1e-3)
    rng = np.random.default_rng(1)
    pose, face = (rng.standard_normal((6, n)).astype(np.float32) for n in (3, 46))
    before, after = (x.appearance.reference(pose, face) for x in (a, b))
    assert np.abs(before - after).max() < 0.02 * np.abs(before).max(), "half precision costs little"


def test_files_by_name(tmp_path: Path) -> None:
    for name in ("pat", "ann_two"):
        save_avatar(tmp_path, avatar(name))
    save_weights(tmp_path / "denoiser.safetensors", "denoiser", {}, {"x": torch.ones(1)}, half=True)
    assert list(avatar_files(tmp_path)) == ["ann_two", "pat"]
    assert avatar_files(tmp_path / "nowhere") == {}


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="avatar_pat.*missing"):
        load_avatar(tmp_path / "avatar_pat.safetensors")


def test_damaged(tmp_path: Path) -> None:
    save_avatar(tmp_path, avatar())
    path = tmp_path / "avatar_pat.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        load_avatar(path)


@pytest.mark.parametrize("part", ["basis", "geometry"])
def test_a_missing_part_is_named(tmp_path: Path, part: str) -> None:
    save_avatar(tmp_path, avatar())
    path = tmp_path / "avatar_pat.safetensors"
    config, tensors = read_weights(path, KIND)
    del tensors[part]
    save_weights(path, KIND, config, tensors, half=True)
    with pytest.raises(WeightsError, match=part):
        load_avatar(path)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "avatar_x.safetensors"
    save_weights(path, "denoiser", {}, {"x": torch.ones(1)}, half=True)
    with pytest.raises(WeightsError, match="'denoiser', expected 'avatar'"):
        load_avatar(path)
