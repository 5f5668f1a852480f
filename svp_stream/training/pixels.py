"""What the denoiser's stages share: latents, references, HEAD-Kps and tokens of every frame, and the weighting of the
loss.

Frames are encoded once. References are cross-fitted (each fold of an avatar's clips is predicted by a fit to the
other), so training sees references as good as those that serving will see, not better.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from svp_stream.arkit import SPEECH_SLICE
from svp_stream.diffusion.appearance import Appearance, face_vector, fit_appearance
from svp_stream.diffusion.conditioner import ConditionerConfig, expression_readout
from svp_stream.diffusion.unet import Conditions
from svp_stream.diffusion.vae import Autoencoder
from svp_stream.motion.kps import HeadGeometry, fit_geometry, project_batch, raster_batch
from svp_stream.packets import Float32
from svp_stream.training.frames import Frames, Indices, to_tensors

logger = logging.getLogger(__name__)
TOKENS = ConditionerConfig().tokens
WIDTH = ConditionerConfig().dim
STYLE_TOKENS = 4
FOLDS = 8
AT_ONCE = 8
"""Frames that are coded together: few enough to stay near a processor's cache (64 take a third longer)."""


@dataclass(frozen=True)
class PixelData:
    """F frames: `latents`, `references` fp16 [F, 4, h, w]; `fields` inputs of the HEAD-Kps raster: `points` [F, 3, 2]
    in [0, 1] and `lids_gaze` [F, 4]; `speech` [F, 42]; `weight` fp16 [F, 1, h, w] of the loss; `tokens` fp16 [F, 8,
    128] and `style` fp16 [F, 4, 128] of the conditioner (None before it is trained)."""

    frames: Frames
    latents: Tensor
    references: Tensor
    points: Float32
    lids_gaze: Float32
    speech: Float32
    weight: Tensor
    tokens: Tensor | None = None
    style: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def conditions(
        self, at: Indices, *, tokens: Tensor, style: Tensor, previous: Tensor, history: Tensor
    ) -> Conditions:
        """Conditions of the frames `at` [B]; the kps raster is drawn here."""
        kps = torch.from_numpy(raster_batch(self.points[at], self.lids_gaze[at], self.latents.shape[-1]))
        ones = torch.ones(len(at))
        return Conditions(previous, self.references[at].float(), kps, tokens, style, ones, history)


@torch.no_grad()
def encode_frames(model: Autoencoder, frames: Frames, work: Path) -> Tensor:
    """Latents fp16 [F, 4, h, w], made once and kept in `work`; those of another encoder, or of other frames, give way
    to them."""
    cache = work / f"latents-{_fingerprint(model, frames)}.npy"
    if cache.is_file():
        return torch.from_numpy(np.load(cache))
    parts = []
    for i in track(range(0, len(frames), AT_ONCE), "coding frames"):
        rgb, _ = to_tensors(frames.pixels[np.arange(i, min(i + AT_ONCE, len(frames)))])
        parts.append(model.encode(rgb.contiguous(memory_format=torch.channels_last)).half())
    latents = torch.cat(parts)
    part = work / ".latents.part.npy"
    np.save(part, latents.numpy())
    for other in work.glob("latents*.npy"):
        other.unlink()
    part.replace(cache)
    return latents


def _fingerprint(model: Autoencoder, frames: Frames) -> str:
    """Sixteen letters that change with any weight of the encoder, the scale, the clips and the number of the frames."""
    made = hashlib.sha256("".join([str(len(frames)), *np.unique(frames.clip).tolist()]).encode())
    for value in (*model.encoder.state_dict().values(), model.shift, model.scale):
        made.update(np.ascontiguousarray(value.float().numpy() + 0.0).tobytes())  # -0 counts as 0
    return made.hexdigest()[:16]


def head_inputs(frames: Frames) -> tuple[Float32, Float32]:
    """Attitude [F, 3] (yaw, pitch, roll) and face vector [F, 46] of frames: what an `Appearance` reads."""
    return frames.pose[:, :3], face_vector(frames.expression[:, SPEECH_SLICE], frames.pose[:, 5:9])


def cross_fitted(frames: Frames, latents: Tensor, train: NDArray[np.bool_]) -> tuple[Tensor, dict[str, Appearance]]:
    """References fp16 of every frame, and each avatar's appearance fitted to all its training frames.

    A training frame's reference comes from a fit to the other folds of its avatar's training clips; a held-out frame's
    from the full fit.
    """
    pose, face = head_inputs(frames)
    references = torch.zeros_like(latents)
    fitted: dict[str, Appearance] = {}
    for avatar in sorted(set(frames.avatar.tolist())):
        mine = frames.avatar == avatar
        clips = sorted(set(frames.clip[mine & train].tolist()))
        fitted[avatar] = _fit(pose, face, latents, mine & train)
        for fold in range(min(FOLDS, len(clips))):
            left_out = mine & train & np.isin(frames.clip, clips[fold::FOLDS])
            _predict(_fit(pose, face, latents, mine & train & ~left_out), pose, face, left_out, references)
        _predict(fitted[avatar], pose, face, mine & ~train, references)
    return references, fitted


def _fit(pose: Float32, face: Float32, latents: Tensor, at: NDArray[np.bool_]) -> Appearance:
    count = int(at.sum())
    return fit_appearance(pose[at], face[at], latents[at].float().numpy(), attitudes=min(160, count // 8))


def _predict(a: Appearance, pose: Float32, face: Float32, at: NDArray[np.bool_], out: Tensor) -> None:
    rows = np.flatnonzero(at)
    for i in range(0, len(rows), 512):
        r = rows[i : i + 512]
        out[r] = torch.from_numpy(a.reference(pose[r], face[r])).half()


def geometries(frames: Frames) -> dict[str, HeadGeometry]:
    """Rigid head of each avatar, fitted to the drawn eyes and nose."""
    found = {}
    for avatar in sorted(set(frames.avatar.tolist())):
        mine = frames.avatar == avatar
        found[avatar] = fit_geometry(frames.pose[mine][::5], frames.kps[mine][::5], frames.size)
    return found


def loss_weight(points: Float32, cells: int) -> Tensor:
    """fp16 [F, 1, cells, cells] from HEAD-Kps [F, 3, 2] in [0, 1]: 4 on the mouth, 3 on the eyes, 2 on the face, 1
    elsewhere, measured from the eyes in inter-ocular distances; then scaled to mean 1."""
    middle, d = points[:, :2].mean(1), np.linalg.norm(points[:, 1] - points[:, 0], axis=1)
    centres = (np.arange(cells) + 0.5) / cells
    x = (centres[None, None, :] - middle[:, 0, None, None]) / d[:, None, None]
    y = (centres[None, :, None] - middle[:, 1, None, None]) / d[:, None, None]
    weight = np.ones((len(points), cells, cells), np.float32)
    weight[(np.abs(x) < 0.95) & (y > -0.5) & (y < 1.75)] = 2
    weight[(np.abs(x) < 0.85) & (y > -0.3) & (y < 0.3)] = 3
    weight[(np.abs(x) < 0.6) & (y > 0.65) & (y < 1.5)] = 4
    weight /= weight.mean((1, 2), keepdims=True)
    return torch.from_numpy(weight[:, None]).half()


def pixel_data(frames: Frames, model: Autoencoder, work: Path) -> tuple[PixelData, dict[str, Appearance]]:
    """Everything but the tokens, for the frames of all splits."""
    latents = encode_frames(model, frames, work)
    references, appearances = cross_fitted(frames, latents, frames.split == "train")
    heads = geometries(frames)
    points = np.zeros((len(frames), 3, 2), np.float32)
    for avatar, geometry in heads.items():
        mine = frames.avatar == avatar
        points[mine] = project_batch(geometry, frames.pose[mine])
    error = (references.float() - latents.float()).square().mean()
    logger.info("reference latents: mean square error %.4f of unit variance", float(error))
    data = PixelData(
        frames, latents, references, points, np.ascontiguousarray(frames.pose[:, 5:9]),
        np.ascontiguousarray(frames.expression[:, SPEECH_SLICE]), loss_weight(points, latents.shape[-1]),
    )
    return data, appearances


def expression_tokens(speech: Tensor, tokens: Tensor | None = None) -> Tensor:
    """Tokens [B, 8, 128] whose expression token reads out as `speech` [B, 42] exactly.

    Without a conditioner's `tokens` the rest is noise, so that a denoiser trained on them hears the expression alone.
    """
    base = torch.randn(len(speech), TOKENS, WIDTH) if tokens is None else tokens.float()
    readout = expression_readout(WIDTH)
    gap = speech - readout(base[:, 0])
    change = torch.linalg.solve(readout.weight @ readout.weight.T, gap.T).T @ readout.weight
    return torch.cat([(base[:, 0] + change)[:, None], base[:, 1:]], 1)


