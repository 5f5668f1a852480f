"""The trained engine: streaming wav2vec, frame conditioner, motion, denoiser with latent cache, decoder.

In: 16 kHz `AudioChunk`s and `SpeechState`s. Out: one 256x256 `Frame` with matte for each 1920 ticks of sound.
Remembers: in the face, see `_State`. Latency: one frame, the look-ahead, and the encoder's 5 ms tail.

    sound ─▶ wav2vec ─▶ window ─▶ conditioner(style) ─▶ tokens ─┬─▶ sampler ◀─▶ latent cache ─▶ paint ─▶ frame
       └──▶ level ────▶ motion(style) ─▶ pose ─▶ HEAD-Kps ──────┤
                                           └───▶ reference ◀────┘ expression

The engine holds what all sessions share: programs compiled by a backend, avatars, the style prior's maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from svp_stream.audio.wav2vec import TAIL, EncoderState, Wav2VecEncoder, load_encoder
from svp_stream.clock import MODEL_RATE_HZ
from svp_stream.diffusion.avatar import Avatar, avatar_files, load_avatar
from svp_stream.diffusion.cache import CacheRule
from svp_stream.diffusion.conditioner import Conditioner, load_conditioner
from svp_stream.diffusion.programs import Condition, Denoise, DenoiseShallow, Paint
from svp_stream.diffusion.unet import load_denoiser
from svp_stream.diffusion.vae import load_autoencoder
from svp_stream.errors import EngineError, WeightsError
from svp_stream.motion.kps import KPS_CHANNELS, HeadGeometry
from svp_stream.motion.learned import MotionModel
from svp_stream.motion.manner import Manner
from svp_stream.motion.network import load_motion
from svp_stream.packets import Float32, Pose
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.face import MiniFace
from svp_stream.pipeline.living import Motion, living
from svp_stream.runtime.backend import Backend, Program, open_backend
from svp_stream.runtime.quantised import FILE, Ranges, quantised, read_ranges
from svp_stream.style.prior import StylePrior, load_prior
from svp_stream.style.projection import StyleProjection, load_projection
from svp_stream.weights_file import sha256

LATENT_CELLS = 32


class EncodeStep(torch.nn.Module):
    """`Wav2VecEncoder.step` with its state as flat tensors."""

    def __init__(self, encoder: Wav2VecEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, window: torch.Tensor, level: torch.Tensor, position: torch.Tensor, keys: torch.Tensor,
        values: torch.Tensor, valid: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """(tokens [1, 2, d], then the state after, in the order of `EncoderState.tensors`)."""
        tokens, after = self.encoder.step(window, EncoderState(level, position, keys, values, valid))
        return (tokens, *after.tensors())


@dataclass(frozen=True)
class Programs:
    """Compiled functions of arrays, batch 1."""

    encode: Program
    condition: Program
    denoise: Program
    shallow: Program
    paint: Program


@dataclass(frozen=True)
class Sitter:
    """One avatar, ready for use."""

    avatar: Avatar
    geometry: HeadGeometry


@dataclass(frozen=True)
class MiniEngine:
    """See the card. Made by `load`; immutable, so any number of faces may use it."""

    programs: Programs
    encoder: Wav2VecEncoder
    conditioner: Conditioner
    projection: StyleProjection
    style_prior: StylePrior
    sitters: dict[str, Sitter]
    prior: str
    backend: str
    precision: str = "fp32"
    look_ahead: int = 2
    articulation: float = 1.0
    motion: MotionModel | None = None
    """Learned movement; None: this folder has none, people move by rule."""
    turns: float = 1.0
    rule: CacheRule = CacheRule()
    name: str = field(default="mini", init=False)
    size: int = field(default=8 * LATENT_CELLS, init=False)

    @classmethod
    def load(
        cls, folder: Path, backend: str = "auto", look_ahead: int = 2, threads: int = 0, articulation: float = 1.0,
        precision: str = "auto", rule: CacheRule | None = None, turns: float = 1.0,
    ) -> MiniEngine:
        """Read every file of a weights folder and compile. `articulation` scales the opening of the mouth,
        `turns` those of the head where movement is learned; `rule` says what of the past is used.

        `precision`: int8 rounds the convolutions of denoiser and decoder, fp32 does not, auto takes int8 where the
        folder has ranges and the backend gains by it. Raises WeightsError naming the file, EngineError, ConfigError.
        """
        files = avatar_files(folder)
        if not files:
            raise WeightsError(f"{folder} holds no avatar_*.safetensors; `svp train image` writes them")
        encoder = load_encoder(folder / "audio_encoder.safetensors")
        conditioner = load_conditioner(folder / "conditioner.safetensors")
        if not 0 <= look_ahead <= conditioner.config.max_look_ahead:
            raise EngineError(f"look_ahead is 0 to {conditioner.config.max_look_ahead} frames, got {look_ahead}")
        prior_file, motion_file = folder / "style_prior.safetensors", folder / "motion.safetensors"
        style_prior = load_prior(prior_file)
        prior = sha256(prior_file)
        compiler = open_backend(backend, threads)
        ranges = _ranges(folder, precision, compiler.name)
        sitters = {}
        for name, path in files.items():
            avatar = load_avatar(path)
            sitters[name] = Sitter(avatar, HeadGeometry.from_vector(avatar.geometry))
        return cls(
            programs=_compile(compiler, folder, encoder, conditioner, ranges), encoder=encoder,
            conditioner=conditioner, projection=load_projection(folder / "conditioner.safetensors"),
            style_prior=style_prior, sitters=sitters, prior=prior, backend=compiler.name,
            precision="int8" if ranges else "fp32", look_ahead=look_ahead, articulation=articulation,
            motion=MotionModel(load_motion(motion_file, prior)) if motion_file.is_file() else None,
            turns=turns, rule=rule or CacheRule(),
        )

    @property
    def avatars(self) -> tuple[str, ...]:
        """Names of the people there are."""
        return tuple(self.sitters)

    @property
    def style_dim(self) -> int:
        """D of the style prior."""
        return self.style_prior.config.style_dim

    def warm(self) -> None:
        """Make one second of silence once, so that every program has run."""
        zeros = np.zeros(self.style_dim, np.float32)
        face = self.stream(avatar=self.avatars[0], style=StyleRequest("warm-up", zeros, zeros), seed=0)
        face.silence(0, 4)

    def stream(
        self, *, avatar: str, style: StyleRequest, seed: int, script: Sequence[Pose] | None = None
    ) -> MiniFace:
        """A fresh face. `script`: poses to follow instead of the motion generator, one a frame (evaluation)."""
        return MiniFace(self, avatar, style, seed, script)

    def sitter(self, name: str) -> Sitter:
        """Raises EngineError for an unknown avatar, naming those there are."""
        if name not in self.sitters:
            raise EngineError(f"unknown avatar {name!r}; the engine mini has {', '.join(self.avatars)}")
        return self.sitters[name]

    def style_tokens(self, s: Float32) -> Float32:
        """Style sample [D] to tokens [1, N, 128]."""
        with torch.inference_mode():
            tokens: Float32 = self.projection(torch.from_numpy(s)[None]).numpy()
        return tokens

    @cached_property
    def silence(self) -> Float32:
        """A conditioner's window of a silent room, [1, W, A]: what the encoder has settled on after a second of it."""
        zeros = torch.zeros(1, MODEL_RATE_HZ + TAIL)
        with torch.inference_mode():
            last = self.encoder.encode(zeros)[0, -1:].numpy()
        window: Float32 = np.repeat(last[None], self.conditioner.config.window, axis=1)
        return window

    def living(self, s: Float32, seed: int) -> Motion:
        """Fresh movement of a person in style [D]."""
        return living(self.motion, self.manner, s, seed, self.turns)

    def manner(self, s: Float32) -> Manner:
        """How a person of style [D] moves by rule, read off the style linearly."""
        with torch.inference_mode():
            return Manner.from_vector(self.style_prior.manner(torch.from_numpy(s)).numpy())

    def encode_step(self, window: torch.Tensor, state: EncoderState) -> tuple[torch.Tensor, EncoderState]:
        """`Wav2VecEncoder.step` by the compiled program."""
        out = self.programs.encode(window.numpy(), *(t.numpy() for t in state.tensors()))
        tokens, *after = (torch.from_numpy(np.array(a)) for a in out)
        return tokens, EncoderState(*after)


def pixel_modules(folder: Path) -> dict[str, torch.nn.Module]:
    """The programs that make pictures, by name, as torch modules; raises WeightsError."""
    denoiser = load_denoiser(folder / "denoiser.safetensors")
    autoencoder = load_autoencoder(folder / "autoencoder.safetensors")
    return {
        "denoise": Denoise(denoiser), "shallow": DenoiseShallow(denoiser), "paint": Paint(autoencoder, LATENT_CELLS),
    }


def _ranges(folder: Path, precision: str, backend: str) -> dict[str, Ranges]:
    """The ranges to round by, none for fp32; raises WeightsError where int8 is asked for and there are none."""
    if precision == "fp32" or (precision == "auto" and backend == "torch"):
        return {}
    ranges = read_ranges(folder / FILE)
    if precision == "int8" and not ranges:
        raise WeightsError(f"{folder} has no {FILE}: run `svp ranges --weights {folder}`, or set model.precision: fp32")
    return ranges


def _rounded(modules: dict[str, torch.nn.Module], ranges: dict[str, Ranges]) -> dict[str, torch.nn.Module]:
    """The shallow pass is a part of the full one and shares its ranges."""
    of = {"denoise": "denoise", "shallow": "denoise", "paint": "paint"}
    return {n: quantised(m, ranges[of[n]]) if of[n] in ranges else m for n, m in modules.items()}


def _compile(
    backend: Backend, folder: Path, encoder: Wav2VecEncoder, conditioner: Conditioner, ranges: dict[str, Ranges]
) -> Programs:
    modules = _rounded(pixel_modules(folder), ranges)
    sizes = load_denoiser(folder / "denoiser.safetensors").config
    c, cells = conditioner.config, LATENT_CELLS
    latent, one = torch.randn(1, sizes.latent, cells, cells), torch.ones(1)
    kps = torch.randn(1, KPS_CHANNELS, cells, cells)
    tokens, style = torch.randn(1, c.tokens, c.dim), torch.randn(1, 4, c.style_dim)
    deep = torch.randn(1, sizes.widths[0], cells, cells)
    window = (torch.randn(1, encoder.config.window) * 0.1, *encoder.initial().tensors())
    heard = (torch.randn(1, c.window, c.audio_dim), torch.ones(1, c.window), style, one)
    full = (latent, one, latent, latent, kps, tokens, style, one, one * 0.05)
    return Programs(
        encode=backend.compile("encode", EncodeStep(encoder), window),
        condition=backend.compile("condition", Condition(conditioner), heard),
        denoise=backend.compile("denoise", modules["denoise"], full),
        shallow=backend.compile("shallow", modules["shallow"], (*full[:6], full[8], deep)),
        paint=backend.compile("paint", modules["paint"], (latent, torch.zeros(1, 2))),
    )


