"""Either way to stream wav2vec2: a checkpoint over a rolling window, or its distilled causal copy with a readout.

In: names of models and files. Out: `Ears`, shared by all sessions: fresh streams, and whole clips for training.
Remembers: nothing; the streams do. Latency: declared by the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn

from svp_stream.audio.wav2vec import Wav2VecEncoder, Wav2VecStream, load_encoder
from svp_stream.audio.wav2vec_rolling import RollingConfig, RollingEncoder, RollingStream, load_rolling
from svp_stream.errors import WeightsError
from svp_stream.packets import Float32
from svp_stream.weights_file import read_weights

READOUT_KIND: Final = "wav2vec-readout"


@dataclass(frozen=True)
class Ears:
    """`readout` maps the causal copy's tokens to the checkpoint's width; None where there is nothing to map."""

    encoder: RollingEncoder | Wav2VecEncoder
    readout: nn.Linear | None = None

    @property
    def width(self) -> int:
        """Numbers of one embedding."""
        if self.readout is not None:
            return self.readout.out_features
        return self.encoder.width if isinstance(self.encoder, RollingEncoder) else self.encoder.config.width

    def stream(self) -> RollingStream | Wav2VecStream:
        """A fresh stream of hidden states; hand them to `told`."""
        rolling = isinstance(self.encoder, RollingEncoder)
        return RollingStream(self.encoder) if rolling else Wav2VecStream(self.encoder)  # type: ignore[arg-type]

    @torch.inference_mode()
    def told(self, tokens: Float32) -> Float32:
        """Embeddings [N, d] in the checkpoint's width."""
        if self.readout is None:
            return tokens
        wide: Float32 = self.readout(torch.from_numpy(tokens)).numpy()
        return wide

    @torch.inference_mode()
    def encode(self, wav: Float32) -> Float32:
        """A whole clip as the stream would give it, float32 [2 F, width] for F = (N - 80) // 640 frames."""
        if isinstance(self.encoder, RollingEncoder):
            return self.encoder.encode(wav)
        return self.told(self.encoder.encode(torch.from_numpy(wav)[None])[0].numpy())


def open_ears(model: str, norm: Path | None, readout: Path | None, window: int, look_ahead: int) -> Ears:
    """`model`: a checkpoint by folder or hub id, or the .safetensors of a causal copy. Raises WeightsError."""
    if not model.endswith(".safetensors"):
        try:
            return Ears(load_rolling(model, norm, RollingConfig(window=window, look_ahead=look_ahead)))
        except ValueError as e:
            raise WeightsError(f"{model}: {e}") from e
    encoder = load_encoder(Path(model))
    if readout is None:
        return Ears(encoder)
    _, tensors = read_weights(readout, READOUT_KIND)
    linear = nn.Linear(encoder.config.width, len(tensors["bias"]))
    linear.load_state_dict(tensors)
    return Ears(encoder, linear.eval().requires_grad_(False))
