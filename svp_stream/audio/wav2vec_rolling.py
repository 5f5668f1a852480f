"""Real wav2vec2 checkpoints as a stream: `transformers`' `Wav2Vec2Model` over a rolling window, normalisation frozen.

In: mono sound at 16 kHz. Out: one packet of 2 hidden states (20 ms each) for every video frame.
Remembers: the running level, the samples of the unfinished frame, the convolutional features of the last `window`
frames. Latency: one frame, `look_ahead` frames and 80 samples.

What stands in the way of streaming such a model (METHOD 4.1), and what is done here:
- the group norm of the first convolution normalises over the whole clip: its statistics are measured once over speech
  and frozen, after which the convolutions see 25 ms and are computed once a frame (`feat_extract_norm` layer has none);
- the sound's own mean and variance: a running level instead;
- positional convolution (1.26 s ahead) and full attention: run again for each frame over the window that ends
  `look_ahead` frames after it. This is where a stream differs from the whole clip; `rolling_error` says by how much.
`RollingEncoder.encode` is the same thing over a whole clip at once; both agree to 1e-5.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from svp_stream.audio.wav2vec import HOP, RECEPTIVE, TAIL
from svp_stream.clock import FRAME_TICKS, MODEL_RATE_HZ, ticks_per_sample
from svp_stream.errors import StreamError, WeightsError
from svp_stream.packets import AudioChunk, AudioTokens, Float32
from svp_stream.weights_file import read_weights, save_weights

KIND: Final = "wav2vec-norm"
FRAME: Final = 2 * HOP
SAMPLE_TICKS = ticks_per_sample(MODEL_RATE_HZ)


@dataclass(frozen=True, slots=True)
class RollingConfig:
    """`window` and `look_ahead` in video frames of 40 ms; the window holds the look-ahead and the frame itself."""

    window: int = 50
    look_ahead: int = 2
    level_tau_s: float = 3.0
    level_floor: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.look_ahead < self.window:
            raise ValueError(f"a window of {self.window} frames cannot hold a look-ahead of {self.look_ahead}")
        if self.level_tau_s <= 0 or self.level_floor <= 0:
            raise ValueError("level_tau_s > 0 and level_floor > 0 are needed")

    def span(self, frame: int, heard: int) -> tuple[int, int]:
        """The frames that `frame` is read from, first and end, where `heard` frames are there in all."""
        return max(0, frame + 1 + self.look_ahead - self.window), min(heard, frame + 1 + self.look_ahead)


class FrozenNorm(nn.Module):
    """Stands for the group norm of the first convolution: one group a channel, statistics that do not move."""

    mean: Tensor
    var: Tensor

    def __init__(self, norm: nn.GroupNorm, mean: Tensor, var: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.register_buffer("mean", mean)
        self.register_buffer("var", var)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, N] to the same shape."""
        scale = self.weight * (self.var + self.eps).rsqrt()
        return x * scale[:, None] + (self.bias - self.mean * scale)[:, None]


@dataclass(slots=True)
class Leveller:
    """Divides sound by its running RMS, frame by frame; the first 80 samples of a window keep the gain of the frame
    before, to which they belong."""

    config: RollingConfig
    energy: float = 0.0
    weight: float = 0.0
    gain: float = 0.0

    def push(self, window: Float32) -> Float32:
        """One window, float32 [720]; each starts 640 after the one before."""
        decay = math.exp(-FRAME / (MODEL_RATE_HZ * self.config.level_tau_s))
        before, first = self.gain, self.weight == 0.0
        self.energy = decay * self.energy + float(np.mean(np.square(window[TAIL:], dtype=np.float64)))
        self.weight = decay * self.weight + 1.0
        self.gain = 1.0 / math.sqrt(max(self.energy / self.weight, self.config.level_floor**2))
        gains = np.full(len(window), self.gain, np.float32)
        gains[:TAIL] = self.gain if first else before
        return window * gains


class RollingEncoder(nn.Module):
    """The checkpoint, its normalisation frozen, shared by all streams. See the card."""

    def __init__(self, model: Any, config: RollingConfig, statistics: tuple[Tensor, Tensor] | None = None) -> None:
        """`statistics`: mean and variance [C] for a checkpoint with a group norm. Raises WeightsError when it does not
        tick as wav2vec2 does or when they are missing."""
        super().__init__()
        told = model.config
        stride = math.prod(told.conv_stride)
        if stride != HOP or _receptive(told.conv_kernel, told.conv_stride) != RECEPTIVE or told.add_adapter:
            raise WeightsError(f"a wav2vec2 of 20 ms hops (320 samples) and no adapter is needed, got {stride}")
        if told.feat_extract_norm == "group":
            if statistics is None:
                raise WeightsError("this wav2vec2 normalises over whole clips (feat_extract_norm group): measure its "
                                   "statistics with `svp bench encoder --model FOLDER --freeze FILE` and name the file")
            first = model.feature_extractor.conv_layers[0]
            if not isinstance(first.layer_norm, FrozenNorm):
                first.layer_norm = FrozenNorm(first.layer_norm, *statistics)
        self.config = config
        self.model = model.eval().requires_grad_(False)

    @property
    def width(self) -> int:
        """d of the hidden states."""
        return int(self.model.config.hidden_size)

    def features(self, levelled: Tensor) -> Tensor:
        """Levelled sound [B, N] to convolutional features [B, T, C], T = (N - 80) // 320."""
        there = levelled.to(self.model.device, self.model.dtype)
        out: Tensor = self.model.feature_extractor(there).transpose(1, 2)
        return out

    def context(self, features: Tensor) -> Tensor:
        """Features [B, T, C] to hidden states [B, T, d], all of them seeing all."""
        hidden, _ = self.model.feature_projection(features)
        out: Tensor = self.model.encoder(hidden).last_hidden_state
        return out

    def listen(self, wav: Float32) -> Tensor:
        """A clip's features [1, 2 F, C] for F = (N - 80) // 640 frames, levelled as the stream does it."""
        frames = (len(wav) - TAIL) // FRAME
        if frames < 1:
            raise ValueError(f"{FRAME + TAIL} samples at least are needed, got {len(wav)}")
        level = Leveller(self.config)
        cuts = [level.push(wav[i * FRAME : (i + 1) * FRAME + TAIL].astype(np.float32)) for i in range(frames)]
        return self.features(torch.from_numpy(np.stack(cuts))).reshape(1, 2 * frames, -1)

    @torch.inference_mode()
    def encode(self, wav: Float32) -> Float32:
        """What the stream gives for the same sound, float32 [2 F, d]: every window of the clip, those alike at once."""
        features = self.listen(wav)
        frames = features.shape[1] // 2
        spans = [self.config.span(i, frames) for i in range(frames)]
        out: dict[int, Tensor] = {}
        for length in sorted({end - start for start, end in spans}):
            alike = [i for i, (start, end) in enumerate(spans) if end - start == length]
            for part in (alike[at : at + 16] for at in range(0, len(alike), 16)):
                cut = torch.cat([features[:, 2 * spans[i][0] : 2 * spans[i][1]] for i in part])
                for i, hidden in zip(part, self.context(cut), strict=True):
                    out[i] = hidden[2 * (i - spans[i][0]) :][:2]
        told: Float32 = torch.cat([out[i] for i in range(frames)]).float().cpu().numpy()
        return told

    @torch.inference_mode()
    def encode_whole(self, wav: Float32) -> Float32:
        """The offline pass: every frame sees the whole clip; float32 [2 F, d]."""
        told: Float32 = self.context(self.listen(wav))[0].float().cpu().numpy()
        return told


def _receptive(kernels: Iterable[int], strides: Iterable[int]) -> int:
    reach, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        reach += (kernel - 1) * step
        step *= stride
    return reach


@dataclass(slots=True)
class _State:
    """All that a stream remembers."""

    level: Leveller
    features: deque[Tensor]
    pending: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    heard: int = 0
    made: int = 0
    origin: int | None = None
    ended: bool = False


class RollingStream:
    """`Stage[AudioChunk, AudioTokens]` over a shared encoder; see the card of this file."""

    def __init__(self, encoder: RollingEncoder) -> None:
        self._encoder = encoder
        self.reset()

    @property
    def latency(self) -> int:
        """The frame, the look-ahead, and 80 samples that the last token reaches into."""
        return (1 + self._encoder.config.look_ahead) * FRAME_TICKS + TAIL * SAMPLE_TICKS

    def reset(self) -> None:
        """Forget everything; the next push starts a new stream at its own `pts`."""
        config = self._encoder.config
        self._state = _State(Leveller(config), deque(maxlen=config.window))

    def push(self, x: AudioChunk) -> list[AudioTokens]:
        """Raises StreamError when the sound is not 16 kHz, does not join on to the sound before, or has ended."""
        st = self._state
        if st.ended:
            raise StreamError("wav2vec stream: push after flush; reset it first")
        if x.rate_hz != MODEL_RATE_HZ:
            raise StreamError(f"wav2vec stream: {MODEL_RATE_HZ} Hz expected, got {x.rate_hz} Hz; resample first")
        st.origin = x.pts if st.origin is None else st.origin
        expected = st.origin + (st.heard * FRAME + len(st.pending)) * SAMPLE_TICKS
        if x.pts != expected:
            raise StreamError(f"wav2vec stream: sound at {x.pts} does not join on to {expected}; fill the gap first")
        st.pending = np.concatenate([st.pending, x.samples.astype(np.float32, copy=False)])
        return self._drain()

    def flush(self) -> list[AudioTokens]:
        """The rest, padded with silence to whole frames; the last frames do without what they would have waited for."""
        st = self._state
        st.ended = True
        whole = math.ceil(len(st.pending) / FRAME) * FRAME + TAIL if len(st.pending) else 0
        st.pending = np.pad(st.pending, (0, whole - len(st.pending)))
        ready = self._drain()
        while st.made < st.heard:
            ready.append(self._make())
        return ready

    def _drain(self) -> list[AudioTokens]:
        st, ready = self._state, []
        while len(st.pending) >= FRAME + TAIL:
            levelled = st.level.push(st.pending[: FRAME + TAIL])
            with torch.inference_mode():
                st.features.append(self._encoder.features(torch.from_numpy(levelled)[None]))
            st.pending = st.pending[FRAME:]
            st.heard += 1
            if st.heard - st.made > self._encoder.config.look_ahead:
                ready.append(self._make())
        return ready

    def _make(self) -> AudioTokens:
        st = self._state
        assert st.origin is not None
        start, end = self._encoder.config.span(st.made, st.heard)
        kept = list(st.features)[start - st.heard : len(st.features) - (st.heard - end)]
        with torch.inference_mode():
            hidden = self._encoder.context(torch.cat(kept, 1))[0]
        tokens = hidden[2 * (st.made - start) :][:2].float().cpu().numpy()
        pts = st.origin + st.made * FRAME_TICKS
        st.made += 1
        return AudioTokens(pts, tokens)


def measure_statistics(model: Any, speech: Iterable[Float32], config: RollingConfig | None = None
                       ) -> tuple[Tensor, Tensor]:
    """Mean and variance [C] of what the first convolution gives over speech at 16 kHz, levelled as the stream does it.

    Some minutes of several voices are plenty. Raises ValueError when there is no sound.
    """
    conv, config = model.feature_extractor.conv_layers[0].conv, config or RollingConfig()
    total, squares, count = torch.zeros(conv.out_channels), torch.zeros(conv.out_channels), 0
    for wav in speech:
        level = Leveller(config)
        for at in range(0, len(wav) - FRAME - TAIL + 1, FRAME):
            with torch.inference_mode():
                window = torch.from_numpy(level.push(wav[at : at + FRAME + TAIL].astype(np.float32)))
                y = conv(window[None, None])[0].double()
            total, squares, count = total + y.sum(1), squares + y.square().sum(1), count + y.shape[1]
    if not count:
        raise ValueError("no sound to measure the normalisation over")
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp(min=1e-12).float()


def save_statistics(path: Path, statistics: tuple[Tensor, Tensor]) -> str:
    """Write them beside the checkpoint; returns the hash."""
    mean, var = statistics
    return save_weights(path, KIND, {"channels": len(mean)}, {"mean": mean, "var": var}, half=False)


def load_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Raises WeightsError."""
    _, tensors = read_weights(path, KIND)
    if not {"mean", "var"} <= tensors.keys():
        raise WeightsError(f"{path} holds no mean and variance")
    return tensors["mean"], tensors["var"]


def load_wav2vec2(where: str) -> Any:
    """`Wav2Vec2Model` from a local folder or by hub id, eval mode. Raises WeightsError."""
    from transformers import Wav2Vec2Model

    folder = Path(where)
    if not folder.is_dir() and (folder.is_absolute() or where.count("/") != 1 or where.startswith((".", "~"))):
        raise WeightsError(f"there is no folder {where}; name one with a wav2vec2 (config.json, model.safetensors), or "
                           f"a hub id that can be reached from here, such as facebook/wav2vec2-base")
    try:
        return Wav2Vec2Model.from_pretrained(where, dtype=torch.float32).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as e:
        raise WeightsError(f"no wav2vec2 can be loaded from {where}: {' '.join(str(e).split())[:300]}") from e


def load_rolling(where: str, statistics: Path | None, config: RollingConfig | None = None) -> RollingEncoder:
    """The encoder of a checkpoint and its statistics file. Raises WeightsError."""
    measured = None if statistics is None else load_statistics(statistics)
    return RollingEncoder(load_wav2vec2(where), config or RollingConfig(), measured)
