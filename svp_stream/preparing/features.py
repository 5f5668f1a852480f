"""wav2vec features of prepared clips, computed once: `<id>.wav2vec.npz` beside the clip.

In: a folder of clips; an encoder: our streaming one (a `.safetensors` file) or a `Wav2Vec2Model` of transformers (a
local folder or a hub id). Out: for each clip `tokens` float16 [2T, d], two to a frame (20 ms each), and `encoder`, the
hash or name of what made them. Files that are already of that encoder are kept. Remembers: nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from svp_stream.audio.wav2vec import TAIL, load_encoder
from svp_stream.errors import WeightsError
from svp_stream.packets import Float32
from svp_stream.training.clips import Clip, Clips
from svp_stream.weights_file import sha256

logger = logging.getLogger(__name__)
TOKENS_PER_FRAME: Final = 2
SUFFIX: Final = ".wav2vec.npz"
Encode = Callable[[Tensor], Tensor]
"""Sound [1, N] at 16 kHz in [-1, 1] to tokens [1, n, d]."""


def feature_path(clip: Clip) -> Path:
    """Where the features of `clip` lie. Not `*.npz` of its own stem alone, so that no reader takes it for a sidecar."""
    return clip.sidecar.path.parent / "features" / f"{clip.id}{SUFFIX}"


def open_encoder(source: str) -> tuple[str, Encode]:
    """(name, encode) of our `.safetensors` or of a transformers folder or hub id. Raises WeightsError."""
    path = Path(source)
    if path.suffix == ".safetensors":
        encoder = load_encoder(path)
        return f"{path.name} {sha256(path)[:16]}", encoder.encode
    try:
        from transformers import Wav2Vec2Model

        model: Any = Wav2Vec2Model.from_pretrained(source).eval()
    except (OSError, ValueError) as e:
        raise WeightsError(f"{source}: no Wav2Vec2Model can be loaded from there; give a local folder with config.json "
                           f"and weights, a hub id, or our audio_encoder.safetensors ({e})") from e

    def encode(wav: Tensor) -> Tensor:
        # Whole utterances at zero mean and unit variance, as these checkpoints were trained.
        level = (wav - wav.mean()) / wav.std().clamp(min=1e-5)
        out: Tensor = model(level).last_hidden_state
        return out

    return source, encode


@torch.inference_mode()
def tokens(clip: Clip, encode: Encode) -> Float32:
    """float32 [2T, d] of one clip; the last token is repeated where the encoder gives fewer."""
    sound = torch.from_numpy(np.pad(clip.audio, (0, TAIL)).astype(np.float32) / 32768)
    heard = encode(sound[None])[0].float().numpy()
    wanted = TOKENS_PER_FRAME * clip.frames
    short = max(wanted - len(heard), 0)
    return np.asarray(np.pad(heard, ((0, short), (0, 0)), mode="edge")[:wanted], np.float32)


def cache_features(folder: Path, source: str) -> int:
    """Write what is missing for the clips in `folder`; returns how many were made. Raises WeightsError."""
    name, encode = open_encoder(source)
    made = 0
    for clip in track(list(Clips.open(folder)), "wav2vec features"):
        path = feature_path(clip)
        if _is_of(path, name, clip):
            continue
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            np.savez_compressed(file, tokens=tokens(clip, encode).astype(np.float16), encoder=np.array(name))
        part.replace(path)
        made += 1
    logger.info("features of %d clips by %s", made, name)
    return made


def _is_of(path: Path, name: str, clip: Clip) -> bool:
    if not path.is_file():
        return False
    try:
        with np.load(path, allow_pickle=False) as z:
            return str(z["encoder"]) == name and len(z["tokens"]) == TOKENS_PER_FRAME * clip.frames
    except (OSError, ValueError, KeyError, EOFError):
        return False
