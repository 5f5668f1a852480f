"""Hours of speech without a pixel: the shared data source of the stages that learn on coefficients.

In: the sentences and voices of `synthetic`, the frozen audio encoder. Out: `CoefficientBank`, takes of speech with
pauses, their audio tokens (computed once, in the cache folder) and their expression in any style (articulated when
asked, which costs milliseconds). Held-out takes are spoken by held-out voices or say held-out sentences; no training
take does either.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from svp_stream.audio.wav2vec import TAIL, Wav2VecEncoder, load_encoder
from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.errors import ConfigError
from svp_stream.packets import Float32
from svp_stream.synthetic import sentences
from svp_stream.synthetic.articulation import articulate
from svp_stream.synthetic.speech import Phoneme, Utterance, Voice, draw_voice, synthesise
from svp_stream.synthetic.styles import SpeakingStyle
from svp_stream.training import augment
from svp_stream.weights_file import sha256

logger = logging.getLogger(__name__)
HOP: Final = MODEL_RATE_HZ // FRAME_RATE_HZ
FORMAT: Final = 1
Speak = Callable[[str, Voice], Utterance]


class CoefficientConfig(BaseModel):
    """What is spoken. The same values give the same takes."""

    model_config = ConfigDict(extra="forbid")

    encoder: Path | None = Field(default=None, description="audio_encoder.safetensors; none: from the run `audio`")
    takes: int = Field(default=600, ge=4)
    held_out_takes: int = Field(default=48, ge=4)
    sentences_per_take: int = Field(default=2, ge=1, le=6)
    pause_s: tuple[float, float] = (0.15, 1.3)
    pitch: float = Field(default=0.35, ge=0, description="training voices leave their pitch by up to so much")
    pace: float = Field(default=0.25, ge=0, description="and their pace")
    silent_share: float = Field(default=0.03, ge=0, le=0.5, description="takes in which nobody speaks")
    noise_db: tuple[float, float] = (12.0, 45.0)
    """Signal to noise of the noisy variant of every take."""
    opus_share: float = Field(default=0.3, ge=0, le=1, description="noisy variants that also pass a codec")
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Take:
    """Speech with pauses, T video frames long; `tokens` float16 [variants, 2T, A], variant 0 clean, 1 noisy."""

    utterance: Utterance
    tokens: NDArray[np.float16]
    held_out_voice: bool
    held_out_text: bool

    @property
    def frames(self) -> int:
        """T, video frames of 40 ms."""
        return int(self.tokens.shape[1]) // 2

    @property
    def held_out(self) -> bool:
        """Never trained on."""
        return self.held_out_voice or self.held_out_text

    def audio(self, variant: int = 0) -> Float32:
        """Tokens float32 [2T, A]."""
        return np.asarray(self.tokens[variant], dtype=np.float32)

    def features(self, variant: int = 0) -> Float32:
        """Float32 [T, A]: the mean of the two tokens of each frame, as the style prior hears."""
        return np.asarray(self.audio(variant).reshape(self.frames, 2, -1).mean(axis=1), dtype=np.float32)

    def expression(self, style: SpeakingStyle, rng: np.random.Generator) -> Float32:
        """Float32 [T, 42] in ARKit order `SPEECH`, the same words in `style`."""
        return articulate(self.utterance, style, self.frames, rng)

    def silent(self) -> NDArray[np.bool_]:
        """[T], true inside pauses at least 0.2 s from speech."""
        times = (np.arange(self.frames) + 0.5) / FRAME_RATE_HZ
        quiet = np.ones(self.frames, dtype=np.bool_)
        for p in self.utterance.phonemes:
            if p.symbol != "pau":
                quiet &= (times < p.start_s - 0.2) | (times > p.end_s + 0.2)
        return quiet


@dataclass(frozen=True, slots=True)
class CoefficientBank:
    """Takes for training and takes held out, all long enough to cut clips from."""

    train: tuple[Take, ...]
    held_out: tuple[Take, ...]

    @property
    def audio_dim(self) -> int:
        """A, the width of an audio token."""
        return int(self.train[0].tokens.shape[2])


def join(parts: Sequence[Utterance], pauses_s: Sequence[float]) -> Utterance:
    """Utterances one after the other with silence before each and after the last (one more pause than parts)."""
    if len(pauses_s) != len(parts) + 1:
        raise ValueError(f"{len(parts)} utterances need {len(parts) + 1} pauses, got {len(pauses_s)}")
    samples: list[Float32] = []
    phonemes: list[Phoneme] = []
    at = 0
    for i, pause in enumerate(pauses_s):
        count = round(pause * MODEL_RATE_HZ)
        samples.append(np.zeros(count, dtype=np.float32))
        if count:
            phonemes.append(Phoneme("pau", at / MODEL_RATE_HZ, (at + count) / MODEL_RATE_HZ, 0))
        at += count
        if i < len(parts):
            start = at / MODEL_RATE_HZ
            samples.append(parts[i].samples)
            phonemes += [replace(p, start_s=p.start_s + start, end_s=p.end_s + start) for p in parts[i].phonemes]
            at += len(parts[i].samples)
    voice = parts[0].voice if parts else ""
    return Utterance(" ".join(p.text for p in parts), voice, np.concatenate(samples), tuple(phonemes))


def speak_take(
    config: CoefficientConfig, index: int, held_out: bool, speak: Speak = synthesise
) -> tuple[Utterance, bool, bool]:
    """(utterance, voice held out, text held out) of take `index`; depends on nothing but its arguments."""
    rng = np.random.default_rng([config.seed, int(held_out), index])
    own_voice = held_out and index % 4 != 3
    own_text = held_out and index % 4 != 2
    texts = [s for s in sentences.load() if (sentences.split(s) == "heldout") == own_text]
    if not texts:
        raise ConfigError("there are no sentences in one of the splits; add some to synthetic/sentences.txt")
    pauses = rng.uniform(*config.pause_s, config.sentences_per_take + 1)
    if rng.random() < config.silent_share:
        return join([], [float(pauses.sum()) + 2.5]), own_voice, own_text
    voice = draw_voice(rng, own_voice).jitter(rng, *((0.08, 0.15) if own_voice else (config.pitch, config.pace)))
    chosen = rng.choice(len(texts), config.sentences_per_take, replace=len(texts) < config.sentences_per_take)
    return join([speak(texts[int(i)], voice) for i in chosen], [float(p) for p in pauses]), own_voice, own_text


def worsen(samples: Float32, config: CoefficientConfig, rng: np.random.Generator) -> Float32:
    """The sound as a call carries it: with noise, sometimes through Opus, at another level."""
    worse = augment.mix(samples, augment.noise(len(samples), rng), float(rng.uniform(*config.noise_db)))
    if rng.random() < config.opus_share:
        worse = augment.opus(worse, int(rng.choice([16, 24, 32])))
    return augment.level(worse, augment.AugmentConfig.model_validate({}), rng)


@torch.inference_mode()
def encode(encoder: Wav2VecEncoder, samples: Float32) -> NDArray[np.float16]:
    """Tokens float16 [2T, A] of T = ceil(N / 640) video frames."""
    frames = max(1, -(-len(samples) // HOP))
    padded = np.pad(samples, (0, frames * HOP + TAIL - len(samples)))
    tokens: torch.Tensor = encoder.encode(torch.from_numpy(padded)[None])[0]
    return tokens.numpy().astype(np.float16)


def load_bank(config: CoefficientConfig, encoder_path: Path, cache: Path, speak: Speak = synthesise) -> CoefficientBank:
    """The bank, made once and kept in `cache`: the speech by configuration, the tokens by encoder as well.

    Raises WeightsError when the encoder cannot be loaded and MediaError when a synthesiser is missing.
    """
    encoder = load_encoder(encoder_path)
    words = hashlib.sha256("\n".join(sentences.load()).encode()).hexdigest()
    spoken = config.model_dump(mode="json", exclude={"encoder", "noise_db", "opus_share"})
    mark = _mark(spoken | {"words": words, "format": FORMAT})
    speech = _cached(cache / f"speech-{mark}.npz", lambda: _speak_all(config, speak))
    heard = _mark({"speech": mark, "encoder": sha256(encoder_path), "noise": [*config.noise_db, config.opus_share]})
    utterances, flags = _unpack(speech)
    tokens = _cached(cache / f"tokens-{heard}.npz", lambda: _encode_all(encoder, config, utterances))
    ends = tokens["ends"]
    starts = np.concatenate([[0], ends[:-1]])
    takes = [
        Take(u, tokens["tokens"][:, a:b], bool(voice), bool(text))
        for u, a, b, (voice, text) in zip(utterances, starts, ends, flags, strict=True)
    ]
    return CoefficientBank(tuple(t for t in takes if not t.held_out), tuple(t for t in takes if t.held_out))


_Arrays = dict[str, NDArray[Any]]


def _mark(of: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]


def _cached(path: Path, make: Callable[[], _Arrays]) -> _Arrays:
    """Arrays of `path`, made and written atomically when it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = make()
        beside = path.with_suffix(".tmp")
        with beside.open("wb") as f:
            np.savez(f, **arrays)  # type: ignore[arg-type]  # the stub gives the keywords of savez itself first
        beside.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _speak_all(config: CoefficientConfig, speak: Speak) -> _Arrays:
    """Every take spoken, packed into flat arrays."""
    wanted = [(i, False) for i in range(config.takes)] + [(i, True) for i in range(config.held_out_takes)]
    logger.info("speaking %d takes", len(wanted))
    with ThreadPoolExecutor(2) as pool:
        spoken = list(pool.map(lambda job: speak_take(config, job[0], job[1], speak), wanted))
    utterances = [u for u, _, _ in spoken]
    phonemes = [p for u in utterances for p in u.phonemes]
    return {
        "samples": np.concatenate([np.round(u.samples * 32767).clip(-32767, 32767) for u in utterances]).astype("<i2"),
        "sample_ends": np.cumsum([len(u.samples) for u in utterances]),
        "texts": np.array([u.text for u in utterances]),
        "voices": np.array([u.voice for u in utterances]),
        "symbols": np.array([p.symbol for p in phonemes]),
        "times": np.array([(p.start_s, p.end_s) for p in phonemes]),
        "stress": np.array([p.stress for p in phonemes]),
        "phoneme_ends": np.cumsum([len(u.phonemes) for u in utterances]),
        "flags": np.array([(voice, text) for _, voice, text in spoken]),
    }


def _unpack(speech: _Arrays) -> tuple[list[Utterance], NDArray[Any]]:
    """Inverse of the packing in `_speak_all`."""
    marks = [
        Phoneme(str(symbol), float(start), float(end), int(stress))
        for symbol, (start, end), stress in zip(speech["symbols"], speech["times"], speech["stress"], strict=True)
    ]
    utterances = []
    sample, phoneme = 0, 0
    rows = zip(speech["texts"], speech["voices"], speech["sample_ends"], speech["phoneme_ends"], strict=True)
    for text, voice, sample_end, phoneme_end in rows:
        samples = speech["samples"][sample:sample_end].astype(np.float32) / np.float32(32767)
        utterances.append(Utterance(str(text), str(voice), samples, tuple(marks[phoneme:phoneme_end])))
        sample, phoneme = int(sample_end), int(phoneme_end)
    return utterances, speech["flags"]


def _encode_all(encoder: Wav2VecEncoder, config: CoefficientConfig, utterances: Sequence[Utterance]) -> _Arrays:
    """Tokens float16 [2, sum of 2T, A], clean and noisy, and where each take ends."""
    logger.info("encoding %d takes", len(utterances))
    clean, noisy = [], []
    for i, u in enumerate(utterances):
        rng = np.random.default_rng([config.seed, 2, i])
        clean.append(encode(encoder, u.samples))
        noisy.append(encode(encoder, worsen(u.samples, config, rng)))
    ends = np.cumsum([len(t) for t in clean])
    return {"tokens": np.stack([np.concatenate(clean), np.concatenate(noisy)]), "ends": ends}
