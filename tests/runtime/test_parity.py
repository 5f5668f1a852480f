"""Every program of the engine through OpenVINO says what torch says, on tiny random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.pipeline.mini import MiniEngine
from svp_stream.runtime.backend import Program
from svp_stream.runtime.openvino_backend import OpenVinoBackend
from tests.fakes.tiny_weights import CONDITIONER, DENOISER, ENCODER

RELATIVE = 1e-3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def engines(tiny_weights: Path, cache: Path) -> tuple[MiniEngine, MiniEngine]:
    """(torch, OpenVINO)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVP_CACHE", str(cache))
        return MiniEngine.load(tiny_weights, "torch"), MiniEngine.load(tiny_weights, "openvino", threads=1)


def drawn(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def one(value: float) -> NDArray[np.float32]:
    return np.array([value], np.float32)


def run(program: Program, *arrays: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Copies: outputs may be overwritten by the next call."""
    return [np.array(out) for out in program(*arrays)]


def assert_same(slow: list[NDArray[np.float32]], fast: list[NDArray[np.float32]]) -> None:
    for a, b in zip(slow, fast, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert np.abs(a - b).max() <= RELATIVE * max(float(np.abs(a).max()), 1e-6)


def denoiser_inputs(seed: int, t: int, history: float) -> list[NDArray[np.float32]]:
    latents = [drawn(1, 4, 32, 32, seed=seed + k) for k in range(3)]
    tokens, style = drawn(1, 8, CONDITIONER.dim, seed=seed), drawn(1, 4, CONDITIONER.style_dim, seed=seed)
    return [latents[0], one(t / TIMESTEPS), latents[1], latents[2], drawn(1, 11, 32, 32, seed=seed), tokens, style,
            one(1.3), one(history)]


@pytest.mark.parametrize("t, history", [(SCHEDULE.cold, -1.0), (SCHEDULE.warm, 0.05)])
def test_denoise_and_shallow(engines: tuple[MiniEngine, MiniEngine], t: int, history: float) -> None:
    x = denoiser_inputs(t, t, history)
    slow, fast = (run(e.programs.denoise, *x) for e in engines)
    assert_same(slow, fast)
    deep = drawn(1, DENOISER.widths[0], 32, 32)
    assert_same(*(run(e.programs.shallow, *x[:6], x[8], deep) for e in engines))


@pytest.mark.parametrize("heard_frames", [0, 1, 3])
def test_condition(engines: tuple[MiniEngine, MiniEngine], heard_frames: int) -> None:
    c = CONDITIONER
    heard = np.ones((1, c.window), np.float32)
    heard[:, c.past + 2 + 2 * heard_frames :] = 0
    x = [drawn(1, c.window, c.audio_dim), heard, drawn(1, 4, c.style_dim), one(0.7)]
    assert_same(*(run(e.programs.condition, *x) for e in engines))


@pytest.mark.parametrize("right, down", [(0.0, 0.0), (0.013, -0.021)])
def test_paint(engines: tuple[MiniEngine, MiniEngine], right: float, down: float) -> None:
    x = [0.7 * drawn(1, 4, 32, 32), np.array([[right, down]], np.float32)]
    slow, fast = (np.array(e.programs.paint(*x)[0]) for e in engines)
    assert slow.dtype == fast.dtype == np.uint8 and slow.shape == (1, 256, 256, 4)
    assert np.abs(slow.astype(int) - fast).max() <= 1
    assert slow.std() > 5, "not a flat picture"


def test_encoder_rollout(engines: tuple[MiniEngine, MiniEngine]) -> None:
    """Twenty steps, each backend on its own state: errors must not feed themselves."""
    states = [[t.numpy() for t in e.encoder.initial().tensors()] for e in engines]
    for step in range(20):
        window = 0.1 * drawn(1, ENCODER.window, seed=step)
        outs = [run(e.programs.encode, window, *s) for e, s in zip(engines, states, strict=True)]
        assert_same(*outs)
        states = [out[1:] for out in outs]
    assert np.abs(states[0][2]).max() > 0.1, "the keys of the past are there"


def test_a_second_start_converts_nothing(
    engines: tuple[MiniEngine, MiniEngine], tiny_weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = {p.name.split("-")[0] for p in cache.glob("*.blob")}
    assert blobs == {"encode", "condition", "denoise", "shallow", "paint"}

    def convert(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setenv("SVP_CACHE", str(cache))
    monkeypatch.setattr(OpenVinoBackend, "_convert", convert)
    again = MiniEngine.load(tiny_weights, "auto", threads=1)
    assert again.backend == "openvino"
    x = denoiser_inputs(5, SCHEDULE.warm, 0.05)
    assert_same(run(engines[1].programs.denoise, *x), run(again.programs.denoise, *x))
