"""The encoder streams: step equals encode, chunks bound what is seen, and the stream keeps its contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from svp_stream.audio.wav2vec import (
    HOP,
    RECEPTIVE,
    TAIL,
    EncoderConfig,
    EncoderState,
    Wav2VecEncoder,
    Wav2VecStream,
    load_encoder,
    save_encoder,
)
from svp_stream.clock import FRAME_TICKS, MODEL_RATE_HZ
from svp_stream.errors import StreamError, WeightsError
from svp_stream.packets import AudioChunk, AudioTokens, Float32

SMALL = EncoderConfig(
    channels=(8, 8, 8, 8, 8, 8, 8), width=24, layers=2, heads=2, feedforward=32, position_kernel=4, position_groups=2,
    left_context=10,
)


def _encoder(config: EncoderConfig = SMALL) -> Wav2VecEncoder:
    torch.manual_seed(3)
    encoder = Wav2VecEncoder(config).eval().requires_grad_(False)
    for name, weight in encoder.named_parameters():  # attention that really mixes: the start is almost the identity
        if name.endswith(("out.weight", "contract.weight")):
            weight.copy_(torch.randn_like(weight) * 0.3)
    return encoder


def _speechlike(seconds: float, seed: int = 0) -> Float32:
    """Noise in bursts from -60 to -10 dBFS, so that the running level has something to follow."""
    rng = np.random.default_rng(seed)
    n = round(seconds * MODEL_RATE_HZ)
    loudness = np.repeat(10 ** rng.uniform(-3, -0.5, size=n // 1600 + 1), 1600)[:n]
    return (rng.standard_normal(n) * loudness).clip(-1, 1).astype(np.float32)


def _stepped(encoder: Wav2VecEncoder, wav: Tensor) -> Tensor:
    state, pieces = encoder.initial(len(wav)), []
    block = encoder.config.block
    for start in range(0, wav.shape[1] - TAIL - block + 1, block):
        tokens, state = encoder.step(wav[:, start : start + encoder.config.window], state)
        pieces.append(tokens)
    return torch.cat(pieces, dim=1)


def _run(stream: Wav2VecStream, samples: Float32, sizes: list[int], pts: int = 0) -> list[AudioTokens]:
    out, at, turn = [], 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        out += stream.push(AudioChunk(pts + 3 * at, samples[at : at + size], MODEL_RATE_HZ))
        at, turn = at + size, turn + 1
    return out + stream.flush()


@pytest.mark.parametrize("config", [SMALL, EncoderConfig(), EncoderConfig(chunk=4, left_context=20, layers=2)])
def test_stepping_equals_the_offline_pass(config: EncoderConfig) -> None:
    encoder = _encoder(config)
    wav = torch.from_numpy(np.stack([_speechlike(4.0, 1), _speechlike(4.0, 2)]))
    offline = encoder.encode(wav)
    stepped = _stepped(encoder, wav)
    assert offline.shape == stepped.shape == (2, 198 // config.chunk * config.chunk, config.width)
    assert float(offline.std()) > 0.5
    assert float((offline - stepped).abs().max()) < 1e-5 * max(1.0, float(offline.abs().max()))


def test_a_token_sees_its_chunk_and_its_left_context_alone() -> None:
    """By gradient: which features the tokens of one chunk depend on (the level remembers for seconds)."""
    encoder = _encoder()
    features = torch.randn(1, 60, SMALL.width, requires_grad=True)
    x = features + encoder._positions(torch.nn.functional.pad(features, (0, 0, SMALL.position_kernel - 1, 0)))
    mask = encoder.mask(60)
    for layer in encoder.layers:
        x, _, _ = layer(x, None, mask)
    (gradient,) = torch.autograd.grad(x[0, 50].sum(), features)
    seen = torch.nonzero(gradient[0].abs().sum(-1)).flatten()
    reach = SMALL.layers * SMALL.left_context + SMALL.position_kernel - 1
    assert int(seen.max()) == 51, "the second token of the chunk is seen, the next chunk is not"
    assert int(seen.min()) == 50 - reach


@pytest.mark.parametrize("frame", [3, 20])
def test_nothing_beyond_the_declared_latency_matters(frame: int) -> None:
    encoder = _encoder()
    wav = _speechlike(1.6)
    changed = wav.copy()
    changed[640 * (frame + 1) + TAIL :] = 0.7
    before, after = (encoder.encode(torch.from_numpy(w)[None]) for w in (wav, changed))
    first_after = 2 * (frame + 1)
    assert torch.equal(before[:, :first_after], after[:, :first_after])
    assert not torch.allclose(before[:, first_after:], after[:, first_after:])


def test_tokens_stand_where_wav2vec2_has_them() -> None:
    assert (HOP, RECEPTIVE, TAIL) == (320, 400, 80)
    features = _encoder().features(torch.randn(1, 320 * 7 + 80))
    assert features.shape[1] == 7


def test_level_makes_loud_and_quiet_alike() -> None:
    encoder = _encoder()
    wav = torch.from_numpy(_speechlike(2.0, 5))[None]
    loud, quiet = encoder.encode(wav), encoder.encode(wav * 0.25)
    assert torch.allclose(loud, quiet, atol=1e-3)
    assert torch.isfinite(encoder.encode(torch.zeros(1, 6480))).all()


@pytest.mark.parametrize("sizes", [[320], [1], [7, 641, 80], [5000], [720]])
def test_any_chunking_gives_the_offline_tokens(sizes: list[int]) -> None:
    encoder = _encoder()
    wav = _speechlike(0.5, 4)[: 7900 if sizes != [1] else 2000]
    packets = _run(Wav2VecStream(encoder), wav, sizes, pts=960)
    whole = -(-len(wav) // 640)
    padded = np.pad(wav, (0, whole * 640 + TAIL - len(wav)))
    offline = encoder.encode(torch.from_numpy(padded)[None])[0].numpy()
    assert [p.pts for p in packets] == [960 + FRAME_TICKS * i for i in range(whole)]
    assert packets[0].tokens.shape == (2, SMALL.width) and packets[0].tokens.dtype == np.float32
    np.testing.assert_allclose(np.concatenate([p.tokens for p in packets]), offline, atol=2e-5)


def test_output_comes_with_the_push_that_completes_it() -> None:
    stream = Wav2VecStream(_encoder())
    wav = _speechlike(0.2)
    assert stream.latency == FRAME_TICKS + 240
    assert stream.push(AudioChunk(0, wav[:719], MODEL_RATE_HZ)) == []
    assert [p.pts for p in stream.push(AudioChunk(3 * 719, wav[719:720], MODEL_RATE_HZ))] == [0]
    assert stream.push(AudioChunk(3 * 720, wav[720:720], MODEL_RATE_HZ)) == []


def test_reset_equals_a_fresh_stream_and_streams_share_nothing() -> None:
    encoder = _encoder()
    used, other = Wav2VecStream(encoder), Wav2VecStream(encoder)
    a, b = _speechlike(0.4, 8), _speechlike(0.4, 9)
    alone = _run(Wav2VecStream(encoder), a, [640])
    _run(used, b, [640])
    used.reset()
    again: list[AudioTokens] = []
    for at in range(0, len(a), 640):
        again += used.push(AudioChunk(3 * at, a[at : at + 640], MODEL_RATE_HZ))
        other.push(AudioChunk(3 * at, b[at : at + 640], MODEL_RATE_HZ))
    again += used.flush()
    for x, y in zip(alone, again, strict=True):
        assert x.pts == y.pts and np.array_equal(x.tokens, y.tokens)


def test_empty_stream_flushes_to_nothing() -> None:
    assert Wav2VecStream(_encoder()).flush() == []


def test_wrong_use_is_told() -> None:
    stream = Wav2VecStream(_encoder())
    with pytest.raises(StreamError, match="16000 Hz expected, got 48000"):
        stream.push(AudioChunk(0, np.zeros(10, np.float32), 48000))
    stream.push(AudioChunk(0, np.zeros(10, np.float32), MODEL_RATE_HZ))
    with pytest.raises(StreamError, match="does not join on to 30"):
        stream.push(AudioChunk(60, np.zeros(10, np.float32), MODEL_RATE_HZ))
    stream.flush()
    with pytest.raises(StreamError, match="after flush"):
        stream.push(AudioChunk(30, np.zeros(10, np.float32), MODEL_RATE_HZ))
    with pytest.raises(ValueError, match="N >= 720"):
        _encoder().encode(torch.zeros(1, 719))
    with pytest.raises(ValueError, match="whole number of chunks"):
        EncoderConfig(left_context=51)


def test_another_backend_can_step() -> None:
    encoder = _encoder()
    calls: list[torch.Size] = []

    def backend(window: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        calls.append(window.shape)
        return encoder.step(window, EncoderState(*state.tensors()))

    wav = _speechlike(0.3)
    ours, theirs = _run(Wav2VecStream(encoder), wav, [999]), _run(Wav2VecStream(encoder, backend), wav, [999])
    assert calls == [torch.Size([1, 720])] * len(ours)
    assert all(np.array_equal(x.tokens, y.tokens) for x, y in zip(ours, theirs, strict=True))


def test_weights_carry_their_configuration(tmp_path: Path) -> None:
    encoder, path = _encoder(), tmp_path / "audio_encoder.safetensors"
    save_encoder(path, encoder, half=False)
    loaded = load_encoder(path)
    assert loaded.config == SMALL
    wav = torch.from_numpy(_speechlike(0.5))[None]
    assert torch.equal(loaded.encode(wav), encoder.encode(wav))
    with pytest.raises(WeightsError, match="missing"):
        load_encoder(tmp_path / "other.safetensors")
