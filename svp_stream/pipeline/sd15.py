"""The engine of Stable Diffusion's size: a folder that the sd15 training wrote, on a GPU (or, slowly, on a CPU).

In: 16 kHz `AudioChunk`s and `SpeechState`s. Out: one RGB `Frame` for each 1920 ticks of sound, without matte.
Remembers: in the face, see `sd15_face`. Latency: one frame, the wav2vec's own look-ahead, and the projection's.

The engine holds what all sessions share: the grafted UNet, the autoencoder, wav2vec2 (a checkpoint over a rolling
window, or its causal copy), the style prior's maps, and each avatar's picture as the denoiser reads it, once.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from svp_stream.audio.ears import Ears, open_ears
from svp_stream.audio.wav2vec import Wav2VecEncoder
from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.diffusion.schedule import Schedule, zero_terminal
from svp_stream.diffusion.sd15 import Reference, Sd15
from svp_stream.diffusion.sd15_attention import Layers
from svp_stream.diffusion.sd15_files import load_sd15, load_vae
from svp_stream.diffusion.sd15_folder import CARD, Folder, SamplingCard
from svp_stream.errors import EngineError, WeightsError
from svp_stream.motion.kps import HeadGeometry
from svp_stream.motion.manner import Manner
from svp_stream.packets import Bytes, Float32
from svp_stream.pipeline import sd15_cost
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.sd15_face import Sd15Face
from svp_stream.style.prior import StylePrior, load_prior
from svp_stream.style.projection import StyleProjection, load_projection
from svp_stream.weights_file import sha256

logger = logging.getLogger(__name__)
GENERIC_HEAD = (
    -0.085, -0.07, 0.10, 0.085, -0.07, 0.10, 0.0, 0.02, 0.16, 0.0, -0.25, 0.05, 0.5, 0.75, 0.4,
)  # fmt: skip
"""A head in the middle of the picture, eyes at 43 % of its height: for a portrait nobody has measured."""


@dataclass(frozen=True)
class Sd15Sitter:
    """One person: as the denoiser reads them, and where their head is."""

    reference: Reference
    geometry: HeadGeometry


class Autoencoder:
    """`AutoencoderKL` or `AutoencoderTiny` (one may encode and the other draw), in Stable Diffusion's latent scale."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        self.encoder, self.decoder = encoder, decoder

    def encode(self, picture: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] to the latent's mean [B, 4, H / 8, W / 8]."""
        told = self.encoder.encode(picture)
        latent: Tensor = told.latent_dist.mean if hasattr(told, "latent_dist") else told.latents
        return latent * float(self.encoder.config.scaling_factor)

    def decode(self, latent: Tensor) -> Bytes:
        """[1, 4, h, w] to uint8 [H, W, 3]."""
        picture = self.decoder.decode(latent / self.decoder.config.scaling_factor).sample[0]
        levels = ((picture.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        rgb: Bytes = levels.permute(1, 2, 0).contiguous().cpu().numpy()
        return rgb


@dataclass(frozen=True)
class Sd15Engine:
    """See the card. Made by `load`; any number of faces may use it."""

    model: Sd15
    autoencoder: Autoencoder
    ears: Ears
    projection: StyleProjection
    style_prior: StylePrior
    sitters: dict[str, Sd15Sitter]
    prior: str
    size: int
    schedule: Schedule
    sampling: SamplingCard
    device: torch.device
    cost: sd15_cost.Cost
    look_ahead: int = 2
    name: str = field(default="sd15", init=False)

    @classmethod
    def load(cls, path: Path, device: str = "auto", look_ahead: int = 2) -> Sd15Engine:
        """Read every part that the folder's card names. Logs the cost.

        Raises WeightsError naming the part, ConfigError for a wrong card, EngineError for a device that is not there
        or has too little memory.
        """
        where = choose_device(device)
        folder = Folder.open(path)
        card = folder.card
        sd15_cost.require_room(_files(folder), torch.device("cpu"), "loading the base")
        model = load_sd15(folder.file(card.adapters), folder.place(card.base), folder.optional(card.lora))
        vae = load_vae(folder.place(card.vae or card.base))
        decoder = vae if card.decoder is None else load_vae(folder.place(card.decoder))
        ears = _ears(folder)
        prior_file = folder.file(card.style_prior)
        style_prior, projection = load_prior(prior_file), load_projection(folder.file(card.projection))
        _check(folder, model, ears, projection, style_prior, look_ahead)
        parts: list[nn.Module] = [model, vae, decoder, ears.encoder]
        kind = torch.float16 if where.type == "cuda" else torch.float32
        if where.type == "cuda":
            sd15_cost.require_room(sd15_cost.weight_bytes(*parts) // 2, where, "the model in half precision")
            for part in parts:
                if not isinstance(part, Wav2VecEncoder):  # the causal copy is small, and steps on the CPU
                    part.to(where, kind)
        cells = card.size // 8
        steps = (1, 2) if card.sampling.kind == "few" else (card.sampling.steps,) * 2
        warm, cold = sd15_cost.count_flops(model, decoder, cells, steps)
        hearing = sd15_cost.count_hearing(ears.encoder)
        engine = cls(
            model=model, autoencoder=Autoencoder(vae, decoder), ears=ears, projection=projection,
            style_prior=style_prior, prior=sha256(prior_file), size=card.size,
            schedule=zero_terminal(card.sampling.warm_share), sampling=card.sampling, device=where,
            sitters=_sitters(folder, model, Autoencoder(vae, decoder), where, kind), look_ahead=look_ahead,
            cost=sd15_cost.Cost(
                warm + hearing, cold + hearing, sd15_cost.weight_bytes(*parts), sd15_cost.session_bytes(model, cells),
                sd15_cost.free_bytes(where), str(where),
            ),
        )  # fmt: skip
        logger.info(engine.cost.text())
        if where.type == "cpu":
            logger.warning("no GPU is used: at about %.0f GFLOP/s a frame takes %.2g s, where 0.04 s is live",
                           sd15_cost.CPU_GFLOPS, warm / sd15_cost.CPU_GFLOPS / 1e9)
        return engine

    @property
    def avatars(self) -> tuple[str, ...]:
        """Names of the people there are."""
        return tuple(self.sitters)

    @property
    def style_dim(self) -> int:
        """D of the style prior."""
        return self.style_prior.config.style_dim

    @property
    def dtype(self) -> torch.dtype:
        """That frames are made in."""
        return self.model.dtype

    def warm(self) -> None:
        """Make some frames of silence; logs how long one takes, and so how many sessions are live at once."""
        zeros = np.zeros(self.style_dim, np.float32)
        face = self.stream(avatar=self.avatars[0], style=StyleRequest("warm-up", zeros, zeros), seed=0)
        face.silence(0, 2)
        face.reset()
        began = time.perf_counter()
        frames = face.silence(0, 3)
        took = (time.perf_counter() - began) / len(frames)
        logger.info("sd15: %.0f ms a frame, %d sessions at %d fps", 1000 * took, int(1 / (took * FRAME_RATE_HZ)),
                    FRAME_RATE_HZ)

    def stream(self, *, avatar: str, style: StyleRequest, seed: int) -> Sd15Face:
        """A fresh face. Raises EngineError for an unknown avatar or a style of another dimension."""
        return Sd15Face(self, avatar, style, seed)

    def sitter(self, name: str) -> Sd15Sitter:
        """Raises EngineError for an unknown avatar, naming those there are."""
        if name not in self.sitters:
            raise EngineError(f"unknown avatar {name!r}; the engine sd15 has {', '.join(self.avatars)}")
        return self.sitters[name]

    def style_keys(self, s: Float32) -> Layers:
        """Style sample [D] to keys and values of every layer."""
        with torch.inference_mode():
            tokens = self.projection(torch.from_numpy(s)[None]).to(self.device, self.dtype)
            return self.model.style_keys(tokens)

    def manner(self, s: Float32) -> Manner:
        """How a person of style [D] moves, read off the style linearly."""
        with torch.inference_mode():
            return Manner.from_vector(self.style_prior.manner(torch.from_numpy(s)).numpy())


def choose_device(asked: str) -> torch.device:
    """`auto` is the GPU where there is one. Raises EngineError when a GPU is asked for and missing."""
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise EngineError("model.device is cuda, but torch finds no GPU: install a torch built for CUDA and its driver "
                          "(`nvidia-smi` must list a card), or set model.device: cpu, which is very slow")
    return torch.device("cuda" if there and asked != "cpu" else "cpu")


def _files(folder: Folder) -> int:
    """Bytes of weights that will be read from local folders."""
    told = [folder.place(folder.card.base), str(folder.path / folder.card.adapters)]
    local = [Path(t) for t in told if Path(t).exists()]
    found = {p for at in local for p in ([at] if at.is_file() else at.rglob("*.safetensors"))}
    return sum(p.stat().st_size for p in found)


def _ears(folder: Folder) -> Ears:
    audio = folder.card.audio
    return open_ears(
        folder.place(audio.model), folder.optional(audio.norm), folder.optional(audio.readout), audio.window,
        audio.look_ahead,
    )  # fmt: skip


def _geometry(folder: Folder, avatar: str) -> HeadGeometry:
    try:
        told = folder.card.avatars[avatar].geometry or GENERIC_HEAD
        return HeadGeometry.from_vector(np.asarray(told, np.float32))
    except ValueError as e:
        raise WeightsError(f"{folder.path / CARD}: avatars.{avatar}.geometry: {e}") from e


def _check(
    folder: Folder, model: Sd15, ears: Ears, projection: StyleProjection, prior: StylePrior, look_ahead: int
) -> None:
    """Whether the parts belong together; raises WeightsError and EngineError."""
    heard, wanted = ears.width, model.config.audio.audio_dim
    if heard != wanted:
        raise WeightsError(f"{folder.path}: the adapters read embeddings of {wanted} numbers, "
                           f"{folder.card.audio.model} gives {heard}; name the wav2vec2 that they were trained with")
    p = projection.config
    if p.style_dim != prior.config.style_dim or p.width != model.token_width:
        raise WeightsError(f"{folder.path}: wrong prior? {folder.card.projection} maps {p.style_dim} to {p.width}; "
                           f"the style prior has {prior.config.style_dim}, the UNet reads {model.token_width}")
    if not 0 <= look_ahead <= model.config.audio.around:
        raise EngineError(f"model.look_ahead is 0 to {model.config.audio.around} frames with these adapters, "
                          f"got {look_ahead}")


def _sitters(
    folder: Folder, model: Sd15, autoencoder: Autoencoder, device: torch.device, kind: torch.dtype
) -> dict[str, Sd15Sitter]:
    """Every avatar's picture, encoded and read once."""
    from PIL import Image, UnidentifiedImageError

    size, found = folder.card.size, {}
    for name, told in folder.card.avatars.items():
        path = folder.file(told.image)
        try:
            with Image.open(path) as image:
                rgb = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS), np.float32)
        except (OSError, UnidentifiedImageError) as e:
            raise WeightsError(f"the picture {path} of the avatar {name} cannot be read: {e}") from e
        picture = torch.from_numpy(rgb / 127.5 - 1).permute(2, 0, 1)[None].to(device, kind)
        with torch.inference_mode():
            found[name] = Sd15Sitter(model.read_reference(autoencoder.encode(picture)), _geometry(folder, name))
    return found
