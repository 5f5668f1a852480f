"""One person's face on the trained engine: a `Stage[AudioChunk, Frame]` with live controls.

Each frame: window of audio tokens and style to tokens and expression, which come to rest where nobody speaks; level,
tokens and speech state to a pose; both to the reference latent and the HEAD-Kps raster; all of them to a clean latent
(see `latents`, and the ladder's first rungs there); paint. The last rung, an `effort` of 4, is the last picture again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from svp_stream.arkit import SPEECH
from svp_stream.audio.level import SILENCE_DBFS, Level, LevelStream
from svp_stream.audio.wav2vec import Wav2VecStream
from svp_stream.clock import FRAME_TICKS, MODEL_RATE_HZ, ticks_per_sample
from svp_stream.diffusion.appearance import face_vector
from svp_stream.diffusion.cache import LatentCache
from svp_stream.diffusion.conditioner import widened
from svp_stream.diffusion.noise import SessionNoise
from svp_stream.diffusion.steady import steadied
from svp_stream.errors import EngineError
from svp_stream.motion.generator import MotionDrive
from svp_stream.motion.kps import project, raster_pose
from svp_stream.packets import AudioChunk, AudioTokens, Bytes, Float32, Frame, Pose, SpeechState
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.latents import Asked, Latents
from svp_stream.pipeline.living import Motion
from svp_stream.pipeline.resting import Resting
from svp_stream.style.blend import Glide, StylePoint, sample

if TYPE_CHECKING:
    from svp_stream.pipeline.mini import MiniEngine

REPEAT = 4
SAMPLE_TICKS = ticks_per_sample(MODEL_RATE_HZ)


@dataclass(slots=True)
class _State:
    """All that a face remembers; born in `reset`."""

    ears: Wav2VecStream
    level: LevelStream
    motion: Motion
    glide: Glide
    cache: LatentCache = field(default_factory=LatentCache)
    tokens: deque[AudioTokens] = field(default_factory=deque)
    levels: deque[Level] = field(default_factory=deque)
    states: deque[SpeechState] = field(default_factory=lambda: deque(maxlen=256))
    speaking: bool | None = None
    """None while nobody has said whether anybody speaks."""
    addressed: bool = False
    number: int = 0
    behind: int = 0
    next_pts: int | None = None
    style: tuple[Float32, Float32] | None = None
    resting: Resting = field(default_factory=Resting)
    rest: tuple[Float32, Float32] | None = None
    """Tokens and coefficients of a face of this style that hears nothing; None until they are wanted."""
    picture: Bytes | None = None


class MiniFace:
    """See the card. Used from the inference thread only."""

    def __init__(
        self, engine: MiniEngine, avatar: str, style: StyleRequest, seed: int, script: Sequence[Pose] | None = None
    ) -> None:
        self.effort = 0
        self._engine = engine
        self._seed = seed
        self._script = script
        self._born = (avatar, style)
        self._times: dict[str, float] = {}
        c = engine.conditioner.config
        self._past_frames = c.past // 2
        self._eps = np.random.default_rng([seed, 7]).standard_normal(engine.style_dim, dtype=np.float32)
        noise = SessionNoise(seed, (4, engine.size // 8, engine.size // 8), engine.rule.noise_mix)
        self._latents = Latents(engine.programs, engine.rule, noise)
        self.reset()

    @property
    def latency(self) -> int:
        """Ticks: the frame itself, the look-ahead, and the encoder's tail."""
        return self._state.ears.latency + self._engine.look_ahead * FRAME_TICKS

    def reset(self) -> None:
        """As newly made: first avatar and style, same seed, full effort."""
        avatar, style = self._born
        self.effort = 0
        self._sitter = self._engine.sitter(avatar)
        point = self._point(style)
        self._state = _State(
            ears=Wav2VecStream(self._engine.encoder, self._engine.encode_step), level=LevelStream(),
            motion=self._engine.living(self._sample(point), self._seed), glide=Glide.rest(point),
        )

    def hear(self, state: SpeechState) -> None:
        """Who speaks from `state.pts` on."""
        self._state.states.append(state)

    def attend(self, on: bool) -> None:
        """Whether somebody speaks to the person, from the next frame made: they listen and nod."""
        self._state.addressed = on

    def set_style(self, style: StyleRequest) -> None:
        """Glide to a style over 0.3 s, from the next frame made."""
        st = self._state
        point = self._point(style)
        st.glide = st.glide.toward(point, self._next_pts())
        # Frames may repeat until the glide is over: what was kept of the style before must not outlive it.
        st.style = None
        st.motion.set_style(self._sample(point))

    def set_avatar(self, name: str) -> None:
        """Show another person: the latents of the last one are forgotten, the motion goes on."""
        self._sitter = self._engine.sitter(name)
        self._state.cache.reset()

    def push(self, x: AudioChunk) -> list[Frame]:
        """Frames whose look-ahead is complete. Raises StreamError for sound that does not follow on."""
        st = self._state
        with self._timed("wav2vec"):
            st.tokens.extend(st.ears.push(x))
        st.levels.extend(st.level.push(x))
        return self._drain(self._engine.look_ahead)

    def flush(self) -> list[Frame]:
        """The rest; sound after the end counts as unheard."""
        st = self._state
        st.tokens.extend(st.ears.flush())
        st.levels.extend(st.level.flush())
        return self._drain(0)

    def hush(self) -> int:
        """What was heard and not shown becomes silence; returns the `pts` of the next frame, the first without it."""
        st = self._state
        silence = st.ears.hush()
        for i in range(st.behind, len(st.tokens)):
            st.tokens[i] = replace(st.tokens[i], tokens=silence)
        st.level.hush()
        st.levels = deque(replace(level, rms=0.0, stress=0.0, below_db=-SILENCE_DBFS) for level in st.levels)
        st.picture = None  # so that the ladder does not repeat an open mouth
        return st.tokens[st.behind].pts if st.behind < len(st.tokens) else self._next_pts()

    def silence(self, pts: int, frames: int) -> list[Frame]:
        """Push `frames` frames of silence at `pts` and flush."""
        samples = np.zeros(frames * FRAME_TICKS // SAMPLE_TICKS, np.float32)
        return self.push(AudioChunk(pts, samples, MODEL_RATE_HZ)) + self.flush()

    def take_times(self) -> dict[str, float]:
        """Milliseconds spent in each part since last asked (a `meter.Timed`)."""
        times, self._times = self._times, {}
        return times

    def _drain(self, ahead: int) -> list[Frame]:
        """Make frames while `ahead` more frames of tokens are there; drop tokens that no window reads any more."""
        st, made = self._state, []
        while len(st.tokens) > st.behind + ahead and st.levels:
            made.append(self._make())
            st.number += 1
            st.behind += 1
            if st.behind > self._past_frames:
                st.tokens.popleft()
                st.behind -= 1
        return made

    def _next_pts(self) -> int:
        st = self._state
        return st.next_pts if st.next_pts is not None else 0

    def _make(self) -> Frame:
        st = self._state
        pts, level = st.tokens[st.behind].pts, st.levels.popleft()
        pose = self._pose(st.tokens[st.behind], level)
        rest = st.resting.step(level, list(islice(st.levels, self._engine.look_ahead)), st.speaking)
        st.next_pts = pts + FRAME_TICKS
        if self.effort >= REPEAT and st.picture is not None:
            return _frame(pts, st.picture, REPEAT)
        with self._timed("condition"):
            style, strength = self._style(pts)
            tokens, speech = self._spoken(style, strength, rest)
        with self._timed("reference"):
            attitude = np.array([[pose.yaw, pose.pitch, pose.roll]], np.float32)
            eyes = np.array([[pose.blink_left, pose.blink_right, pose.gaze_x, pose.gaze_y]], np.float32)
            reference = self._sitter.avatar.appearance.reference(attitude, face_vector(speech, eyes))
            kps = raster_pose(self._sitter.geometry, replace(pose, dx=0.0, dy=0.0))[None]
        before = st.cache.reference
        with self._timed("denoise"):
            asked = Asked(st.number, reference, kps, tokens, style, strength)
            latent, rung = self._latents.make(st.cache, asked, self.effort)
        with self._timed("paint"):
            shift = np.array([[pose.dx, pose.dy]], np.float32)
            painted = np.array(self._engine.programs.paint(latent, shift)[0][0])
            levels = self._engine.rule.smoothing
            if levels and st.picture is not None and before is not None:
                points = project(self._sitter.geometry, pose)
                painted = steadied(st.picture, painted, reference[0] - before, points, levels)
            st.picture = painted
        return _frame(pts, st.picture, rung)

    def _pose(self, heard: AudioTokens, level: Level) -> Pose:
        st = self._state
        while st.states and st.states[0].pts <= heard.pts:
            st.speaking = st.states.popleft().speaking
        if self._script is not None:
            return self._script[min(st.number, len(self._script) - 1)]
        speaking = st.speaking is True
        drive = MotionDrive(heard.pts, speaking, level.stress if speaking else 0.0, st.addressed,
                            heard.tokens.mean(axis=0))
        return st.motion.push(drive)[0]

    def _style(self, pts: int) -> tuple[Float32, Float32]:
        """Style tokens [1, N, C] and strength [1] at `pts`; computed again only while the style glides."""
        st = self._state
        if st.style is None or not st.glide.still(pts):
            point = st.glide.at(pts)
            strength = np.array([point.strength], np.float32)
            st.style, st.rest = (self._engine.style_tokens(self._sample(point)), strength), None
            if not st.glide.still(pts):
                style, st.style = st.style, None
                return style
        return st.style

    def _spoken(self, style: Float32, strength: Float32, rest: float) -> tuple[Float32, Float32]:
        """Audio tokens [1, 8, 128] and speech coefficients [1, 42] in [0, 1] of the next frame, `rest` of the way to
        those of a face that hears nothing."""
        st = self._state
        if rest > 0 and st.rest is None:
            c = self._engine.conditioner.config
            heard = np.zeros((1, c.window), np.float32)
            heard[:, : c.past + 2 + 2 * self._engine.look_ahead] = 1.0
            st.rest = self._conditioned(self._engine.silence, heard, style, strength)
        if rest == 1.0:
            assert st.rest is not None
            return st.rest
        spoken = self._heard(style, strength)
        if rest == 0.0:
            return spoken
        assert st.rest is not None
        share = np.float32(rest)
        tokens, expression = (a + share * (b - a) for a, b in zip(spoken, st.rest, strict=True))
        return tokens, expression

    def _heard(self, style: Float32, strength: Float32) -> tuple[Float32, Float32]:
        """The same for what the window around the next frame sounds like."""
        st, c = self._state, self._engine.conditioner.config
        window = np.zeros((1, c.window, c.audio_dim), np.float32)
        heard = np.zeros((1, c.window), np.float32)
        last = min(len(st.tokens), st.behind + 1 + self._engine.look_ahead)
        for i in range(last):
            at = c.past + 2 * (i - st.behind)
            window[0, at : at + 2], heard[0, at : at + 2] = st.tokens[i].tokens, 1.0
        return self._conditioned(window, heard, style, strength)

    def _conditioned(
        self, window: Float32, heard: Float32, style: Float32, strength: Float32
    ) -> tuple[Float32, Float32]:
        tokens, expression = self._engine.programs.condition(window, heard, style, strength)
        return widened(np.array(tokens), np.array(expression).reshape(1, len(SPEECH)), self._engine.articulation)

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


def _frame(pts: int, picture: Bytes, level: int) -> Frame:
    rgb, alpha = np.ascontiguousarray(picture[..., :3]), np.ascontiguousarray(picture[..., 3])
    return Frame(pts, rgb, alpha, level)
