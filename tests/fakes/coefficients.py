"""A bank of coefficients without a synthesiser: letters are phonemes, each a tone, heard by a tiny random encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from svp_stream.audio.wav2vec import EncoderConfig, Wav2VecEncoder, save_encoder
from svp_stream.clock import MODEL_RATE_HZ
from svp_stream.synthetic.phonemes import MOUTHS, VOWELS
from svp_stream.synthetic.speech import Phoneme, Utterance, Voice
from svp_stream.training.coefficients import CoefficientBank, CoefficientConfig, load_bank

SOUND_S = 0.08
_SYMBOLS = tuple(s for s in MOUTHS if s != "pau")


def speak(text: str, voice: Voice) -> Utterance:
    """Up to 30 letters, 80 ms each, between 80 ms of silence."""
    letters = [ord(c) % len(_SYMBOLS) for c in text.lower() if c.isalpha()][:30]
    marks = ["pau", *(_SYMBOLS[k] for k in letters), "pau"]
    count = round(SOUND_S * MODEL_RATE_HZ)
    time = np.arange(count) / MODEL_RATE_HZ
    tones = [0.2 * np.sin(2 * np.pi * (150 + 90 * k) * time) for k in letters]
    samples = np.concatenate([np.zeros(count), *tones, np.zeros(count)]).astype(np.float32)
    phonemes = tuple(
        Phoneme(s, i * SOUND_S, (i + 1) * SOUND_S, 2 if s in VOWELS else 0) for i, s in enumerate(marks)
    )
    return Utterance(text, voice.name, samples, phonemes)


def tiny_encoder(path: Path, seed: int = 0) -> Path:
    """Weights of a random encoder with 16 numbers a token."""
    torch.manual_seed(seed)
    config = EncoderConfig(
        channels=(8, 8, 8, 8, 8, 8, 16), width=16, layers=1, heads=2, feedforward=16, position_kernel=4,
        position_groups=2,
    )
    save_encoder(path, Wav2VecEncoder(config))
    return path


def tiny_bank(folder: Path) -> CoefficientBank:
    """Eight takes to train on and eight held out, cached in `folder`."""
    config = CoefficientConfig(takes=8, held_out_takes=8, silent_share=0.1, opus_share=0.0, seed=1)
    return load_bank(config, tiny_encoder(folder / "audio_encoder.safetensors"), folder / "cache", speak)
