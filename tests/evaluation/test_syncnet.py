"""The SyncNet: what it sees and hears, what its scores mean, and a tiny one that learns to match them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.config import CONFIGS, load_yaml
from svp_stream.errors import MediaError
from svp_stream.evaluation.syncnet import (
    HIGH,
    WEIGHTS,
    WIDE,
    SyncConfig,
    SyncNet,
    clip_offset,
    contrast,
    load_syncnet,
    measure_sync,
    mouths,
    shift_distances,
    sync_scores,
)
from svp_stream.evaluation.syncnet_training import SyncStage, SyncTrainConfig, make_sync_stage
from svp_stream.training.clips import Clips
from svp_stream.training.loop import LoopConfig, run_stage
from svp_stream.weights_file import count
from tests.evaluation.drawn import course, draw, truth_of, write_clip

TINY = SyncConfig((4, 8, 8, 8), 16)


def test_the_default_is_small_and_its_profile_equals_the_code() -> None:
    assert count(SyncNet(SyncConfig())) < 1_200_000
    assert load_yaml(CONFIGS / "train" / "syncnet.yaml", SyncTrainConfig) == SyncTrainConfig()


def test_shapes() -> None:
    net = SyncNet(TINY).eval()
    assert net.seen(np.zeros((9, HIGH, WIDE), np.uint8)).shape == (5, 16)
    assert net.heard(np.zeros(9 * 640, np.int16)).shape == (5, 16)


def test_a_window_hears_its_own_fifth_of_a_second() -> None:
    net = SyncNet(TINY).eval()
    audio = np.zeros(20 * 640, np.int16)
    audio[10 * 640 : 11 * 640] = 9000
    changed = np.abs(net.heard(audio) - net.heard(np.zeros(20 * 640, np.int16))).max(1) > 1e-6
    assert changed[6:11].all() and not changed[:5].any() and not changed[12:].any()


def test_the_mouth_is_cut_out_by_the_eyes_and_nose() -> None:
    opening, lids = (track[:6] for track in course(30, 0))
    rgb = np.stack([draw(m, e) for m, e in zip(opening, lids, strict=True)])
    _, kps = truth_of(opening, lids)
    cut = mouths(rgb, kps)
    assert cut.shape == (6, HIGH, WIDE) and cut.dtype == np.uint8
    wide = mouths(np.stack([draw(0.7, 0.3)]), kps[:1])[0]
    assert wide.min() < 60 and 0.1 < float((wide < 110).mean()) < 0.9, "an open mouth fills a part of the box"
    moved = mouths(np.stack([draw(0.7, 0.3, dx=6.0)]), kps[:1] + np.array([6, 0], np.float32))[0]
    assert np.abs(moved.astype(float) - wide).mean() < 6, "the box goes with the head"
    assert mouths(rgb[:1], kps[:1] * 0 + 60).shape == (1, HIGH, WIDE), "a box at the edge stays inside"
    with pytest.raises(MediaError, match="6 pictures and 5 sets"):
        mouths(rgb, kps[:5])


@pytest.mark.parametrize("behind", [-7, -1, 0, 3, 15])
def test_scores_find_a_known_offset(behind: int) -> None:
    track = np.random.default_rng(0).normal(size=(120, 8)).astype(np.float32)
    heard, seen = track[20:100], track[20 - behind : 100 - behind]
    scores = sync_scores(shift_distances(seen, heard))
    assert scores.offset_ms == 40 * behind
    assert scores.distance == pytest.approx(0, abs=1e-3) and scores.confidence > 1
    assert scores.accuracy == (1.0 if abs(behind) <= 1 else 0.0)


def test_sync_c_is_median_less_min() -> None:
    distances = np.array([[1.0, 0.4, 1.2], [1.0, 0.6, 1.4]], np.float32)
    scores = sync_scores(distances)
    assert scores.confidence == pytest.approx(1.0 - 0.5) and scores.distance == pytest.approx(0.5)


def test_short_tracks_are_told() -> None:
    with pytest.raises(ValueError, match="above 30"):
        shift_distances(np.zeros((30, 4), np.float32), np.zeros((30, 4), np.float32))
    rgb, kps = np.zeros((20, 64, 64, 3), np.uint8), np.ones((20, 3, 2), np.float32)
    assert measure_sync(SyncNet(TINY), rgb, kps, np.zeros(20 * 640, np.int16)) is None


def test_neighbours_are_no_negatives() -> None:
    same = torch.eye(4)[:1].repeat(3, 1)
    clip, at = torch.zeros(3, dtype=torch.long), torch.tensor([0, 1, 2])
    assert float(contrast(same, same, clip, at, torch.tensor(10.0))) == pytest.approx(0)
    far = contrast(same, same, clip, at * 3, torch.tensor(10.0))
    assert float(far) == pytest.approx(np.log(3), abs=1e-5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(8):
        write_clip(folder, f"clip-{i}", frames=100, style="warm", voice="rms", seed=i,
                   split="heldout" if i > 5 else "train")  # fmt: skip
    return folder


def test_a_tiny_run_learns_to_match_lips_and_sound(corpus: Path, tmp_path: Path) -> None:
    config = SyncTrainConfig(widths=(4, 8, 16, 16), dim=16, windows=4, shift_px=1, loop=LoopConfig(
        steps=150, batch=48, lr=4e-3, warmup=5, ema=0.9, precision="fp32", threads=1))
    stage = make_sync_stage(config, corpus)
    before = stage.validate(stage.model.eval())
    run_stage(stage, config.loop, tmp_path / "run")
    net = load_syncnet(tmp_path / "run" / WEIGHTS)
    after = stage.validate(net)
    assert after["accuracy"] > 2 * after["guess"] and after["accuracy"] > before["accuracy"] + 0.08, (before, after)
    assert after["accuracy_turned"] < 2 * after["guess"]
    assert after["sync_c"] > 2 * after["sync_c_turned"] and after["offset_ms"] <= 40
    clip = next(iter(Clips.open(corpus).where(split="heldout")))
    told = clip_offset(net, clip)
    assert told is not None and abs(told[1]) <= 40 and told[0] > 0.1
    assert list((tmp_path / "run" / "sheets").glob("*.png"))


def test_too_few_clips_are_told(corpus: Path) -> None:
    with pytest.raises(MediaError, match="two clips of split 'train'.* found 0 and 0"):
        SyncStage(SyncTrainConfig(), [], [])
