"""Stage motion: events read off poses, scores that only the truth minimises, learning end to end, filmed sidecars."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svp_stream.motion.kps import pose_vector
from svp_stream.motion.learned import MotionModel
from svp_stream.motion.manner import Manner
from svp_stream.motion.network import BLINK_FRAMES, load_motion
from svp_stream.packets import Float32, Pose
from svp_stream.style.prior import PriorConfig, StylePrior, save_prior
from svp_stream.synthetic import sidecar
from svp_stream.synthetic.styles import NAMED, TRAINING_STYLES
from svp_stream.training.coefficients import CoefficientBank
from svp_stream.training.loop import run_stage
from svp_stream.training.motion import (
    WEIGHTS,
    MotionStage,
    MotionTrainConfig,
    energy,
    follow_kernel,
    followed,
    make_motion_stage,
)
from svp_stream.training.motion_check import move
from svp_stream.training.motion_reading import blink_book, fit_reflex, read
from svp_stream.training.motion_scenes import act, acted, hear, room_tone
from tests.fakes import painted_faces
from tests.fakes.coefficients import tiny_bank, tiny_encoder

CONFIG = MotionTrainConfig.model_validate({
    "loop": {"steps": 12, "batch": 4, "lr": 5e-3, "warmup": 2, "ema": 0.5, "precision": "fp32", "threads": 1},
    "cast": {"styles": len(TRAINING_STYLES), "named_scenes": 1, "scene_s": 6, "clips": 2, "clip_frames": 16},
    "trial_scenes": 1, "frames": 100, "sizes": {"manner": 6, "events": 8, "head": 8},
})


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> CoefficientBank:
    """One bank for all tests of the file."""
    return tiny_bank(tmp_path_factory.mktemp("bank"))


def tiny_prior() -> StylePrior:
    """A random prior, which is enough to tell styles apart."""
    torch.manual_seed(0)
    return StylePrior(PriorConfig(expression_dim=42, audio_dim=16, width=16, layers=1, style_dim=16)).eval()


@pytest.fixture(scope="module")
def stage(bank: CoefficientBank) -> MotionStage:
    """A stage over acted scenes of 6 s."""
    encoder = tiny_prior().encoder
    life = acted(CONFIG.cast, bank.train, bank.train, encoder, 1)
    trial = acted(CONFIG.cast, bank.train, bank.held_out, encoder, 1, only_named=True)
    return MotionStage(CONFIG, life, trial, "0" * 64)


def life_of(manner: Manner, bank: CoefficientBank, frames: int = 1500) -> Float32:
    """Poses by the rule."""
    heard = hear(bank.train, room_tone(bank.train), frames, np.random.default_rng(2))
    return act(heard, replace(NAMED["neutral"], manner=manner), 5)


def test_saccades_and_blinks_are_found_where_they_were_put() -> None:
    rows = []
    for n in range(400):
        turn = 4 * np.sin(n / 30)
        lid = {200: 0.4, 201: 1.0, 202: 1.0, 203: 0.6, 204: 0.2}.get(n, 0.1)
        rows.append(pose_vector(Pose(0, yaw=turn, gaze_x=(0.0 if n < 100 else 6.0) - 0.9 * turn, blink_left=lid,
                                     blink_right=lid)))
    found = read(np.stack(rows), 0.9)
    assert list(np.flatnonzero(found.saccade)) == [100]
    assert found.jump[100] == pytest.approx(6.0, abs=0.01) and found.look[99, 0] == pytest.approx(0.0, abs=0.01)
    assert list(np.flatnonzero(found.blink)) == [200], "it began a frame before the lids were half shut"
    past = found.past(np.arange(400) < 150)
    assert past[101, 0] > past[102, 0] > past[100, 0], "a jump is remembered from the next frame on"
    assert past[150, 7] == 1.0 and past[149, 7] < 1e-6, "the end of a phrase is known at once"
    assert not found.free()[201:206].any() and found.free()[206]


def test_the_reflex_and_the_blinks_of_a_life_are_read_back(bank: CoefficientBank) -> None:
    pose = life_of(Manner(head_size_deg=3.0, blink_rate_hz=0.5, double_blink=0.0), bank)
    assert fit_reflex([pose]) == pytest.approx(0.9, abs=0.02)
    found = read(pose, 0.9)
    assert 15 <= found.blink.sum() <= 45
    book = blink_book([found], np.random.default_rng(0))
    assert np.all(book.max(axis=2) > 0.75) and book.shape[2] == BLINK_FRAMES
    assert np.all(book[:, :, -1] == 0)


def test_no_law_but_the_true_one_has_the_least_energy() -> None:
    rng = torch.Generator().manual_seed(0)

    def draw(scale: float, bias: float = 0.0) -> torch.Tensor:
        return scale * torch.randn(20_000, 4, generator=rng) + bias

    truth = float(energy(draw(1), draw(1), draw(1)))
    for scale, bias in ((0.6, 0.0), (1.5, 0.0), (1.0, 0.5), (0.0, 0.0)):
        assert float(energy(draw(1), draw(scale, bias), draw(scale, bias))) > truth + 0.02


def test_training_follows_by_the_very_spring_of_the_stream() -> None:
    kernel = follow_kernel()
    assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-4)
    goals = torch.zeros(1, 60, 5)
    goals[:, 10:] = 1.0
    head = followed(goals, kernel)[0, :, 0]
    assert float(head[:10].abs().max()) < 1e-6 and float(head[-1]) == pytest.approx(1.0, abs=1e-3)
    assert torch.all(head.diff() >= -1e-6) and float(head.diff().max()) < 0.3


def test_a_batch_hangs_on_its_generator_alone(stage: MotionStage) -> None:
    one, again = (stage.batch(np.random.default_rng(3), 3) for _ in range(2))
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert one["pose"].shape == (3, 100, 5) and one["colours"].shape[:2] == (6, 100)


def test_trains_end_to_end_and_loads_on_the_street(stage: MotionStage, tmp_path: Path) -> None:
    batch = stage.batch(np.random.default_rng(99), 8)
    before = float(stage.loss(stage.model.eval(), batch, 1.0)[0].detach())
    run_stage(stage, CONFIG.loop, tmp_path)
    assert float(stage.loss(stage.model.eval(), batch, 1.0)[0].detach()) < 0.9 * before
    figures = stage.validate(stage.model)
    assert figures["style_probe_true"] > figures["style_probe_chance"]
    assert {"size_ratio", "speed_octaves_shuffled", "blinks_a_minute_true", "viewer_idle", "stress_r"} <= set(figures)
    assert list((tmp_path / "sheets").glob("*.png"))
    net = load_motion(tmp_path / WEIGHTS, "0" * 64)
    scene = stage.trial.scenes[0]
    poses = move(MotionModel(net), stage.trial.known[0].mu[0], scene.heard, 1)
    assert poses.shape == scene.pose.shape and np.isfinite(poses).all()


def test_scenes_hold_speech_listening_and_silence(bank: CoefficientBank) -> None:
    heard = hear(bank.train, room_tone(bank.train), 3000, np.random.default_rng(0))
    drive = heard.drive()
    shares = [float((drive[:, k] > 0).mean()) for k in (2, 3, 5)]
    assert min(shares) > 0.05 and len(drive) == 3000
    assert not (heard.speaking & heard.addressed).any()
    assert heard.stress[~heard.speaking & ~heard.addressed].max() < 0.5


def write_sidecars(folder: Path, bank: CoefficientBank) -> None:
    """Four clips of two people without a picture, the last held out."""
    folder.mkdir()
    for i in range(4):
        pose = life_of(Manner(), bank, 120)
        _, expression = painted_faces.course(len(pose), i)
        sound = np.random.default_rng(i).integers(-9999, 9999, len(pose) * 640).astype(np.int16)
        arrays: dict[str, Any] = {
            "expression": expression, "pose": pose, "stress": np.zeros(len(pose), np.float32), "audio": sound,
            "style_vector": np.zeros(4, np.float32), "manner": Manner().vector(),
        }
        words = {"style": "ann" if i % 2 else "bob", "voice": "x", "text": "Hm.", "avatar": "",
                 "split": "heldout" if i == 3 else "train"}
        sidecar.write(folder / f"c{i}.npz", arrays, words, i, (sidecar.Sound("m", 0.0, len(pose) / 25, 0),))


def test_filmed_people_are_learned_from_their_sidecars(bank: CoefficientBank, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_sidecars(corpus, bank)
    tiny_encoder(tmp_path / "audio" / "audio_encoder.safetensors")
    save_prior(tmp_path / "style-prior" / "style_prior.safetensors", tiny_prior())
    config = CONFIG.model_copy(update={"source": "filmed", "frames": 100})
    made = make_motion_stage(config, corpus, tmp_path / "motion")
    assert [k.style.name for k in made.life.known] == ["ann", "bob"] and made.life.known[1].mu.shape == (2, 16)
    assert len(made.life.scenes) == 3 and [s.style for s in made.trial.scenes] == [0]
    assert made.batch(np.random.default_rng(0), 2)["pose"].shape == (2, 100, 5)
