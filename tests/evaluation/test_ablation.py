"""Ablations: variants differ in one thing each, tables hold their controls, a run that was cut off goes on, films."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.diffusion.cache import CacheRule
from svp_stream.errors import MediaError
from svp_stream.evaluation import drift as room
from svp_stream.evaluation import sweeps
from svp_stream.evaluation.ablation import STATIC, TRUTH, Journal, Row, Variant, ablate, shortest_of_each, weights_key
from svp_stream.evaluation.evaluate import Bench
from svp_stream.evaluation.films import make_films, speech_of
from svp_stream.evaluation.measure import WEIGHTS, load_evaluator
from svp_stream.evaluation.report import write_ablation
from svp_stream.evaluation.trials import Trial, open_trials
from tests.evaluation.drawn import AVATAR
from tests.evaluation.test_report import LoudEngine, OneStyle, corpus, weights

__all__ = ["corpus", "weights"]
BASE = Variant("as served", CacheRule(), 0, "fp32")


@pytest.fixture
def bench(weights: Path) -> Bench:  # noqa: F811
    return Bench(LoudEngine(), None, load_evaluator(weights / WEIGHTS), OneStyle(), 0, lambda what, done, total: None)


@pytest.fixture
def trials(corpus: Path) -> list[Trial]:  # noqa: F811
    return [t for t in open_trials(corpus, (AVATAR,)) if t.clip.style == "warm"]


def differences(a: CacheRule, b: CacheRule) -> list[str]:
    return [f for f in a.__dataclass_fields__ if getattr(a, f) != getattr(b, f)]


def test_the_cache_sweep_turns_one_switch_at_a_time() -> None:
    first, *rest = sweeps.cache(BASE)
    assert first == BASE
    assert all(len(differences(v.rule, BASE.rule)) == 1 for v in rest[:-1])
    assert {differences(v.rule, BASE.rule)[0] for v in rest[:-1]} == {
        "noise_mix", "warm_start", "previous_latent", "deep_reuse", "smoothing"}
    assert rest[-1].rule == BASE.rule and rest[-1].precision == "fp32"
    assert len({v.name for v in (first, *rest)}) == len(rest) + 1


def test_a_mechanism_that_is_off_is_turned_on() -> None:
    bare = replace(BASE, rule=CacheRule(smoothing=0, warm_start=False))
    names = {v.name: v.rule for v in sweeps.cache(bare)}
    assert names["with output smoothing"].smoothing > 0 and names["with warm start"].warm_start
    assert "without the previous latent as a condition" in names


def test_steps_and_look_ahead() -> None:
    warm, two, many = sweeps.steps(BASE)
    assert warm.rule == BASE.rule
    assert (two.rule.cold_steps, many.rule.cold_steps) == (2, 25)
    assert not any(v.rule.warm_start or v.rule.previous_latent for v in (two, many))
    assert [v.look_ahead for v in sweeps.look_ahead(BASE, 3)] == [0, 1, 2, 3]


def test_the_shortest_of_each_person(trials: list[Trial]) -> None:
    assert shortest_of_each(trials, 1) == [min(trials, key=lambda t: (t.clip.frames, t.clip.id))]
    assert len(shortest_of_each(trials, 9)) == len(trials)


def test_a_table_beside_its_controls(bench: Bench, trials: list[Trial], tmp_path: Path) -> None:
    """Later look-ahead stands for later lips here: the table finds it."""
    variants = sweeps.look_ahead(BASE, 1)
    table = ablate("Look-ahead", variants, lambda v: LoudEngine(late=2 * v.look_ahead), bench, trials,
                   Journal(tmp_path / "j.jsonl", "w"), style_clips=1)  # fmt: skip
    names = [v.name for v in variants]
    assert list(table.rows) == [TRUTH, STATIC, *names]

    def lag(name: str) -> float:
        return float(np.nanmean([r["lag_ms"] for r in table.rows[name] if "lag_ms" in r]))

    assert lag(names[1]) - lag(names[0]) == pytest.approx(80, abs=25)
    assert all(r["psnr"] == float("inf") for r in table.rows[TRUTH])
    assert all(r["lip_open_r"] == 0 and r["flicker"] == 0 for r in table.rows[STATIC])
    told = table.markdown()
    assert "equal" in told and "StyleAcc" in told and names[1] in told and "nan" not in told


def test_what_is_known_is_not_made_again(bench: Bench, trials: list[Trial], tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    made: list[Variant] = []

    def engines(variant: Variant) -> LoudEngine:
        made.append(variant)
        return LoudEngine(lossy=len(made) > 1)

    first = ablate("T", [BASE], engines, bench, trials, Journal(path, "w"))
    path.write_text(path.read_text() + '{"key": "half a li', encoding="utf-8")
    again = ablate("T", [BASE], engines, bench, trials, Journal(path, "w"))
    assert again.markdown() == first.markdown(), "an engine that loses frames is never asked"
    with pytest.raises(Exception, match="left out"):
        ablate("T", [BASE], engines, bench, trials, Journal(path, "other weights"))


def test_a_journal_keeps_what_is_not_defined(tmp_path: Path) -> None:
    row = Journal(tmp_path / "j", "w").row({"a": 1}, lambda: {"x": float("nan"), "y": 2.0})
    known = Journal(tmp_path / "j", "w").row({"a": 1}, lambda: {"never": 0.0})
    assert np.isnan(row["x"]) and np.isnan(known["x"]) and known["y"] == 2


def test_a_row_after_a_line_that_was_cut_off_is_found(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text('{"key": "half a li', encoding="utf-8")
    Journal(path, "w").row({"a": 1}, lambda: {"x": 1.0})
    assert Journal(path, "w").row({"a": 1}, lambda: {"x": 2.0}) == {"x": 1.0}


def test_weights_have_a_key(tmp_path: Path) -> None:
    (tmp_path / "hashes.json").write_text("{}")
    before = weights_key(tmp_path)
    (tmp_path / "hashes.json").write_text('{"a": 1}')
    assert weights_key(tmp_path) != before


def test_a_table_goes_into_the_card(tmp_path: Path) -> None:
    card: dict[str, object] = {"files": {}, "training": {}, "licences": {}, "figures": {}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    write_ablation("Latent cache", "| old |", tmp_path)
    write_ablation("Latent cache", "| a |", tmp_path)
    write_ablation("Drift", "| b |", tmp_path)
    told = (tmp_path / "README.md").read_text()
    assert "## Latent cache\n\n| a |" in told and "## Drift" in told and "old" not in told


def test_an_engine_that_does_not_wander(bench: Bench, trials: list[Trial], tmp_path: Path) -> None:
    loop = room.one_turn(trials, 1.0)
    journal = Journal(tmp_path / "j", "w")
    rows = room.drift(LoudEngine(), bench, loop, 3, journal, BASE)
    assert len(rows) == 3 and rows[0]["psnr"] == pytest.approx(rows[2]["psnr"], abs=0.3)
    known = room.drift(LoudEngine(lossy=True), bench, loop, 3, Journal(tmp_path / "j", "w"), BASE)
    assert known == rows
    assert "3 turns" in room.markdown(rows, loop, "here")


def test_turns_are_whole_and_in_place(bench: Bench, trials: list[Trial]) -> None:
    """Every turn of an engine without memory is the same film, as long as its clips."""
    loop = room.one_turn(trials, 60.0)
    films = list(room.films(LoudEngine(), bench, loop, 2))
    assert [n for n, _ in films] == [0, 1] and loop.frames == sum(t.clip.frames for t in trials)
    assert all(len(film) == loop.frames for _, film in films)
    differ = np.abs(films[0][1].astype(int) - films[1][1]).mean((1, 2, 3))
    assert (differ[5:] == 0).all()


def test_what_wanders_is_told() -> None:
    rows: list[Row] = [dict.fromkeys(("psnr", "psnr_face", "lip_open_r", "flicker", "red", "green", "blue"), v)
                       for v in (30.0, 29.0)]
    assert "+1.000 dB whole" in room.markdown(rows, room.Loop(()), "here")
    with pytest.raises(MediaError):
        room.one_turn([])


def test_films_are_as_long_as_asked(bench: Bench, trials: list[Trial], tmp_path: Path) -> None:
    made = make_films(tmp_path / "films", LoudEngine(), bench, trials, ("warm", "tight"), 2.0)
    assert [p.name for p in made] == [f"{AVATAR}-warm.mp4", f"{AVATAR}-tight.mp4"]
    with av.open(str(made[0])) as film:
        assert {s.codec_context.name for s in film.streams} == {"h264", "aac"}
        assert sum(1 for _ in film.decode(video=0)) == 2 * FRAME_RATE_HZ
    assert len(speech_of(trials[:1], 30.0)) == 30 * 48_000, "few clips are said again"
