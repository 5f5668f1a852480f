"""The motion generator by rule: a living head for lips that come from elsewhere.

What it is: a seeded, causal stream of head pose, blinks, gaze and breath, steered by a `Manner` and by the voice's
stress. The head follows a wandering goal through a critically damped spring, nods on rising stress, moves less while
listening, and never stands still: it breathes and sways in silence too. Spoken to, it nods small nods, in rows, most
where the other pauses; idle, it shifts its posture now and then. The eyes hold the viewer against the head's own
turning (the vestibulo-ocular reflex). The synthetic corpus moves by it; engines with a trained `learned` motion do not.

In: `MotionDrive`, one a video frame. Out: `Pose` of the same frame. Remembers: `MotionState`, one dataclass.
Latency: one frame, the drive's own (1920 ticks).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS
from svp_stream.errors import StreamError
from svp_stream.motion import eyes
from svp_stream.motion.attention import Attention, Role
from svp_stream.motion.manner import Manner
from svp_stream.motion.wander import Float64, Wander, smoothstep, soft_limit, spring
from svp_stream.packets import Float32, Pose

LIMITS = np.array([12.0, 8.0, 6.0, 0.03, 0.03])
"""Largest |yaw|, |pitch|, |roll| in degrees and |dx|, |dy| as fractions of the picture."""
GAZE_LIMIT_DEG = 15.0
GLIDE_FRAMES = 8
_DT_S = 1 / FRAME_RATE_HZ
_CATCH_UP_FRAMES = 25
_SPRING = 14.0
_BREATH_HZ = 0.26
_NOD_S = 0.48
_NOD_REST_S = 0.32
_REFLEX = 0.9
_ASSENT_S = 0.42
_ASSENT_HZ = 0.22
_ASSENT_AT_PAUSE = 0.6
_POSTURE_HZ = 0.11
_POSTURE_SPRING = 3.0
_POSTURE_SIZE = np.array([0.45, 0.3, 0.35])
"""Yaw, pitch, roll of a posture shift in units of the manner's head size."""
# Slow yaw, pitch, roll, x, y; quick yaw, pitch, roll of speech; the pace of the breath.
_CORNERS = np.array([1.0, 1.0, 0.8, 0.6, 0.6, 2.6, 3.0, 2.4, 0.5])
_CHANNELS = len(_CORNERS)


@dataclass(frozen=True, slots=True)
class MotionDrive:
    """What is asked of the head in the frame at `pts`: `speaking` or not, vocal `stress` in [0, 1], whether the person
    is `addressed` by somebody who speaks, and the sound as the audio encoder hears it (`voice` float32 [A], the mean of
    the frame's tokens; None where nobody listens that closely)."""

    pts: int
    speaking: bool
    stress: float
    addressed: bool = False
    voice: Float32 | None = field(default=None, compare=False)


@dataclass(slots=True)
class MotionState:
    """All that one person's motion remembers between frames."""

    rng: np.random.Generator
    wander: Wander
    manner_from: Float32
    manner_to: Float32
    glide: int = GLIDE_FRAMES
    last_pts: int | None = None
    ended: bool = False
    head: Float64 = field(default_factory=lambda: np.zeros(5))
    head_v: Float64 = field(default_factory=lambda: np.zeros(5))
    activity: float = 0.0
    breath: float = 0.0
    stress_floor: float = 0.0
    nod_s: float = 10.0
    nod_size: float = 0.0
    nod_tilt: float = 0.0
    eye: eyes.EyeState = field(default_factory=eyes.EyeState)
    attention: Attention = field(default_factory=Attention)
    was_addressed: bool = False
    assents: int = 0
    assent_s: float = 10.0
    assent_size: float = 0.0
    posture: Float64 = field(default_factory=lambda: np.zeros(3))
    posture_v: Float64 = field(default_factory=lambda: np.zeros(3))
    posture_goal: Float64 = field(default_factory=lambda: np.zeros(3))


class MotionStream:
    """One person's motion: a `Stage[MotionDrive, Pose]`, equal for equal seeds, manners and drives."""

    def __init__(self, manner: Manner, seed: int) -> None:
        self._born_manner = manner
        self._seed = seed
        self._state = self._fresh()

    @property
    def latency(self) -> int:
        """One frame: a pose depends on the drive of its own frame and on earlier ones."""
        return FRAME_TICKS

    def set_manner(self, manner: Manner) -> None:
        """Change how the person moves, from the next frame on; the change glides over 0.3 s."""
        s = self._state
        s.manner_from = self._manner_vector()
        s.manner_to = manner.vector()
        s.glide = 0

    def push(self, x: MotionDrive) -> list[Pose]:
        """One drive in, one pose out. Frames may be missing (they are lived through unseen).

        Raises StreamError when `x.pts` is not a whole number of frames after the last, or after `flush`.
        """
        s = self._state
        for _ in range(frames_to_live("MotionStream", s.last_pts, x.pts, ended=s.ended)):
            self._step(x)
        s.last_pts = x.pts
        return [self._pose(x.pts)]

    def flush(self) -> list[Pose]:
        """Nothing is held back; the stream wants `reset` before the next drive."""
        self._state.ended = True
        return []

    def reset(self) -> None:
        """As if newly made, with the manner and seed it was made with."""
        self._state = self._fresh()

    def _fresh(self) -> MotionState:
        rng = np.random.default_rng(self._seed)
        v = self._born_manner.vector()
        state = MotionState(rng=rng, wander=Wander.start(rng.standard_normal((2, _CHANNELS))), manner_from=v,
                            manner_to=v, breath=float(rng.random()))
        state.head = self._goal(state, self._born_manner)
        return state

    def _manner_vector(self) -> Float32:
        s = self._state
        share = np.float32(smoothstep(s.glide / GLIDE_FRAMES))
        mixed: Float32 = s.manner_from + share * (s.manner_to - s.manner_from)
        return mixed

    def _step(self, x: MotionDrive) -> None:
        """Live through one frame."""
        s = self._state
        s.glide = min(s.glide + 1, GLIDE_FRAMES)
        manner = Manner.from_vector(self._manner_vector())
        normals = s.rng.standard_normal((2, _CHANNELS))
        chances = s.rng.random(eyes.UNIFORMS + 7)
        shift = s.rng.standard_normal(3)
        role = s.attention.step(x.speaking, x.addressed, _DT_S)
        stress = min(max(x.stress, 0.0), 1.0) if x.speaking else 0.0
        s.activity += ((1.0 if x.speaking else 0.0) - s.activity) * (1 - math.exp(-_DT_S / 0.35))
        s.wander.step(_CORNERS * manner.head_tempo_hz, _DT_S, normals)
        s.breath = (s.breath + _DT_S * _BREATH_HZ * (1 + 0.15 * float(s.wander.x[8]))) % 1.0
        self._step_nod(stress, chances[eyes.UNIFORMS:])
        self._step_assent(x.addressed and not x.speaking, chances[eyes.UNIFORMS + 3 :])
        self._step_posture(role, manner, chances[-1], shift)
        eyes.step(s.eye, manner, role, _DT_S, chances[:eyes.UNIFORMS])
        s.head, s.head_v = spring(s.head, s.head_v, self._goal(s, manner), _SPRING, _DT_S)

    def _step_nod(self, stress: float, chances: Float64) -> None:
        """Begin a nod where stress rises well above its recent floor (not on every accent)."""
        s = self._state
        s.nod_s += _DT_S
        rise = stress - s.stress_floor
        if rise > 0.18 and s.nod_s > _NOD_S + _NOD_REST_S and chances[0] < 0.5:
            s.nod_s = 0.0
            # One accent in five lifts the head instead.
            s.nod_size = min(stress * (0.7 + 0.6 * float(chances[1])), 1.2) * (-0.6 if chances[2] < 0.2 else 1.0)
            s.nod_tilt = float(chances[2]) - 0.5
        s.stress_floor += max(min(rise, 0.06), -0.12)

    def _step_assent(self, addressed: bool, chances: Float64) -> None:
        """Small nods, one to three in a row, while somebody speaks to the person, and most where they pause."""
        s = self._state
        s.assent_s += _DT_S
        if s.assents and s.assent_s >= _ASSENT_S:
            s.assents -= 1
            s.assent_s = 0.0 if s.assents else s.assent_s
        paused = s.was_addressed and not addressed
        chance = _ASSENT_AT_PAUSE if paused else _ASSENT_HZ * _DT_S * addressed
        if not s.assents and chances[0] < chance:
            s.assents, s.assent_s = 1 + int(3 * chances[1]), 0.0
            s.assent_size = 0.5 + 0.5 * float(chances[2])
        s.was_addressed = addressed

    def _step_posture(self, role: Role, manner: Manner, chance: float, shift: Float64) -> None:
        """An idler takes another posture now and then; whoever speaks or listens comes back to their own."""
        s = self._state
        if role is not Role.IDLE:
            s.posture_goal = np.zeros(3)
        elif chance < _POSTURE_HZ * _DT_S:
            s.posture_goal = manner.head_size_deg * _POSTURE_SIZE * shift
        s.posture, s.posture_v = spring(s.posture, s.posture_v, s.posture_goal, _POSTURE_SPRING, _DT_S)

    def _goal(self, s: MotionState, m: Manner) -> Float64:
        """Where the head wants to be: float64 [5] yaw, pitch, roll (degrees), dx, dy (fractions of the picture)."""
        w = s.wander.x
        slow = m.head_size_deg * (0.45 + 0.55 * s.activity)
        quick = m.head_size_deg * 0.35 * s.activity
        nod = math.sin(math.pi * min(s.nod_s / _NOD_S, 1.0)) ** 2 * s.nod_size * m.nod_deg * 1.25
        if s.assents:
            nod += math.sin(math.pi * s.assent_s / _ASSENT_S) ** 2 * s.assent_size * m.nod_deg
        wide, low = slow * float(w[0]) + quick * float(w[5]), 0.55 * slow * float(w[1]) + quick * 0.7 * float(w[6])
        lean = 0.5 * slow * float(w[2]) + quick * 0.5 * float(w[7])
        lift = _breath(s.breath)
        turn, bow, tilt = (float(v) for v in s.posture)
        yaw = m.yaw_deg + wide + turn + 0.15 * s.eye.to_x
        pitch = m.pitch_deg + low + bow + nod + 0.1 * s.eye.to_y - 0.25 * lift
        roll = m.roll_deg + lean + tilt + 0.25 * wide + 0.35 * s.nod_tilt * nod
        dx = 0.0006 * yaw + 0.0008 * roll + 0.0012 * slow * float(w[3])
        dy = 0.0005 * (pitch - m.pitch_deg) + 0.0008 * slow * float(w[4]) - m.breath_size * lift
        return np.array([yaw, pitch, roll, dx, dy])

    def _pose(self, pts: int) -> Pose:
        s = self._state
        m = self._manner_vector()
        yaw, pitch, roll, dx, dy = (float(v) for v in soft_limit(s.head, LIMITS))
        world_x, world_y = eyes.gaze(s.eye)
        # The eyes turn inside the head, so the head's own turn is taken back to keep the viewer in sight.
        look = soft_limit(np.array([world_x - _REFLEX * yaw, world_y - _REFLEX * pitch]), np.full(2, GAZE_LIMIT_DEG))
        gaze_x, gaze_y = float(look[0]), float(look[1])
        lid = min(max(float(m[-1]) + 0.006 * gaze_y, 0.0), 0.6)
        shut = eyes.closure(s.eye.blink_s)
        left = 1 - (1 - lid) * (1 - shut)
        right = 1 - (1 - lid) * (1 - 0.97 * shut)
        return Pose(pts, yaw, pitch, roll, dx, dy, left, right, gaze_x, gaze_y)


def frames_to_live(who: str, last_pts: int | None, pts: int, *, ended: bool) -> int:
    """Frames from the last drive of a stream to the one at `pts`: the missing ones are lived through unseen, up to a
    second of them. Raises StreamError, naming the stream `who`, for a drive that does not follow on."""
    if ended:
        raise StreamError(f"{who}: a drive came after flush; call reset first")
    if last_pts is None:
        return 1
    frames, rest = divmod(pts - last_pts, FRAME_TICKS)
    if rest or frames < 1:
        due = last_pts + FRAME_TICKS
        raise StreamError(f"{who}: drive at {pts} after {last_pts}; the next frame is at {due} ticks")
    return min(frames, _CATCH_UP_FRAMES)


def _breath(phase: float) -> float:
    """Lift of the chest in [-1, 1] at `phase` in [0, 1): the breath goes in faster than out."""
    bent = phase / 0.8 if phase < 0.4 else 0.5 + (phase - 0.4) / 1.2
    return -math.cos(2 * math.pi * bent)
