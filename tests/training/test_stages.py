"""Profiles of the training stages, and the pixel stages wired end to end over a corpus of painted clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from svp_stream.diffusion.avatar import avatar_files, load_avatar
from svp_stream.diffusion.unet import load_denoiser
from svp_stream.diffusion.vae import load_autoencoder
from svp_stream.errors import ConfigError, WeightsError
from svp_stream.motion import kps
from svp_stream.motion.manner import Manner
from svp_stream.synthetic import sidecar
from svp_stream.synthetic.video import ClipWriter
from svp_stream.training import stages
from svp_stream.training.sd15_run import STAGES as SD15
from svp_stream.training.stages import CONFIGS, STAGES, read_profile
from tests.fakes import painted_faces

PROFILES = Path(__file__).parents[2] / "configs" / "train"
SIZE = 64
TINY = {"steps": 2, "batch": 2, "precision": "fp32", "log_every_s": 600.0, "sheet_every_s": 600.0}


@pytest.mark.parametrize("stage", STAGES)
def test_the_profile_equals_the_defaults(stage: str) -> None:
    assert read_profile(stage, PROFILES / f"{stage}.yaml") == read_profile(stage, None)


def test_every_profile_belongs_to_a_stage() -> None:
    """What judges (evaluator, landmarks, syncnet), the causal copy and the sd15 stages train in rooms of their own."""
    apart = {"evaluator", "landmarks", "syncnet", "audio-distil", "sd15-consistency-lora", *SD15}
    assert {p.stem for p in PROFILES.glob("*.yaml")} - apart == set(CONFIGS)


def test_an_unknown_stage_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="'video2'.*image, video, consistency"):
        read_profile("video2", None)


@pytest.mark.parametrize(
    "text, told",
    [
        ("loop: {stepz: 3}", "loop.stepz"),
        ("loop: {steps: 0}", "loop.steps.*greater than or equal to 1"),
        ("pure_noise: 1.5", "pure_noise.*less than or equal to 1"),
        ("widths: [1, 2]", "widths"),
        ("- a list", "dictionary"),
        ("loop: [", "not a readable YAML file"),
    ],
)
def test_a_wrong_profile_names_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"mine.yaml: .*{told}"):
        read_profile("image", path)


def test_a_missing_profile(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml: not a readable"):
        read_profile("image", tmp_path / "nowhere.yaml")


def test_an_empty_profile_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_profile("image", tmp_path / "empty.yaml") == read_profile("image", None)


def write_corpus(folder: Path, frames: int = 20) -> None:
    """Three clips of one painted person, the last held out."""
    folder.mkdir()
    for i in range(3):
        pose, expression = painted_faces.course(frames, i)
        pictures = painted_faces.paint(pose, expression, SIZE)
        sound = np.random.default_rng(i).integers(-99, 99, frames * 640).astype(np.int16)
        arrays: dict[str, Any] = {
            "expression": expression, "pose": pose, "stress": np.zeros(frames, np.float32), "audio": sound,
            "style_vector": np.zeros(4, np.float32), "manner": Manner().vector(),
            "kps": (kps.project_batch(painted_faces.HEAD, pose) * SIZE).astype(np.float32),
            "landmarks": np.zeros((frames, 5, 2), np.float32),
        }
        with ClipWriter(folder / f"c{i}.mp4", SIZE, 4, 4) as writer:
            for picture in pictures:
                writer.add(np.ascontiguousarray(picture[..., :3]), np.ascontiguousarray(picture[..., 3]))
            writer.sound(sound)
        words = {"style": "warm", "voice": "slt", "text": "Hi.", "avatar": "pat",
                 "split": "heldout" if i == 2 else "train"}
        sidecar.write(folder / f"c{i}.npz", arrays, words, i, (sidecar.Sound("pau", 0.0, frames / 25, 0),))


def profile(folder: Path, **known: object) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({"loop": TINY, **known}))
    return path


def test_autoencoder_then_image(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "runs"
    write_corpus(corpus)
    image = profile(tmp_path, widths=[8, 8, 16, 16])
    with pytest.raises(WeightsError, match="autoencoder.safetensors are missing"):
        stages.run("image", image, corpus, out)
    shape = profile(tmp_path, widths=[16, 8, 8], depths=[1, 1, 1], crop=32, start_pictures=8)
    folder = stages.run("autoencoder", shape, corpus, out)
    assert folder == out / "autoencoder"
    assert load_autoencoder(folder / "autoencoder.safetensors").config.widths == (16, 8, 8)
    stages.run("image", profile(tmp_path, widths=[8, 8, 16, 16]), corpus, out)
    assert load_denoiser(out / "image" / "denoiser.safetensors").config.widths == (8, 8, 16, 16)
    files = avatar_files(out / "avatars")
    assert list(files) == ["pat"] and load_avatar(files["pat"]).appearance.shape == (4, 8, 8)
    with pytest.raises(WeightsError, match="audio_encoder.safetensors are missing"):
        stages.run("video", profile(tmp_path), corpus, out)
