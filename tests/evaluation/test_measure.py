"""The gauge: shapes, files, what counts as truth; and a tiny one that learns to read faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.config import load_yaml
from svp_stream.errors import MediaError, WeightsError
from svp_stream.evaluation.gauge_training import EvaluatorStage, EvaluatorTrainConfig, make_evaluator_stage
from svp_stream.evaluation.measure import (
    READING,
    READINGS,
    Evaluator,
    Gauge,
    GaugeConfig,
    load_evaluator,
    save_evaluator,
    shrink,
    truth,
)
from svp_stream.evaluation.metrics import pearson
from svp_stream.evaluation.style_judge import JudgeConfig
from svp_stream.evaluation.weather import disturb
from svp_stream.packets import Bytes, Float32, Pose
from svp_stream.synthetic.render import Renderer
from svp_stream.synthetic.rig import Rig
from svp_stream.training.clips import Clips, pack_frames
from svp_stream.training.loop import LoopConfig, run_stage
from svp_stream.weights_file import count
from tests.evaluation.drawn import course, truth_of, write_clip
from tests.fakes.procedural_head import write_procedural_head

TINY = GaugeConfig(side=32, widths=(4, 4, 8, 8, 4), features=8)
LIP = READING["lip_open"]


def test_the_shipped_size_is_small() -> None:
    assert count(Gauge(GaugeConfig())) < 500_000


@pytest.mark.parametrize("side", [16, 32, 100, 256])
def test_pictures_of_any_size_are_read(side: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    read = Gauge(TINY).eval().read(pictures)
    assert read.shape == (3, len(READINGS)) and read.dtype == np.float32 and np.isfinite(read).all()


def test_no_picture_gives_no_reading() -> None:
    assert Gauge(TINY).read(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, len(READINGS))


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(MediaError, match="uint8"):
        Gauge(TINY).read(np.zeros((2, 32, 32), np.uint8))


def test_shrinking_keeps_the_mean() -> None:
    pictures = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert float(shrink(pictures, 16).mean()) == pytest.approx(float(pictures.float().mean()), abs=1e-3)


def test_truth_is_in_distances_between_the_eyes() -> None:
    mouth, lids = course(40, 3)
    expression = np.zeros((40, len(ARKIT)), np.float32)
    expression[:, INDEX["jawOpen"]] = 0.25
    pose = np.tile(np.array([3, -2, 1, 0, 0, 0, 0, 0, 0], np.float32), (40, 1))
    true = truth(*truth_of(mouth, lids), expression, pose)
    assert np.allclose(true[:, LIP], mouth, atol=1e-5)
    assert np.allclose(true[:, READING["eye_open_right"]], lids, atol=1e-5)
    assert np.allclose(true[:, READING["lip_width"]], 14 / 16)
    assert np.allclose(true[:, READING["jawOpen"]], 0.25) and np.allclose(true[:, READING["yaw"]], 3)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    made = Evaluator(TINY, JudgeConfig(("warm", "tight"), 4)).eval()
    path = tmp_path / "evaluator.safetensors"
    save_evaluator(path, made)
    back = load_evaluator(path)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    assert np.allclose(back.gauge.read(pictures), made.gauge.read(pictures), atol=0.02)
    assert back.judge.config.styles == ("warm", "tight") and back.gauge.config == TINY
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="damaged"):
        load_evaluator(path)


def test_weather_changes_pictures_and_keeps_their_shape() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(9, 4, 32, 32) * 255
    before = pictures.clone()
    seen = disturb(pictures)
    assert seen.shape == (9, 3, 32, 32) and torch.isfinite(seen).all()
    assert torch.equal(pictures, before)
    assert float((seen - (pictures[:, :3] / 127.5 - 1)).abs().mean()) > 0.02


def test_weather_is_a_function_of_the_seed() -> None:
    pictures = torch.rand(8, 4, 32, 32) * 255
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append(disturb(pictures))
    assert torch.equal(*runs)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn clips of both splits, and speech-only ones."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(5):
        split = "heldout" if i == 4 else "train"
        write_clip(folder, f"clip-{i}", frames=70, style="warm", voice="rms", split=split, seed=i)
        write_clip(folder, f"speech-{i}", frames=70, style="warm", voice="slt", split=split, seed=20 + i, picture=False)
    return folder


def test_a_tiny_run_goes_from_clips_to_a_file_that_reads_lips(corpus: Path, tmp_path: Path) -> None:
    config = EvaluatorTrainConfig(
        loop=LoopConfig(steps=160, batch=16, lr=4e-3, warmup=5, ema=0.9, precision="fp32", threads=1),
        every=1, side=64, widths=(8, 8, 16, 16, 8), features=24, judge_width=8, judge_takes=2, judge_steps=5,
    )  # fmt: skip
    pack_frames(Clips.open(corpus), tmp_path / "frames")
    stage = make_evaluator_stage(config, corpus, tmp_path / "frames")
    run_stage(stage, config.loop, tmp_path / "run")
    made = load_evaluator(tmp_path / "run" / "evaluator.safetensors")
    at = stage.held_out
    read = made.gauge.read(stage.pictures[at, ..., :3])
    assert pearson(read[:, LIP], stage.readings[at, LIP]) > 0.8
    assert list((tmp_path / "run" / "sheets").glob("*.png"))


def test_missing_pictures_are_told(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="packed"):
        make_evaluator_stage(EvaluatorTrainConfig(), corpus, tmp_path)


def test_the_profile_equals_the_defaults() -> None:
    path = Path(__file__).parents[2] / "configs" / "train" / "evaluator.yaml"
    assert load_yaml(path, EvaluatorTrainConfig) == EvaluatorTrainConfig()


def test_both_splits_are_needed(corpus: Path) -> None:
    with pytest.raises(MediaError, match="both splits"):
        EvaluatorStage(EvaluatorTrainConfig(), np.zeros((2, 32, 32, 4), np.uint8),
                       np.zeros((2, len(READINGS)), np.float32), np.array(["train"] * 2), np.array(["a"] * 2),
                       Clips.open(corpus))


def rendered(folder: Path, count: int) -> tuple[Bytes, Float32]:
    """Pictures uint8 [N, 64, 64, 4] of the procedural head, mouth and attitude at random, and their readings."""
    write_procedural_head(folder)
    head = Rig.load(folder, "tiny")
    rng = np.random.default_rng(0)
    try:
        renderer = Renderer(64, 1)
    except MediaError as error:
        pytest.skip(f"no OpenGL here: {error}")
    pictures, readings = [], []
    with renderer:
        for _ in range(count):
            face = np.zeros(len(ARKIT), np.float32)
            face[INDEX["jawOpen"]], face[INDEX["mouthSmileLeft"]] = rng.uniform(0, 1, 2)
            pose = Pose(0, *(float(a) for a in rng.uniform(-6, 6, 3)))
            seen = renderer.draw(head, face, pose)
            pictures.append(np.concatenate([seen.rgb, seen.alpha[..., None]], axis=2))
            row = np.array([[pose.yaw, pose.pitch, pose.roll]], np.float32)
            readings.append(truth(seen.landmarks[None], seen.kps[None], face[None], row)[0])
    return np.stack(pictures), np.stack(readings)


def test_a_tiny_gauge_learns_to_read_rendered_heads(corpus: Path, tmp_path: Path) -> None:
    pictures, readings = rendered(tmp_path, 120)
    split = np.array(["train"] * 90 + ["heldout"] * 30)
    clip = np.array([f"c{i // 10}" for i in range(120)])
    config = EvaluatorTrainConfig(side=64, widths=(8, 16, 16, 16, 8), features=24, every=1)
    stage = EvaluatorStage(config, pictures, readings, split, clip, Clips.open(corpus))
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(stage.model.parameters(), lr=4e-3)
    for step in range(100):
        loss, _ = stage.loss(stage.model, stage.batch(np.random.default_rng(step), 24), step / 100)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    gauge = stage.model.get_submodule("gauge")
    assert isinstance(gauge, Gauge)
    stage.refit(gauge)
    figures = stage.validate(stage.model)
    assert figures["lip_open"] > 0.75, figures
