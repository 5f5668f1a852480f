"""The judge: statistics of tracks, and that it learns styles from articulated words through the gauge's errors."""

from __future__ import annotations

import numpy as np
import pytest

from svp_stream.arkit import SPEECH
from svp_stream.evaluation.judge_training import Mimic
from svp_stream.evaluation.style_judge import FEATURES, JudgeConfig, StyleJudge, accuracy, describe, fit_judge
from svp_stream.packets import Float32
from svp_stream.synthetic.articulation import articulate
from svp_stream.synthetic.phonemes import Phoneme
from svp_stream.synthetic.speech import Utterance
from svp_stream.synthetic.styles import NAMED

STYLES = ("warm", "serious", "mumble", "dramatic")
FRAMES = 75


def words(seed: int) -> Utterance:
    """Three seconds of syllables, another order each seed."""
    rng = np.random.default_rng(seed)
    symbols = [*rng.choice(["aa", "iy", "uw", "m", "f", "s", "ow", "eh"], 14)]
    marks = [Phoneme("pau", 0.0, 0.1, 0)]
    marks += [Phoneme(str(s), 0.1 + 0.2 * i, 0.3 + 0.2 * i, int(i % 3 == 0)) for i, s in enumerate(symbols)]
    marks.append(Phoneme("pau", 2.9, 3.0, 0))
    sound = rng.standard_normal(FRAMES * 640).astype(np.float32) * np.float32(0.1)
    return Utterance("", "nobody", sound, tuple(marks))


def tracks(seeds: range, mimic: Mimic | None = None) -> tuple[list[Float32], list[int]]:
    rng = np.random.default_rng(9)
    made = [(articulate(words(s), NAMED[name], FRAMES, rng), i) for s in seeds for i, name in enumerate(STYLES)]
    return [t if mimic is None else mimic.worsen(t, rng) for t, _ in made], [i for _, i in made]


@pytest.fixture(scope="module")
def judge() -> StyleJudge:
    made = StyleJudge(JudgeConfig(STYLES, 16))
    fit_judge(made, *tracks(range(12)), steps=120, batch=24)
    return made


def test_statistics_have_the_promised_shape() -> None:
    assert describe(np.zeros((30, len(SPEECH)), np.float32)).shape == (FEATURES,)


@pytest.mark.parametrize("shape", [(10, len(SPEECH)), (50, 3), (50,)])
def test_statistics_refuse_what_shows_no_style(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shows"):
        describe(np.zeros(shape, np.float32))


def test_the_judge_names_styles_in_words_that_it_never_heard(judge: StyleJudge) -> None:
    fresh, labels = tracks(range(100, 108))
    assert accuracy(judge, fresh, labels) > 0.9
    assert judge.name(fresh[0]) == STYLES[labels[0]]
    assert judge.probabilities(fresh[0]).sum() == pytest.approx(1, abs=1e-5)


def test_shuffled_labels_bring_it_down_to_chance(judge: StyleJudge) -> None:
    fresh, labels = tracks(range(100, 108))
    assert accuracy(judge, fresh, [(i + 1) % len(STYLES) for i in labels]) < 0.2


def test_mimic_finds_the_errors_that_were_made() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 1, (3000, len(SPEECH))).astype(np.float32)
    clip = np.repeat([f"c{i}" for i in range(30)], 100)
    constant = np.repeat(rng.normal(0, 0.1, (30, len(SPEECH))), 100, axis=0)
    read = (0.5 * true + 0.2 + constant + rng.normal(0, 0.05, true.shape)).astype(np.float32)
    mimic = Mimic.measure(read, true, clip)
    assert np.diag(mimic.weight).mean() == pytest.approx(0.5, abs=0.05)
    assert mimic.frame_error.mean() == pytest.approx(0.05, abs=0.01)
    assert mimic.clip_error.mean() == pytest.approx(0.1, abs=0.03)
    assert mimic.worsen(true[:50], rng).shape == (50, len(SPEECH))
