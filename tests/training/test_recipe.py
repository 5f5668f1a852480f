"""One command from heads to a card: its order, what is done again and what is not, and what a failed step says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from svp_stream.config import CONFIGS
from svp_stream.errors import ConfigError
from svp_stream.training.recipe import ORDER, Recipe, RecipeError, Step, cook, load_recipe, steps


def planned(folder: Path, recipe: Recipe | None = None, hours: float = 1.0) -> dict[str, Step]:
    return {step.name: step for step in steps(recipe or Recipe(), folder / "heads", folder / "mine", hours)}


class Kitchen:
    """Stands in for the commands: writes a line of log and remembers who was called."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.called: list[str] = []

    def __call__(self, words: list[str], log: Path) -> int:
        self.called.append(log.stem)
        log.write_text(f"words {' '.join(words)}\n")
        return 3 if log.stem == self.fails else 0


def test_the_shipped_recipe_is_the_default() -> None:
    assert load_recipe(CONFIGS / "recipe.yaml") == Recipe()


def test_order_and_time(tmp_path: Path) -> None:
    found = planned(tmp_path, hours=2.0)
    assert list(found) == ["corpus", "evaluation", *ORDER, "release", "evaluate"]
    minutes = [float(found[s].words[found[s].words.index("--minutes") + 1]) for s in ORDER]
    assert sum(minutes) == pytest.approx(120, abs=0.1)
    assert minutes[ORDER.index("video")] == pytest.approx(120 * 0.16, abs=0.01)


def test_every_command_is_one_that_there_is(tmp_path: Path) -> None:
    from typer.main import get_command

    from svp_stream.cli import app

    commands = get_command(app)
    for step in planned(tmp_path).values():
        command = commands.commands[step.words[0]]  # type: ignore[attr-defined]
        command.make_context(step.words[0], list(step.words[1:]))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("shares: {vidoe: 1}", "no stage vidoe"),
        ("shares: {video: 0}", "above 0"),
        ("evaluation: {seed: 7}", "must differ"),
        ("hours: -1", "hours"),
        ("ours: 1", "ours"),
    ],
)
def test_wrong_recipes_are_told_apart(tmp_path: Path, said: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(said)
    with pytest.raises(ConfigError, match=f"recipe.yaml.*{words}"):
        load_recipe(path)


def test_a_failed_step_says_why_and_the_next_run_goes_on_there(tmp_path: Path) -> None:
    found, folder = list(planned(tmp_path).values()), tmp_path / "mine"
    first = Kitchen(fails="expression")
    with pytest.raises(RecipeError, match="(?s)'expression' ended with exit code 3.*words train expression"):
        cook(found, folder, first)
    second = Kitchen()
    cook(found, folder, second)
    assert first.called[-1] == second.called[0] == "expression"
    assert len(first.called) + len(second.called) == len(found) + 1
    assert (folder / "report.md").read_text().startswith("words evaluate")
    third = Kitchen()
    cook(found, folder, third)
    assert third.called == []


def changed(before: dict[str, Step], after: dict[str, Step]) -> list[str]:
    return [name for name in after if before[name].key != after[name].key]


def test_more_hours_train_further_and_render_nothing_again(tmp_path: Path) -> None:
    before, after = planned(tmp_path), planned(tmp_path, hours=2.0)
    assert changed(before, after) == [*ORDER, "release", "evaluate"]


def test_other_clips_to_evaluate_on_touch_nothing_else(tmp_path: Path) -> None:
    before = planned(tmp_path)
    other = Recipe().evaluation.model_copy(update={"seed": 99})
    after = planned(tmp_path, Recipe(evaluation=other))
    assert changed(before, after) == ["evaluation", "evaluate"]


def test_another_corpus_touches_everything_behind_it(tmp_path: Path) -> None:
    before = planned(tmp_path)
    after = planned(tmp_path, Recipe(corpus=Recipe().corpus.model_copy(update={"seed": 8})))
    assert changed(before, after) == [name for name in after if name != "evaluation"]


def test_a_profile_of_ones_own_is_used_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "video.yaml").write_text("kps_dropout: 0.1\n")
    found = planned(tmp_path, Recipe(profiles=tmp_path / "profiles"))
    assert "--config" in found["video"].words and "--config" not in found["image"].words


def test_a_damaged_memory_is_said(tmp_path: Path) -> None:
    found, folder = list(planned(tmp_path).values()), tmp_path / "mine"
    (folder / "done.json").write_text("{")
    with pytest.raises(ConfigError, match=r"done.json: is not JSON"):
        cook(found, folder, Kitchen())
    (folder / "done.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"found list"):
        cook(found, folder, Kitchen())


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_heads_become_weights_with_a_card(tmp_path: Path) -> None:
    from tests.fakes.procedural_head import write_procedural_head

    write_procedural_head(tmp_path / "heads", "pat")
    look = {"avatars": ("pat",), "supersample": 1}
    corpus = Recipe().corpus.model_copy(
        update=look | {"rendered_minutes": 0.4, "rendered_heldout_minutes": 0.1, "speech_minutes": 3.0,
                       "speech_heldout_minutes": 0.5}  # fmt: skip
    )
    evaluation = Recipe().evaluation.model_copy(update=look | {"rendered_heldout_minutes": 0.1})
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    few = "data: {takes: 24, held_out_takes: 8}\n"
    (profiles / "audio.yaml").write_text("tape: {minutes: 1.5, held_out_minutes: 0.4}\n")
    (profiles / "style-prior.yaml").write_text(few + "manner_styles: 60\n")
    (profiles / "expression.yaml").write_text(few + "styles: 60\n")
    (profiles / "motion.yaml").write_text(few)
    recipe = Recipe(corpus=corpus, evaluation=evaluation, workers=1, profiles=profiles)
    folder = tmp_path / "mine"
    cook(steps(recipe, tmp_path / "heads", folder, 0.05), folder)
    card = json.loads((folder / "weights" / "card.json").read_text())
    assert set(card["training"]) == set(ORDER) and "LipOpen r" in card["figures"]["markdown"]
