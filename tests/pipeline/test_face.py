"""The trained face over tiny random weights: rungs, glides, avatars, poses, bad numbers, neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from svp_stream.clock import FRAME_TICKS
from svp_stream.diffusion.cache import CacheRule
from svp_stream.diffusion.noise import SessionNoise
from svp_stream.diffusion.schedule import SCHEDULE, TIMESTEPS
from svp_stream.errors import EngineError, StreamError
from svp_stream.packets import AudioChunk, Frame, Pose, SpeechState
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.face import MiniFace
from svp_stream.pipeline.mini import MiniEngine
from tests.fakes.tiny_weights import tiny_engine, tiny_styles
from tests.laws.stages import voice

FRAME = 640
"""Samples at 16 kHz."""
STILL = [Pose(0, yaw=2.0)]


def face(engine: MiniEngine | None = None, *, avatar: str = "pat", style: str = "plain", seed: int = 0,
         script: list[Pose] | None = None) -> MiniFace:
    return (engine or tiny_engine()).stream(avatar=avatar, style=tiny_styles()[style], seed=seed, script=script)


class Feed:
    """Sound for one face, frame by frame."""

    def __init__(self, stage: MiniFace, seed: int = 1, seconds: float = 2.0, loud: float = 1.0) -> None:
        self.stage, self.at = stage, 0
        self.samples = voice(seed, 16_000, seconds) * np.float32(loud)

    def __call__(self, frames: int) -> list[Frame]:
        out: list[Frame] = []
        for _ in range(frames):
            chunk = AudioChunk(self.at * 3, self.samples[self.at : self.at + FRAME], 16_000)
            self.at += FRAME
            out += self.stage.push(chunk)
        return out


def gap(a: Frame, b: Frame) -> float:
    """Mean absolute difference of two pictures, in levels."""
    return float(np.abs(a.rgb.astype(int) - b.rgb).mean())


def assert_on_grid(frames: list[Frame]) -> None:
    assert [f.pts for f in frames] == [i * FRAME_TICKS for i in range(len(frames))]
    for f in frames:
        assert f.rgb.shape == (256, 256, 3) and f.rgb.dtype == np.uint8 and f.rgb.flags.c_contiguous
        assert f.alpha is not None and f.alpha.shape == (256, 256) and f.alpha.dtype == np.uint8


@contextmanager
def programs(engine: MiniEngine, **changed: Any) -> Iterator[MiniEngine]:
    """The engine with some programs replaced."""
    yield replace(engine, programs=replace(engine.programs, **changed))


@pytest.mark.parametrize("effort", [0, 1, 2, 3, 4])
def test_every_rung_says_its_level(effort: int) -> None:
    stage = face()
    feed = Feed(stage)
    before = feed(6)
    stage.effort = effort
    frames = before + feed(3)
    stage.effort = 0
    frames += feed(2)
    frames += stage.flush()
    assert len(frames) == 11
    assert_on_grid(frames)
    assert [f.level for f in frames] == [0] * len(before) + [effort] * 3 + [0] * (8 - len(before))
    made = frames[len(before) - 1 : len(before) + 3]
    assert [gap(a, b) == 0 for a, b in zip(made, made[1:], strict=False)] == [effort == 4] * 3


@pytest.mark.parametrize("effort, levels", [(0, [0, 0]), (1, [1, 1]), (2, [1, 2]), (3, [1, 3]), (4, [1, 4])])
def test_a_cold_start_says_what_it_was(effort: int, levels: list[int]) -> None:
    stage = face()
    stage.effort = effort
    assert [f.level for f in stage.silence(0, 2)] == levels


def test_one_step_less_on_a_cold_start() -> None:
    calls: list[float] = []
    engine = tiny_engine()

    def denoise(*x: Any) -> Any:
        calls.append(round(float(x[1][0]) * TIMESTEPS))
        return engine.programs.denoise(*x)

    with programs(engine, denoise=denoise) as counted:
        for effort in (0, 1):
            stage = face(counted)
            stage.effort = effort
            stage.silence(0, 2)
    assert calls == [SCHEDULE.cold, SCHEDULE.warm, SCHEDULE.warm, SCHEDULE.cold, SCHEDULE.warm]


@pytest.mark.parametrize("effort", [2, 3])
def test_cheap_rungs_stay_close_to_full_quality(effort: int) -> None:
    """The same sound on both: what is given up is less than what another style would change."""
    full, cheap, other = face(), face(), face(style="sad")
    feeds = [Feed(s) for s in (full, cheap, other)]
    for feed in feeds:
        feed(5)
    cheap.effort = effort
    a, b, c = ([feed(3)[-1] for feed in feeds])
    assert 0 < gap(a, b) < gap(a, c)


def test_the_style_glides() -> None:
    stage = face(script=STILL)
    feed = Feed(stage, loud=0.0)
    before = feed(10)
    stage.set_style(tiny_styles()["sad"])
    after = feed(14)
    normal = max(gap(a, b) for a, b in zip(before[2:], before[3:], strict=False))
    turn = [before[-1], *after]
    steps = [gap(a, b) for a, b in zip(turn, turn[1:], strict=False)]
    assert gap(turn[0], turn[-1]) > 2 * normal, "the styles differ to the eye"
    assert max(steps) < normal + 0.4 * gap(turn[0], turn[-1])
    assert max(steps[9:]) <= 1.5 * normal, "after 0.3 s it stands still"
    there = face(style="sad", script=STILL)
    goal = Feed(there, loud=0.0)(24)[-1]
    assert gap(after[-1], goal) < 0.5 * gap(before[-1], goal)


def test_a_still_face_stays_still_and_near_what_was_painted() -> None:
    films = {}
    for levels in (0, 3):
        engine = replace(tiny_engine(), rule=CacheRule(smoothing=levels))
        films[levels] = np.stack([f.rgb for f in Feed(face(engine, script=STILL), loud=0.0)(8)]).astype(int)
    assert np.abs(films[0] - films[3]).max() <= 3
    flicker = {levels: np.abs(np.diff(film[2:], axis=0)).mean() for levels, film in films.items()}
    assert flicker[0] > 0 and flicker[3] < 0.5 * flicker[0]


def test_another_person_starts_clean() -> None:
    """Nothing of the face before shines through where the band is open."""
    engine = replace(tiny_engine(), rule=CacheRule(smoothing=8))
    changed, fresh = face(engine, script=STILL), face(replace(engine, rule=CacheRule(smoothing=0)), script=STILL)
    feeds = [Feed(changed, loud=0.0), Feed(fresh, loud=0.0)]
    for feed in feeds:
        feed(5)
    for stage in (changed, fresh):
        stage.set_avatar("kim")
    a, b = (feed(1)[0] for feed in feeds)
    assert gap(a, b) == 0


def test_a_style_set_while_frames_repeat_is_there_afterwards() -> None:
    stage, meant = face(script=STILL), face(style="sad", script=STILL)
    feed, other = Feed(stage, loud=0.0), Feed(meant, loud=0.0)
    before = feed(5)[-1]
    stage.effort = 4
    stage.set_style(tiny_styles()["sad"])
    feed(9)
    stage.effort = 0
    after = feed(4)[-1]
    goal = other(18)[-1]
    assert gap(after, goal) < 0.5 * gap(before, goal)


def test_strength_and_temperature_show() -> None:
    sad = tiny_styles()["sad"]
    styles = [sad, replace(sad, strength=0.0), replace(sad, temperature=1.5)]
    shown = [tiny_engine().stream(avatar="pat", style=s, seed=0, script=STILL).silence(0, 1)[0] for s in styles]
    assert gap(shown[0], shown[1]) > 0.05 and gap(shown[0], shown[2]) > 0.05


def test_another_avatar() -> None:
    stage = face(script=STILL)
    feed = Feed(stage)
    pat = feed(5)
    stage.set_avatar("kim")
    kim = feed(5)
    kim += stage.flush()
    assert_on_grid(pat + kim)
    alone = Feed(face(avatar="kim", script=STILL))(10)[-1]
    assert gap(kim[-1], pat[-1]) > 5 * gap(kim[4], alone)
    assert kim[0].level == 0


def test_wrong_controls_change_nothing() -> None:
    stage, plain = face(), face()
    feeds = [Feed(stage), Feed(plain)]
    for feed in feeds:
        feed(4)
    with pytest.raises(EngineError, match="'nobody'.*kim, pat"):
        stage.set_avatar("nobody")
    with pytest.raises(EngineError, match="'odd'"):
        stage.set_style(StyleRequest("odd", np.zeros(3, np.float32), np.zeros(3, np.float32)))
    a, b = (feed(2) for feed in feeds)
    assert [f.rgb.tobytes() for f in a] == [f.rgb.tobytes() for f in b]


def test_script_poses_are_honoured() -> None:
    seen: list[Any] = []
    engine = tiny_engine()

    def paint(latent: Any, shift: Any) -> Any:
        seen.append(shift.copy())
        return engine.programs.paint(latent, shift)

    script = [Pose(0, dx=0.01 * i, dy=-0.02, yaw=float(i)) for i in range(3)]
    with programs(engine, paint=paint) as watched:
        first = face(watched, script=script).silence(0, 5)
    np.testing.assert_allclose(np.concatenate(seen), [[0.01 * min(i, 2), -0.02] for i in range(5)], atol=1e-6)
    turned = face(script=[replace(p, yaw=p.yaw + 8) for p in script]).silence(0, 5)
    assert gap(first[4], turned[4]) > 0.2


def test_who_speaks_reaches_the_head() -> None:
    def heads(speaking: bool) -> list[Frame]:
        stage = face()
        stage.hear(SpeechState(3 * FRAME_TICKS, speaking))
        return Feed(stage)(12)

    silent, talking = heads(False), heads(True)
    same = [gap(a, b) == 0 for a, b in zip(silent, talking, strict=True)]
    assert all(same[:3]) and not all(same[3:])


def test_frames_at_the_end_hear_silence_beyond() -> None:
    stage = face()
    feed = Feed(stage)
    made = feed(4)
    assert 0 < len(made) < 4
    assert len(made) + len(stage.flush()) == 4
    with pytest.raises(StreamError, match="reset"):
        feed(1)


def test_reset_equals_fresh() -> None:
    stage = face()
    feed = Feed(stage, seed=4)
    feed(3)
    stage.set_avatar("kim")
    stage.set_style(tiny_styles()["sad"])
    stage.effort = 3
    feed(3)
    stage.reset()
    assert stage.effort == 0
    again, fresh = (Feed(s)(6) for s in (stage, face()))
    assert [f.rgb.tobytes() for f in again] == [f.rgb.tobytes() for f in fresh]


def test_seeds_differ() -> None:
    a, b = (face(seed=s).silence(0, 2) for s in (1, 2))
    assert gap(a[0], b[0]) > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_latent_that_is_not_finite_is_forgotten(bad: float) -> None:
    """One bad frame, then a cold start; the frame after does not see it."""
    engine = tiny_engine()
    calls: list[float] = []

    def denoise(*x: Any) -> Any:
        assert all(np.isfinite(a).all() for a in x), "nothing bad comes back in"
        calls.append(round(float(x[1][0]) * TIMESTEPS))
        x0, deep = (np.array(out) for out in engine.programs.denoise(*x))
        if len(calls) == 4:
            x0[0, 2, 7, 7] = bad
        return x0, deep

    with programs(engine, denoise=denoise) as faulty:
        stage = face(faulty)
        with np.errstate(invalid="ignore"):
            frames = stage.silence(0, 6)
    cold, warm = SCHEDULE.cold, SCHEDULE.warm
    assert calls == [cold, warm, warm, warm, cold, warm, warm, warm]
    assert_on_grid(frames)
    sound = face().silence(0, 6)
    assert gap(frames[5], sound[5]) < gap(sound[0], sound[5])


def test_two_faces_do_not_influence_each_other() -> None:
    alone = Feed(face(style="warm", seed=5))(6)
    one, two = Feed(face(style="warm", seed=5)), Feed(face(avatar="kim", style="sad", seed=6), seed=9)
    together: list[Frame] = []
    for _ in range(6):
        together += one(1)
        two(1)
        two.stage.set_style(tiny_styles()["plain"])
    assert [f.rgb.tobytes() for f in together] == [f.rgb.tobytes() for f in alone]


@pytest.mark.parametrize("look_ahead", [0, 1, 2, 3])
def test_look_ahead(look_ahead: int) -> None:
    stage = face(tiny_engine(look_ahead))
    assert stage.latency == 3 * (FRAME + 80) + look_ahead * FRAME_TICKS
    feed = Feed(stage)
    counts = [len(feed(1)) for _ in range(6)]
    assert counts == [0] * (1 + look_ahead) + [1] * (5 - look_ahead)
    assert len(stage.flush()) == 1 + look_ahead


def test_memory_is_bounded() -> None:
    stage = face()
    stage.effort = 4
    feed = Feed(stage, seconds=6.0)
    sizes = set()
    for n in range(100):
        stage.hear(SpeechState(n * FRAME_TICKS, n % 2 == 0))
        feed(1)
        if n > 20:
            sizes.add((len(stage._state.tokens), len(stage._state.levels)))
    assert len(sizes) == 1 and max(sizes)[0] < 12


def test_times_are_told_once() -> None:
    stage = face()
    stage.silence(0, 2)
    times = stage.take_times()
    assert set(times) == {"wav2vec", "condition", "reference", "denoise", "paint"} and min(times.values()) > 0
    assert stage.take_times() == {}


def test_the_noise_is_the_sessions() -> None:
    """A cold start begins with frame 0 of the session's noise."""
    starts: list[Any] = []
    engine = tiny_engine()

    def denoise(*x: Any) -> Any:
        starts.append(x[0].copy())
        return engine.programs.denoise(*x)

    with programs(engine, denoise=denoise) as watched:
        face(watched, seed=11).silence(0, 1)
    np.testing.assert_array_equal(starts[0][0], SessionNoise(11, (4, 32, 32)).frame(0))


def test_who_is_spoken_to_moves_otherwise_from_the_next_frame_on() -> None:
    plain, told = face(seed=3), face(seed=3)
    one, two = Feed(plain, loud=0.0), Feed(told, loud=0.0)
    assert all(gap(a, b) == 0 for a, b in zip(one(10), two(10), strict=True))
    told.attend(True)
    assert max(gap(a, b) for a, b in zip(one(25), two(25), strict=True)) > 0


@pytest.mark.parametrize(("speaking", "heard"), [(False, 0), (True, 10)])
def test_murmurs_that_are_no_speech_do_not_move_the_mouth(speaking: bool, heard: int) -> None:
    """A face whose detector hears no speech in a loud sound rests: nothing of the sound is asked for any more."""
    engine, asked = tiny_engine(), 0

    def condition(*arrays: Any) -> Any:
        nonlocal asked
        asked += 1
        return engine.programs.condition(*arrays)

    with programs(engine, condition=condition) as watched:
        stage = face(watched, script=STILL)
        stage.hear(SpeechState(0, speaking))
        feed = Feed(stage)
        loud = 0.2 * np.sin(np.arange(len(feed.samples)) * 0.1)
        feed.samples = loud.astype(np.float32)
        feed(20)
        asked = 0
        assert len(feed(10)) == 10
    assert asked == heard


def test_a_mouth_at_rest_takes_on_another_style() -> None:
    """What is kept of a face at rest does not outlive a change of style."""
    stage = face(script=STILL)
    feed = Feed(stage, loud=0.0)
    feed(12)
    before = stage._state.rest
    stage.set_style(tiny_styles()["sad"])
    feed(12)
    after = stage._state.rest
    assert before is not None and after is not None and not np.allclose(before[1], after[1])
