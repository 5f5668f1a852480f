"""A whole weights folder of tiny random models: the trained engine runs in tests without trained weights.

In: a folder and a seed. Out: every file that `MiniEngine.load` reads, of the same classes as the real ones, and
presets of its style prior. Remembers: `tiny_engine`, the engines it has made.

The models are random but awake: no branch is silent, so that sound, pose, style and the past all show in the picture.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from svp_stream.arkit import SPEECH_SLICE
from svp_stream.audio.wav2vec import EncoderConfig, Wav2VecEncoder, save_encoder
from svp_stream.diffusion.appearance import face_vector, fit_appearance
from svp_stream.diffusion.avatar import Avatar, save_avatar
from svp_stream.diffusion.conditioner import KIND, Conditioner, ConditionerConfig
from svp_stream.diffusion.unet import Denoiser, DenoiserConfig, save_denoiser
from svp_stream.diffusion.vae import Autoencoder, AutoencoderConfig, save_autoencoder
from svp_stream.motion.manner import MANNER_DIM, Manner
from svp_stream.motion.network import MotionConfig, MotionNet, save_motion
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.mini import MiniEngine
from svp_stream.style.preset import StylePreset, load_preset, save_preset
from svp_stream.style.prior import PriorConfig, StylePrior, save_prior
from svp_stream.style.projection import ProjectionConfig, StyleProjection
from svp_stream.training.frames import to_tensors
from svp_stream.weights_file import save_weights
from tests.fakes import painted_faces

ENCODER = EncoderConfig(channels=(8,) * 7, width=16, layers=2, heads=2, feedforward=32, position_kernel=4,
                        position_groups=2, left_context=6)
CONDITIONER = ConditionerConfig(audio_dim=16, dim=64, heads=2, layers=1, tokens=8, style_dim=64, past=6)
PROJECTION = ProjectionConfig(style_dim=16, tokens=4, width=64)
PRIOR = PriorConfig(audio_dim=16, width=16, layers=1, heads=2, style_dim=16, dropout=0.0, decoder_layers=1)
DENOISER = DenoiserConfig(token=64, embedding=32, widths=(8, 16, 16, 16), head=8, groups=4)
AUTOENCODER = AutoencoderConfig(widths=(16, 8, 8), depths=(1, 1, 1))
AVATARS = {"pat": 0.0, "kim": 0.5}
"""Names, and how far from the painted face the latents lie."""
PRESETS = ("plain", "warm", "sad")


def awaken(model: nn.Module, names: tuple[str, ...], std: float) -> None:
    """Give the zero-initialised weights whose name contains one of `names` random values."""
    for name, parameter in model.named_parameters():
        if any(n in name for n in names):
            nn.init.normal_(parameter, std=std)


def tiny_denoiser(config: DenoiserConfig = DENOISER) -> Denoiser:
    """Awake; corrections of a fraction of a latent's deviation, so that chains of frames stay bounded."""
    model = Denoiser(config)
    awaken(model, ("outer.weight", "attention.out.weight", "guider.4.weight"), 0.1)
    awaken(model, ("conv_out.weight",), 0.03)
    return model.eval()


def _conditioner(folder: Path, prior: str) -> None:
    conditioner, projection = Conditioner(CONDITIONER), StyleProjection(PROJECTION)
    awaken(conditioner, ("style_v.weight",), 0.2)
    awaken(conditioner, ("audio_kv.weight", "cross.query.weight", "listen.1.weight", "listen.3.weight"), 0.3)
    # The jaw and its neighbours hang half open, and sound and style move them from there.
    nn.init.normal_(conditioner.express.weight, std=0.05)
    nn.init.constant_(conditioner.express.bias, 0.4)
    config: dict[str, Any] = {"conditioner": asdict(CONDITIONER), "projection": asdict(PROJECTION), "prior": prior}
    tensors = {f"conditioner.{k}": v for k, v in conditioner.state_dict().items()}
    tensors |= {f"projection.{k}": v for k, v in projection.state_dict().items()}
    save_weights(folder / "conditioner.safetensors", KIND, config, tensors, half=True)


def _prior(folder: Path) -> str:
    prior = StylePrior(PRIOR)
    with torch.no_grad():
        prior.manner.weight.normal_(std=0.02)
        prior.manner.bias.copy_(torch.from_numpy(Manner().vector()))
    assert prior.manner.out_features == MANNER_DIM
    return save_prior(folder / "style_prior.safetensors", prior)


def tiny_motion(seed: int = 0) -> MotionNet:
    """A random motion network that saccades and blinks more than once a second."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MotionNet(MotionConfig(style_dim=PRIOR.style_dim, audio_dim=ENCODER.width, manner=6, voice=3, events=8,
                                     event_dilations=(1, 2), head=8, head_dilations=(1, 2), targets=2))
        with torch.no_grad():
            for last in (net.choose[-1], net.shut[-1]):
                assert isinstance(last, nn.Linear)
                last.bias[0] = -3.0
            net.scale.copy_(torch.tensor([3.0, 2.0, 2.0, 0.005, 0.005]))
            lids = torch.hann_window(net.book.shape[-1], periodic=False)
            net.book.copy_(lids.expand_as(net.book))
    return net.eval()


def _avatars(folder: Path) -> None:
    pose, expression = painted_faces.course(24, 1)
    rgb, alpha = to_tensors(painted_faces.paint(pose, expression, 256))
    model = Autoencoder(AUTOENCODER)
    model.start_from_patches(rgb[::4], alpha[::4])
    awaken(model, ("decoder.out.weight",), 0.003)
    model.measure_latents(rgb[::4])
    save_autoencoder(folder / "autoencoder.safetensors", model)
    face = face_vector(expression[:, SPEECH_SLICE], pose[:, 5:9])
    with torch.no_grad():
        latents = model.encode(rgb).numpy()
    for name, tint in AVATARS.items():
        fit = fit_appearance(pose[:, :3], face, latents + np.float32(tint), attitudes=8, bends=8, rank=16)
        save_avatar(folder, Avatar(name, fit, painted_faces.HEAD.vector()))


def _presets(folder: Path, prior: str, rng: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(PRESETS):
        mu = (i * rng.standard_normal(PRIOR.style_dim)).astype(np.float32)
        save_preset(folder / f"{name}.npz", StylePreset(name, mu, np.full(PRIOR.style_dim, -2, np.float32), prior))


def write_tiny_weights(folder: Path, *, seed: int = 0) -> None:
    """Fill `folder` (made if missing): models, avatars `pat` and `kim`, `styles/` with presets `plain`, `warm`, `sad`.

    The same seed gives the same files. Leaves torch's random state as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_encoder(folder / "audio_encoder.safetensors", Wav2VecEncoder(ENCODER))
        prior = _prior(folder)
        _conditioner(folder, prior)
        save_motion(folder / "motion.safetensors", tiny_motion(seed), prior)
        save_denoiser(folder / "denoiser.safetensors", tiny_denoiser())
        _avatars(folder)
    _presets(folder / "styles", prior, np.random.default_rng(seed))


def read_tiny_presets(folder: Path) -> dict[str, StyleRequest]:
    """The presets of a tiny weights folder, as requests, by name."""
    presets = [load_preset(folder / "styles" / f"{name}.npz") for name in PRESETS]
    return {p.name: StyleRequest(p.name, p.mu, p.log_var, p.temperature, p.strength) for p in presets}


@cache
def _tiny(look_ahead: int) -> tuple[MiniEngine, dict[str, StyleRequest]]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_weights(folder)
        return MiniEngine.load(folder, "torch", look_ahead), read_tiny_presets(folder)


def tiny_engine(look_ahead: int = 2) -> MiniEngine:
    """The engine of a tiny weights folder on the torch backend, made once a test run."""
    return _tiny(look_ahead)[0]


def tiny_styles() -> dict[str, StyleRequest]:
    """The styles that belong to `tiny_engine`."""
    return _tiny(2)[1]
