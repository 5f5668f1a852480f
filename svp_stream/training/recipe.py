"""A whole model by one command, from rigged heads to weights with their card: `svp recipe`.

In: a folder of heads, a recipe (YAML: what to render, which share of the training time each stage gets), hours. Out: in
one folder `corpus`, `evaluation`, `runs`, `weights`, `profile.yaml` to serve them by, `report.md`, a log for each step.
Remembers: `done.json`, the steps that are finished. Every step is a command of `svp` in a process of its own, so a run
that was cut off goes on where it stopped, and more hours train further what is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import Field, field_validator, model_validator

from svp_stream.config import Section, load_yaml
from svp_stream.errors import ConfigError, SvpError
from svp_stream.synthetic.corpus import CorpusConfig
from svp_stream.training.stages import STAGES

logger = logging.getLogger(__name__)
JUDGES: Final = ("evaluator", "landmarks", "syncnet")
ORDER: Final = (*STAGES, *JUDGES)
"""Each builds on those before it; the judges come last and see nothing of the model."""
LAST_LINES: Final = 12
Run = Callable[[list[str], Path], int]
"""(words of a command of `svp`, log to append to) to its exit code."""


class RecipeError(SvpError):
    """A step of the recipe failed; its log says why."""


class Recipe(Section):
    """What to make of which heads."""

    hours: float = Field(default=2.5, gt=0)
    shares: dict[str, float] = {
        "audio": 0.23, "style-prior": 0.08, "expression": 0.09, "motion": 0.03, "autoencoder": 0.09, "image": 0.1,
        "video": 0.16, "consistency": 0.03, "finish": 0.04, "evaluator": 0.1, "landmarks": 0.03, "syncnet": 0.02,
    }  # fmt: skip
    denoiser: str | None = None
    profiles: Path | None = None
    workers: int = Field(default=2, ge=1)
    corpus: CorpusConfig = CorpusConfig()
    evaluation: CorpusConfig = CorpusConfig(
        seed=1007, rendered_minutes=0, rendered_heldout_minutes=1.6, speech_minutes=0, speech_heldout_minutes=0
    )

    @field_validator("shares")
    @classmethod
    def _known(cls, shares: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(shares) - set(ORDER))
        if unknown:
            raise ValueError(f"no stage {', '.join(unknown)}; there are {', '.join(ORDER)}")
        if any(not share > 0 for share in shares.values()):
            raise ValueError("every share must be above 0; leave a stage out to skip it")
        return shares

    @model_validator(mode="after")
    def _apart(self) -> Recipe:
        if self.evaluation.seed == self.corpus.seed:
            raise ValueError("evaluation.seed must differ from corpus.seed: its clips must be unseen")
        return self


@dataclass(frozen=True, slots=True)
class Step:
    """One command; `key` changes when the command or a file that it reads does."""

    name: str
    words: list[str]
    key: str


def load_recipe(path: Path | None) -> Recipe:
    """A recipe from YAML, or the one that made the shipped weights. Raises ConfigError naming file and key."""
    return Recipe() if path is None else load_yaml(path, Recipe)


def steps(recipe: Recipe, avatars: Path, folder: Path, hours: float) -> list[Step]:
    """Writes the files that the commands read into `folder`, and lists the commands in their order."""
    avatars, folder = avatars.resolve(), folder.resolve()
    corpus, runs, weights = folder / "corpus", folder / "runs", folder / "weights"
    profile = _written(folder / "profile.yaml", {
        "model": {"engine": "mini", "weights": str(weights)},
        "style": {"folder": str(runs / "style-prior" / "styles")},
    })  # fmt: skip
    found = []
    for name, config in (("corpus", recipe.corpus), ("evaluation", recipe.evaluation)):
        told = _written(folder / f"{name}.yaml", config.model_dump(mode="json"))
        words = ["corpus", "--avatars", str(avatars), "--out", str(folder / name), "--config", str(told)]
        found.append(_step(name, [*words, "--workers", str(recipe.workers)], told))
    total = sum(recipe.shares.values())
    for stage in (s for s in ORDER if s in recipe.shares):
        minutes = round(60 * hours * recipe.shares[stage] / total, 2)
        words = ["train", stage, "--corpus", str(corpus), "--out", str(runs), "--minutes", str(minutes)]
        own = recipe.profiles / f"{stage}.yaml" if recipe.profiles else None
        if own is not None and own.is_file():
            found.append(_step(stage, [*words, "--config", str(own)], own))
        else:
            found.append(_step(stage, words))
    words = ["release", "--runs", str(runs), "--to", str(weights)]
    found.append(_step("release", words + (["--denoiser", recipe.denoiser] if recipe.denoiser else [])))
    words = ["evaluate", "--corpus", str(folder / "evaluation"), "--weights", str(weights), "--profile", str(profile)]
    found.append(_step("evaluate", [*words, "--write-card"]))
    return _chained(found)


def cook(found: list[Step], folder: Path, run: Run | None = None) -> None:
    """Runs the steps that are not done, in order; what `evaluate` prints goes to `report.md`.

    Raises RecipeError naming the step, its exit code and its last words; ConfigError when `done.json` is damaged.
    """
    done = _done(folder)
    for i, step in enumerate(found, 1):
        if done.get(step.name) == step.key:
            logger.info("%d of %d: %s is done", i, len(found), step.name)
            continue
        logger.info("%d of %d: svp %s", i, len(found), " ".join(step.words))
        log, began = folder / "logs" / f"{step.name}.log", time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        code = (run or _svp)(step.words, log)
        if code != 0:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:]) if log.is_file() else ""
            raise RecipeError(
                f"step '{step.name}' ended with exit code {code}; the same command goes on from there once the cause "
                f"is removed. {log} ends with:\n{last}"
            )
        done[step.name] = step.key
        _replace(folder / "done.json", json.dumps(done, indent=1) + "\n")
        logger.info("%s took %.1f min", step.name, (time.monotonic() - began) / 60)
    _replace(folder / "report.md", (folder / "logs" / "evaluate.log").read_text(errors="replace"))


def _svp(words: list[str], log: Path) -> int:
    """One command in its own process, its output at the end of `log`; ended with us."""
    mode = "w" if words[0] == "evaluate" else "a"
    with log.open(mode) as out, log.with_suffix(".err").open("a") as told:
        errors = told if words[0] == "evaluate" else out
        process = subprocess.Popen([sys.executable, "-m", "svp_stream.cli", *words], stdout=out, stderr=errors)
        try:
            return process.wait()
        except BaseException:  # Ctrl-C and the like must not leave a training behind
            process.terminate()
            process.wait()
            raise


def _step(name: str, words: list[str], *reads: Path) -> Step:
    told = hashlib.sha256(json.dumps(words).encode())
    for path in reads:
        told.update(path.read_bytes())
    return Step(name, words, told.hexdigest()[:16])


def _chained(found: list[Step]) -> list[Step]:
    """Keys that change with those of every step before: what is trained further is used further. The clips to evaluate
    on matter to the evaluation alone."""
    apart = next(step for step in found if step.name == "evaluation")
    chained, before = [], ""
    for step in found:
        if step is apart:
            chained.append(apart)
            continue
        before = hashlib.sha256(f"{before}{step.key}{apart.key * (step.name == 'evaluate')}".encode()).hexdigest()[:16]
        chained.append(Step(step.name, step.words, before))
    return chained


def _done(folder: Path) -> dict[str, str]:
    path = folder / "done.json"
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text())
    except ValueError as e:
        raise ConfigError(f"{path}: is not JSON ({e}); delete it, and every step looks for itself what it has") from e
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected an object of steps, found {type(data).__name__}; delete it")
    return {str(k): str(v) for k, v in data.items()}


def _written(path: Path, data: dict[str, Any]) -> Path:
    _replace(path, yaml.safe_dump(data, sort_keys=False))
    return path


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)
