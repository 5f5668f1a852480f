"""The landmark gauge: shapes, files, geometry of its weather; and a tiny one that learns where landmarks lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.arkit import ARKIT
from svp_stream.config import CONFIGS, load_yaml
from svp_stream.errors import MediaError, WeightsError
from svp_stream.evaluation.face_reader import FaceReading
from svp_stream.evaluation.landmark_gauge import (
    WEIGHTS,
    LandmarkConfig,
    LandmarkGauge,
    load_landmark_gauge,
    reader_finder,
    save_landmark_gauge,
)
from svp_stream.evaluation.landmark_training import LandmarkStage, LandmarkTrainConfig, make_landmark_stage
from svp_stream.evaluation.picture_metrics import MOUTH, landmark_distances
from svp_stream.evaluation.weather import disturb, moved, places
from svp_stream.packets import Bytes
from svp_stream.synthetic.landmarks import LANDMARKS
from svp_stream.training.clips import Clips, pack_frames
from svp_stream.training.loop import LoopConfig, run_stage
from svp_stream.weights_file import count
from tests.evaluation.drawn import write_clip

TINY = LandmarkConfig(32, (4, 4, 8, 8))


def test_the_shipped_size_is_small_and_its_profile_equals_the_code() -> None:
    assert count(LandmarkGauge(LandmarkConfig())) < 200_000
    assert load_yaml(CONFIGS / "train" / "landmarks.yaml", LandmarkTrainConfig) == LandmarkTrainConfig()


@pytest.mark.parametrize("side", [16, 32, 100])
def test_landmarks_are_in_pixels_of_the_picture(side: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    found = LandmarkGauge(TINY).eval().find(pictures)
    assert found.shape == (3, len(LANDMARKS), 2) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= side
    assert abs(float(found.mean()) - side / 2) < side / 4, "an untrained map is flat, its mean the middle"
    assert LandmarkGauge(TINY).find(pictures[:0]).shape == (0, len(LANDMARKS), 2)


@pytest.mark.parametrize(("shape", "told"), [((2, 32, 32), "uint8 .N, H, H, 3."), ((2, 32, 48, 3), "square pictures")])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(MediaError, match=told):
        LandmarkGauge(TINY).find(np.zeros(shape, np.uint8))


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = LandmarkGauge(TINY).eval()
    save_landmark_gauge(tmp_path / WEIGHTS, made)
    back = load_landmark_gauge(tmp_path / WEIGHTS)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    assert back.config == TINY and np.allclose(back.find(pictures), made.find(pictures), atol=0.05)
    with pytest.raises(WeightsError, match="evaluator.safetensors are missing"):
        load_landmark_gauge(tmp_path / "evaluator.safetensors")


def test_points_go_where_the_picture_goes() -> None:
    torch.manual_seed(1)
    place = places(6, 0.15, 0.08, 30.0)
    at = torch.tensor([[0.25, -0.5], [-0.3, 0.4]]).repeat(6, 1, 1)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 129)[:-1] + 1 / 128, torch.linspace(-1, 1, 129)[:-1] + 1 / 128,
                          indexing="ij")  # fmt: skip
    spots = torch.stack([255 * torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.002) for a, b in at[0]]).sum(0)
    pictures = torch.cat([spots.expand(6, 3, 128, 128), torch.full((6, 1, 128, 128), 255.0)], 1)
    there = (moved(at, place) + 1) * 64 - 0.5
    seen = disturb(pictures, place).mean(1)
    for picture, points in zip(seen, there, strict=True):
        for px, py in points:
            left, top = round(float(px)) - 6, round(float(py)) - 6
            near = picture[top : top + 13, left : left + 13] - picture.median()
            peak = divmod(int(near.argmax()), 13)
            assert abs(left + peak[1] - float(px)) <= 1.6 and abs(top + peak[0] - float(py)) <= 1.6
    assert torch.allclose(moved(at, torch.eye(2, 3).repeat(6, 1, 1)), at)


class Nods:
    """A reader that loses the face in every second picture."""

    def __init__(self) -> None:
        self.reads = self.resets = 0

    def read(self, rgb: Bytes) -> FaceReading | None:
        self.reads += 1
        if self.reads % 2 == 0:
            return None
        marks = np.full((38, 2), self.reads, np.float32)
        return FaceReading(np.zeros(len(ARKIT), np.float32), np.zeros(3, np.float32), marks)

    def reset(self) -> None:
        self.resets += 1


def test_a_reader_stands_in_the_gauges_place() -> None:
    reader = Nods()
    found = reader_finder(reader)(np.zeros((4, 8, 8, 3), np.uint8))
    assert found.shape == (4, 38, 2) and reader.resets == 1
    assert np.isnan(found[1::2]).all() and found[2, 0].tolist() == [3, 3]


def test_lost_faces_do_not_count() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(50, 20, (4, 38, 2)).astype(np.float32)
    made = true + np.float32(1)
    made[3] = np.nan
    mouth, face = landmark_distances(made, true)
    assert mouth == pytest.approx(0, abs=1e-3) and 0 < face < 100, "a shift is no matter of the mouth's shape"
    assert all(np.isnan(v) for v in landmark_distances(np.full_like(true, np.nan), true))
    assert len(MOUTH) == 16 and all("_lip_" in LANDMARKS[i] for i in MOUTH)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed pictures of drawn faces."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(4):
        write_clip(folder, f"clip-{i}", frames=60, style="warm", voice="rms", split="heldout" if i == 3 else "train",
                   seed=i, picture=True)  # fmt: skip
    pack_frames(Clips.open(folder), folder / "frames")
    return folder / "frames"


def config(steps: int) -> LandmarkTrainConfig:
    loop = LoopConfig(steps=steps, batch=16, lr=6e-3, warmup=5, ema=0.9, precision="fp32", threads=1)
    return LandmarkTrainConfig(loop=loop, every=1, side=64, widths=(8, 8, 16, 16), turn_deg=5.0)


def test_a_tiny_run_goes_from_pictures_to_a_file_that_finds_landmarks(frames: Path, tmp_path: Path) -> None:
    stage = make_landmark_stage(config(100), frames)
    before = stage.validate(stage.model.eval())
    run_stage(stage, stage.config.loop, tmp_path / "run")
    gauge = load_landmark_gauge(tmp_path / "run" / WEIGHTS)
    true, shown = stage.landmarks[stage.held_out] * 64, stage.pictures[stage.held_out, ..., :3]
    found = gauge.find(shown)
    assert stage.validate(gauge)["f_lmd"] < before["f_lmd"] / 4
    assert np.linalg.norm(found - true, axis=-1).mean() < 2.0, "2 of 64 pixels"
    top, low = LANDMARKS.index("inner_lip_top"), LANDMARKS.index("inner_lip_bottom")
    gap = [np.linalg.norm(marks[:, top] - marks[:, low], axis=-1) for marks in (found, true)]
    assert np.corrcoef(*gap)[0, 1] > 0.8, "it follows the mouth, not the mean face"
    shifted = gauge.find(np.roll(shown, 3, axis=2))
    assert 2 < float((shifted - found)[..., 0].mean()) < 4, "and goes with the picture"
    assert list((tmp_path / "run" / "sheets").glob("*.png"))


def test_every_person_counts_alike(frames: Path) -> None:
    made = make_landmark_stage(config(1), frames)
    many = np.array(["pat"] * 170 + ["kim"] * 10 + ["pat"] * 60)
    split = np.array(["train"] * 180 + ["heldout"] * 60)
    stage = LandmarkStage(config(1), made.pictures, made.landmarks, split, many)
    rows = stage.batch(np.random.default_rng(0), 200)["target"]
    kim = torch.from_numpy(made.landmarks[170:180]) * 2 - 1
    share = (rows[:, None] == kim[None]).all(-1).all(-1).any(1).float().mean()
    assert 0.35 < float(share) < 0.65


def test_missing_pictures_are_told(tmp_path: Path, frames: Path) -> None:
    with pytest.raises(MediaError, match="no packed pictures"):
        make_landmark_stage(config(1), tmp_path)
    made = make_landmark_stage(config(1), frames)
    with pytest.raises(MediaError, match="both splits"):
        LandmarkStage(config(1), made.pictures, made.landmarks, np.full(240, "train"), np.full(240, "pat"))
