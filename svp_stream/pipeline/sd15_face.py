"""One person's face on the sd15 engine: a `Stage[AudioChunk, Frame]` with live controls.

Each frame: window of wav2vec2 embeddings to audio tokens; level and speech state to a pose and its HEAD-Kps fields;
style to keys and values, kept while it stands still; the sampler to a clean latent (one warm step from the last one,
or cold in two; DDIM before consistency tuning); decode. The keys and values over time roll from frame to frame.

The ladder's rungs, from `effort`: 1 a cold start takes one step; 2 every second, 3 two of three frames are repeated (a
warm frame is one step already, so that whole frames are what there is to save); 4 all of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from svp_stream.audio.level import Level, LevelStream
from svp_stream.audio.wav2vec import Wav2VecStream
from svp_stream.audio.wav2vec_rolling import RollingStream
from svp_stream.clock import FRAME_TICKS, MODEL_RATE_HZ, ticks_per_sample
from svp_stream.diffusion import sampler
from svp_stream.diffusion.cache import LatentCache
from svp_stream.diffusion.noise import SessionNoise
from svp_stream.diffusion.sd15 import Steering, x0_from_v
from svp_stream.diffusion.sd15_attention import Layers
from svp_stream.errors import EngineError
from svp_stream.motion.generator import MotionDrive, MotionStream
from svp_stream.motion.kps import raster_pose
from svp_stream.packets import AudioChunk, AudioTokens, Bytes, Float32, Frame, Pose, SpeechState
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.style.blend import Glide, StylePoint, sample

if TYPE_CHECKING:
    from svp_stream.pipeline.sd15 import Sd15Engine

HISTORY = 0.05
"""Noise level that the previous latent is said to have."""
REPEAT = 4
SAMPLE_TICKS = ticks_per_sample(MODEL_RATE_HZ)


@dataclass(slots=True)
class _State:
    """All that a face remembers; born in `reset`."""

    ears: RollingStream | Wav2VecStream
    level: LevelStream
    motion: MotionStream
    glide: Glide
    cache: LatentCache = field(default_factory=LatentCache)
    past: Layers = field(default_factory=dict)
    tokens: deque[AudioTokens] = field(default_factory=deque)
    levels: deque[Level] = field(default_factory=deque)
    states: deque[SpeechState] = field(default_factory=lambda: deque(maxlen=256))
    speaking: bool = False
    addressed: bool = False
    number: int = 0
    behind: int = 0
    repeated: int = 0
    next_pts: int | None = None
    style: tuple[Layers, float] | None = None
    picture: Bytes | None = None


class Sd15Face:
    """See the card. Used from the inference thread only."""

    def __init__(self, engine: Sd15Engine, avatar: str, style: StyleRequest, seed: int) -> None:
        self.effort = 0
        self._engine = engine
        self._seed = seed
        self._born = (avatar, style)
        self._times: dict[str, float] = {}
        self._eps = np.random.default_rng([seed, 7]).standard_normal(engine.style_dim, dtype=np.float32)
        cells = engine.size // 8
        self._noise = SessionNoise(seed, (4, cells, cells), engine.sampling.rho)
        self.reset()

    @property
    def latency(self) -> int:
        """Ticks: the frame itself, the encoder's look-ahead and tail, the projection's look-ahead."""
        return self._state.ears.latency + self._engine.look_ahead * FRAME_TICKS

    def reset(self) -> None:
        """As newly made: first avatar and style, same seed, full effort."""
        avatar, style = self._born
        self.effort = 0
        self._sitter = self._engine.sitter(avatar)
        point = self._point(style)
        manner = self._engine.manner(self._sample(point))
        self._state = _State(
            ears=self._engine.ears.stream(), level=LevelStream(), motion=MotionStream(manner, self._seed),
            glide=Glide.rest(point),
        )  # fmt: skip

    def hear(self, state: SpeechState) -> None:
        """Who speaks from `state.pts` on."""
        self._state.states.append(state)

    def attend(self, on: bool) -> None:
        """Whether somebody speaks to the person, from the next frame made: they listen and nod."""
        self._state.addressed = on

    def set_style(self, style: StyleRequest) -> None:
        """Glide to a style over 0.3 s, from the next frame made."""
        st, point = self._state, self._point(style)
        st.glide = st.glide.toward(point, st.next_pts if st.next_pts is not None else 0)
        st.style = None
        st.motion.set_manner(self._engine.manner(self._sample(point)))

    def set_avatar(self, name: str) -> None:
        """Show another person: what was kept of the last one's picture is forgotten, the motion goes on."""
        self._sitter = self._engine.sitter(name)
        self._forget()

    def push(self, x: AudioChunk) -> list[Frame]:
        """Frames whose look-ahead is complete. Raises StreamError for sound that does not follow on."""
        st = self._state
        with self._timed("wav2vec"):
            self._hear(st.ears.push(x))
        st.levels.extend(st.level.push(x))
        return self._drain(self._engine.look_ahead)

    def flush(self) -> list[Frame]:
        """The rest; sound after the end counts as unheard."""
        st = self._state
        self._hear(st.ears.flush())
        st.levels.extend(st.level.flush())
        return self._drain(0)

    def silence(self, pts: int, frames: int) -> list[Frame]:
        """Push `frames` frames of silence at `pts` and flush."""
        samples = np.zeros(frames * FRAME_TICKS // SAMPLE_TICKS, np.float32)
        return self.push(AudioChunk(pts, samples, MODEL_RATE_HZ)) + self.flush()

    def take_times(self) -> dict[str, float]:
        """Milliseconds spent in each part since last asked (a `meter.Timed`)."""
        times, self._times = self._times, {}
        return times

    def _hear(self, packets: list[AudioTokens]) -> None:
        self._state.tokens.extend(AudioTokens(p.pts, self._engine.ears.told(p.tokens)) for p in packets)

    def _drain(self, ahead: int) -> list[Frame]:
        """Make frames while `ahead` more frames of tokens are there; drop tokens that no window reads any more."""
        st, made, around = self._state, [], self._engine.model.config.audio.around
        while len(st.tokens) > st.behind + ahead and st.levels:
            made.append(self._make())
            st.number += 1
            st.behind += 1
            if st.behind > around:
                st.tokens.popleft()
                st.behind -= 1
        return made

    @torch.inference_mode()
    def _make(self) -> Frame:
        st = self._state
        pts = st.tokens[st.behind].pts
        pose = self._pose(pts, st.levels.popleft())
        st.next_pts = pts + FRAME_TICKS
        if st.picture is not None and self._repeats():
            st.repeated += 1
            return Frame(pts, st.picture, None, REPEAT)
        st.repeated = 0
        with self._timed("condition"):
            steering = self._steering(pts, pose)
        with self._timed("denoise"):
            latent = self._latent(steering)
        with self._timed("paint"):
            st.picture = self._engine.autoencoder.decode(latent)
        return Frame(pts, st.picture, None, min(self.effort, REPEAT - 1))

    def _repeats(self) -> bool:
        return self.effort >= REPEAT or self._state.repeated < {2: 1, 3: 2}.get(self.effort, 0)

    def _pose(self, pts: int, level: Level) -> Pose:
        st = self._state
        while st.states and st.states[0].pts <= pts:
            st.speaking = st.states.popleft().speaking
        stress = level.stress if st.speaking else 0.0
        return st.motion.push(MotionDrive(pts, st.speaking, stress, st.addressed))[0]

    def _steering(self, pts: int, pose: Pose) -> Steering:
        engine, model = self._engine, self._engine.model
        keys, strength = self._style(pts)
        cells = engine.size // 8 * model.config.kps_scale
        audio, heard = self._heard()
        return model.steer(
            self._tensor(raster_pose(self._sitter.geometry, pose, cells)[None]), self._tensor(audio),
            self._tensor(heard), keys, self._tensor(np.array([strength], np.float32)), self._sitter.reference,
        )  # fmt: skip

    def _style(self, pts: int) -> tuple[Layers, float]:
        """Keys and values and strength at `pts`; computed again only while the style glides."""
        st = self._state
        if st.style is not None and st.glide.still(pts):
            return st.style
        point = st.glide.at(pts)
        told = self._engine.style_keys(self._sample(point)), point.strength
        st.style = told if st.glide.still(pts) else None
        return told

    def _heard(self) -> tuple[Float32, Float32]:
        """Embeddings [1, W, A] around the next frame and which of them are there [1, W]."""
        st, c = self._state, self._engine.model.config.audio
        window, heard = np.zeros((1, c.window, c.audio_dim), np.float32), np.zeros((1, c.window), np.float32)
        for i in range(max(0, st.behind - c.around), min(len(st.tokens), st.behind + 1 + self._engine.look_ahead)):
            at = 2 * (c.around + i - st.behind)
            window[0, at : at + 2], heard[0, at : at + 2] = st.tokens[i].tokens, 1.0
        return window, heard

    def _latent(self, steering: Steering) -> Tensor:
        """Clean latent [1, 4, h, w] of the next frame; rolls the past on."""
        st, engine, cache = self._state, self._engine, self._state.cache
        noise = self._tensor(self._noise.frame(st.number)[None])
        cold = cache.cold(engine.sampling.refresh)
        if cold:
            self._forget()
        previous = torch.zeros_like(noise) if cold else self._tensor(cache.previous[None])  # type: ignore[index]
        history = torch.full((1,), -1.0 if cold else HISTORY, device=engine.device)
        written: Layers = {}

        def denoise(x_t: Tensor, t: int) -> Tensor:
            nonlocal written
            step = torch.full((1,), t, dtype=torch.long, device=engine.device)
            v, written = engine.model(x_t, step, previous, history, steering, st.past)
            alpha, sigma = float(engine.schedule.alpha[t]), float(engine.schedule.sigma[t])
            return x0_from_v(x_t.float(), v.float(), alpha, sigma).to(x_t.dtype)

        if engine.sampling.kind == "ddim":
            latent = sampler.ddim(denoise, noise, engine.schedule, sampler.trailing(engine.sampling.steps))
        elif cold:
            latent = sampler.cold(denoise, noise, engine.schedule, steps=1 if self.effort else 2)
        else:
            latent = sampler.warm(denoise, previous, noise, engine.schedule)
        cache.keep(latent[0].float().cpu().numpy(), None, was_cold=cold)
        st.past = {} if cache.previous is None else engine.model.rolled(st.past, written)
        return latent

    def _forget(self) -> None:
        self._state.cache.reset()
        self._state.past = {}

    def _tensor(self, x: Float32) -> Tensor:
        return torch.from_numpy(x).to(self._engine.device, self._engine.dtype)

    def _point(self, style: StyleRequest) -> StylePoint:
        expected = (self._engine.style_dim,)
        if style.mu.shape != expected or style.log_var.shape != expected:
            raise EngineError(f"style {style.name!r} has {style.mu.shape} numbers, the prior's styles have {expected}")
        return StylePoint(style.mu, style.log_var, style.temperature, style.strength)

    def _sample(self, point: StylePoint) -> Float32:
        return sample(point.mu, point.log_var, point.temperature, self._eps)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._times[part] = self._times.get(part, 0.0) + 1000 * (time.perf_counter() - began)
