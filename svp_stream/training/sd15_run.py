"""`svp train sd15-...`: the parts put together, a stage run, and a folder written that the server reads.

In: a profile, a corpus with pictures, the folder of runs. Out: `<out>/sd15-<kind>/` with checkpoint, log, sheets, and
every part that `sd15.yaml` names. Each stage begins with the folder of the one before:

    style-prior ─▶ sd15-image ─▶ sd15-video ─▶ sd15-consistency ─▶ sd15-rollout
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from svp_stream.audio.ears import Ears, open_ears
from svp_stream.audio.wav2vec_rolling import RollingEncoder
from svp_stream.config import load_yaml
from svp_stream.diffusion.sd15 import Sd15, Sd15Config
from svp_stream.diffusion.sd15_audio import AudioProjectionConfig
from svp_stream.diffusion.sd15_files import fingerprint, load_sd15, load_unet, load_vae, save_adapters
from svp_stream.diffusion.sd15_folder import AudioCard, AvatarCard, Card, Folder, SamplingCard, write_card
from svp_stream.diffusion.sd15_lora import LoraConfig, attach, restore_lora, save_lora
from svp_stream.errors import ConfigError, MediaError
from svp_stream.packets import Bytes
from svp_stream.style.preset import StylePreset, save_preset
from svp_stream.style.prior import StylePrior, load_prior
from svp_stream.style.projection import KIND as PROJECTION_KIND
from svp_stream.style.projection import PREFIX, ProjectionConfig, StyleProjection, load_projection
from svp_stream.training.clips import Clips, read_frames
from svp_stream.training.crew import crew
from svp_stream.training.loop import LoopConfig, run_stage
from svp_stream.training.sd15 import Kind, Sd15Stage, Sd15TrainConfig
from svp_stream.training.sd15_data import Sd15Clip, Sd15Data, read_clip
from svp_stream.training.sd15_model import Trained
from svp_stream.weights_file import save_weights, sha256

logger = logging.getLogger(__name__)
BEFORE: Final[dict[Kind, Kind | None]] = {
    "image": None, "video": "image", "consistency": "video", "rollout": "consistency",
}  # fmt: skip
STAGES: Final = tuple(f"sd15-{kind}" for kind in BEFORE)
LORA: Final = "lora.safetensors"
STYLE_EARS: Final = "style_ears.safetensors"
TUNED: Final = ("attn1", "attn2", "norm1", "norm2")
"""Of the base, by default [R]. V-Express trains all of it at first, then attn2 and norm2 for speech [V]."""


class PartsConfig(BaseModel):
    """What the first stage is put together from. `graft` overrides fields of `Sd15Config`, `projection` of its audio
    projection; `style_prior` null: the run `style-prior` beside; `style_ears`, the encoder that the prior was trained
    with, null: the run `audio` beside, where the prior does not hear wav2vec2 itself."""

    model_config = ConfigDict(extra="forbid")

    base: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    vae: str | None = None
    decoder: str | None = None
    audio: AudioCard = AudioCard()
    style_prior: Path | None = None
    style_ears: Path | None = None
    style_tokens: int = Field(16, ge=1)
    size: int = Field(512, ge=64, le=1024, multiple_of=64)
    graft: dict[str, Any] = {"tuned": list(TUNED)}
    projection: dict[str, int] = {}


class Sd15Profile(Sd15TrainConfig):
    """configs/train/sd15-*.yaml; `parts` are read by the stage image alone, the others find them in its folder."""

    parts: PartsConfig = PartsConfig()


def default_profile(kind: Kind) -> Sd15Profile:
    """What configs/train/sd15-<kind>.yaml holds."""
    if kind == "image":
        return Sd15Profile()
    speech = ("temporal", "audio", "style", "previous", "history", "projection", "attn2", "norm2")
    steps, lr, ema = {
        "video": (100_000, 1e-5, 0.9999), "consistency": (30_000, 1e-5, 0.999), "rollout": (10_000, 5e-6, 0.999),
    }[kind]  # fmt: skip
    decay = 0.01 if kind == "video" else 0.0
    loop = LoopConfig(steps=steps, batch=2, lr=lr, warmup=500, weight_decay=decay, ema=ema, sheet_every_s=1800)
    return Sd15Profile(kind=kind, loop=loop, frames=8, train=speech if kind == "video" else ())


def run_sd15(stage: str, config: Path | None, corpus: Path, out: Path, minutes: float | None = None) -> Path:
    """Train one stage into `out/<stage>`; returns that folder, which serves.

    Raises ConfigError for a profile, WeightsError and MediaError when something that the stage builds on is missing.
    """
    if stage not in STAGES:
        raise ConfigError(f"no training stage '{stage}'; there are {', '.join(STAGES)}")
    kind: Any = stage.removeprefix("sd15-")
    profile = default_profile(kind) if config is None else load_yaml(config, Sd15Profile)
    if profile.kind != kind:
        raise ConfigError(f"{config}: is a profile of the stage sd15-{profile.kind}, not of {stage}")
    before = BEFORE[profile.kind]
    with crew().main_process_first():
        begun = _first(profile, out) if before is None else Folder.open(out / f"sd15-{before}")
    stage_run, folder = Workshop(begun, profile, corpus), out / stage
    run_stage(stage_run.stage(), profile.loop, folder, minutes=minutes)
    return folder


class Workshop:
    """The models of a folder, the corpus as data, and how a stage's result becomes a folder again."""

    def __init__(self, folder: Folder, profile: Sd15Profile, corpus: Path) -> None:
        self.folder, self.profile, card = folder, profile, folder.card
        self.base = folder.place(card.base)
        self.mark = fingerprint(load_unet(self.base))
        self.model = load_sd15(folder.file(card.adapters), self.base)
        self.lora = _lora(self.model, folder, profile)
        self.projection = load_projection(folder.file(card.projection))
        self.prior_file = folder.file(card.style_prior)
        self.prior: StylePrior = load_prior(self.prior_file)
        self.vae = load_vae(folder.place(card.vae or card.base)).requires_grad_(False)
        self.ears: Ears = open_ears(
            folder.place(card.audio.model), folder.optional(card.audio.norm), folder.optional(card.audio.readout),
            card.audio.window, card.audio.look_ahead,
        )  # fmt: skip
        device = crew().device
        self.vae.to(device)
        if isinstance(self.ears.encoder, RollingEncoder):
            self.ears.encoder.to(device)
        own = folder.optional(card.style_ears)
        hear_style = None if own is None else open_ears(str(own), None, None, 1, 0).encode
        self.clips = Clips.open(corpus).where(has_video=True)
        self.read = [
            read_clip(c, card.size, self.encode, self.ears.encode, self.prior, hear_style) for c in self.clips
        ]

    def encode(self, picture: Tensor) -> Tensor:
        """[B, 3, H, W] to latents in Stable Diffusion's scale."""
        told = self.vae.encode(picture.to(self.vae.device))
        latent: Tensor = told.latent_dist.mean if hasattr(told, "latent_dist") else told.latents
        return latent * float(self.vae.config.scaling_factor)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Bytes:
        """[1, 4, h, w] to uint8 [H, W, 3]."""
        self.vae.to(latent.device)
        picture = self.vae.decode(latent.float() / self.vae.config.scaling_factor).sample[0]
        rgb: Bytes = ((picture.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        return rgb

    def stage(self) -> Sd15Stage:
        """Ready to run."""
        config = self.model.config
        data = Sd15Data(self.read, config.audio.around, config.kps_scale)
        return Sd15Stage(self.profile, data, self.model, self.projection, decode=self.decode, write=self.write)

    def write(self, out: Path, model: nn.Module) -> None:
        """Everything that `sd15.yaml` names, the card last."""
        assert isinstance(model, Trained)
        old = self.folder.card
        save_adapters(out / old.adapters, model.sd15, self.mark)
        save_projection(out / old.projection, model.projection)
        if self.lora is not None:
            save_lora(out / LORA, model.sd15, self.lora, self.mark)
        for name in (old.style_prior, old.style_ears, old.audio.norm, old.audio.readout):
            if name is not None and not (out / name).exists():
                shutil.copyfile(self.folder.file(name), out / name)
        few = self.profile.kind in ("consistency", "rollout")
        audio = old.audio.model_copy(update={"model": _absolute(self.folder.place(old.audio.model))})
        write_presets(out / "styles", self.read, {c.id: c.style for c in self.clips}, sha256(self.prior_file))
        changed: dict[str, Any] = {
            "base": _absolute(self.base), "audio": audio, "avatars": self.avatars(out),
            "lora": None if self.lora is None else LORA,
            "vae": old.vae and _absolute(self.folder.place(old.vae)),
            "decoder": old.decoder and _absolute(self.folder.place(old.decoder)),
            "sampling": old.sampling.model_copy(update={"kind": "few" if few else "ddim"}),
        }  # fmt: skip
        write_card(out, old.model_copy(update=changed))

    def avatars(self, out: Path) -> dict[str, AvatarCard]:
        """For each person the straightest frame as a picture, and their head's geometry where their poses tell it."""
        (out / "avatars").mkdir(exist_ok=True)
        found = {}
        for name in sorted({c.avatar for c in self.clips}):
            own = list(self.clips.where(avatar=name))
            turned = [np.abs(c.pose[:, :3]).sum(1) for c in own]
            best = int(np.argmin([t.min() for t in turned]))
            rgb, _ = read_frames(own[best], [int(turned[best].argmin())])
            Image.fromarray(rgb[0]).save(out / "avatars" / f"{name}.png")
            try:
                numbers = tuple(float(x) for x in self.clips.geometry(name, rgb.shape[1]).vector())
            except ValueError:
                logger.warning("the poses of %s hardly differ: a head in the middle is taken for theirs", name)
                numbers = None
            found[name] = AvatarCard(image=f"avatars/{name}.png", geometry=numbers)
        return found


def _lora(model: Sd15, folder: Folder, profile: Sd15Profile) -> LoraConfig | None:
    """Low-rank layers that the folder has or the profile asks for, attached; None without either."""
    asked = None if profile.lora is None else LoraConfig(**profile.lora.model_dump())
    if (path := folder.optional(folder.card.lora)) is not None:
        found = restore_lora(path, model)
        if asked not in (None, found):
            raise ConfigError(f"lora: {folder.path} was trained with {found}, the profile asks for {asked}; make them "
                              f"equal, or leave `lora` null to train the rest")
        return found
    if asked is not None:
        torch.manual_seed(profile.loop.seed)
        attach(model, asked)
    return asked


def _first(profile: Sd15Profile, out: Path) -> Folder:
    """A folder of untrained adapters to begin with, in `out/sd15-start`; made once."""
    parts, path = profile.parts, out / "sd15-start"
    if (path / "sd15.yaml").is_file():
        return Folder.open(path)
    path.mkdir(parents=True, exist_ok=True)
    prior_file = parts.style_prior or out / "style-prior" / "style_prior.safetensors"
    prior = load_prior(prior_file)
    audio = parts.audio
    ears = open_ears(
        audio.model, None if audio.norm is None else Path(audio.norm),
        None if audio.readout is None else Path(audio.readout), audio.window, audio.look_ahead,
    )  # fmt: skip
    unet = load_unet(parts.base)
    mark = fingerprint(unet)
    torch.manual_seed(profile.loop.seed)
    graft: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in parts.graft.items()}
    hearing = AudioProjectionConfig(audio_dim=ears.width, **parts.projection)
    model = Sd15(unet, Sd15Config(audio=hearing, **graft))
    width = model.token_width
    projection = StyleProjection(ProjectionConfig(prior.config.style_dim, parts.style_tokens, width))
    save_adapters(path / "adapters.safetensors", model, mark)
    save_projection(path / "style_projection.safetensors", projection)
    shutil.copyfile(prior_file, path / "style_prior.safetensors")
    style_ears = parts.style_ears or out / "audio" / "audio_encoder.safetensors"
    own_ears = prior.config.audio_in_style and prior.config.audio_dim != ears.width and style_ears.is_file()
    if own_ears:
        shutil.copyfile(style_ears, path / STYLE_EARS)
    named: dict[str, str | None] = {}
    for key in ("norm", "readout"):
        source = getattr(audio, key)
        named[key] = None if source is None else Path(source).name
        if source is not None:
            shutil.copyfile(source, path / Path(source).name)
    told = audio.model_copy(update={"model": _absolute(audio.model), **named})
    # Avatars are found by the stage; until then the card names one that is not there.
    card = Card(
        base=_absolute(parts.base), vae=parts.vae, decoder=parts.decoder, audio=told, size=parts.size,
        style_ears=STYLE_EARS if own_ears else None,
        sampling=SamplingCard(kind="ddim"), avatars={"nobody": AvatarCard(image="nobody.png")},
    )  # fmt: skip
    write_card(path, card)
    return Folder.open(path)


def save_projection(path: Path, projection: StyleProjection) -> None:
    """As `load_projection` reads it."""
    tensors = {f"{PREFIX}{k}": v for k, v in projection.state_dict().items()}
    save_weights(path, PROJECTION_KIND, {"projection": asdict(projection.config)}, tensors, half=True)


def write_presets(folder: Path, read: list[Sd15Clip], styles: dict[str, str], prior: str) -> None:
    """One preset for each named style of the corpus: the mean of its training clips. Raises MediaError without any."""
    folder.mkdir(exist_ok=True)
    by: dict[str, list[Sd15Clip]] = {}
    for clip in read:
        if not clip.held_out and not styles[clip.name].startswith("sampled-"):
            by.setdefault(styles[clip.name] or "plain", []).append(clip)
    if not by:
        raise MediaError("no training clip has a named style to make a preset of")
    mean: Callable[[list[Tensor]], Any] = lambda parts: torch.stack(parts).mean(0).numpy()  # noqa: E731
    for name, clips in by.items():
        preset = StylePreset(name, mean([c.mu for c in clips]), mean([c.log_var for c in clips]), prior)
        save_preset(folder / f"{name}.npz", preset)


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name
