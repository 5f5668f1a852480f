"""The corpus maker: a plan drawn from a seed, and workers that carry it out.

What it is: `CorpusConfig` (a YAML file), `draw` (config to a list of `ClipPlan`), `make_corpus` (a folder of clips).
There are rendered clips and speech-only clips: coefficients and motion without a picture, of which hours cost little.
Split 'train' never holds a held-out voice, style or sentence. Split 'heldout' holds the held-out sentences, by turns in
a held-out voice with training styles, and in training voices with a held-out style. Other languages, and people who
only listen, are in 'train' alone.

In: config, folder of heads. Out: `<id>.npz` (+ `.mp4`, `.matte.mp4`) and `manifest.jsonl`. Remembers: the folder
itself: finished clips are not made again, so a run that was cut off goes on, and one with more minutes adds to it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import queue
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.config import Section, load_yaml
from svp_stream.errors import ConfigError, MediaError, SvpError
from svp_stream.synthetic import sentences
from svp_stream.synthetic.clip import SAMPLED, ClipLook, ClipMaker, ClipPlan, finished
from svp_stream.synthetic.sidecar import Sidecar
from svp_stream.synthetic.speech import ABROAD, HELD_OUT_VOICES, VOICES
from svp_stream.synthetic.styles import HELD_OUT_CAST, HELD_OUT_STYLES, TRAINING_CAST, TRAINING_STYLES

logger = logging.getLogger(__name__)

Kind = Literal["speech", "rendered"]
SECONDS_PER_LETTER: Final = 0.068
WAIT_S: Final = 2.0


class CorpusConfig(Section):
    """What to make; the fields of `ClipLook` say how."""

    seed: int = Field(default=7, ge=0)
    avatars: tuple[str, ...] = ("valid_White_F_1_Busi", "valid_Hispanic_M_2_Casual")
    rendered_minutes: float = Field(default=5.0, ge=0)
    rendered_heldout_minutes: float = Field(default=1.0, ge=0)
    speech_minutes: float = Field(default=90.0, ge=0)
    speech_heldout_minutes: float = Field(default=6.0, ge=0)
    sampled_share: float = Field(default=0.4, ge=0, le=1)
    intensities: bool = True
    abroad_share: float = Field(default=0.12, ge=0, le=1)
    silent_share: float = Field(default=0.04, ge=0, le=0.5)
    sentences_per_clip: tuple[int, int] = (1, 2)
    size: int = Field(default=256, ge=16, le=2048, multiple_of=2)
    supersample: int = Field(default=2, ge=1, le=4)
    crf: int = Field(default=8, ge=0, le=51)
    matte_crf: int = Field(default=12, ge=0, le=51)
    edge_s: tuple[float, float] = (0.2, 0.9)
    pause_s: tuple[float, float] = (0.3, 1.5)
    pause_chance: float = Field(default=0.3, ge=0, le=1)
    gain_db: tuple[float, float] = (-14.0, 2.0)
    voice_jitter: bool = True
    shift: bool = False
    breath_chance: float = Field(default=0.5, ge=0, le=1)
    emphasis_chance: float = Field(default=0.6, ge=0, le=1)
    turn_chance: float = Field(default=0.06, ge=0, le=1)
    turn_deg: float = Field(default=20.0, ge=0, le=30)
    framing_jitter: float = Field(default=0.01, ge=0, le=0.1)
    listen_s: tuple[float, float] = (3.0, 6.0)

    @field_validator("sentences_per_clip", "edge_s", "pause_s", "gain_db", "listen_s")
    @classmethod
    def _ordered(cls, pair: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        least = {"sentences_per_clip": 1, "gain_db": -60}.get(str(info.field_name), 0)
        if not least <= pair[0] <= pair[1]:
            raise ValueError(f"expected {least} <= low <= high")
        return pair

    @property
    def look(self) -> ClipLook:
        """How each clip is made."""
        return ClipLook(**{f.name: getattr(self, f.name) for f in fields(ClipLook)})

    @classmethod
    def load(cls, path: Path) -> CorpusConfig:
        """Read YAML; raises ConfigError that names the file, the key and what would be right."""
        return load_yaml(path, cls)


@dataclass(frozen=True, slots=True)
class _Group:
    """One balanced part of the corpus."""

    avatar: str | None
    split: str
    minutes: float


def draw(config: CorpusConfig) -> list[ClipPlan]:
    """The clips of `config`, in the order to make them: speech first (it is quick), then pictures; within both, every
    avatar and split grows at the same pace, so that a part of the corpus is balanced too.

    The plan is a function of the seed; more minutes or more avatars add clips and change none.
    """
    groups = [_Group(None, "train", config.speech_minutes), _Group(None, "heldout", config.speech_heldout_minutes)]
    for avatar in config.avatars:
        groups.append(_Group(avatar, "train", config.rendered_minutes))
        groups.append(_Group(avatar, "heldout", config.rendered_heldout_minutes))
    placed = [(plan.avatar is not None, share, number, plan)
              for number, group in enumerate(groups) for share, plan in _draw_group(config, group)]
    return [plan for *_, plan in sorted(placed, key=lambda row: row[:3])]


def _draw_group(config: CorpusConfig, group: _Group) -> Iterator[tuple[float, ClipPlan]]:
    """Plans with the share of the group's minutes at which each begins; lengths are judged by the letters."""
    label = f"{group.avatar or 'speech'}-{group.split}"
    rng, turns = np.random.default_rng([config.seed, zlib.crc32(label.encode())]).spawn(2)
    styles: list[str] = []
    every, held = (TRAINING_CAST, HELD_OUT_CAST) if config.intensities else (TRAINING_STYLES, HELD_OUT_STYLES)
    texts = [s for s in sentences.load() if sentences.split(s) == group.split]
    if not texts:
        raise ConfigError(f"no sentence belongs to split '{group.split}'; add to {sentences.SOURCE.name}")
    made = 0.0
    number = 0
    while made < group.minutes * 60:
        styles = styles or [str(s) for s in turns.permutation(sorted(every))]
        voice, style = _cast(config, group, number, styles.pop(), held, rng)
        voice, said = _words(config, group, voice, texts, rng)
        seed = int(rng.integers(2**31))
        content = [said, voice, style, group.avatar, seed, group.split, asdict(config.look)]
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
        yield made / (group.minutes * 60), ClipPlan(f"{label}-{number:04d}-{digest}", said, voice, style,
                                                    group.avatar, seed, group.split)
        silence_s = sum(config.edge_s) + (len(said) - 1) * sum(config.pause_s) / 2 if said else sum(config.listen_s) / 2
        made += SECONDS_PER_LETTER * sum(map(len, said)) + silence_s
        number += 1


def _words(config: CorpusConfig, group: _Group, voice: str, texts: list[str], rng: np.random.Generator
           ) -> tuple[str, tuple[str, ...]]:
    """Who speaks and what: mostly English in `voice`, at times another language in a voice of its own, or nothing."""
    low, high = config.sentences_per_clip
    count, kind = int(rng.integers(low, high + 1)), float(rng.random())
    if group.split == "train" and kind < config.silent_share:
        return voice, ()
    if group.split == "train" and kind < config.silent_share + config.abroad_share:
        voice = str(rng.choice(sorted(ABROAD)))
        texts = [s for s in sentences.abroad()[ABROAD[voice].language] if sentences.split(s) == group.split]
    return voice, tuple(texts[i] for i in rng.integers(0, len(texts), count))


def _cast(config: CorpusConfig, group: _Group, number: int, style: str, held: tuple[str, ...],
          rng: np.random.Generator) -> tuple[str, str]:
    """Voice and style of clip `number` in `group`; `style` is the training style whose turn it is."""
    voices = sorted(set(VOICES) - set(HELD_OUT_VOICES))
    voice = str(rng.choice(voices))
    sampled = rng.random() < config.sampled_share
    if group.split == "train":
        return voice, SAMPLED if sampled else style
    if number % 3 == 2:
        return voice, held[number // 3 % len(held)]
    return HELD_OUT_VOICES[number % len(HELD_OUT_VOICES)], style


def make_corpus(config: CorpusConfig, avatars: Path, out: Path, workers: int, only: Kind | None = None) -> None:
    """Make what is missing of the corpus in `out`, with heads from `avatars` and `workers` processes (1: in this one).

    Raises MediaError at the end when clips failed (they are tried again by the next run), or when a worker died.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}; give at least 1")
    out.mkdir(parents=True, exist_ok=True)
    plans = [p for p in draw(config) if only is None or (p.avatar is not None) == (only == "rendered")]
    missing = [p for p in plans if not finished(out, p)]
    logger.info("corpus: %d clips planned, %d to make, %d workers", len(plans), len(missing), workers)
    failures: dict[str, str] = {}
    try:
        with _progress(len(plans), len(plans) - len(missing)) as advance:
            for clip, frames, fault in _results(config, avatars, out, missing, workers):
                logger.info("clip %s: %s", clip, fault or f"{frames} frames")
                if fault:
                    failures[clip] = fault
                advance(frames)
    finally:
        write_manifest(out, draw(config))
    if failures:
        first = next(iter(failures))
        raise MediaError(f"{len(failures)} of {len(missing)} clips failed; the first, {first}: {failures[first]}")


Result = tuple[str, int, str]


def _results(config: CorpusConfig, avatars: Path, out: Path, missing: list[ClipPlan],
             workers: int) -> Iterator[Result]:
    """Id, frames and fault ('' when made) of each clip as it is done."""
    if workers == 1:
        with ClipMaker(config.look, avatars, out) as maker:
            for plan in missing:
                yield _attempt(maker, plan)
        return
    context = multiprocessing.get_context("spawn")
    tasks: Any = context.Queue()
    done: Any = context.Queue()
    for item in [*missing, *[None] * workers]:
        tasks.put(item)
    with _one_thread_each():
        crew = [context.Process(target=_work, args=(config.look, avatars, out, tasks, done), daemon=True)
                for _ in range(workers)]
        for process in crew:
            process.start()
    try:
        for _ in missing:
            yield _next(done, crew)
        for process in crew:
            process.join()
    finally:
        for process in crew:
            process.terminate()
        tasks.cancel_join_thread()


def _next(done: Any, crew: list[Any]) -> Result:
    while True:
        try:
            result: Result = done.get(timeout=WAIT_S)
            return result
        except queue.Empty:
            dead = [p.exitcode for p in crew if p.exitcode not in (None, 0)]
            if dead:
                raise MediaError(f"a corpus worker died with exit code {dead[0]}; its messages are above") from None


def _work(look: ClipLook, avatars: Path, out: Path, tasks: Any, done: Any) -> None:
    """A worker process: clips until the queue says None."""
    with ClipMaker(look, avatars, out) as maker:
        for plan in iter(tasks.get, None):
            done.put(_attempt(maker, plan))


def _attempt(maker: ClipMaker, plan: ClipPlan) -> Result:
    try:
        return plan.id, maker.make(plan), ""
    except (SvpError, OSError) as error:
        return plan.id, 0, str(error)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children inherit one thread for BLAS and for Mesa's rasteriser: the processes share the cores."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _progress(total: int, already: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[minutes]:.1f} min made"))
    with Progress(*columns) as bar:
        task = bar.add_task("corpus", total=total, completed=already, minutes=0.0)
        frames_made = 0

        def advance(frames: int) -> None:
            nonlocal frames_made
            frames_made += frames
            bar.update(task, advance=1, minutes=frames_made / FRAME_RATE_HZ / 60)

        yield advance


def write_manifest(out: Path, plans: list[ClipPlan]) -> None:
    """`manifest.jsonl`: one line for each finished clip of `plans`, in their order."""
    rows = []
    for plan in plans:
        if finished(out, plan):
            known = Sidecar(out / f"{plan.id}.npz")
            frames = len(known.array("stress"))
            rows.append(json.dumps({"id": plan.id, "avatar": known.avatar, "split": known.split, "voice": known.voice,
                                    "style": known.style, "text": known.text, "seed": known.seed, "frames": frames}))
    part = out / ".manifest.jsonl.part"
    part.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    part.replace(out / "manifest.jsonl")
