"""A causal copy learns a tiny wav2vec2's hidden states, is exported, and streams as it encodes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch

from svp_stream.audio.wav2vec import EncoderConfig, Wav2VecStream, load_encoder
from svp_stream.config import CONFIGS, load_yaml
from svp_stream.packets import AudioChunk
from svp_stream.training.audio import WEIGHTS_NAME
from svp_stream.training.audio_distil import READOUT_NAME, AudioDistilConfig, AudioDistilStage
from svp_stream.training.loop import LoopConfig, run_stage
from svp_stream.weights_file import read_weights
from tests.fakes.tiny_sd15 import AUDIO_DIM, tiny_wav2vec2
from tests.laws.stages import voice
from tests.training.test_audio import _tape

SMALL = EncoderConfig(
    channels=(16,) * 7, width=32, layers=1, heads=2, feedforward=64, position_kernel=4, position_groups=2,
    left_context=10,
)


def test_the_loss_falls_and_the_copy_streams(tmp_path: Path) -> None:
    loop = LoopConfig(steps=300, batch=4, lr=4e-3, warmup=5, ema=0.9, precision="fp32", log_every_s=0,
                      sheet_every_s=600)
    config = AudioDistilConfig(loop=loop, encoder=SMALL, crop_frames=16, noise=0.2)
    stage = AudioDistilStage(config, tiny_wav2vec2("group"), _tape(0), _tape(100, 3))
    with torch.no_grad():
        before = stage.validate(stage.model.eval())
    run_stage(stage, loop, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in rows if "loss" in r]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    after = rows[-1]
    logging.getLogger(__name__).info("before %s after %s", before, after)
    assert after["error"] < before["error"] - 0.2 and after["cosine"] > before["cosine"] + 0.3

    encoder = load_encoder(tmp_path / WEIGHTS_NAME)
    _, readout = read_weights(tmp_path / READOUT_NAME, "wav2vec-readout")
    assert readout["weight"].shape == (AUDIO_DIM, SMALL.width)
    wav = np.pad(voice(3, 16_000, 1.0), (0, 80))
    with torch.inference_mode():
        offline = encoder.encode(torch.from_numpy(wav)[None])[0].numpy()
    streamed = Wav2VecStream(encoder).push(AudioChunk(0, wav, 16_000))
    np.testing.assert_allclose(np.concatenate([t.tokens for t in streamed]), offline, rtol=0, atol=1e-5)


def test_the_shipped_profile_is_understood() -> None:
    assert load_yaml(CONFIGS / "train" / "audio-distil.yaml", AudioDistilConfig) == AudioDistilConfig()
