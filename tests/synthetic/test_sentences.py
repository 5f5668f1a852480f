"""The sentences: enough of them, varied, each once, and a split that never moves."""

from __future__ import annotations

from svp_stream.synthetic.sentences import load, split


def _words(sentence: str) -> tuple[str, ...]:
    return tuple("".join(c if c.isalnum() else " " for c in sentence.lower()).split())


def test_there_are_enough_and_none_twice() -> None:
    sentences = load()
    assert len(sentences) >= 400
    assert len({_words(s) for s in sentences}) == len(sentences)


def test_lengths_and_kinds_vary() -> None:
    sentences = load()
    counts = [len(s.split()) for s in sentences]
    assert min(counts) <= 3 and 20 <= max(counts) <= 25
    assert sum(s.endswith("?") for s in sentences) >= 40
    assert sum(s.endswith("!") for s in sentences) >= 25
    assert all(s.isascii() and s[-1] in ".?!" for s in sentences)


def test_every_letter_pair_of_lips_occurs_often() -> None:
    text = " ".join(load()).lower()
    assert all(text.count(c) >= 150 for c in "mbpfvw")


def test_about_a_tenth_is_held_out() -> None:
    held_out = [s for s in load() if split(s) == "heldout"]
    assert 0.06 <= len(held_out) / len(load()) <= 0.14


def test_split_is_frozen_and_deaf_to_punctuation() -> None:
    assert split("Hello, and welcome to the studio.") == split("hello and  welcome to the STUDIO!!")
    frozen = {"Good morning, everyone!": "train", "Nothing beats fresh bread with butter.": "train"}
    assert {s: split(s) for s in frozen} == frozen


def test_held_out_share_of_unseen_sentences() -> None:
    made = [f"sentence number {i} of many" for i in range(4000)]
    assert 0.08 <= sum(split(s) == "heldout" for s in made) / len(made) <= 0.12
