"""Learned motion: the stream equals the network, is alive within bounds, glides, knows its prior."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.clock import FRAME_TICKS
from svp_stream.config import MINI_WEIGHTS
from svp_stream.errors import StreamError, WeightsError
from svp_stream.motion.colours import COLOURS, NORMALS, Colours
from svp_stream.motion.generator import GAZE_LIMIT_DEG, LIMITS, MotionDrive
from svp_stream.motion.kps import pose_vector
from svp_stream.motion.learned import LearnedMotion, MotionModel
from svp_stream.motion.network import DRIVE, HISTORY, WHITE, MotionNet, load_motion, save_motion
from svp_stream.packets import Float32
from svp_stream.weights_file import sha256
from tests.fakes.tiny_weights import ENCODER, PRIOR, tiny_motion

WARM = np.linspace(-1, 1, PRIOR.style_dim, dtype=np.float32)
COLD = np.ascontiguousarray(-WARM)


def drives(n: int, first: int = 0, dim: int = ENCODER.width) -> list[MotionDrive]:
    """Two seconds of talk, two of listening, two of nothing, again and again."""
    rng = np.random.default_rng(3)
    out = []
    for i in range(first, first + n):
        part = (i // 50) % 3
        voice = rng.standard_normal(dim, dtype=np.float32)
        out.append(MotionDrive(i * FRAME_TICKS, part == 0, 0.5 * (part == 0), part == 1, voice))
    return out


def lived(stream: LearnedMotion, inputs: list[MotionDrive]) -> Float32:
    """Poses [T, 9]."""
    return np.stack([pose_vector(p) for x in inputs for p in stream.push(x)])


@torch.no_grad()
def test_a_frame_at_a_time_equals_the_network_on_the_whole() -> None:
    net = tiny_motion()
    model, frames = MotionModel(net), 24
    torch.manual_seed(1)
    manner, voice = net.manner(torch.from_numpy(WARM)[None]), torch.randn(1, frames, ENCODER.width)
    drive, past, jump = torch.rand(1, frames, DRIVE), torch.rand(1, frames, HISTORY), torch.rand(1, frames)
    white, look, colours = (torch.randn(1, frames, k) for k in (WHITE, 2, COLOURS))
    given = net.conditions(manner, voice, drive)
    told, goals = net.likelihoods(given, past, jump), net.goals(given, white, look, colours)
    events, moves = model.memory()
    for t in range(frames):
        row = np.concatenate([model.manner(WARM), model.voice(voice[0, t].numpy()) * float(drive[0, t, 2]),
                              drive[0, t].double().numpy()])
        np.testing.assert_allclose(row, given[0, t], atol=1e-5)
        seen = model.listen(row, past[0, t].double().numpy(), events)
        chance, weights, means, deviations = model.choose(seen)
        assert chance == pytest.approx(float(told.saccade[0, t].sigmoid()), abs=1e-5)
        assert model.shut(seen, float(jump[0, t])) == pytest.approx(float(told.blink[0, t].sigmoid()), abs=1e-5)
        np.testing.assert_allclose(weights, told.weights[0, t].exp(), atol=1e-5)
        np.testing.assert_allclose(means, told.means[0, t], atol=1e-4)
        np.testing.assert_allclose(deviations, told.spreads[0, t].exp(), rtol=1e-4)
        noise, where, shades = (x[0, t].double().numpy() for x in (white, look, colours))
        goal = model.goal(row, noise, where, shades, moves)
        np.testing.assert_allclose(goal, goals[0, t], atol=1e-4)


def test_colours_have_unit_variance_and_their_own_pace() -> None:
    rng = np.random.default_rng(0)
    colours = Colours.start(rng.standard_normal((2, 200, NORMALS)), rng.random(200))
    tracks = np.stack([colours.step(rng.standard_normal((2, 200, NORMALS)), 0.04) for _ in range(100)])
    assert np.all(np.abs(tracks[..., :-4].std(axis=(0, 1)) - 1) < 0.12)
    speed = np.diff(tracks, axis=0)[..., :-4].std(axis=(0, 1)).reshape(6, -1).mean(1)
    assert np.all(np.diff(speed) > 0)


def test_equal_seeds_are_equal_and_others_differ() -> None:
    model = MotionModel(tiny_motion())
    one, again, other = (lived(LearnedMotion(model, WARM, seed), drives(200)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other)[:, :2].mean() > 0.1
    assert np.abs(one - lived(LearnedMotion(model, COLD, 1), drives(200)))[:, :2].mean() > 0.05, "style moves the head"


def test_misuse_is_named_and_missing_frames_are_lived_through() -> None:
    model = MotionModel(tiny_motion())
    stream = LearnedMotion(model, WARM, 1)
    inputs = [MotionDrive(i * FRAME_TICKS, True, 0.4) for i in range(40)]
    whole = lived(LearnedMotion(model, WARM, 1), inputs)
    np.testing.assert_array_equal(lived(stream, inputs[:10] + inputs[14:]), np.delete(whole, range(10, 14), axis=0))
    with pytest.raises(StreamError, match="next frame is at 76800"):
        stream.push(MotionDrive(100, False, 0.0))
    stream.flush()
    with pytest.raises(StreamError, match="reset"):
        stream.push(MotionDrive(41 * FRAME_TICKS, False, 0.0))


def test_a_change_of_style_glides() -> None:
    stream = LearnedMotion(MotionModel(tiny_motion()), WARM, 1)
    before = lived(stream, drives(100))
    stream.set_style(10 * COLD)
    t = np.concatenate([before, lived(stream, drives(60, first=100))])
    usual = np.abs(np.diff(before[:, :5], axis=0)).max(0)
    assert np.all(np.abs(np.diff(t[98:104, :5], axis=0)).max(0) < 2 * usual + [1.0, 1.0, 1.0, 0.004, 0.004])


def test_weights_know_their_prior(tmp_path: Path) -> None:
    path = tmp_path / "motion.safetensors"
    save_motion(path, tiny_motion(), "a" * 64)
    loaded = load_motion(path, "a" * 64)
    assert isinstance(loaded, MotionNet) and loaded.config == tiny_motion().config
    with pytest.raises(WeightsError, match="svp train motion"):
        load_motion(path, "b" * 64)


def test_five_minutes_of_the_shipped_weights_neither_drift_nor_freeze() -> None:
    net = load_motion(MINI_WEIGHTS / "motion.safetensors", sha256(MINI_WEIGHTS / "style_prior.safetensors"))
    s = np.random.default_rng(0).standard_normal(net.config.style_dim).astype(np.float32)
    t = lived(LearnedMotion(MotionModel(net), s, 4), drives(7500, dim=net.config.audio_dim))
    assert np.all(np.abs(t[:, :5]) <= LIMITS + 1e-6) and np.all(np.abs(t[:, 7:]) <= GAZE_LIMIT_DEG)
    assert np.all((t[:, 5:7] >= 0) & (t[:, 5:7] <= 1))
    minutes = t.reshape(5, 1500, 9)
    spread = minutes[:, :, :2].std(axis=1)
    assert np.all(spread[-1] < 2.0 * spread[0]) and np.all(spread[-1] > 0.5 * spread[0])
    assert np.all(np.abs(minutes[-1, :, :3].mean(0) - minutes[0, :, :3].mean(0)) < 1.5)
    blinks = [int(((m[1:, 5] > 0.6) & (m[:-1, 5] <= 0.6)).sum()) for m in minutes]
    assert min(blinks) >= 2 and max(blinks) <= 80
    assert np.all(np.ptp(t[:7500].reshape(-1, 25, 9)[:, :, :2], axis=1).max(axis=1) > 1e-3), "no second without motion"
