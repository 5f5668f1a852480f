"""Stage `motion`: a small causal network learns how people of each style move head, lids and eyes. No pixels.

In: scenes (acted over takes of speech, or filmed: the sidecars of the corpus), the frozen style prior. Out:
`motion.safetensors`. A style is given as a sample of the posterior of other clips, as at run time. Saccades, their
targets and blinks are learned as a point process, by likelihood. The head is learned by running free: two movements
are drawn from two noises for one true scene, and the energy score (Gneiting and Raftery, JASA 2007), which only the
true law makes least, is taken over poses, speeds and stretches of 1 to 4 s. No frame is ever fed a true past of the
head, so that there is nothing to drift away from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.audio.wav2vec import load_encoder
from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.motion.colours import NORMALS, STRANDS, TEMPOS_HZ, Colours
from svp_stream.motion.learned import SPRING
from svp_stream.motion.network import HEAD, WHITE, MotionConfig, MotionNet, save_motion
from svp_stream.motion.wander import spring
from svp_stream.packets import Float32
from svp_stream.style.prior import load_prior
from svp_stream.training.coefficients import CoefficientConfig, load_bank
from svp_stream.training.loop import Batch, LoopConfig
from svp_stream.training.motion_check import check, draw_check
from svp_stream.training.motion_reading import Reading, blink_book, fit_reflex, read
from svp_stream.training.motion_scenes import Cast, Life, Scene, acted, filmed
from svp_stream.weights_file import sha256

WEIGHTS: Final = "motion.safetensors"
FOLLOW_FRAMES: Final = 24
"""Length of the spring's answer to a step that is worth computing."""
STRETCHES: Final = ((3, 8), (12, 8))
"""(frames between, how many) of the poses that are judged together: 1 s and 3.8 s."""
SPEED_FRAMES: Final = 8
NOISES: Final = 64
NOISE_FRAMES: Final = 3000


class MotionTrainConfig(BaseModel):
    """Profile `configs/train/motion.yaml`; the loop's batch counts stretches of `frames`."""

    model_config = ConfigDict(extra="forbid")

    loop: LoopConfig = LoopConfig.model_validate(
        {"steps": 2500, "batch": 16, "lr": 2e-3, "warmup": 60, "ema": 0.995, "precision": "fp32", "threads": 1,
         "sheet_every_s": 400}
    )
    data: CoefficientConfig = CoefficientConfig()
    prior: Path | None = Field(default=None, description="style_prior.safetensors; none: from the run `style-prior`")
    source: Literal["acted", "filmed"] = "acted"
    """acted: scenes by rule in styles of the synthetic corpus; filmed: the sidecars in the corpus folder."""
    cast: Cast = Cast()
    trial_scenes: int = Field(default=2, ge=1, description="held-out scenes in each named style")
    frames: int = Field(default=160, ge=100, description="length of a stretch")
    start_share: float = Field(default=0.15, ge=0, le=1, description="stretches taken from the start of a scene")
    named_share: float = Field(default=0.6, ge=0, le=1)
    sizes: dict[str, Any] = Field(default_factory=dict, description="of the network, see MotionConfig")


@dataclass(frozen=True, slots=True)
class Lived:
    """A scene read once: what the batches are cut from."""

    scene: Scene
    reading: Reading
    drive: Float32
    past: Float32
    free: NDArray[np.bool_]


def live_through(scene: Scene, reflex: float) -> Lived:
    """Events and conditions of a scene."""
    reading = read(scene.pose, reflex)
    return Lived(scene, reading, scene.heard.drive(), reading.past(scene.heard.speaking), reading.free())


class MotionStage:
    """See the card. `life`: scenes of styles, the first `life.named` of which have names."""

    def __init__(self, config: MotionTrainConfig, life: Life, trial: Life, prior: str) -> None:
        """`trial`: scenes that nobody trains on, of styles with names."""
        self.config, self.prior, self.life, self.trial = config, prior, life, trial
        rng = np.random.default_rng([config.data.seed, 52])
        reflex = fit_reflex([s.pose for s in life.scenes])
        self.lived = [live_through(s, reflex) for s in life.scenes]
        self._model = MotionNet(MotionConfig(
            style_dim=life.known[0].mu.shape[1], audio_dim=life.scenes[0].heard.voice.shape[1], **config.sizes))
        every = np.concatenate([s.pose[:, :HEAD] for s in life.scenes])
        with torch.no_grad():
            self._model.reflex.fill_(reflex)
            self._model.book.copy_(torch.from_numpy(blink_book([x.reading for x in self.lived], rng)))
            self._model.centre.copy_(torch.from_numpy(every.mean(0)))
            self._model.scale.copy_(torch.from_numpy(every.std(0)).clamp(min=1e-3))
        self.spread, self.speed = self._sizes()
        self.noise = noises(rng)
        self.follow = follow_kernel()
        self.of_style = [[i for i, s in enumerate(life.scenes) if s.style == k] for k in range(len(life.known))]

    def _sizes(self) -> tuple[Float32, Float32]:
        """Deviation of the pose and of its speed in each style, float32 [styles, HEAD]: people who move little count
        as much as people who move a lot."""
        spreads, speeds = [], []
        for k in range(len(self.life.known)):
            poses = [s.pose[:, :HEAD] for s in self.life.scenes if s.style == k]
            spreads.append(np.mean([p.std(0) for p in poses], axis=0))
            speeds.append(np.mean([np.diff(p, axis=0).std(0) for p in poses], axis=0))
        floor = np.array([0.1, 0.1, 0.1, 5e-4, 5e-4])
        return (np.maximum(spreads, floor).astype(np.float32), np.maximum(speeds, floor / 20).astype(np.float32))

    @property
    def model(self) -> nn.Module:
        """See TrainingStage."""
        return self._model

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """`size` stretches of T frames, with two noises for each."""
        rows = [self._stretch(rng) for _ in range(size)]
        out = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        frames = self.config.frames
        white = rng.standard_normal((2 * size, frames, WHITE), dtype=np.float32)
        colours = np.stack([self._colours(rng) for _ in range(2 * size)])
        return out | {"colours": torch.from_numpy(colours), "white": torch.from_numpy(white)}

    def _colours(self, rng: np.random.Generator) -> Float32:
        """A cut of the noise that was made at the start, [T, COLOURS], with its strands dealt anew and turned over."""
        row, start = rng.integers(len(self.noise)), rng.integers(self.noise.shape[1] - self.config.frames)
        cut = self.noise[row, start : start + self.config.frames].copy()
        strands = len(TEMPOS_HZ) * STRANDS
        dealt = rng.permuted(np.arange(strands).reshape(len(TEMPOS_HZ), STRANDS), axis=1).ravel()
        cut[:, :strands] = cut[:, dealt] * rng.choice(np.array([-1.0, 1.0], np.float32), strands)
        return cut

    def _stretch(self, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
        c = self.config
        named = rng.random() < c.named_share
        k = int(rng.integers(self.life.named if named else len(self.life.known)))
        lived = self.lived[self.of_style[k][int(rng.integers(len(self.of_style[k])))]]
        reading, pose = lived.reading, lived.scene.pose
        last = len(pose) - c.frames
        start = 0 if rng.random() < c.start_share else int(rng.integers(max(last, 0) + 1))
        at = np.minimum(np.arange(start, start + c.frames), len(pose) - 1)
        return {
            "s": self.life.known[k].draw(rng), "voice": lived.scene.heard.voice[at].astype(np.float32),
            "drive": lived.drive[at], "past": lived.past[at], "jump": 0.1 * reading.jump[at],
            "look": 0.1 * reading.look[at], "saccade": reading.saccade[at].astype(np.float32),
            "blink": reading.blink[at].astype(np.float32), "free": lived.free[at].astype(np.float32),
            "lid": reading.lid[at], "calm": reading.calm[at].astype(np.float32), "gaze_y": reading.gaze_y[at],
            "pose": pose[at, :HEAD], "spread": self.spread[k], "speed": self.speed[k],
        }

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See the card."""
        assert isinstance(model, MotionNet)
        b = batch
        manner = model.manner(b["s"])
        given = model.conditions(manner, b["voice"], b["drive"])
        eyes, parts = self._eyes(model, manner, given, b)
        twice = {name: torch.cat([x, x]) for name, x in (("given", given), ("look", b["look"]))}
        goals = model.goals(twice["given"], b["white"], twice["look"], b["colours"])
        first, second = followed(goals, self.follow.to(goals)).chunk(2)
        head = head_score(b["pose"], first, second, b["spread"], b["speed"])
        parts |= {name: float(x.detach()) for name, x in head.items()}
        return eyes + sum(head.values()), parts

    @staticmethod
    def _eyes(model: MotionNet, manner: Tensor, given: Tensor, b: Batch) -> tuple[Tensor, dict[str, float]]:
        """Negative log likelihood of saccades, targets and blinks (nats a second), and the lids' error."""
        told = model.likelihoods(given, b["past"], b["jump"])
        leave = F.binary_cross_entropy_with_logits(told.saccade, b["saccade"]) * FRAME_RATE_HZ
        z = (b["look"][..., None, :] - told.means) * (-told.spreads).exp()
        each = told.weights - (0.5 * z.square() + told.spreads).sum(-1)
        place = -(each.logsumexp(-1) * b["saccade"]).sum() / b["saccade"].sum().clamp(min=1)
        blink = F.binary_cross_entropy_with_logits(told.blink, b["blink"], weight=b["free"]) * FRAME_RATE_HZ
        hang = model.lids(manner[:, None].expand(-1, b["lid"].shape[1], -1), b["gaze_y"])
        lid = ((hang - b["lid"]).square() * b["calm"]).mean()
        total = leave + 0.5 * place + blink + 30 * lid
        return total, {"saccade": leave.item(), "place": place.item(), "blink": blink.item(), "lid": lid.item()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """See `motion_check.check`."""
        assert isinstance(model, MotionNet)
        return check(model, self.life, self.trial)

    def sheet(self, model: nn.Module, path: Path) -> None:
        """True and generated movement over held-out speech."""
        assert isinstance(model, MotionNet)
        draw_check(model, self.trial, path)

    def export(self, model: nn.Module, out: Path) -> None:
        """Write `motion.safetensors` with the hash of the prior whose styles it knows."""
        assert isinstance(model, MotionNet)
        save_motion(out / WEIGHTS, model, self.prior)


def noises(rng: np.random.Generator) -> Float32:
    """`Colours` of many lives, float32 [NOISES, NOISE_FRAMES, COLOURS]."""
    colours = Colours.start(rng.standard_normal((2, NOISES, NORMALS)), rng.random(NOISES))
    steps = [colours.step(rng.standard_normal((2, NOISES, NORMALS)), 1 / FRAME_RATE_HZ) for _ in range(NOISE_FRAMES)]
    return np.stack(steps, axis=1).astype(np.float32)


def follow_kernel() -> Tensor:
    """Answer of the spring to a unit impulse of its goal, latest frame last: float32 [FOLLOW_FRAMES]."""
    x, v = np.zeros(1), np.zeros(1)
    answer = []
    for n in range(FOLLOW_FRAMES):
        x, v = spring(x, v, np.array([1.0 if n == 0 else 0.0]), SPRING, 1 / FRAME_RATE_HZ)
        answer.append(float(x[0]))
    return torch.tensor(answer[::-1])


def followed(goals: Tensor, kernel: Tensor) -> Tensor:
    """The head [B, T, HEAD] that follows `goals` by the spring, at rest at the first of them before."""
    n = len(kernel)
    x = torch.cat([goals[:, :1].expand(-1, n - 1, -1), goals], dim=1).transpose(1, 2)
    return F.conv1d(x.flatten(0, 1)[:, None], kernel.view(1, 1, n)).view(*goals.transpose(1, 2).shape).transpose(1, 2)


def energy(true: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Energy score of two draws, mean over all but the last axis, in which the vectors lie."""

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).square().sum(-1) + 1e-6).sqrt().mean()

    return 0.5 * (apart(true, first) + apart(true, second) - apart(first, second))


def head_score(true: Tensor, first: Tensor, second: Tensor, spread: Tensor, speed: Tensor) -> dict[str, Tensor]:
    """Energy scores of the head [B, T, HEAD] in deviations of its style (`spread`, `speed` [B, HEAD])."""
    poses = [x / spread[:, None] for x in (true, first, second)]
    speeds = [x.diff(dim=1) / speed[:, None] for x in (true, first, second)]
    out = {"pose": energy(*(x[:, 10::10, :, None] for x in poses)), "together": energy(*(x[:, 10::10] for x in poses))}
    for gap, count in STRETCHES:
        cuts = [x.unfold(1, gap * (count - 1) + 1, 8)[..., ::gap] for x in poses]
        out[f"stretch_{gap}"] = 0.5 * energy(*cuts) + 0.1 * energy(*(x.flatten(2) for x in cuts))
    quick = [x.unfold(1, SPEED_FRAMES, 4) for x in speeds]
    out["speed"] = 0.5 * energy(*quick) + 0.1 * energy(*(x.flatten(2) for x in quick))
    # How far a whole stretch spreads, and how fast it goes on the whole, tell people apart.
    out["size"] = energy(*(x.std(1)[..., None] for x in poses)) + energy(*(x.std(1)[..., None] for x in speeds))
    out["bearing"] = energy(*(x.mean(1)[..., None] for x in poses))
    return out


def make_motion_stage(config: MotionTrainConfig, corpus: Path, out: Path) -> MotionStage:
    """The stage over speech made on the spot, or over the sidecars of `corpus`; no pictures are read.

    Audio encoder and style prior are the profile's, or those of the runs beside `out`. Raises WeightsError when one is
    missing, MediaError where a corpus has no clip long enough.
    """
    heard = config.data.encoder or out.parent / "audio" / "audio_encoder.safetensors"
    prior = config.prior or out.parent / "style-prior" / "style_prior.safetensors"
    encoder = load_prior(prior).encoder
    if config.source == "filmed":
        life, trial = filmed(corpus, load_encoder(heard), encoder, config.frames)
    else:
        bank = load_bank(config.data, heard, out.parent / "coefficients")
        life = acted(config.cast, bank.train, bank.train, encoder, config.cast.named_scenes)
        trial = acted(config.cast, bank.train, bank.held_out, encoder, config.trial_scenes, only_named=True)
    return MotionStage(config, life, trial, sha256(prior))
