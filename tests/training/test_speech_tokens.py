"""Tokens of every frame: the frozen ears and conditioner, each clip once, kept until the weights change."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.errors import WeightsError
from svp_stream.training import speech_tokens as room
from svp_stream.training.clips import Clips
from svp_stream.training.frames import Frames
from svp_stream.training.speech_tokens import frame_tokens
from tests.fakes.painted_faces import painted_frames
from tests.fakes.tiny_weights import write_tiny_weights
from tests.training.test_clips import write_clip

FRAMES = 9


@pytest.fixture
def runs(tiny_weights: Path, tmp_path: Path) -> Path:
    return lay_out(tiny_weights, tmp_path / "runs")


def lay_out(weights: Path, runs: Path) -> Path:
    """A folder of runs as training leaves it."""
    for run, name in (("audio", "audio_encoder"), ("style-prior", "style_prior"), ("expression", "conditioner")):
        (runs / run).mkdir(parents=True, exist_ok=True)
        shutil.copy(weights / f"{name}.safetensors", runs / run)
    (runs / "frames").mkdir(exist_ok=True)
    return runs


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(2):
        write_clip(folder, f"clip{i}", FRAMES, seed=i, picture=False)
    return Clips.open(folder)


def frames() -> Frames:
    return painted_frames(clips=2, frames=FRAMES, size=16, held_out=1)


def test_shapes_and_order(clips: Clips, runs: Path) -> None:
    audio, style = frame_tokens(clips, frames(), runs)
    assert audio.shape == (18, 8, 64) and style.shape == (18, 4, 64)
    assert audio.dtype == style.dtype == torch.float16
    assert torch.isfinite(audio).all() and torch.isfinite(style).all()
    assert all(torch.equal(style[0], s) for s in style[:FRAMES]), "a clip has one style"
    assert not torch.equal(style[0], style[FRAMES]) and not torch.equal(audio[0], audio[1])


def test_frames_keep_their_tokens_in_any_order(clips: Clips, runs: Path) -> None:
    audio, style = frame_tokens(clips, frames(), runs)
    for kept in (runs / "frames").iterdir():
        kept.unlink()
    order = np.random.default_rng(0).permutation(18)
    other, look = frame_tokens(clips, frames().select(order), runs)
    assert torch.equal(other, audio[order]) and torch.equal(look, style[order])


def test_they_are_kept(clips: Clips, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, style = frame_tokens(clips, frames(), runs)
    monkeypatch.setattr(room, "_clip_tokens", None)
    again = frame_tokens(clips, frames(), runs)
    assert torch.equal(again[0], audio) and torch.equal(again[1], style)


def test_other_weights_other_tokens(clips: Clips, runs: Path, tmp_path: Path) -> None:
    audio, _ = frame_tokens(clips, frames(), runs)
    write_tiny_weights(tmp_path / "other", seed=1)
    lay_out(tmp_path / "other", runs)
    assert not torch.equal(frame_tokens(clips, frames(), runs)[0], audio)


@pytest.mark.parametrize("run", ["audio", "style-prior", "expression"])
def test_a_missing_run_is_named(clips: Clips, runs: Path, run: str) -> None:
    shutil.rmtree(runs / run)
    with pytest.raises(WeightsError, match=f"{run}/.*missing"):
        frame_tokens(clips, frames(), runs)
