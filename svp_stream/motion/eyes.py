"""Lids and gaze of one person.

What it is: blinks (about 80 ms to close, 140 ms to open, a refractory Poisson process with double blinks, more likely
where a phrase ends or the eyes jump) and fixations joined by saccades, mostly at the viewer: a listener's hardly leave,
an idler's wander further and stay away longer. Profiles and rates follow
Trutoiu et al., Modeling and animating eye blinks (ACM TAP 2011), and Bentivoglio et al. (Movement Disorders 1997); the
saccade's duration follows the main sequence, 2.2 ms a degree + 21 ms (Carpenter, Movements of the Eyes, 1988).

In: one step a video frame with eight uniforms. Out: closure in [0, 1], gaze in degrees in the picture.
Remembers: `EyeState`. Latency: none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from svp_stream.motion.attention import Role
from svp_stream.motion.manner import Manner
from svp_stream.motion.wander import Float64, smoothstep

CLOSE_S = 0.08
SHUT_S = 0.03
OPEN_S = 0.14
BLINK_S = CLOSE_S + SHUT_S + OPEN_S
REFRACTORY_S = 0.45
PHRASE_END_S = 0.5
PHRASE_END_HZ = 1.2
UNIFORMS = 8
LEAVE = {Role.SPEAKING: 1.0, Role.LISTENING: 0.35, Role.IDLE: 1.4}
"""How readily the eyes leave the viewer, in shares of the manner's rate."""
IDLE_REACH = 1.5
IDLE_STAY = 2.0
BLINKS = {Role.SPEAKING: 1.0, Role.LISTENING: 0.85, Role.IDLE: 1.1}


@dataclass(slots=True)
class EyeState:
    """Seconds count from the event named; `blink_s` is past `BLINK_S` when the lids are at rest."""

    blink_s: float = 10.0
    doubled: bool = False
    was_speaking: bool = False
    since_phrase_s: float = 10.0
    from_x: float = 0.0
    from_y: float = 0.0
    to_x: float = 0.0
    to_y: float = 0.0
    away: bool = False
    saccade_s: float = 10.0
    hold_s: float = 0.5


def closure(age_s: float) -> float:
    """Lid closure `age_s` after the blink began: 0 open, 1 shut."""
    if age_s < CLOSE_S:
        return smoothstep(age_s / CLOSE_S)
    return 1.0 - smoothstep((age_s - CLOSE_S - SHUT_S) / OPEN_S)


def gaze(state: EyeState) -> tuple[float, float]:
    """Where the eyes point in the world, degrees from the viewer, picture right and down positive."""
    span = math.hypot(state.to_x - state.from_x, state.to_y - state.from_y)
    t = smoothstep(state.saccade_s / (0.021 + 0.0022 * span))
    return state.from_x + t * (state.to_x - state.from_x), state.from_y + t * (state.to_y - state.from_y)


def step(state: EyeState, manner: Manner, role: Role, dt_s: float, uniforms: Float64) -> None:
    """Advance by one frame of `dt_s`; `uniforms` [8] in [0, 1) are this frame's chances."""
    jumped = _step_gaze(state, manner, role, dt_s, uniforms[:4])
    _step_blink(state, manner, role, dt_s, jumped, uniforms[4:])


def _step_blink(
    state: EyeState, manner: Manner, role: Role, dt_s: float, jumped: float, uniforms: Float64
) -> None:
    speaking = role is Role.SPEAKING
    state.blink_s += dt_s
    state.since_phrase_s = 0.0 if state.was_speaking and not speaking else state.since_phrase_s + dt_s
    state.was_speaking = speaking
    offset_s = float(uniforms[1]) * dt_s
    if state.doubled and state.blink_s >= BLINK_S:
        state.doubled, state.blink_s = False, offset_s
        return
    if state.blink_s < max(REFRACTORY_S, BLINK_S):
        return
    # Dead time after each blink and the doubles are taken out of the wait, so that the mean rate is the manner's.
    wait_s = (1 + manner.double_blink) / manner.blink_rate_hz - REFRACTORY_S
    hazard = BLINKS[role] / max(wait_s, 0.1)
    if state.since_phrase_s < PHRASE_END_S:
        hazard += PHRASE_END_HZ
    chance = 1 - math.exp(-hazard * dt_s)
    if jumped > 4.0:
        chance += 0.2
    if uniforms[0] < chance:
        state.blink_s = offset_s
        state.doubled = bool(uniforms[2] < manner.double_blink)


def _step_gaze(state: EyeState, manner: Manner, role: Role, dt_s: float, uniforms: Float64) -> float:
    """Returns the size in degrees of a saccade that begins in this frame, 0 where none does."""
    state.saccade_s += dt_s
    state.hold_s -= dt_s
    if state.hold_s > 0:
        return 0.0
    state.from_x, state.from_y = gaze(state)
    hold_s = 0.3 - 0.45 * math.log1p(-float(uniforms[1]) * 0.93)
    # A listener looks at the speaker; a speaker looks away more often. `hold_s` averages 0.7 s.
    leave = min(manner.gaze_rate_hz * LEAVE[role] * 0.7, 0.8)
    state.away = not state.away and bool(uniforms[0] < leave)
    angle = 2 * math.pi * float(uniforms[2])
    radius = math.sqrt(-2 * math.log1p(-float(uniforms[3]) * 0.98))
    far = state.away and role is Role.IDLE
    size = manner.gaze_size_deg * (IDLE_REACH if far else 1.0) if state.away else 0.5
    state.to_x = size * radius * math.cos(angle)
    state.to_y = 0.55 * size * radius * math.sin(angle)
    state.hold_s, state.saccade_s = hold_s * (IDLE_STAY if far else 1.0), 0.0
    return math.hypot(state.to_x - state.from_x, state.to_y - state.from_y)
