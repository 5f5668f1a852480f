"""wav2vec features beside clips: our encoder's and a tiny random Wav2Vec2Model's, made once, two tokens a frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import Wav2Vec2Config, Wav2Vec2Model

from svp_stream.audio.wav2vec import Wav2VecEncoder, save_encoder
from svp_stream.errors import WeightsError
from svp_stream.preparing.features import cache_features, feature_path
from svp_stream.training.clips import Clips
from tests.evaluation.drawn import write_clip
from tests.fakes.tiny_weights import ENCODER


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for i in range(2):
        write_clip(tmp_path, f"c{i}", frames=30, style="warm", voice="slt", split="train", seed=i, picture=False)
    return tmp_path


def test_our_encoder(clips: Path) -> None:
    weights = clips / "w" / "audio_encoder.safetensors"
    weights.parent.mkdir()
    save_encoder(weights, Wav2VecEncoder(ENCODER))
    assert cache_features(clips, str(weights)) == 2
    with np.load(feature_path(Clips.open(clips)[0]), allow_pickle=False) as z:
        assert z["tokens"].shape == (60, ENCODER.width) and z["tokens"].dtype == np.float16
    assert cache_features(clips, str(weights)) == 0, "made once"
    assert len(Clips.open(clips)) == 2, "features are no clips"


def test_a_folder_of_transformers(clips: Path, tmp_path: Path) -> None:
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(tmp_path / "w2v")
    assert cache_features(clips, str(tmp_path / "w2v")) == 2
    with np.load(feature_path(Clips.open(clips)[1]), allow_pickle=False) as z:
        assert z["tokens"].shape == (60, 16) and np.isfinite(z["tokens"]).all()


def test_nothing_to_load_is_told(clips: Path) -> None:
    (clips / "empty").mkdir()
    with pytest.raises(WeightsError, match="no Wav2Vec2Model can be loaded from there"):
        cache_features(clips, str(clips / "empty"))
