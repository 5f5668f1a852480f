"""The engine without weights: a drawn face whose mouth follows the level of the voice.

In: 16 kHz `AudioChunk`s and `SpeechState`s. Out: one 256x256 `Frame` with alpha for each 1920 ticks of sound.
Remembers: levels waiting for their look-ahead, the mouth, the eyelids, the glide between looks, the last scene.
Latency: one frame plus the declared look-ahead. It runs the whole server where no model is wanted: deterministic for a
seed, cheap (about 1-2 ms a frame), and `cartoon.mouth_opening` reads the mouth back off a received picture.
"""

from __future__ import annotations

import zlib
from dataclasses import astuple, dataclass, field
from typing import ClassVar

import numpy as np

from svp_stream.clock import FRAME_TICKS, MODEL_RATE_HZ, TICKS_PER_SECOND, ticks_per_sample
from svp_stream.errors import EngineError, PresetError, StreamError
from svp_stream.packets import AudioChunk, Bytes, Float32, Frame, SpeechState
from svp_stream.pipeline.budget import REPEAT
from svp_stream.pipeline.cartoon import SITTERS, SIZE, Drawing, Look, Scene, Sprites, finish, scene
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.style.blend import GLIDE_TICKS, sample, smoothstep
from svp_stream.style.preset import StylePreset

STYLE_DIM = 128
FRAME_SAMPLES = FRAME_TICKS // ticks_per_sample(MODEL_RATE_HZ)
QUIET_DB, LOUD_DB = -50.0, -18.0
SCENE_EVERY = (1, 2, 4, 1_000_000)
"""How many frames share one scene (all but the mouth), by rung of the ladder."""
BLINK = (0.45, 1.0, 1.0, 0.6, 0.25)
"""Eyelid closure over the frames of one blink."""


class NoopEngine:
    """The engine `noop`. `look_ahead` counts frames of sound that a frame may hear after its own."""

    name = "noop"
    size = SIZE
    avatars = tuple(SITTERS)
    prior = None
    style_dim = STYLE_DIM

    def __init__(self, look_ahead: int = 2) -> None:
        if look_ahead < 0:
            raise EngineError(f"look_ahead is a number of frames from 0 on, got {look_ahead}")
        self.look_ahead = look_ahead
        self.sprites = {name: Sprites(sitter) for name, sitter in SITTERS.items()}

    def warm(self) -> None:
        """Draw every sitter once."""
        for sprites in self.sprites.values():
            finish(scene(sprites, Drawing(Look())), 0.5)

    def stream(self, *, avatar: str, style: StyleRequest, seed: int) -> NoopFace:
        """A fresh face; raises `EngineError` for an unknown avatar or a style of another dimension."""
        return NoopFace(self, avatar, style, seed)


def _axes() -> Float32:
    """Orthonormal directions of the style space, float32 [4, D]: warmth, tint, smile, brow."""
    q, _ = np.linalg.qr(np.random.default_rng(20240229).standard_normal((STYLE_DIM, 4)))
    return np.ascontiguousarray(q.T, dtype=np.float32)


class DrawnShelf:
    """The styles that the engine noop brings along, so that it needs no presets folder."""

    LOOKS: ClassVar = {
        "neutral": Look(0.0, 0.0, 0.0, 0.0),
        "warm": Look(1.1, -0.2, 0.9, 0.2),
        "calm": Look(-0.7, 0.9, 0.25, -0.1),
        "lively": Look(0.2, -1.2, 1.2, 0.9),
        "stern": Look(-0.9, -0.5, -0.7, -0.9),
        "sad": Look(-0.9, 0.2, -1.1, 0.5),
    }
    """The look of each at strength 1, before it is bounded."""

    def names(self) -> tuple[str, ...]:
        """What there is, sorted."""
        return tuple(sorted(self.LOOKS))

    def get(self, name: str) -> StylePreset:
        """The style of that name; raises `PresetError` for an unknown one and lists the known."""
        if name not in self.LOOKS:
            raise PresetError(f"unknown style {name!r}; the engine noop has {', '.join(self.names())}")
        mu = np.array(astuple(self.LOOKS[name]), dtype=np.float32) @ _axes()
        log_var = np.full(STYLE_DIM, -2.0, dtype=np.float32)
        return StylePreset(name, mu, log_var, prior="noop", description=f"Drawn style {name!r}.")


def look_of(style: StyleRequest, seed: int) -> Look:
    """The look of a style: fixed directions of the style space read as colour, smile and brow; s = mu + t sigma eps.

    Raises `EngineError` when the style is not of `STYLE_DIM` numbers.
    """
    if style.mu.shape != (STYLE_DIM,) or style.log_var.shape != (STYLE_DIM,):
        raise EngineError(
            f"style {style.name!r} has {style.mu.shape} numbers, the engine noop takes ({STYLE_DIM},)"
        )
    eps = np.random.default_rng(seed).standard_normal(STYLE_DIM, dtype=np.float32)
    s = sample(style.mu, style.log_var, style.temperature, eps)
    warmth, tint, smile, brow = np.tanh(style.strength * (_axes() @ s))
    return Look(float(warmth), float(tint), float(smile), float(brow))


def _blend(a: Look, b: Look, weight: float) -> Look:
    w = smoothstep(weight)
    return Look(
        a.warmth + w * (b.warmth - a.warmth), a.tint + w * (b.tint - a.tint),
        a.smile + w * (b.smile - a.smile), a.brow + w * (b.brow - a.brow),
    )  # fmt: skip


def _opening(powers: list[float]) -> float:
    """Mouth opening in [0, 1] for the power of a frame and of the frames after it."""
    weights = np.array([0.6, 0.3, 0.1, *[0.0] * len(powers)][: len(powers)])
    power = float(np.dot(weights, powers) / weights.sum())
    level_db = 10 * np.log10(power + 1e-12)
    return float(np.clip((level_db - QUIET_DB) / (LOUD_DB - QUIET_DB), 0.0, 1.0))


@dataclass(slots=True)
class _State:
    """All that one face remembers."""

    rng: np.random.Generator
    phases: Float32
    look: Look
    glide_from: Look
    glide_start: int | None = None
    next_pts: int | None = None
    heard_pts: int = 0
    tail: Float32 = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    powers: list[float] = field(default_factory=list)
    states: list[SpeechState] = field(default_factory=list)
    mouth: float = 0.0
    energy: float = 0.0
    blink_at: int = 0
    blink_step: int = len(BLINK)
    scene: Scene | None = None
    scene_age: int = 0
    scene_look: Look | None = None
    """What the scene was drawn in: a style that is on its way shows on every rung but the last."""
    picture: tuple[Bytes, Bytes] | None = None
    ended: bool = False


class NoopFace:
    """One person's drawn face."""

    def __init__(self, engine: NoopEngine, avatar: str, style: StyleRequest, seed: int) -> None:
        self.effort = 0
        self._engine = engine
        self._seed = seed
        self._first_avatar, self._first_style = avatar, style
        self.reset()

    @property
    def latency(self) -> int:
        """The frame itself and the look-ahead, in ticks."""
        return FRAME_TICKS * (1 + self._engine.look_ahead)

    def reset(self) -> None:
        """As newly made: first avatar, first style, same seed, full effort."""
        rng = np.random.default_rng([self._seed, zlib.crc32(b"noop face")])
        self._style = look_of(self._first_style, self._seed)
        self.set_avatar(self._first_avatar)
        phases = rng.uniform(0, 2 * np.pi, 6).astype(np.float32)
        self._state = _State(rng, phases, self._style, self._style)
        self.effort = 0

    def hear(self, state: SpeechState) -> None:
        """Who speaks from `state.pts` on."""
        self._state.states.append(state)

    def set_style(self, style: StyleRequest) -> None:
        """Glide to the look of `style` over 0.3 s of media time."""
        self._style = look_of(style, self._seed)
        self._state.glide_from = self._state.look
        self._state.glide_start = None

    def set_avatar(self, name: str) -> None:
        """Show another sitter from the next frame on."""
        if name not in self._engine.sprites:
            raise EngineError(f"unknown avatar {name!r}; the engine noop has {', '.join(self._engine.avatars)}")
        self._sprites = self._engine.sprites[name]
        if hasattr(self, "_state"):
            self._state.scene = None

    def push(self, x: AudioChunk) -> list[Frame]:
        """Frames whose look-ahead is complete."""
        st = self._state
        if x.rate_hz != MODEL_RATE_HZ:
            raise StreamError(f"the face hears {MODEL_RATE_HZ} Hz, got {x.rate_hz} Hz")
        if st.ended:
            raise StreamError("the face has been flushed; reset it before a new stream")
        if st.next_pts is None:
            st.next_pts = st.heard_pts = x.pts
            st.blink_at = x.pts + int(st.rng.uniform(0.6, 2.0) * TICKS_PER_SECOND)
        if x.pts != st.heard_pts:
            raise StreamError(f"sound at tick {x.pts} does not follow on: expected {st.heard_pts}")
        st.heard_pts = x.end
        st.tail = np.concatenate([st.tail, x.samples])
        while len(st.tail) >= FRAME_SAMPLES:
            self._hear_frame(st.tail[:FRAME_SAMPLES])
            st.tail = st.tail[FRAME_SAMPLES:]
        frames = []
        while len(st.powers) > self._engine.look_ahead:
            frames.append(self._make())
        return frames

    def hush(self) -> int:
        """What was heard and not shown becomes silence; returns the `pts` of the next frame, the first without it."""
        st = self._state
        st.powers = [0.0] * len(st.powers)
        st.tail = np.zeros_like(st.tail)
        return st.next_pts or 0

    def flush(self) -> list[Frame]:
        """The last frames; a frame that has begun is completed with silence."""
        st = self._state
        if len(st.tail):
            self._hear_frame(np.pad(st.tail, (0, FRAME_SAMPLES - len(st.tail))))
        st.tail = st.tail[:0]
        st.ended = True
        frames = []
        while st.powers:
            frames.append(self._make())
        return frames

    def _hear_frame(self, samples: Float32) -> None:
        self._state.powers.append(float(np.mean(np.square(samples, dtype=np.float64))))

    def _make(self) -> Frame:
        st = self._state
        assert st.next_pts is not None
        pts = st.next_pts
        st.next_pts += FRAME_TICKS
        opening = _opening(st.powers[: self._engine.look_ahead + 1])
        st.powers.pop(0)
        st.mouth = max(opening, 0.5 * st.mouth) if st.mouth > 0.02 or opening > 0 else 0.0
        drawing = self._drawing(pts)
        rung = min(max(self.effort, 0), REPEAT)
        st.scene_age += 1
        if st.scene is None or (
            rung < REPEAT and (st.scene_age >= SCENE_EVERY[rung] or drawing.look != st.scene_look)
        ):
            st.scene, st.scene_age, st.scene_look = scene(self._sprites, drawing), 0, drawing.look
            st.picture = None if rung < REPEAT else st.picture
        if rung < REPEAT or st.picture is None:
            st.picture = finish(st.scene, st.mouth)
        rgb, alpha = st.picture
        return Frame(pts, rgb, alpha, level=rung)

    def _drawing(self, pts: int) -> Drawing:
        st = self._state
        while len(st.states) > 1 and st.states[1].pts <= pts:
            st.states.pop(0)
        speaking = bool(st.states) and st.states[0].pts <= pts and st.states[0].speaking
        st.energy += 0.12 * ((1.0 if speaking else 0.0) - st.energy)
        if st.glide_start is None:
            st.glide_start = pts - FRAME_TICKS
        weight = min((pts - st.glide_start) / GLIDE_TICKS, 1.0)
        st.look = _blend(st.glide_from, self._style, weight)
        t = pts / TICKS_PER_SECOND
        wave = np.sin(2 * np.pi * np.array([0.11, 0.29, 0.13, 0.37, 0.23, 0.17]) * t + st.phases)
        gain = 1.0 + 0.8 * st.energy
        return Drawing(
            st.look,
            dx=float(gain * (2.4 * wave[0] + 0.9 * wave[1])),
            dy=float(gain * (1.3 * wave[2] + 0.5 * wave[3]) + 1.2 * st.energy * st.mouth),
            turn=float(0.45 * gain * wave[0]),
            tilt=float(0.35 * gain * wave[2]),
            breath=float(1.4 * wave[4]),
            blink=self._blink(pts),
            gaze=float(np.clip(1.6 * wave[5], -0.6, 0.6)),
        )

    def _blink(self, pts: int) -> float:
        st = self._state
        if pts >= st.blink_at:
            st.blink_step = 0
            st.blink_at = pts + int((1.2 + st.rng.exponential(1.8)) * TICKS_PER_SECOND)
        st.blink_step += 1
        return BLINK[st.blink_step - 1] if st.blink_step <= len(BLINK) else 0.0
