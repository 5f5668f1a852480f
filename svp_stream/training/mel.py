"""Log-mel spectrum on the encoder's own grid: the pretext target of the audio stage, and a picture for people.

In: sound [B, N] at 16 kHz. Out: [B, T, bands], token t from the same 400 samples as the encoder's token t.
Remembers: nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from svp_stream.audio.wav2vec import HOP, RECEPTIVE
from svp_stream.clock import MODEL_RATE_HZ
from svp_stream.packets import Float32


def mel_bank(bands: int, bins: int) -> Float32:
    """[bands, bins]: triangles of equal width on O'Shaughnessy's scale (2595 log10(1 + f / 700)), 50 Hz to Nyquist."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (50.0, MODEL_RATE_HZ / 2))
    edges = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    hz = np.linspace(0, MODEL_RATE_HZ / 2, bins)
    rising = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


class LogMel(nn.Module):
    """Natural logarithm of mel energies, centred and scaled to about unit variance for levelled speech."""

    def __init__(self, bands: int = 40) -> None:
        super().__init__()
        self.bands = bands
        self.window: Tensor
        self.bank: Tensor
        self.register_buffer("window", torch.hann_window(RECEPTIVE), persistent=False)
        self.register_buffer("bank", torch.from_numpy(mel_bank(bands, RECEPTIVE // 2 + 1)), persistent=False)

    @torch.no_grad()
    def forward(self, wav: Tensor) -> Tensor:
        """[B, N] to [B, (N - 80) // 320, bands], float32."""
        frames = wav.float().unfold(1, RECEPTIVE, HOP) * self.window
        with torch.autocast(wav.device.type, enabled=False):
            power = torch.fft.rfft(frames).abs().square() @ self.bank.T
        scaled: Tensor = ((power + 1e-2).log() - 1.0) / 3.0
        return scaled
