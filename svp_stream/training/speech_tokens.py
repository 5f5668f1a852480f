"""What the trained ears and conditioner say of every frame of the corpus: the denoiser's audio and style tokens.

Each clip's sound goes through the frozen encoder, each frame's window through the frozen conditioner, under the style
that the frozen prior finds in the clip itself (drawn once a clip). Kept in the run folder, made again when the weights
change.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from svp_stream.arkit import SPEECH_SLICE
from svp_stream.audio.wav2vec import TAIL, Wav2VecEncoder, load_encoder
from svp_stream.diffusion.conditioner import Conditioner, gather_windows, load_conditioner
from svp_stream.style.prior import StylePrior, draw, load_prior
from svp_stream.style.projection import StyleProjection, load_projection
from svp_stream.training.clips import Clip, Clips
from svp_stream.training.frames import Frames
from svp_stream.weights_file import sha256

logger = logging.getLogger(__name__)
LOOK_AHEAD = 2


def frame_tokens(clips: Clips, frames: Frames, runs: Path) -> tuple[Tensor, Tensor]:
    """(audio tokens fp16 [F, 8, 128], style tokens fp16 [F, 4, 128]) of `frames`, in their order.

    Reads `audio`, `style-prior` and `expression` beside each other under `runs`. Raises WeightsError when one is
    missing. """
    files = [
        runs / "audio" / "audio_encoder.safetensors",
        runs / "style-prior" / "style_prior.safetensors",
        runs / "expression" / "conditioner.safetensors",
    ]
    encoder, prior = load_encoder(files[0]), load_prior(files[1])
    conditioner, projection = load_conditioner(files[2]), load_projection(files[2])
    key = hashlib.sha256("".join([*map(sha256, files), *np.unique(frames.clip)]).encode()).hexdigest()[:16]
    cache = runs / "frames" / f"tokens-{key}.npz"
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as z:
            return torch.from_numpy(z["audio"]), torch.from_numpy(z["style"])
    logger.info("audio and style tokens of %d frames", len(frames))
    audio = torch.zeros(len(frames), conditioner.config.tokens, conditioner.config.dim, dtype=torch.float16)
    style = torch.zeros(len(frames), projection.config.tokens, projection.config.width, dtype=torch.float16)
    named = {clip.id: clip for clip in clips}
    for name in np.unique(frames.clip):
        rows = np.flatnonzero(frames.clip == name)
        said, look = _clip_tokens(named[str(name)], encoder, prior, conditioner, projection)
        audio[rows], style[rows] = said[frames.number[rows]].half(), look.half().expand(len(rows), -1, -1)
    part = cache.with_suffix(".part.npz")
    np.savez(part, audio=audio.numpy(), style=style.numpy())
    part.replace(cache)
    return audio, style


@torch.no_grad()
def _clip_tokens(
    clip: Clip, encoder: Wav2VecEncoder, prior: StylePrior, conditioner: Conditioner, projection: StyleProjection
) -> tuple[Tensor, Tensor]:
    """Audio tokens [T, 8, 128] and style tokens [1, 4, 128] of one clip."""
    sound = torch.from_numpy(np.pad(clip.audio, (0, TAIL)).astype(np.float32) / 32768)
    heard = encoder.encode(sound[None])[0]
    count = min(len(heard) // 2, clip.frames)
    features = heard[: 2 * count].reshape(count, 2, -1).mean(1)
    face = torch.from_numpy(np.ascontiguousarray(clip.expression[:count, SPEECH_SLICE]))
    mu, log_var = prior.encoder(face[None], features[None])
    s = draw(mu, log_var, torch.randn(mu.shape, generator=torch.Generator().manual_seed(clip.frames)))
    style = projection(s)
    windows, mask = gather_windows(heard, torch.arange(clip.frames), LOOK_AHEAD, conditioner.config)
    tokens = conditioner(windows, mask, style.expand(clip.frames, -1, -1), torch.ones(clip.frames)).tokens
    return tokens, style


