"""What the sd15 stages learn from: clips as latents, head points, wav2vec2 embeddings and styles, all made once.

In: clips with pictures (`svp corpus`, `svp prepare`), an autoencoder, the streaming wav2vec2, a style prior. Out:
`Sd15Data`, from which batches of F consecutive frames are cut. Remembers: arrays in memory, fp16 latents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svp_stream.arkit import SPEECH_SLICE
from svp_stream.audio.wav2vec import TAIL
from svp_stream.errors import MediaError, WeightsError
from svp_stream.motion.kps import raster_batch
from svp_stream.packets import Bytes, Float32
from svp_stream.style.prior import StylePrior
from svp_stream.synthetic.sidecar import SAMPLES_PER_FRAME
from svp_stream.training.clips import Clip, read_frames

logger = logging.getLogger(__name__)
APART: Final = 30
"""Frames between a clip's reference and the frames it serves, where the clip is that long (V-Express [V])."""
Encode = Callable[[Tensor], Tensor]
"""Pictures [B, 3, H, W] in [-1, 1] to latents [B, 4, h, w]."""
Hear = Callable[[Float32], Float32]
"""Sound [N] at 16 kHz to embeddings [2 F, A]."""


@dataclass(frozen=True)
class Sd15Clip:
    """One clip of T frames: `latents` fp16 [T, 4, h, w], `points` [T, 3, 2] in [0, 1], `eyes` [T, 4] lids and gaze,
    `audio` [2 T, A], `mu`, `log_var` [D], `sound` int16 at 16 kHz; who it shows and whether it is held out."""

    name: str
    avatar: str
    held_out: bool
    latents: Tensor
    points: Float32
    eyes: Float32
    audio: Tensor
    mu: Tensor
    log_var: Tensor
    sound: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.latents)


@dataclass(frozen=True)
class Cut:
    """A batch of B clips of F frames, and the frame before each: `latents` [B, F + 1, 4, h, w], `reference`
    [B, 4, h, w], `kps` [B F, K, s h, s w], `audio`, `heard` [B F, W, ...], `mask` [B F, 1, h, w], `mu`, `log_var`."""

    latents: Tensor
    reference: Tensor
    kps: Tensor
    audio: Tensor
    heard: Tensor
    mask: Tensor
    mu: Tensor
    log_var: Tensor

    def as_batch(self) -> dict[str, Tensor]:
        """For the loop."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def read_clip(
    clip: Clip, size: int, encode: Encode, hear: Hear, prior: StylePrior, hear_style: Hear | None = None
) -> Sd15Clip:
    """Decode, encode and listen once; `hear_style` for the prior, where it was trained with other ears.

    Raises MediaError for a clip without picture.
    """
    rgb, _ = read_frames(clip)
    side = rgb.shape[1]
    wave = np.pad(clip.audio.astype(np.float32) / np.float32(32767), (0, TAIL))
    embeddings, told = (torch.from_numpy(ears(wave)[: 2 * len(rgb)].copy()) for ears in (hear, hear_style or hear))
    mu, log_var = style_of(clip, told, prior)
    return Sd15Clip(
        clip.id, clip.avatar, clip.split != "train", latents_of(rgb, size, encode),
        (clip.kps / np.float32(side)).astype(np.float32), clip.pose[:, 5:9], embeddings, mu, log_var, clip.audio,
    )  # fmt: skip


@torch.no_grad()
def latents_of(rgb: Bytes, size: int, encode: Encode, most: int = 8) -> Tensor:
    """uint8 [T, H, W, 3] to fp16 latents [T, 4, size / 8, size / 8]."""
    parts = []
    for at in range(0, len(rgb), most):
        picture = torch.from_numpy(rgb[at : at + most]).permute(0, 3, 1, 2).float() / 127.5 - 1
        if picture.shape[-1] != size:
            picture = torch.nn.functional.interpolate(picture, (size, size), mode="bilinear", antialias=True)
        parts.append(encode(picture).half().cpu())
    return torch.cat(parts)


@torch.no_grad()
def style_of(clip: Clip, embeddings: Tensor, prior: StylePrior) -> tuple[Tensor, Tensor]:
    """(mu, log_var) [D] of a clip. Raises WeightsError when the prior was trained on other embeddings."""
    told = embeddings.float().reshape(-1, 2, embeddings.shape[1]).mean(1)
    if prior.config.audio_in_style and prior.config.audio_dim != told.shape[1]:
        raise WeightsError(f"the style prior reads audio of {prior.config.audio_dim} numbers, this wav2vec2 gives "
                           f"{told.shape[1]}; name the encoder that the prior was trained with as parts.style_ears")
    expression = torch.from_numpy(clip.expression[:, SPEECH_SLICE])[None]
    mu, log_var = prior.encoder(expression, told[None] if prior.config.audio_in_style else None)
    return mu[0], log_var[0]


class Sd15Data:
    """Clips to learn from and held-out ones; cuts depend on the generator alone."""

    def __init__(self, clips: Sequence[Sd15Clip], around: int, kps_scale: int) -> None:
        self.train = [c for c in clips if not c.held_out and len(c) > 2]
        self.held_out = [c for c in clips if c.held_out and len(c) > 2] or self.train
        if not self.train:
            raise MediaError("no clip to train on: give a corpus with pictures whose split is train")
        self._around, self._scale = around, kps_scale

    def longest(self, *, held_out: bool = False) -> int:
        """Most frames that a cut can have."""
        return max(len(c) for c in (self.held_out if held_out else self.train)) - 1

    def cut(self, rng: np.random.Generator, size: int, frames: int, *, held_out: bool = False) -> Cut:
        """`size` clips of `frames` frames. Raises MediaError when no clip is that long."""
        long = [c for c in (self.held_out if held_out else self.train) if len(c) > frames]
        if not long:
            raise MediaError(f"no clip is longer than {frames} frames; use a smaller `frames`")
        return self._joined([self._row(long[int(rng.integers(len(long)))], frames, rng) for _ in range(size)])

    def scene(self, frames: int) -> tuple[Cut, NDArray[np.int16]]:
        """The beginning of the longest held-out clip, up to `frames` frames, and its sound."""
        clip = max(self.held_out, key=len)
        count = min(frames, len(clip) - 1)
        cut = self._joined([self._row(clip, count, np.random.default_rng(0), start=1)])
        return cut, clip.sound[SAMPLES_PER_FRAME : (count + 1) * SAMPLES_PER_FRAME]

    @staticmethod
    def _joined(rows: list[dict[str, Tensor]]) -> Cut:
        joined: dict[str, Tensor] = {}
        for name in Cut.__dataclass_fields__:
            parts = [row[name] for row in rows]
            whole = name in ("latents", "reference", "mu", "log_var")
            joined[name] = torch.stack(parts) if whole else torch.cat(parts)
        return Cut(**joined)

    def _row(
        self, clip: Sd15Clip, frames: int, rng: np.random.Generator, start: int | None = None
    ) -> dict[str, Tensor]:
        start = int(rng.integers(1, len(clip) - frames + 1)) if start is None else start
        at = np.arange(start, start + frames)
        far = np.flatnonzero(np.abs(np.arange(len(clip)) - start) >= min(APART, len(clip) // 2))
        cells = clip.latents.shape[-1]
        audio, heard = self._windows(clip.audio, at)
        return {
            "latents": clip.latents[start - 1 : start + frames].float(),
            "reference": clip.latents[int(rng.choice(far))].float(),
            "kps": torch.from_numpy(raster_batch(clip.points[at], clip.eyes[at], cells * self._scale)),
            "audio": audio, "heard": heard, "mask": mouth_mask(clip.points[at], cells),
            "mu": clip.mu, "log_var": clip.log_var,
        }  # fmt: skip

    def _windows(self, audio: Tensor, frames: Any) -> tuple[Tensor, Tensor]:
        offset = torch.arange(-2 * self._around, 2 + 2 * self._around)
        at = 2 * torch.from_numpy(frames)[:, None] + offset
        heard = ((at >= 0) & (at < len(audio))).float()
        return audio[at.clamp(0, len(audio) - 1)].float(), heard


def mouth_mask(points: Float32, cells: int) -> Tensor:
    """1 in a disc about the mouth, float32 [N, 1, cells, cells]: below the middle of the eyes by 1.1 of their distance
    along the face, of radius 0.7 [R]."""
    middle, across = points[:, :2].mean(1), points[:, 1] - points[:, 0]
    d = np.linalg.norm(across, axis=1)[:, None]
    down = np.stack([-across[:, 1], across[:, 0]], 1)
    centre = middle + 1.1 * down
    grid = (np.arange(cells) + 0.5) / cells
    x, y = grid[None, None, :] - centre[:, 0, None, None], grid[None, :, None] - centre[:, 1, None, None]
    inside = (x**2 + y**2 < (0.7 * d[..., None]) ** 2).astype(np.float32)
    return torch.from_numpy(inside)[:, None]
