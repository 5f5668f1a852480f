"""The trained engine over tiny random weights: what it holds, what it refuses, what it says when a file is wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from svp_stream.errors import ConfigError, EngineError, WeightsError
from svp_stream.motion.generator import MotionDrive
from svp_stream.motion.learned import LearnedMotion
from svp_stream.motion.manner import Manner
from svp_stream.motion.network import save_motion
from svp_stream.pipeline.engine import Engine, FaceStream, StyleRequest
from svp_stream.pipeline.living import MotionByRule
from svp_stream.pipeline.mini import MiniEngine
from svp_stream.style.preset import StyleShelf
from svp_stream.weights_file import sha256
from tests.fakes.tiny_weights import PRIOR, tiny_engine, tiny_motion, tiny_styles

FILES = ("audio_encoder", "conditioner", "style_prior", "denoiser", "autoencoder", "motion", "avatar_kim")


@pytest.fixture
def folder(tiny_weights: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    return Path(shutil.copytree(tiny_weights, tmp_path / "w"))


def test_it_is_an_engine(tiny_weights: Path) -> None:
    engine: Engine = tiny_engine()
    face: FaceStream = engine.stream(avatar="pat", style=tiny_styles()["plain"], seed=0)
    assert (engine.name, engine.size, engine.avatars) == ("mini", 256, ("kim", "pat"))
    assert engine.style_dim == PRIOR.style_dim
    assert engine.prior == sha256(tiny_weights / "style_prior.safetensors")
    assert face.effort == 0


def test_presets_belong_to_it(tiny_weights: Path) -> None:
    engine = tiny_engine()
    shelf = StyleShelf(tiny_weights / "styles", engine.prior, engine.style_dim)
    assert shelf.names() == ("plain", "sad", "warm")
    assert shelf.get("warm").mu.shape == (16,)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    path = folder / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=f"{name}.safetensors are damaged"):
        MiniEngine.load(folder, "torch")


@pytest.mark.parametrize("name", FILES[:-2])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / f"{name}.safetensors").unlink()
    with pytest.raises(WeightsError, match=f"{name}.safetensors are missing"):
        MiniEngine.load(folder, "torch")


@pytest.mark.parametrize("name", ["empty", "nowhere"])
def test_a_folder_without_avatars(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=f"{name} holds no avatar_"):
        MiniEngine.load(tmp_path / name, "torch")


@pytest.mark.parametrize("look_ahead", [-1, 4])
def test_look_ahead_has_a_range(tiny_weights: Path, look_ahead: int) -> None:
    with pytest.raises(EngineError, match=f"look_ahead is 0 to 3 frames, got {look_ahead}"):
        MiniEngine.load(tiny_weights, "torch", look_ahead)


def test_an_unknown_backend(tiny_weights: Path) -> None:
    with pytest.raises(ConfigError, match="abacus"):
        MiniEngine.load(tiny_weights, "abacus")


def test_an_unknown_avatar_lists_the_known() -> None:
    with pytest.raises(EngineError, match="'nobody'.*kim, pat"):
        tiny_engine().stream(avatar="nobody", style=tiny_styles()["plain"], seed=0)


@pytest.mark.parametrize("mu, log_var", [(3, 3), (16, 3), (3, 16)])
def test_a_style_of_another_prior_is_refused(mu: int, log_var: int) -> None:
    style = StyleRequest("odd", np.zeros(mu, np.float32), np.zeros(log_var, np.float32))
    with pytest.raises(EngineError, match="'odd'"):
        tiny_engine().stream(avatar="pat", style=style, seed=0)


def test_style_maps() -> None:
    engine, styles = tiny_engine(), tiny_styles()
    tokens = [engine.style_tokens(styles[n].mu) for n in ("plain", "sad")]
    assert tokens[0].shape == (1, 4, 64) and not np.allclose(tokens[0], tokens[1])
    manners = [engine.manner(styles[n].mu) for n in ("plain", "sad")]
    assert all(isinstance(m, Manner) for m in manners) and manners[0] != manners[1]


def test_warm_leaves_nothing_behind() -> None:
    engine, style = tiny_engine(), tiny_styles()["plain"]
    before = engine.stream(avatar="pat", style=style, seed=1).silence(0, 2)
    engine.warm()
    after = engine.stream(avatar="pat", style=style, seed=1).silence(0, 2)
    assert [f.rgb.tobytes() for f in before] == [f.rgb.tobytes() for f in after]


def test_people_move_by_the_network_where_there_is_one_and_by_rule_where_not(folder: Path) -> None:
    s = tiny_styles()["warm"].mu
    assert isinstance(tiny_engine().living(s, 1), LearnedMotion)
    (folder / "motion.safetensors").unlink()
    bare = MiniEngine.load(folder, "torch")
    assert bare.motion is None and isinstance(bare.living(s, 1), MotionByRule)
    poses = [engine.living(s, 1).push(MotionDrive(0, False, 0.0)) for engine in (tiny_engine(), bare)]
    assert poses[0] != poses[1]


def test_a_share_of_the_learned_turns_is_shown_and_lids_and_gaze_are_whole() -> None:
    s, drives = tiny_styles()["warm"].mu, [MotionDrive(1920 * i, True, 0.5) for i in range(40)]
    engines = (tiny_engine(), replace(tiny_engine(), turns=0.5))
    whole, half = ([pose for stream in [e.living(s, 1)] for d in drives for pose in stream.push(d)] for e in engines)
    assert any(abs(p.yaw) > 0.05 for p in whole)
    for a, b in zip(whole, half, strict=True):
        assert (b.yaw, b.pitch, b.roll) == (a.yaw / 2, a.pitch / 2, a.roll / 2)
        assert replace(b, yaw=a.yaw, pitch=a.pitch, roll=a.roll) == a


def test_motion_of_another_prior_is_refused(folder: Path) -> None:
    save_motion(folder / "motion.safetensors", tiny_motion(), "0" * 64)
    with pytest.raises(WeightsError, match="know the styles of prior 000000000000"):
        MiniEngine.load(folder, "torch")
