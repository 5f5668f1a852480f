"""What the generated pictures are compared with besides the truth: the autoencoder alone, the reference alone.

In: trials and the engine's weights. Out: figures and pictures. Remembers: nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from svp_stream.arkit import SPEECH_SLICE
from svp_stream.diffusion.appearance import face_vector
from svp_stream.diffusion.vae import load_autoencoder
from svp_stream.evaluation.report import Figure
from svp_stream.evaluation.trials import Subject, Trial
from svp_stream.packets import Bytes
from svp_stream.pipeline.mini import MiniEngine
from svp_stream.training.autoencoder import WEIGHTS, reconstruction
from svp_stream.training.clips import read_frames
from svp_stream.training.frames import Frames

PICTURES: Final = 60
"""How many pictures the autoencoder is measured on."""


def autoencoder_psnr(weights: Path, trials: list[Trial]) -> dict[str, Figure]:
    """PSNR of pictures that only went through the autoencoder, spread over all clips; nothing without its file."""
    path = weights / WEIGHTS
    if not path.is_file():
        return {}
    each = max(PICTURES // len(trials), 1)
    parts = [_some(trial, each) for trial in trials]
    frames = Frames(**{key: np.concatenate([getattr(p, key) for p in parts]) for key in Frames.__dataclass_fields__})
    figures = reconstruction(load_autoencoder(path), frames, np.arange(len(frames)))
    n = len(frames)
    return {
        "autoencoder_psnr": Figure("PSNR of the autoencoder, whole", figures["psnr"], n, "dB"),
        "autoencoder_psnr_face": Figure("PSNR of the autoencoder, face", figures["psnr_face"], n, "dB", wanted=">= 30"),
        "matte_error": Figure("matte, mean absolute error", figures["matte"], n),
    }


def _some(trial: Trial, count: int) -> Frames:
    """`count` pictures of a clip, evenly."""
    clip = trial.clip
    at = np.linspace(0, clip.frames - 1, count).astype(np.int64)
    rgb, alpha = read_frames(clip, [int(i) for i in at])
    words = {k: np.full(count, getattr(clip, a)) for k, a in
             (("avatar", "avatar"), ("clip", "id"), ("style", "style"), ("split", "split"))}
    pixels = np.concatenate([rgb, alpha[..., None]], axis=3)
    return Frames(pixels=pixels, expression=clip.expression[at], pose=clip.pose[at], kps=clip.kps[at], number=at,
                  **words)


def reference_pictures(engine: Subject, trial: Trial) -> Bytes | None:
    """The engine's reference latents under the true expression and pose, decoded: uint8 [T, H, W, 3]. It is what the
    denoiser starts from, had it been told the truth. None for an engine that has no reference."""
    if not isinstance(engine, MiniEngine):
        return None
    appearance = engine.sitter(trial.clip.avatar).avatar.appearance
    pose, expression = trial.clip.pose, trial.clip.expression
    latents = appearance.reference(pose[:, :3], face_vector(expression[:, SPEECH_SLICE], pose[:, 5:9]))
    painted = [np.array(engine.programs.paint(latents[n : n + 1], pose[n : n + 1, 3:5])[0][0])
               for n in range(len(latents))]
    return np.ascontiguousarray(np.stack(painted)[..., :3])
