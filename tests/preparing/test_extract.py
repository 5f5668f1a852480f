"""A preset from a film: the same off the sidecar and off pictures, windows pooled, and films that no style is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from svp_stream.arkit import ARKIT, SPEECH_SLICE
from svp_stream.errors import ConfigError, MediaError, WeightsError
from svp_stream.evaluation.face_reader import FaceReading
from svp_stream.packets import Bytes, Float32
from svp_stream.preparing.extract import PRIOR, WINDOW, extract, posterior, read_film, read_sidecar
from svp_stream.style.prior import load_prior
from svp_stream.synthetic import sidecar
from svp_stream.weights_file import sha256
from tests.fakes.tiny_weights import write_tiny_weights
from tests.preparing.films import TruthReader, take, write_film


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    return folder


def write_clip(path: Path, expression: Float32, seed: int = 0) -> Path:
    """A sidecar without a picture; returns where its film would be."""
    frames = len(expression)
    audio = (3000 * np.random.default_rng(seed).standard_normal(frames * 640)).astype(np.int16)
    arrays: dict[str, NDArray[Any]] = {
        "expression": expression, "pose": np.zeros((frames, 9), np.float32), "stress": np.zeros(frames, np.float32),
        "audio": audio, "style_vector": np.zeros(1, np.float32), "manner": np.zeros(12, np.float32),
    }
    words = {"style": "warm", "voice": "x", "text": "", "avatar": "", "split": "train"}
    sidecar.write(path, arrays, words, 0, ())
    return path.with_suffix(".mp4")


def faces(frames: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).uniform(0, 1, (frames, len(ARKIT))).astype(np.float32)


def test_a_preset_of_a_clip_of_our_own(weights: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "talk.npz", faces(200))
    made, again = extract(clip, weights), extract(clip, weights)
    assert made.prior == sha256(weights / PRIOR) and made.name == "talk" and "8.0 s" in made.description
    np.testing.assert_array_equal(made.mu, again.mu)
    other = extract(write_clip(tmp_path / "other.npz", 0.2 * faces(200, 1)), weights, name="mine")
    assert other.name == "mine" and np.abs(other.mu - made.mu).max() > 0.01


def test_windows_are_pooled_by_total_variance(weights: Path) -> None:
    prior = load_prior(weights / PRIOR)
    first, second = faces(WINDOW, 0)[:, SPEECH_SLICE], 0.3 * faces(WINDOW, 1)[:, SPEECH_SLICE]
    heard = np.random.default_rng(2).standard_normal((2 * WINDOW, 16)).astype(np.float32)
    parts = [posterior(prior, x, heard[a : a + WINDOW]) for x, a in ((first, 0), (second, WINDOW))]
    mu, log_var = posterior(prior, np.concatenate([first, second]), heard)
    np.testing.assert_allclose(mu, (parts[0][0] + parts[1][0]) / 2, atol=1e-5)
    between = (parts[0][0] - parts[1][0]) ** 2 / 2
    np.testing.assert_allclose(np.exp(log_var), (np.exp(parts[0][1]) + np.exp(parts[1][1])) / 2 + between, rtol=1e-3)


def test_a_reader_finds_in_pictures_what_the_truth_is(tmp_path: Path) -> None:
    known = take(75, 0)
    film = write_film(tmp_path / "film.mp4", known)
    read = read_film(film, TruthReader(known))
    truth = np.stack([r.expression for r in known.readings if r is not None])[:, SPEECH_SLICE]
    assert len(read.expression) == len(truth) and len(read.audio) == 640 * len(truth)
    assert np.abs(read.expression - truth).mean() < 0.02
    loud = np.abs(known.audio.astype(np.float32) / 32768)
    assert np.corrcoef(np.abs(read.audio), loud)[0, 1] > 0.8, "the sound is that of the same frames"


class Sometimes:
    """A reader that sees every n-th face."""

    def __init__(self, every: int) -> None:
        self.every, self.count = every, 0

    def read(self, rgb: Bytes) -> FaceReading | None:
        self.count += 1
        face = np.full(len(ARKIT), 0.4 if self.count % 3 else 0.1, np.float32)
        landmarks = np.zeros((38, 2), np.float32)
        if self.every == 0 or self.count % self.every:
            return None
        return FaceReading(face, np.zeros(3, np.float32), landmarks)

    def reset(self) -> None:
        self.count = 0


def test_an_empty_face_a_still_one_and_a_short_one_are_refused(weights: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", take(75, 0))
    assert extract(film, weights, reader=Sometimes(1)).mu.shape == (16,)
    with pytest.raises(MediaError, match="a face was found in 0 of 75 frames"):
        extract(film, weights, reader=Sometimes(0))
    with pytest.raises(MediaError, match="25 of 75 frames; at least 50 %"):
        extract(film, weights, reader=Sometimes(3))
    still = write_clip(tmp_path / "still.npz", np.full((100, len(ARKIT)), 0.3, np.float32))
    with pytest.raises(MediaError, match="the face does not move"):
        extract(still, weights)
    with pytest.raises(MediaError, match=r"has 0\.48 s of a face; a style needs at least 1 s"):
        extract(write_clip(tmp_path / "short.npz", faces(12)), weights)


def test_what_is_missing_is_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"film.mp4: has no sidecar film.npz; .*--landmarker"):
        read_sidecar(tmp_path / "film.mp4")
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(MediaError, match="not a readable sidecar"):
        read_sidecar(tmp_path / "bad.mp4")
    with pytest.raises(WeightsError):
        extract(write_clip(tmp_path / "talk.npz", faces(60)), tmp_path)
    with pytest.raises(MediaError, match="there is no such file"):
        read_film(tmp_path / "nowhere.mp4", Sometimes(1))
