"""Is anybody speaking? Silero's voice activity network, with its state in the open.

In: AudioChunk at 16 kHz. Out: one VadWindow for each 512 samples (32 ms). Remembers: `VadState`: the LSTM's h and c,
the last 64 samples, the unfinished window. Latency: 1536 ticks, the window itself.

The network is silero-vad v6 (MIT, github.com/snakers4/silero-vad): magnitude STFT, four convolutions, one LSTM cell.
Its weights come inside the `silero-vad` package, in a TorchScript module that hides its state inside itself, so that
two people would share it: the weights are taken out of that file and the network is written out here. The safetensors
file beside it holds the weights of an older network (probabilities differ by up to 0.3). The package is not imported,
for its import sets torch's thread count for the whole process.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from svp_stream.audio.timeline import Timeline
from svp_stream.clock import MODEL_RATE_HZ, ticks_per_sample
from svp_stream.errors import WeightsError
from svp_stream.packets import AudioChunk, Float32, VadWindow

WINDOW_SAMPLES = 512
WINDOW_TICKS = WINDOW_SAMPLES * ticks_per_sample(MODEL_RATE_HZ)
CONTEXT_SAMPLES = 64
_HIDDEN = 128
_BINS = 129
_NAMES = {
    "_model.stft.forward_basis_buffer": "stft_conv.weight",
    "_model.encoder.0.reparam_conv": "conv1",
    "_model.encoder.1.reparam_conv": "conv2",
    "_model.encoder.2.reparam_conv": "conv3",
    "_model.encoder.3.reparam_conv": "conv4",
    "_model.decoder.rnn": "lstm_cell",
    "_model.decoder.decoder.2": "final_conv",
}


class SileroNet(nn.Module):
    """One window of sound and the recurrent state to a probability and the next state."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * _BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(_BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, _HIDDEN, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(_HIDDEN, _HIDDEN)
        self.final_conv = nn.Conv1d(_HIDDEN, 1, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, 64 + 512], h and c [B, 128] to probability [B], h, c."""
        x = nn.functional.pad(x.unsqueeze(1), (0, CONTEXT_SAMPLES), mode="reflect")
        spectrum = self.stft_conv(x)
        y = (spectrum[:, :_BINS].square() + spectrum[:, _BINS:].square()).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            y = conv(y).relu()
        h, c = self.lstm_cell(y.squeeze(-1), (h, c))
        probability = self.final_conv(h.relu().unsqueeze(-1)).sigmoid()
        return probability.flatten(), h, c


class Vad:
    """The shared, immutable network; `stream()` gives each person a light stream over it."""

    def __init__(self, net: SileroNet) -> None:
        self._net = net.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path | None = None) -> Vad:
        """Read the 16 kHz network of `silero_vad.jit`, by default the installed one; raises WeightsError."""
        path = path or _packaged_weights()
        net = SileroNet()
        try:
            net.load_state_dict(_read_weights(path))
        except (OSError, RuntimeError, ValueError) as e:
            raise WeightsError(f"{path} holds no 16 kHz network of silero-vad 6 ({e}); reinstall silero-vad") from e
        return cls(net)

    def stream(self) -> VadStream:
        """A fresh stream for one person."""
        return VadStream(self._net)


@dataclass(slots=True)
class VadState:
    """All that one person's stream remembers: h, c [1, 128], `context` [64], `partial` [under 512] at `pts`."""

    pts: int = 0
    h: Tensor = field(default_factory=lambda: torch.zeros(1, _HIDDEN))
    c: Tensor = field(default_factory=lambda: torch.zeros(1, _HIDDEN))
    context: Float32 = field(default_factory=lambda: np.zeros(CONTEXT_SAMPLES, np.float32))
    partial: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))


class VadStream:
    """A `Stage[AudioChunk, VadWindow]`; windows lie on a grid that starts with the stream."""

    def __init__(self, net: SileroNet) -> None:
        self._net = net
        self._timeline = Timeline(MODEL_RATE_HZ)
        self._state = VadState()

    @property
    def latency(self) -> int:
        """One window: it is judged when its last sample is there."""
        return WINDOW_TICKS

    def push(self, x: AudioChunk) -> list[VadWindow]:
        """Feed sound; raises StreamError as `Timeline.place` does."""
        placed = self._timeline.place(x)
        out: list[VadWindow] = []
        if placed.restart:
            out = self._finish()
            self._state = VadState(pts=placed.pts)
        state = self._state
        silence = np.zeros(placed.silence, np.float32)
        samples = np.concatenate([state.partial, silence, placed.samples])
        whole = len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES
        state.partial = samples[whole:]
        return out + [self._judge(w) for w in samples[:whole].reshape(-1, WINDOW_SAMPLES)]

    def flush(self) -> list[VadWindow]:
        """The unfinished window, completed with silence."""
        self._timeline.close()
        return self._finish()

    def reset(self) -> None:
        """Forget the voice and the time."""
        self._timeline.reset()
        self._state = VadState()

    def _finish(self) -> list[VadWindow]:
        rest = self._state.partial
        if not len(rest):
            return []
        self._state.partial = np.zeros(0, np.float32)
        return [self._judge(np.pad(rest, (0, WINDOW_SAMPLES - len(rest))))]

    def _judge(self, window: Float32) -> VadWindow:
        state = self._state
        x = torch.from_numpy(np.concatenate([state.context, window])).unsqueeze(0)
        with torch.inference_mode():
            probability, state.h, state.c = self._net(x, state.h, state.c)
        out = VadWindow(state.pts, float(probability))
        state.pts += WINDOW_TICKS
        state.context = window[-CONTEXT_SAMPLES:].copy()
        return out


def _packaged_weights() -> Path:
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError("the voice activity network comes with the silero-vad package; install silero-vad 6")
    return Path(spec.submodule_search_locations[0], "data", "silero_vad.jit")


def _read_weights(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # torch deprecates TorchScript, the only form in which silero ships these weights for torch.
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    weights: dict[str, Tensor] = {}
    for name, value in script.state_dict().items():
        for theirs, ours in _NAMES.items():
            if name.startswith(theirs):
                weights[ours + name.removeprefix(theirs)] = value.detach().clone()
    return weights
