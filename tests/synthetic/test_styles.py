"""Speaking styles: distinct, invertible, sampled inside what a face can do and never from a held-out style."""

from __future__ import annotations

from dataclasses import fields
from itertools import combinations

import numpy as np
import pytest

from svp_stream.motion.manner import MANNER_DIM, Manner
from svp_stream.synthetic.styles import (
    CAST,
    HELD_OUT_CAST,
    HELD_OUT_STYLES,
    NAMED,
    PARAMETERS,
    PLAIN,
    STYLE_DIM,
    TRAINING_CAST,
    TRAINING_STYLES,
    SpeakingStyle,
    grades,
    intensify,
    sample,
)


def test_named_styles() -> None:
    assert len(NAMED) >= 14
    assert {"warm", "neutral", "cheerful", "serious", "mumble", "dramatic", "newsreader", "shy", "angry", "sad",
            "excited", "bored", "sly"} <= set(NAMED)
    assert all(name == style.name for name, style in NAMED.items())
    assert len(HELD_OUT_STYLES) == 2 and set(HELD_OUT_STYLES) <= set(NAMED)
    assert not set(HELD_OUT_STYLES) & set(TRAINING_STYLES)


def test_vector_carries_every_number() -> None:
    vector = NAMED["sly"].vector()
    assert vector.shape == (STYLE_DIM,) and vector.dtype == np.float32
    assert STYLE_DIM == len(fields(SpeakingStyle)) - 2 + MANNER_DIM
    assert vector[PARAMETERS.index("asymmetry")] == np.float32(NAMED["sly"].asymmetry)


@pytest.mark.parametrize("name", NAMED)
def test_named_styles_are_within_range(name: str) -> None:
    vector = NAMED[name].vector()
    np.testing.assert_allclose(SpeakingStyle.from_vector(name, vector).vector(), vector, atol=1e-6)


def test_from_vector_refuses_a_wrong_length() -> None:
    with pytest.raises(ValueError, match=f"has {STYLE_DIM} numbers"):
        SpeakingStyle.from_vector("odd", np.zeros(STYLE_DIM - 1, dtype=np.float32))


def test_vectors_are_distinct() -> None:
    numbers = np.stack([style.numbers() for style in NAMED.values()])
    scaled = numbers / numbers.std(axis=0)
    closest = min(float(np.linalg.norm(a - b)) for a, b in combinations(scaled, 2))
    assert closest > 2.0


def test_sample_is_seeded_named_and_varied() -> None:
    one, same = sample(np.random.default_rng(3)), sample(np.random.default_rng(3))
    assert one == same and one.name.startswith("sampled-") and len(one.name) == len("sampled-0000")
    rng = np.random.default_rng(0)
    vectors = np.stack([sample(rng).vector() for _ in range(300)])
    named = np.stack([NAMED[name].vector() for name in TRAINING_STYLES])
    moving = named.std(axis=0) > 0
    assert (vectors.std(axis=0)[moving] > 0.3 * named.std(axis=0)[moving]).all()


def test_samples_favour_no_side() -> None:
    rng = np.random.default_rng(1)
    lean = np.array([sample(rng).asymmetry for _ in range(400)])
    assert (lean > 0.1).sum() > 60 and (lean < -0.1).sum() > 60


def test_samples_stay_within_manner_limits() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        manner = sample(rng).manner
        assert manner == Manner.from_vector(manner.vector())


def test_the_cast_is_every_family_in_three_intensities() -> None:
    assert len(TRAINING_CAST) >= 40 and set(TRAINING_CAST) | set(HELD_OUT_CAST) == set(CAST)
    assert not set(TRAINING_CAST) & set(HELD_OUT_CAST)
    assert set(HELD_OUT_CAST) == {g for family in HELD_OUT_STYLES for g in grades(family)} and grades(PLAIN) == (PLAIN,)
    assert all(CAST[name] == style for name, style in NAMED.items())
    plain, spread = CAST[PLAIN].vector(), np.std([s.vector() for s in NAMED.values()], axis=0) + 1e-6
    for family in set(NAMED) - {PLAIN}:
        away = [np.linalg.norm((CAST[g].vector() - plain) / spread) for g in grades(family)]
        assert away[0] < 0.7 * away[1] and 1.02 * away[1] < away[2], family


def test_intensity_goes_from_plain_to_caricature() -> None:
    assert intensify(NAMED["angry"], 0.0, PLAIN) == SpeakingStyle.from_vector(PLAIN, NAMED[PLAIN].vector())
    np.testing.assert_allclose(intensify(NAMED["sad"], 1.0, "sad").vector(), NAMED["sad"].vector(), atol=1e-5)
    far = intensify(NAMED["dramatic"], 9.0, "far")
    assert far == SpeakingStyle.from_vector("far", far.vector())
