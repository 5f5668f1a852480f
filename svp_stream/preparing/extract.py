"""A style preset from a clip: how somebody speaks in a film becomes a Gaussian of the style prior.

In: a film; the expressions of its frames, from the sidecar beside it (a clip as `svp corpus` or `svp prepare` writes
it) or from a `FaceReader`; the audio encoder and style prior of a weights folder. Out: `StylePreset`. Remembers:
nothing. The clip is cut into windows as long as those that the prior was trained on; their Gaussians are pooled.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from svp_stream.arkit import SPEECH_SLICE
from svp_stream.audio.wav2vec import load_encoder
from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.errors import ConfigError, MediaError
from svp_stream.evaluation.face_reader import FaceReader
from svp_stream.packets import Float32
from svp_stream.preparing.decode import pictures, probe, sound
from svp_stream.style.preset import StylePreset
from svp_stream.style.prior import StylePrior, load_prior, pool
from svp_stream.synthetic.sidecar import SAMPLES_PER_FRAME, Sidecar
from svp_stream.training.coefficients import encode
from svp_stream.weights_file import sha256

PRIOR, ENCODER = "style_prior.safetensors", "audio_encoder.safetensors"
WINDOW: Final = 72
"""Frames in a window."""
LEAST_S: Final = 1.0
"""Shorter clips tell too little."""
LEAST_SEEN: Final = 0.5
"""Share of frames that a face must be found in."""
LEAST_MOTION: Final = 0.01
"""Deviation of the liveliest coefficient below which nobody speaks."""
TEMPERATURE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Reading:
    """T frames of a film in which a face was found: speech coefficients [T, 42], sound float32 [T * 640] at 16 kHz."""

    expression: Float32
    audio: Float32


def extract(clip: Path, weights: Path, *, name: str = "", reader: FaceReader | None = None) -> StylePreset:
    """The style of `clip`, as a preset of the prior in the folder `weights`.

    Raises MediaError for a film that cannot be read, is too short, shows no face or a face that does not move;
    ConfigError where there is neither sidecar nor reader; WeightsError when the folder lacks its files.
    """
    read = read_film(clip, reader) if reader is not None else read_sidecar(clip)
    _check(clip, read)
    prior = load_prior(weights / PRIOR)
    features = encode(load_encoder(weights / ENCODER), read.audio).astype(np.float32)
    heard = features.reshape(len(read.expression), 2, -1).mean(1)
    mu, log_var = posterior(prior, read.expression, heard)
    seconds, sigma = len(read.expression) / FRAME_RATE_HZ, float(np.exp(log_var / 2).mean())
    told = f"From {clip.name}: {seconds:.1f} s, mean sigma {sigma:.2f}."
    return StylePreset(name or clip.stem, mu, log_var, sha256(weights / PRIOR), told, TEMPERATURE)


@torch.no_grad()
def posterior(prior: StylePrior, expression: Float32, heard: Float32) -> tuple[Float32, Float32]:
    """(mu, log_var) float32 [D] of coefficients [T, 42] and audio features [T, A]: the windows pooled."""
    starts = range(0, max(len(expression) - WINDOW // 2, 1), WINDOW)
    gaussians = [prior.encoder(*(torch.from_numpy(np.ascontiguousarray(x[a : a + WINDOW]))[None]
                                 for x in (expression, heard))) for a in starts]
    mu, log_var = pool(*(torch.cat(parts) for parts in zip(*gaussians, strict=True)))
    return mu.numpy(), log_var.numpy()


def read_sidecar(clip: Path) -> Reading:
    """The truth beside a clip of our own format. Raises ConfigError where there is none, MediaError where it is bad."""
    path = clip.with_suffix(".npz")
    if not path.is_file():
        raise ConfigError(f"{clip}: has no sidecar {path.name}; for any other film give --landmarker "
                          "face_landmarker.task (MediaPipe, extra `video`) or --reader module:function")
    known = Sidecar(path)
    expression = np.asarray(known.array("expression")[:, SPEECH_SLICE], np.float32)
    return Reading(expression, _float(known.array("audio")))


def read_film(clip: Path, reader: FaceReader) -> Reading:
    """What `reader` finds in the pictures of any film; frames without a face are left out, with their sound."""
    info = probe(clip)
    reader.reset()
    found = [reader.read(rgb) for rgb in pictures(clip)]
    with tempfile.TemporaryDirectory(prefix="svp-extract-") as folder:
        heard = np.array(sound(clip, info.start_s, Path(folder) / "sound.pcm"))
    heard = np.pad(heard, (0, max(len(found) * SAMPLES_PER_FRAME - len(heard), 0)))
    seen = [n for n, reading in enumerate(found) if reading is not None]
    if len(seen) < LEAST_SEEN * len(found) or not seen:
        raise MediaError(f"{clip}: a face was found in {len(seen)} of {len(found)} frames; at least "
                         f"{100 * LEAST_SEEN:.0f} % must show one")
    expression = np.stack([r.expression for r in found if r is not None])[:, SPEECH_SLICE]
    rows = heard[: len(found) * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    return Reading(np.asarray(expression, np.float32), _float(rows[seen].ravel()))


def _check(clip: Path, read: Reading) -> None:
    seconds = len(read.expression) / FRAME_RATE_HZ
    if seconds < LEAST_S:
        raise MediaError(f"{clip}: has {seconds:.2f} s of a face; a style needs at least {LEAST_S:g} s, better 10")
    motion = float(read.expression.std(0).max())
    if motion < LEAST_MOTION:
        raise MediaError(f"{clip}: the face does not move (deviation {motion:.4f}, at least {LEAST_MOTION:g} is "
                         "needed); is somebody speaking in it?")


def _float(samples: NDArray[Any]) -> Float32:
    return np.asarray(samples, np.float32) / np.float32(32768)
