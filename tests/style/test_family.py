"""Families of styles, read off names: which intensities go together, and what stands alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svp_stream.style.family import INTENSITIES, Kinship, kinships
from svp_stream.synthetic.styles import CAST, NAMED, PLAIN, grades

NAMES = st.lists(
    st.builds("".join, st.tuples(st.sampled_from(["", "warm", "sad", "-"]),
                                 st.sampled_from(["", "-soft", "-strong"]), st.sampled_from(["", "-soft", "-strong"]))),
    unique=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "alone"),
    [
        (["warm", "sad"], ["warm", "sad"]),
        (["warm-soft", "sad-strong"], ["warm-soft", "sad-strong"]),
        (["warm", "warm-loud", "warmsoft", "Warm-Soft"], ["warm", "warm-loud", "warmsoft", "Warm-Soft"]),
        (["-soft", "-strong", ""], ["-soft", "-strong", ""]),
        (["warm", "warm-soft", "mine"], ["mine"]),
        (["warm-soft", "warm-strong"], []),
        (["x-soft", "x-soft-soft", "x-soft-strong"], []),
    ],
)
def test_who_stands_alone(names: list[str], alone: list[str]) -> None:
    kin = kinships(names)
    assert [name for name in names if kin[name].intensity is None] == alone
    assert all(kin[name].family == name for name in alone)


def test_the_cast_comes_as_its_families() -> None:
    kin = kinships(list(CAST))
    for family in NAMED:
        if family == PLAIN:
            assert kin[family] == Kinship(PLAIN, None)
        else:
            assert [kin[name] for name in grades(family)] == [Kinship(family, i) for i in INTENSITIES]
            assert sorted(grades(family), key=lambda name: kin[name].rank) == list(grades(family))


@given(NAMES)
def test_within_a_family_every_member_has_an_intensity_of_its_own(names: list[str]) -> None:
    kin = kinships(names)
    assert list(kin) == names and len(set(kin.values())) == len(names)
    sizes = Counter(k.family for k in kin.values())
    for kinship in kin.values():
        assert (kinship.intensity is None) == (sizes[kinship.family] == 1)
