"""Learned motion: the stream that runs `network.MotionNet` for one person.

What it is: each frame draws its chances from the seed; the network says how likely a saccade and a blink are and where
the eyes would go, and how the coloured noise becomes a head that follows its goal through a critically damped spring.
Blinks are taken from the book of those seen in training. The eyes hold their place in the world against the head.

In: `MotionDrive`, one a video frame. Out: `Pose` of the same frame. Remembers: `LearnedState`, a few kilobytes whatever
the length of the call. Latency: one frame, the drive's own (1920 ticks). The weights run in plain numpy: the matrices
are so small that a framework's calls would cost several times what they compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS
from svp_stream.motion import eyes
from svp_stream.motion.attention import Attention, Role
from svp_stream.motion.colours import NORMALS, Colours
from svp_stream.motion.generator import GAZE_LIMIT_DEG, GLIDE_FRAMES, LIMITS, MotionDrive, frames_to_live
from svp_stream.motion.network import BLINK_FRAMES, BOOK, DOUBLE_FRAMES, DRIVE, HEAD, TAPS, WAITS_S, WHITE, MotionNet
from svp_stream.motion.wander import Float64, smoothstep, soft_limit, spring
from svp_stream.packets import Float32, Pose

SPRING: Final = 18.0
"""How briskly the head follows its goal, rad/s; training smooths by the same."""
_DT_S: Final = 1 / FRAME_RATE_HZ
_UNIFORMS: Final = 4
ONSET_S: Final = 0.5 / FRAME_RATE_HZ
"""A saccade begins, on average, half a frame before the first picture that shows it."""
LONG_S: Final = 20.0
LONG_FRAMES: Final = 1000


def history(since_saccade_s: Float64, since_blink: Float64, since_phrase_s: Float64, look: Float64) -> Float64:
    """What the eyes have been doing, [..., HISTORY], of seconds since the last saccade began, frames since the last
    blink began, seconds since the person fell silent (all [...]), and where the eyes rest, [..., 2] in degrees."""
    saccade = [np.exp(-since_saccade_s / w) for w in WAITS_S]
    blink = [np.exp(-since_blink * _DT_S / w) for w in WAITS_S]
    again = ((since_blink >= DOUBLE_FRAMES[0]) & (since_blink < DOUBLE_FRAMES[1])).astype(np.float64)
    away = np.minimum(np.hypot(look[..., 0], look[..., 1]) / 10, 1.5)
    rows = [*saccade, *blink, again, np.exp(-since_phrase_s / 0.4), 0.1 * look[..., 0], 0.1 * look[..., 1], away]
    return np.stack(rows, axis=-1)


def drive_vector(stress: float, rise: float, speaking: bool, addressed: bool, role: Role) -> Float64:
    """float64 [DRIVE] of one frame."""
    return np.array([stress, rise, speaking, addressed, role is Role.LISTENING, role is Role.IDLE], np.float64)


@dataclass(slots=True)
class Memory:
    """What a stack of causal convolutions remembers: for each layer the last inputs, a ring [reach, width]."""

    rings: list[Float64]
    frame: int = 0

    @classmethod
    def empty(cls, width: int, dilations: tuple[int, ...]) -> Memory:
        """Before the first frame."""
        return cls([np.zeros(((TAPS - 1) * d, width)) for d in dilations])


class MotionModel:
    """The weights as arrays, immutable and shared by every stream."""

    def __init__(self, net: MotionNet) -> None:
        self.config = net.config
        w = {name: value.detach().double().numpy() for name, value in net.state_dict().items()}
        self._w = {name: np.ascontiguousarray(value) for name, value in w.items()}
        # A convolution's weights [out, in, taps] as one matrix over its inputs, oldest first.
        for name in [n for n in w if ".layers." in n and n.endswith(".weight")]:
            taps = np.concatenate(list(w[name].transpose(2, 0, 1)), axis=1)
            self._w[name.replace(".weight", ".taps")] = np.ascontiguousarray(taps)
        self.reflex = float(w["reflex"])
        self.book: Float64 = w["book"]

    def manner(self, s: Float32) -> Float64:
        """What the style [D] says about moving: float64 [M]."""
        return self._two("manner", s.astype(np.float64), 0, 2)

    def voice(self, tokens: Float32) -> Float64:
        """What is heard of the voice: float32 [A] to float64 [V]."""
        x = tokens.astype(np.float64)
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return np.tanh(self._line("voice.1", x * self._w["voice.0.weight"] + self._w["voice.0.bias"]))

    def listen(self, given: Float64, past: Float64, memory: Memory) -> Float64:
        """One frame of `MotionNet.likelihoods`: what the choices are made of."""
        h = self._stack("events", np.concatenate([given, past]), memory)
        return np.concatenate([h, given[: self.config.manner], past, given[-DRIVE:]])

    def choose(self, told: Float64) -> tuple[float, Float64, Float64, Float64]:
        """Chance of a saccade; weights [K], means and deviations [K, 2] of its target in tens of degrees."""
        k = self.config.targets
        out = self._two("choose", told, 0, 2)
        weights = np.exp(out[1 : 1 + k] - out[1 : 1 + k].max())
        means, spreads = out[1 + k :].reshape(2, k, 2)
        return _sigmoid(out[0]), weights / weights.sum(), means, np.exp(np.clip(spreads, -4.5, 1.0))

    def shut(self, told: Float64, jump: float) -> float:
        """Chance of a blink in a frame whose saccade, if any, is `jump` tens of degrees wide."""
        return _sigmoid(self._two("shut", np.append(told, jump), 0, 2)[0])

    def lid(self, manner: Float64, gaze_y: float) -> float:
        """Closure of lids at rest."""
        return float(self._two("lid", np.append(manner, 0.1 * gaze_y), 0, 2)[0])

    def goal(self, given: Float64, white: Float64, look: Float64, colours: Float64, memory: Memory) -> Float64:
        """One frame of `MotionNet.goals`: float64 [HEAD]."""
        manner = given[: self.config.manner]
        h = self._stack("head", np.concatenate([given, white, look]), memory)
        gains = self._two("mix", np.concatenate([h, manner]), 0, 2).reshape(HEAD, -1)
        moved = self._line("rest", manner) + self._line("nod", h) + gains @ colours
        out: Float64 = self._w["centre"] + self._w["scale"] * moved
        return out

    def _line(self, name: str, x: Float64) -> Float64:
        y: Float64 = self._w[f"{name}.weight"] @ x + self._w[f"{name}.bias"]
        return y

    def _two(self, name: str, x: Float64, first: int, second: int) -> Float64:
        y = self._line(f"{name}.{first}", x)
        return self._line(f"{name}.{second}", y / (1 + np.exp(-y)))

    def memory(self) -> tuple[Memory, Memory]:
        """Empty memories of the stacks `events` and `head`."""
        c = self.config
        return Memory.empty(c.events, c.event_dilations), Memory.empty(c.head, c.head_dilations)

    def _stack(self, name: str, x: Float64, memory: Memory) -> Float64:
        """One frame of `network.CausalStack`."""
        y = self._line(f"{name}.enter", x)
        for i, ring in enumerate(memory.rings):
            reach = len(ring)
            here = memory.frame % reach
            # The ring is as long as the reach: what lies at this frame's place is the oldest tap.
            taps = np.concatenate([ring[here], ring[(here - reach // 2) % reach], y])
            ring[here] = y
            z = self._w[f"{name}.layers.{i}.taps"] @ taps + self._w[f"{name}.layers.{i}.bias"]
            y = y + z / (1 + np.exp(-z))
        memory.frame += 1
        return y


@dataclass(slots=True)
class LearnedState:
    """All that one person's motion remembers between frames. `age` counts frames since a blink began, `page` says which
    one of the book it is."""

    rng: np.random.Generator
    colours: Colours
    manner_from: Float64
    manner_to: Float64
    events: Memory
    moves: Memory
    glide: int = GLIDE_FRAMES
    last_pts: int | None = None
    ended: bool = False
    head: Float64 | None = None
    head_v: Float64 = field(default_factory=lambda: np.zeros(HEAD))
    attention: Attention = field(default_factory=Attention)
    eye: eyes.EyeState = field(default_factory=eyes.EyeState)
    stress: float = 0.0
    age: int = LONG_FRAMES
    page: int = 0


class LearnedMotion:
    """One person's motion: a `Stage[MotionDrive, Pose]`, equal for equal seeds, styles and drives."""

    def __init__(self, model: MotionModel, s: Float32, seed: int) -> None:
        self._model = model
        self._born = model.manner(s)
        self._seed = seed
        self._state = self._fresh()

    @property
    def latency(self) -> int:
        """One frame: a pose depends on the drive of its own frame and on earlier ones."""
        return FRAME_TICKS

    def set_style(self, s: Float32) -> None:
        """Move in the style [D] from the next frame on; the change glides over 0.3 s."""
        st = self._state
        st.manner_from, st.manner_to, st.glide = self._manner(), self._model.manner(s), 0

    def push(self, x: MotionDrive) -> list[Pose]:
        """One drive in, one pose out. Frames may be missing (they are lived through unseen).

        Raises StreamError when `x.pts` is not a whole number of frames after the last, or after `flush`.
        """
        st = self._state
        for _ in range(frames_to_live("LearnedMotion", st.last_pts, x.pts, ended=st.ended)):
            self._step(x)
        self._state.last_pts = x.pts
        return [self._pose(x.pts)]

    def flush(self) -> list[Pose]:
        """Nothing is held back; the stream wants `reset` before the next drive."""
        self._state.ended = True
        return []

    def reset(self) -> None:
        """As if newly made, with the style and seed it was made with."""
        self._state = self._fresh()

    def _fresh(self) -> LearnedState:
        rng = np.random.default_rng([self._seed, 11])
        colours = Colours.start(rng.standard_normal((2, NORMALS)), np.array(rng.random()))
        return LearnedState(rng, colours, self._born, self._born, *self._model.memory())

    def _manner(self) -> Float64:
        st = self._state
        mixed: Float64 = st.manner_from + smoothstep(st.glide / GLIDE_FRAMES) * (st.manner_to - st.manner_from)
        return mixed

    def _step(self, x: MotionDrive) -> None:
        """Live through one frame."""
        st, model = self._state, self._model
        st.glide = min(st.glide + 1, GLIDE_FRAMES)
        normals, white = st.rng.standard_normal((2, NORMALS)), st.rng.standard_normal(WHITE)
        target, chances = st.rng.standard_normal(2), st.rng.random(_UNIFORMS)
        given = self._given(x)
        self._step_eyes(given, x.speaking, chances, target)
        colours = st.colours.step(normals, _DT_S)
        look = 0.1 * np.array([st.eye.to_x, st.eye.to_y])
        goal = model.goal(given, white, look, colours, st.moves)
        if st.head is None:
            st.head = goal
        st.head, st.head_v = spring(st.head, st.head_v, goal, SPRING, _DT_S)
        st.eye.was_speaking = x.speaking

    def _given(self, x: MotionDrive) -> Float64:
        """The conditions of the frame, as `MotionNet.conditions` has them."""
        st, c = self._state, self._model.config
        stress = min(max(x.stress, 0.0), 1.0) if x.speaking else 0.0
        role = st.attention.step(x.speaking, x.addressed, _DT_S)
        drive = drive_vector(stress, stress - st.stress, x.speaking, x.addressed, role)
        st.stress = stress
        heard = self._model.voice(x.voice) if x.voice is not None and x.speaking else np.zeros(c.voice)
        return np.concatenate([self._manner(), heard, drive])

    def _step_eyes(self, given: Float64, speaking: bool, chances: Float64, target: Float64) -> None:
        """Decide on a saccade and a blink."""
        st, eye, model = self._state, self._state.eye, self._model
        eye.saccade_s = min(eye.saccade_s + _DT_S, LONG_S)
        eye.since_phrase_s = 0.0 if eye.was_speaking and not speaking else min(eye.since_phrase_s + _DT_S, LONG_S)
        st.age = min(st.age + 1, LONG_FRAMES)
        past = history(np.array(eye.saccade_s), np.array(st.age), np.array(eye.since_phrase_s),
                       np.array([eye.to_x, eye.to_y]))
        told = model.listen(given, past, st.events)
        chance, weights, means, deviations = model.choose(told)
        jump = 0.0
        if chances[0] < chance:
            k = min(int(np.searchsorted(np.cumsum(weights), chances[1])), len(weights) - 1)
            place = np.clip(10 * (means[k] + deviations[k] * target), -2 * GAZE_LIMIT_DEG, 2 * GAZE_LIMIT_DEG)
            eye.from_x, eye.from_y = eyes.gaze(eye)
            eye.to_x, eye.to_y, eye.saccade_s = float(place[0]), float(place[1]), ONSET_S
            jump = math.hypot(eye.to_x - eye.from_x, eye.to_y - eye.from_y)
        if st.age >= DOUBLE_FRAMES[0] and chances[2] < model.shut(told, 0.1 * jump):
            st.age, st.page = 0, min(int(chances[3] * BOOK), BOOK - 1)

    def _pose(self, pts: int) -> Pose:
        st, model = self._state, self._model
        assert st.head is not None
        yaw, pitch, roll, dx, dy = (float(v) for v in soft_limit(st.head, LIMITS))
        world_x, world_y = eyes.gaze(st.eye)
        look = soft_limit(np.array([world_x - model.reflex * yaw, world_y - model.reflex * pitch]),
                          np.full(2, GAZE_LIMIT_DEG))
        gaze_x, gaze_y = float(look[0]), float(look[1])
        lid = min(max(model.lid(self._manner(), gaze_y), 0.0), 0.6)
        shut = model.book[st.page, :, st.age] if st.age < BLINK_FRAMES else np.zeros(2)
        left, right = (1 - (1 - lid) * (1 - min(max(float(v), 0.0), 1.0)) for v in shut)
        return Pose(pts, yaw, pitch, roll, dx, dy, left, right, gaze_x, gaze_y)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-min(max(float(x), -40.0), 40.0)))
