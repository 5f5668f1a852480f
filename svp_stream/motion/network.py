"""The network of learned motion: what a person in some style does with head, lids and gaze, a frame at a time.

What it is: two small stacks of causal dilated convolutions (after WaveNet, arXiv 1609.03499) over the same conditions.
`events` tells how likely a saccade and a blink are in this frame and where the eyes would go (a point process, so that
fixations stay still and blinks stay whole). `head` turns coloured noise into movement: it says how much of each noise
goes where, and what voice and nods add. A stack sees 2.5 s, so that nothing it did earlier can lead it astray. That a
head is made of noise under a proper score follows engression (Shen and Meinshausen, arXiv 2307.00835).

In: conditions of a run of frames [B, T, ...]. Out: logits, mixtures, head goals. Remembers: nothing; `learned` runs the
same weights frame by frame. Latency: none, both are causal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from svp_stream.errors import WeightsError
from svp_stream.motion.colours import COLOURS
from svp_stream.weights_file import load_into, read_weights, save_weights

KIND: Final = "motion"
HEAD: Final = 5
"""Yaw, pitch, roll in degrees, dx, dy in fractions of the picture."""
WHITE: Final = 3
DRIVE: Final = 6
"""Stress, its rise, speaking, addressed, listening, idle."""
HISTORY: Final = 11
"""What the eyes have been doing: see `learned.history`."""
BOOK: Final = 16
"""Blinks kept as they were seen, closure of the left and the right lid over `BLINK_FRAMES`."""
BLINK_FRAMES: Final = 10
TAPS: Final = 3
WAITS_S: Final = (0.15, 0.5, 1.5)
DOUBLE_FRAMES: Final = (6, 11)
"""Frames after a blink began in which another may follow at once; none begins before."""


@dataclass(frozen=True, slots=True)
class MotionConfig:
    """Sizes; stored with the weights."""

    style_dim: int = 128
    audio_dim: int = 192
    manner: int = 24
    voice: int = 8
    events: int = 32
    event_dilations: tuple[int, ...] = (1, 2, 4, 8)
    head: int = 48
    head_dilations: tuple[int, ...] = (1, 2, 4, 8, 16)
    targets: int = 4

    def __post_init__(self) -> None:
        if min(self.style_dim, self.audio_dim, self.manner, self.voice, self.events, self.head, self.targets) < 1:
            raise ValueError(f"sizes of a motion network are positive, got {self}")


class Likelihoods(NamedTuple):
    """Of one frame or many: logit of a saccade [...], its target as a mixture (log weights [..., K], means and log
    deviations [..., K, 2] in tens of degrees), logit of a blink [...]."""

    saccade: Tensor
    weights: Tensor
    means: Tensor
    spreads: Tensor
    blink: Tensor


class CausalStack(nn.Module):
    """[B, T, I] to [B, T, W]: residual convolutions over the frame itself and two before it, `dilations` apart; before
    the first frame lies nothing (zeros)."""

    def __init__(self, inputs: int, width: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.reaches = [(TAPS - 1) * d for d in dilations]
        self.enter = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, TAPS, dilation=d) for d in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = self.enter(x).transpose(1, 2)
        for layer, reach in zip(self.layers, self.reaches, strict=True):
            y = y + nn.functional.silu(layer(nn.functional.pad(y, (reach, 0))))
        out: Tensor = y.transpose(1, 2)
        return out


class MotionNet(nn.Module):
    """See the card. `lid` reads how far the lids hang, in the style and by the height of the gaze."""

    reflex: Tensor
    book: Tensor
    scale: Tensor
    centre: Tensor

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = c = config
        self.manner = nn.Sequential(nn.Linear(c.style_dim, 2 * c.manner), nn.SiLU(), nn.Linear(2 * c.manner, c.manner))
        self.voice = nn.Sequential(nn.LayerNorm(c.audio_dim), nn.Linear(c.audio_dim, c.voice), nn.Tanh())
        given = c.manner + c.voice + DRIVE
        self.events = CausalStack(given + HISTORY, c.events, c.event_dilations)
        self.choose = nn.Sequential(nn.Linear(c.events + c.manner + HISTORY + DRIVE, c.events), nn.SiLU(),
                                    nn.Linear(c.events, 1 + 5 * c.targets))
        self.shut = nn.Sequential(nn.Linear(c.events + c.manner + HISTORY + DRIVE + 1, c.events), nn.SiLU(),
                                  nn.Linear(c.events, 1))
        self.lid = nn.Sequential(nn.Linear(c.manner + 1, c.manner), nn.SiLU(), nn.Linear(c.manner, 1))
        self.head = CausalStack(given + WHITE + 2, c.head, c.head_dilations)
        self.mix = nn.Sequential(nn.Linear(c.head + c.manner, c.head), nn.SiLU(), nn.Linear(c.head, HEAD * COLOURS))
        self.rest = nn.Linear(c.manner, HEAD)
        self.nod = nn.Linear(c.head, HEAD)
        with torch.no_grad():
            for weight in self.mix[-1].parameters():
                weight.mul_(0.3)
        self.register_buffer("reflex", torch.tensor(0.9))
        self.register_buffer("book", torch.zeros(BOOK, 2, BLINK_FRAMES))
        self.register_buffer("scale", torch.ones(HEAD))
        self.register_buffer("centre", torch.zeros(HEAD))

    def conditions(self, manner: Tensor, voice: Tensor, drive: Tensor) -> Tensor:
        """Manner [B, M], voice [B, T, A], drive [B, T, DRIVE] to [B, T, M + V + DRIVE]."""
        spread = manner[:, None].expand(-1, drive.shape[1], -1)
        # Who is silent has no voice: what the room sounds like moves nobody.
        return torch.cat([spread, self.voice(voice) * drive[..., 2:3], drive], dim=-1)

    def likelihoods(self, given: Tensor, history: Tensor, jump: Tensor) -> Likelihoods:
        """Conditions [B, T, G], history [B, T, HISTORY] before each frame, `jump` [B, T]: the size of the saccade that
        begins in the frame itself, in tens of degrees (the blink may answer it)."""
        c = self.config
        h = self.events(torch.cat([given, history], dim=-1))
        told = torch.cat([h, given[..., : c.manner], history, given[..., -DRIVE:]], dim=-1)
        out = self.choose(told)
        pairs = out[..., 1 + c.targets :].unflatten(-1, (2, c.targets, 2))
        blink = self.shut(torch.cat([told, jump[..., None]], dim=-1))[..., 0]
        weights = out[..., 1 : 1 + c.targets].log_softmax(-1)
        return Likelihoods(out[..., 0], weights, pairs[..., 0, :, :], pairs[..., 1, :, :].clamp(-4.5, 1.0), blink)

    def goals(self, given: Tensor, white: Tensor, look: Tensor, colours: Tensor) -> Tensor:
        """Where the head wants to be, [B, T, HEAD] in the pose's units, before it has followed.

        Conditions [B, T, G], white noise [B, T, WHITE], `look` [B, T, 2]: where the eyes rest in the world in tens of
        degrees, coloured noise [B, T, COLOURS].
        """
        manner = given[..., : self.config.manner]
        h = self.head(torch.cat([given, white, look], dim=-1))
        gains = self.mix(torch.cat([h, manner], dim=-1)).unflatten(-1, (HEAD, COLOURS))
        moved = self.rest(manner) + self.nod(h) + (gains * colours[..., None, :]).sum(-1)
        out: Tensor = self.centre + self.scale * moved
        return out

    def lids(self, manner: Tensor, gaze_y: Tensor) -> Tensor:
        """Closure at rest, [...]: manner [..., M], gaze_y [...] in degrees."""
        out: Tensor = self.lid(torch.cat([manner, 0.1 * gaze_y[..., None]], dim=-1))[..., 0]
        return out


def save_motion(path: Path, net: MotionNet, prior: str) -> str:
    """Write `motion.safetensors` in half precision; `prior` is the hash of the style prior whose styles it knows."""
    return save_weights(path, KIND, {"sizes": asdict(net.config), "prior": prior}, net.state_dict(), half=True)


def load_motion(path: Path, prior: str) -> MotionNet:
    """Read what `save_motion` wrote, in eval mode. Raises WeightsError, also when it belongs to another style prior."""
    config, tensors = read_weights(path, KIND)
    try:
        sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["sizes"].items()}
        net, own = MotionNet(MotionConfig(**sizes)), str(config["prior"])
    except (KeyError, TypeError, ValueError) as e:
        raise WeightsError(f"weights {path} have a configuration of another version: {e}") from e
    if own != prior:
        raise WeightsError(f"weights {path} know the styles of prior {own[:12]}, the folder has {prior[:12]}; "
                           "run `svp train motion` with that prior")
    load_into(net, tensors, path)
    return net
