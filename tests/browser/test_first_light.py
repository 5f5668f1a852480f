"""First light: somebody speaks into a real browser, and what comes back moves with the words, rests, blinks, changes.

A server process, a Chromium with a recording for a microphone, and the page as a person uses it. Everything is read
off the pictures that the page received. What is asserted is relative to the same call, so that a slow machine passes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from svp_stream.evaluation.browser import open_page, open_server, wait_until_warm, write_recording
from svp_stream.packets import Bytes
from tests.browser.readings import Readings, read_drawn, read_trained
from tests.browser.score import Score, write_score
from tests.browser.watching import Likeness, Recording, blinks, changes, likeness, read_recording

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
logger = logging.getLogger(__name__)

PROFILES = Path(__file__).resolve().parents[2] / "configs"
BEFORE, AFTER = "warm", "sad"
SIDE = 256
BATCH = 100
GLIDE_S = 2.0
"""From the order of a style until all of the change must have been seen."""
LEAST_FPS = 8.0
"""With fewer pictures a second there is nothing to judge words by: the machine is too busy to hold a call."""
READERS: dict[str, Callable[[Bytes], Readings]] = {"mini": read_trained, "noop": read_drawn}
LIPS_BY: dict[str, Literal["words", "loudness"]] = {"mini": "words", "noop": "loudness"}


@dataclass(frozen=True)
class Call:
    """One call, all of it."""

    score: Score
    recording: Recording
    readings: Readings
    changed_s: float
    """When the server said that the other style is in effect, on the page's clock."""

    @property
    def fps(self) -> float:
        """Pictures that came each second."""
        arrived = self.recording.arrived
        return float((len(arrived) - 1) / (arrived[-1] - arrived[0])) if len(arrived) > 1 else 0.0

    def likeness(self) -> Likeness:
        """Of the lips, in the first style."""
        return likeness(self.recording.heard, self.readings.lips, self.score.truth, self.score.speaks)

    def during(self, span: tuple[float, float], margin_s: float = 0.0) -> Any:
        """Mask [N] of the pictures that show a span of the sound, given the lag that fits best."""
        shown = self.recording.heard - self.likeness().lag_s
        return (shown >= span[0] + margin_s) & (shown < span[1] - margin_s)

    def around_change(self) -> Any:
        """Mask [N - 1] of the steps from picture to picture while the style changes."""
        at = self.recording.arrived[1:]
        return (at > self.changed_s - 0.2) & (at < self.changed_s + GLIDE_S)


@pytest.fixture(scope="module", params=["noop", "mini"])
def call(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Call:
    """About 40 s of speech through the page; the style changes when the first sentences come again."""
    call = make_call(request.param, tmp_path_factory.mktemp("call"))
    if call.fps < LEAST_FPS:
        logger.warning("%.1f pictures a second with a load of %s: once more", call.fps, os.getloadavg())
        call = make_call(request.param, tmp_path_factory.mktemp("call"))
    assert call.fps >= LEAST_FPS, f"{call.fps:.1f} pictures a second; load {os.getloadavg()} on {os.cpu_count()} cores"
    return call


def make_call(engine: str, folder: Path) -> Call:
    """A call of a fresh server with that engine; the recording for the microphone is left in `folder`."""
    score = write_score(LIPS_BY[engine])
    microphone = write_recording(folder / "microphone.wav", score.samples)
    arguments = ["--config", str(PROFILES / f"{engine}.yaml"), "--style", BEFORE]
    with open_server(arguments) as url, open_page(microphone) as page:
        wait_until_warm(page, url)
        page.add_init_script(path=Path(__file__).with_name("recorder.js"))
        page.goto(url)
        page.wait_for_selector(f"button.style[data-value={AFTER}]", state="attached")
        page.click("#start")
        page.wait_for_selector("body[data-phase=live].has-picture")
        page.evaluate("side => recorder.start(side)", SIDE)
        began_ms = page.evaluate("recorder.sound()[0][0]")
        _sleep_until(page, began_ms + 1000 * (score.again[0] - 0.1))
        page.click(f"button.style[data-value={AFTER}]")
        _sleep_until(page, began_ms + 1000 * score.duration_s)
        recording = _collect(page, score)
    styles = [at for at, event in recording.events if event["type"] == "style" and event["name"] == AFTER]
    assert styles, f"the server never said that {AFTER} is in effect: {[e['type'] for _, e in recording.events]}"
    return Call(score, recording, READERS[engine](recording.pictures), styles[0])


def _sleep_until(page: Any, page_ms: float) -> None:
    page.wait_for_timeout(max(0.0, page_ms - page.evaluate("performance.now()")))


def _collect(page: Any, score: Score) -> Recording:
    pictures: list[Any] = []
    while batch := page.evaluate("([from, count]) => recorder.take(from, count)", [len(pictures), BATCH]):
        pictures += batch
    sound, events = page.evaluate("[recorder.sound(), recorder.events()]")
    return read_recording(pictures, sound, events, score.samples)


def test_lips_follow_the_words(call: Call) -> None:
    found = call.likeness()
    logger.info("lips r %.3f at %.0f ms; controls %s", found.r, 1000 * found.lag_s, np.round(found.controls, 2))
    assert found.r > 0.35
    assert found.r > found.controls.max() + 0.1
    assert found.r > found.controls.mean() + 4 * found.controls.std()


def test_mouth_rests_in_silence(call: Call) -> None:
    silent = call.readings.lips[call.during(call.score.silence, margin_s=0.7)]
    spoken = call.readings.lips[call.during(call.score.first)]
    logger.info("lips deviate by %.4f in speech, %.4f in silence (%d)", spoken.std(), silent.std(), len(silent))
    assert len(silent) >= 5
    assert silent.std() < 0.5 * spoken.std()
    assert silent.mean() < spoken.mean()


def test_silence_is_no_freeze(call: Call) -> None:
    silent = call.during(call.score.silence, margin_s=0.7)[1:]
    assert np.median(changes(call.recording.pictures)[silent]) > 0.0


def test_eyes_blink(call: Call) -> None:
    count = blinks(call.readings.eyes)
    span_s = call.recording.media[-1] - call.recording.media[0]
    logger.info("%d blinks in %.0f s", count, span_s)
    assert 1 <= count <= span_s, "somebody who blinks more than once a second flickers"


def test_style_arrives(call: Call) -> None:
    """The same words in the other style differ more than other words in the same style."""
    first, again = call.during(call.score.first), call.during(call.score.again, margin_s=0.3)
    second = call.during((call.score.silence[1], call.score.again[0]))
    means = [call.readings.expression[mask].mean(axis=0) for mask in (first, second, again)]
    same, other = np.linalg.norm(means[0] - means[1]), np.linalg.norm(means[0] - means[2])
    logger.info("expression moved by %.3f with the style, by %.3f with the words", other, same)
    assert other > 1.5 * same


def test_style_changes_without_a_jump(call: Call) -> None:
    steps, around = changes(call.recording.pictures), call.around_change()
    logger.info("largest step %.2f around the change, %.2f elsewhere", steps[around].max(), steps[~around].max())
    # A jump puts the whole change into one step; a glide of 0.3 s spreads it over eight (smoothstep: a fifth at most).
    assert steps[around].max() <= max(1.5 * steps[~around].max(), 0.4 * steps[around].sum())


def test_style_changes_without_a_stall(call: Call) -> None:
    gaps, around = np.diff(call.recording.arrived), call.around_change()
    usual = np.median(gaps)
    logger.info("longest gap %.0f ms around the change, %.0f elsewhere, usual %.0f",
                1000 * gaps[around].max(), 1000 * gaps[~around].max(), 1000 * usual)  # fmt: skip
    assert gaps[around].max() <= max(1.5 * gaps[~around].max(), 6 * usual)
