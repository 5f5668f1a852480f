"""A small SyncNet of our own: do these five mouths belong to this fifth of a second of sound?

In: mouths uint8 [T, 48, 96] (grey, cut by HEAD-Kps, so that the cut itself knows nothing of the lips) and sound int16
[T * 640]. Out: unit vectors [T - 4, 128] for each; from them the offset, its accuracy, and a confidence.
Remembers: nothing.

After Chung and Zisserman 2016 in idea (two towers, one space); the contrast is InfoNCE (see `syncnet_training`).
Sync-C = median - min over shifts of the mean distance, Sync-D = the min, as joonson/syncnet_python computes them; but
the network and so the numbers are ours: never beside those of a paper that used the public SyncNet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.audio.wav2vec import TAIL
from svp_stream.errors import MediaError
from svp_stream.evaluation.metrics import FRAME_MS
from svp_stream.packets import Bytes, Float32
from svp_stream.training.clips import Clip, read_frames
from svp_stream.training.mel import LogMel
from svp_stream.weights_file import load_into, read_weights, save_module

KIND: Final = "syncnet"
WEIGHTS: Final = "syncnet.safetensors"
WINDOW: Final = 5
HIGH, WIDE = 48, 96
BANDS: Final = 40
MOST_SHIFT: Final = 15
MOUTH: Final = (1.6, 1.15)
"""Width of the mouth's box, and how far its middle lies below the eyes, in distances between the eyes."""
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """Widths of the four levels of the tower of pictures; the tower of sound has the last three."""

    widths: tuple[int, int, int, int] = (16, 32, 64, 96)
    dim: int = 128


class SyncNet(nn.Module):
    """Two towers of strided convolutions into one space."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c, d = config.widths
        self.mel = LogMel(BANDS)
        self.eyes = nn.Sequential(
            nn.Conv2d(WINDOW, a, 5, 2, 2), nn.SiLU(), nn.Conv2d(a, b, 3, 2, 1), nn.SiLU(),
            nn.Conv2d(b, c, 3, 2, 1), nn.SiLU(), nn.Conv2d(c, d, 3, 2, 1), nn.SiLU(), nn.Flatten(),
            nn.Linear(d * 3 * 6, config.dim),
        )  # fmt: skip
        self.ears = nn.Sequential(
            nn.Conv2d(1, b, 3, 1, 1), nn.SiLU(), nn.Conv2d(b, c, 3, (1, 2), 1), nn.SiLU(),
            nn.Conv2d(c, d, 3, 2, 1), nn.SiLU(), nn.Flatten(), nn.Linear(d * 5 * 10, config.dim),
        )  # fmt: skip
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def look(self, mouths: Tensor) -> Tensor:
        """[B, 5, 48, 96] in [-1, 1] to features [B, d], not of unit length."""
        out: Tensor = self.eyes(mouths)
        return out

    def listen(self, mel: Tensor) -> Tensor:
        """Log-mel [B, 10, 40] to features [B, d]."""
        out: Tensor = self.ears(mel[:, None])
        return out

    @torch.inference_mode()
    def seen(self, mouths: Bytes) -> Float32:
        """Features float32 [T - 4, d] of every five mouths of uint8 [T, 48, 96]."""
        planes = torch.from_numpy(np.ascontiguousarray(mouths)).float() / 127.5 - 1
        windows = planes.unfold(0, WINDOW, 1).permute(0, 3, 1, 2)
        return torch.cat([self.look(windows[i : i + _BATCH]) for i in range(0, len(windows), _BATCH)]).numpy()

    @torch.inference_mode()
    def heard(self, audio: NDArray[np.int16]) -> Float32:
        """Features float32 [T - 4, d] of every 200 ms of int16 [T * 640], a step a frame."""
        mel = log_mel(self.mel, audio)
        windows = mel.unfold(0, 2 * WINDOW, 2).permute(0, 2, 1)
        return torch.cat([self.listen(windows[i : i + _BATCH]) for i in range(0, len(windows), _BATCH)]).numpy()


def log_mel(mel: LogMel, audio: NDArray[np.int16]) -> Tensor:
    """[2T, 40] of int16 [T * 640]: two spectra a frame."""
    padded = np.pad(audio, (0, TAIL)).astype(np.float32) / 32768
    out: Tensor = mel(torch.from_numpy(padded)[None])[0]
    return out


def mouths(rgb: Bytes, kps: Float32) -> Bytes:
    """Grey mouths uint8 [T, 48, 96] of pictures [T, H, W, 3] by HEAD-Kps [T, 3, 2] in their pixels.

    The size of the box is constant over the clip; its place follows the eyes and, sideways, the nose.
    """
    if len(rgb) != len(kps):
        raise MediaError(f"{len(rgb)} pictures and {len(kps)} sets of key points; one for each is needed")
    unit = float(np.median(np.linalg.norm(kps[:, 0] - kps[:, 1], axis=1)))
    wide, high = MOUTH[0] * unit, MOUTH[0] * unit * HIGH / WIDE
    across = (kps[:, :2, 0].mean(1) + kps[:, 2, 0]) / 2
    down = kps[:, :2, 1].mean(1) + MOUTH[1] * unit
    out = np.empty((len(rgb), HIGH, WIDE), np.uint8)
    side = rgb.shape[2], rgb.shape[1]
    for n, picture in enumerate(rgb):
        left = float(np.clip(across[n] - wide / 2, 0, max(side[0] - wide, 0)))
        top = float(np.clip(down[n] - high / 2, 0, max(side[1] - high, 0)))
        box = (left, top, min(left + wide, side[0]), min(top + high, side[1]))
        grey = Image.fromarray(picture).convert("L")
        out[n] = np.asarray(grey.resize((WIDE, HIGH), Image.Resampling.BILINEAR, box=box))
    return out


def shift_distances(seen: Float32, heard: Float32, most: int = MOST_SHIFT) -> Float32:
    """Distances [T', 2 * most + 1] of unit vectors: row t against the sound `most` steps before to `most` after.

    Only rows for which every shift exists. Raises ValueError for tracks that are too short, or not of one length.
    """
    if seen.shape != heard.shape or len(seen) <= 2 * most:
        raise ValueError(f"expected two tracks of one length above {2 * most}, got {seen.shape} and {heard.shape}")
    v, a = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6) for x in (seen, heard))
    rows = np.arange(most, len(v) - most)
    columns = [np.linalg.norm(v[rows] - a[rows + s], axis=1) for s in range(-most, most + 1)]
    return np.stack(columns, 1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Sync:
    """Of one clip: `confidence` (Sync-C), `distance` (Sync-D), `offset_ms` by which the picture is behind the sound,
    `accuracy` share of single windows whose nearest sound is within one frame."""

    confidence: float
    distance: float
    offset_ms: float
    accuracy: float


def sync_scores(distances: Float32) -> Sync:
    """From `shift_distances`; shift s > 0 is sound after the picture, so the picture is then ahead."""
    mean = distances.mean(0)
    most = (len(mean) - 1) // 2
    best = int(mean.argmin())
    near = np.abs(distances.argmin(1) - most) <= 1
    return Sync(float(np.median(mean) - mean[best]), float(mean[best]), -(best - most) * FRAME_MS, float(near.mean()))


def measure_sync(net: SyncNet, rgb: Bytes, kps: Float32, audio: NDArray[np.int16]) -> Sync | None:
    """Of a clip in arrays; None for one of less than 1.6 s."""
    if len(rgb) < 2 * MOST_SHIFT + WINDOW + 5:
        return None
    return sync_scores(shift_distances(net.seen(mouths(rgb, kps)), net.heard(audio)))


def clip_offset(net: SyncNet, clip: Clip) -> tuple[float, float] | None:
    """(Sync-C, ms by which the picture is behind) of a clip on disk, for `svp prepare`."""
    found = measure_sync(net, read_frames(clip)[0], clip.kps, clip.audio)
    return None if found is None else (found.confidence, found.offset_ms)


def contrast(seen: Tensor, heard: Tensor, clip: Tensor, at: Tensor, scale: Tensor, apart: int = 3) -> Tensor:
    """InfoNCE both ways over a batch: features [B, d] of windows `at` [B] (frames) of clips `clip` [B].

    Windows of one clip that are less than `apart` frames from each other are no negatives.
    """
    logits = F.normalize(seen, dim=1) @ F.normalize(heard, dim=1).T * scale
    same = clip[:, None] == clip[None]
    near = same & ((at[:, None] - at[None]).abs() < apart) & ~torch.eye(len(at), dtype=torch.bool)
    logits = logits.masked_fill(near, -torch.inf)
    target = torch.arange(len(at))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def save_syncnet(path: Path, net: SyncNet) -> str:
    """Write `syncnet.safetensors` in half precision; returns its hash."""
    return save_module(path, KIND, asdict(net.config), net, half=True)


def load_syncnet(path: Path) -> SyncNet:
    """Read it; raises WeightsError."""
    config, tensors = read_weights(path, KIND)
    net = SyncNet(SyncConfig(**config | {"widths": tuple(config["widths"])}))
    load_into(net, tensors, path)
    return net
