"""What an sd15 engine costs: arithmetic a frame, memory, and how many sessions fit.

In: the engine's models. Out: `Cost`, in numbers and in words; `require_room` refuses before memory runs out.
Remembers: nothing. Arithmetic is counted on the meta device by torch's own counter (`torch.utils.flop_counter`), on
the same code that makes the frames, without making any.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from svp_stream.audio.wav2vec import TAIL, Wav2VecEncoder
from svp_stream.audio.wav2vec_rolling import FRAME, RollingEncoder
from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.diffusion.sd15 import Sd15, level_of
from svp_stream.diffusion.sd15_attention import Layers
from svp_stream.errors import EngineError

CPU_GFLOPS: Final = 100.0
"""What two ordinary cores do in fp32; only for the warning."""
SPARE: Final = 1.25
"""Room for activations and the allocator on top of the weights."""


@dataclass(frozen=True, slots=True)
class Cost:
    """`warm`, `cold`: floating point operations of a frame in one step and of one begun afresh, decoder and encoder
    included (a multiplication and an addition are two). Bytes of the weights and of what one session keeps; `free` is
    what the device has left for sessions, None where it cannot be told."""

    warm: float
    cold: float
    weights: int
    session: int
    free: int | None
    device: str

    @property
    def sessions(self) -> int | None:
        """How many sessions' memory fits."""
        return None if self.free is None else max(0, self.free // max(1, self.session))

    @property
    def needed_tflops(self) -> float:
        """Sustained TFLOP/s for one session at 25 frames a second."""
        return self.warm * FRAME_RATE_HZ / 1e12

    def text(self) -> str:
        """One line for people."""
        fit = "unknown" if self.sessions is None else str(self.sessions)
        return (
            f"sd15 on {self.device}: {self.warm / 1e9:.4g} GFLOP a frame (cold start {self.cold / 1e9:.4g}), "
            f"{self.needed_tflops:.3g} TFLOP/s for each session at {FRAME_RATE_HZ} fps; weights {_size(self.weights)}, "
            f"a session {_size(self.session)}; memory for {fit} sessions"
        )


def count_flops(model: Sd15, vae: Any, cells: int, steps: tuple[int, int]) -> tuple[float, float]:
    """(warm, cold) operations of denoising in so many steps and decoding a latent of `cells`, on the meta device."""
    from diffusers import UNet2DConditionModel

    # The twin must be the base without our graft: its configuration is the base's.
    with torch.device("meta"):
        twin = Sd15(UNet2DConditionModel.from_config(dict(model.unet.config)), model.config).requires_grad_(False)
        decoder = type(vae).from_config(dict(vae.config)).requires_grad_(False)
        audio, c = twin.config.audio, twin.config
        latent, one = torch.empty(1, 4, cells, cells), torch.ones(1)
        kps = torch.empty(1, c.kps_fields, cells * c.kps_scale, cells * c.kps_scale)
        heard = torch.empty(1, audio.window, audio.audio_dim), torch.ones(1, audio.window)
        with torch.no_grad():
            style = twin.style_keys(torch.empty(1, 16, twin.token_width))
            reference = twin.read_reference(latent)
            past = _past(twin, reference.sink)
            with FlopCounterMode(display=False) as once:
                steering = twin.steer(kps, *heard, style, one, reference)
                decoder.decode(latent)
            with FlopCounterMode(display=False) as step:
                twin(latent, torch.zeros(1, dtype=torch.long), latent, one, steering, past)
    warm, cold = (float(once.get_total_flops() + n * step.get_total_flops()) for n in steps)
    return warm, cold


def count_hearing(encoder: RollingEncoder | Wav2VecEncoder) -> float:
    """Operations of wav2vec2 for one video frame, on the meta device."""
    with torch.no_grad():
        if isinstance(encoder, Wav2VecEncoder):
            with torch.device("meta"):
                small = Wav2VecEncoder(encoder.config).requires_grad_(False)
                window, state = torch.empty(1, encoder.config.window), small.initial()
                with FlopCounterMode(display=False) as counted:
                    small.step(window, state)
            return float(counted.get_total_flops())
        with torch.device("meta"):
            twin = type(encoder.model)(encoder.model.config).eval().requires_grad_(False)
            with FlopCounterMode(display=False) as counted:
                twin.feature_extractor(torch.empty(1, FRAME + TAIL))
                width = encoder.model.config.conv_dim[-1]
                hidden, _ = twin.feature_projection(torch.empty(1, 2 * encoder.config.window, width))
                twin.encoder(hidden)
    return float(counted.get_total_flops())


def _past(model: Sd15, sink: Layers) -> Layers:
    window = model.config.temporal_window
    return {n: (k.expand(-1, window, -1, -1), v.expand(-1, window, -1, -1)) for n, (k, v) in sink.items()}


def session_bytes(model: Sd15, cells: int) -> int:
    """What one session keeps: keys and values of the past, of the reference and of the style, and latents."""
    numbers, width = 0, model.dtype.itemsize
    for name, layer in model.adapters["temporal"].items():  # type: ignore[operator]
        side = max(1, cells >> level_of(model.unet, name.replace("/", ".")))
        numbers += 2 * model.config.temporal_window * layer.to_q.in_features * side**2
    for layer in model.adapters["style"].values():  # type: ignore[operator]
        numbers += 2 * 16 * layer.to_k.out_features
    return numbers * width + 16 * cells * cells * 4


def weight_bytes(*modules: nn.Module) -> int:
    """Of all parameters and buffers, each counted once."""
    seen = {id(t): t.numel() * t.itemsize for m in modules for t in (*m.parameters(), *m.buffers())}
    return sum(seen.values())


def free_bytes(device: torch.device) -> int | None:
    """Memory left on a GPU, or in the machine; None where neither tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def require_room(needed: int, device: torch.device, what: str) -> None:
    """Raises EngineError when `what` will not fit, with what can be done."""
    free, wanted = free_bytes(device), int(SPARE * needed)
    if free is not None and wanted > free:
        raise EngineError(
            f"too little memory on {device}: {what} needs about {_size(wanted)}, {_size(free)} are free. End other "
            f"programs, use a device with more memory, train with reference: shared (half the weights) or a smaller "
            f"temporal_window, or take `--engine mini`"
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
