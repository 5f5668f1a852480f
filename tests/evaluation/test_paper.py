"""The table of a paper: figures and controls in their order, on drawn films whose faults are known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from svp_stream.arkit import ARKIT
from svp_stream.errors import MediaError
from svp_stream.evaluation import evaluate, paper_films
from svp_stream.evaluation.face_reader import FaceReading
from svp_stream.evaluation.landmark_gauge import reader_finder
from svp_stream.evaluation.measure import Evaluator, GaugeConfig
from svp_stream.evaluation.metrics import Interval
from svp_stream.evaluation.paper import Measured, Seen, measure_paper, style_embedding, table
from svp_stream.evaluation.paper_films import (
    Judges,
    engine_diversity,
    engine_films,
    films_in,
    fitted,
    real_trials,
)
from svp_stream.evaluation.paper_table import COLUMNS, MADE, SHUFFLED, STATIC, TRUTH, PaperTable
from svp_stream.evaluation.style_judge import JudgeConfig
from svp_stream.evaluation.syncnet import SyncConfig, SyncNet
from svp_stream.evaluation.trials import Trial
from svp_stream.packets import Bytes
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.style.preset import StylePreset
from svp_stream.training.clips import Clips
from tests.evaluation.drawn import EYES, draw, truth_of, write_clip
from tests.fakes.tiny_weights import tiny_engine

FRAMES = 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    for i in range(3):
        write_clip(folder, f"c{i}", frames=FRAMES, style="warm", voice="rms", split="heldout", seed=i)
    write_clip(folder, "t0", frames=FRAMES, style="warm", voice="rms", split="train", seed=9)
    return folder


class DrawnReader:
    """Finds the lips of a drawn face by its dark mouth; sees nothing in a dark picture."""

    def read(self, rgb: Bytes) -> FaceReading | None:
        if rgb.mean() < 20:
            return None
        share = (225 - rgb[32:60, 32, 0].astype(np.float32)) / 135
        opening = np.float32(max(share.clip(0, 1).sum() - 1.0, 0.0) / EYES)
        marks, _ = truth_of(np.array([opening]), np.array([0.3], np.float32))
        return FaceReading(np.zeros(len(ARKIT), np.float32), np.zeros(3, np.float32), marks[0])

    def reset(self) -> None:
        return None


@pytest.fixture(scope="module")
def judges() -> Judges:
    torch.manual_seed(0)
    evaluator = Evaluator(GaugeConfig(side=32, widths=(4, 4, 8, 8, 4), features=8), JudgeConfig(("a", "b"), 6)).eval()
    evaluator.gauge.std.fill_(50.0)
    return Judges(evaluator, SyncNet(SyncConfig((4, 4, 8, 8), 8)).eval(), reader_finder(DrawnReader()), 3)


def noisy(trial: Trial, number: int) -> Bytes:
    """The truth, a little worse."""
    noise = np.random.default_rng(number).normal(0, 10, trial.rgb.shape)
    return np.clip(trial.rgb + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def measured(corpus: Path, judges: Judges) -> PaperTable:
    return measure_paper(real_trials(corpus), noisy, judges, {"method": "noise"})


def test_every_figure_has_its_controls(measured: PaperTable) -> None:
    cells = measured.cells
    assert list(cells) == [TRUTH, MADE, STATIC, SHUFFLED] and measured.columns == list(COLUMNS)
    assert measured.about["clips"] == "3" and measured.notes == []
    assert np.isinf(cells[TRUTH]["psnr"].mean) and cells[TRUTH]["ssim"].mean == pytest.approx(1)
    assert 0 < cells[TRUTH]["m_lmd"].mean < 5, "the reader is off by a little even there, and the table says so"
    assert cells[TRUTH]["m_lmd"].mean <= cells[MADE]["m_lmd"].mean + 0.5
    assert cells[TRUTH]["style_sim"].mean == pytest.approx(1) and cells[TRUTH]["lip_r"].mean == pytest.approx(1)
    assert 27 < cells[MADE]["psnr"].mean < 30, "noise of deviation 10 is 28.1 dB"
    assert cells[STATIC]["psnr_face"].mean < cells[MADE]["psnr_face"].mean < 32
    assert cells[MADE]["ssim"].mean < 1 and cells[MADE]["psnr"].low <= cells[MADE]["psnr"].mean
    assert cells[STATIC]["m_lmd"].mean > cells[MADE]["m_lmd"].mean
    assert cells[STATIC].get("lip_r") is None, "what stands still correlates with nothing"
    assert cells[MADE]["fd"].mean > 0 and cells[MADE]["fvd"].mean > 0
    assert "psnr" not in cells[SHUFFLED] and "fd" not in cells[SHUFFLED]
    assert cells[SHUFFLED]["m_lmd"].mean > cells[MADE]["m_lmd"].mean


def test_the_same_seed_gives_the_same_table(corpus: Path, judges: Judges, measured: PaperTable) -> None:
    again = measure_paper(real_trials(corpus), noisy, judges, {"method": "noise"})
    assert json.dumps(again.json()) == json.dumps(measured.json())


def test_what_cannot_be_measured_is_said(corpus: Path, judges: Judges) -> None:
    bare = Judges(judges.evaluator)
    found = measure_paper(real_trials(corpus, 1), lambda trial, number: trial.rgb, bare, {"method": "truth"})
    assert "sync_c" not in found.columns and "m_lmd" not in found.columns and "fvd" not in found.columns
    assert list(found.cells) == [TRUTH, MADE, STATIC], "one clip cannot be shuffled"
    assert "fd" not in found.cells[TRUTH]
    text = found.markdown()
    assert "not measured: Sync-C-own" in text and "not measured: M-LMD" in text and "svp train syncnet" in text


def test_the_table_in_three_forms() -> None:
    cells = {TRUTH: {"psnr": Interval(float("inf"), float("inf"), float("inf"), 3), "ssim": Interval(1.0, 1.0, 1.0, 3)},
             MADE: {"psnr": Interval(27.25, 26.0, 28.0, 3), "ssim": Interval(0.913, 0.9, 0.92, 3),
                    "sync_acc": Interval(0.5, 0.4, 0.6, 3)}}
    made = PaperTable({"method": "mini"}, cells, ["M-LMD (why)"], {"Diversity": Interval(0.3, float("nan"), 0, 5)})
    text = made.markdown()
    assert "| film | PSNR \u2191 | SSIM \u2191 | acc@+-1 \u2191 |" in text
    assert "| *ground truth* | equal | 1.00 [1.00, 1.00] |  |" in text
    assert "| made | 27.2 [26.0, 28.0] | 0.913 [0.900, 0.920] | 0.500 [0.400, 0.600] |" in text
    assert "- not measured: M-LMD (why)" in text and "- Diversity: 0.300 (n 5)" in text
    tex = made.latex()
    assert r"Film & PSNR $\uparrow$ & SSIM $\uparrow$ & acc@$\pm$1 $\uparrow$ \\" in tex
    assert r"made & 27.2 {\scriptsize [26.0, 28.0]}" in tex and tex.count("&") == 9
    assert tex.startswith("% method mini") and r"\begin{tabular}{lrrr}" in tex
    back = json.loads(json.dumps(made.json()))
    assert back["cells"][TRUTH]["psnr"]["mean"] is None and back["cells"][MADE]["ssim"]["n"] == 3


def test_a_table_of_several_methods() -> None:
    figures = {"mine": 21.0, STATIC: 20.0, "theirs": 22.0}
    cells = {name: {"psnr": Interval(value, value, value, 2)} for name, value in figures.items()}
    made = PaperTable({}, cells, methods=("theirs", "mine"))
    assert made.rows == ["theirs", "mine", STATIC]
    assert "| theirs | 22.0" in made.markdown() and "| *static* | 20.0" in made.markdown()
    assert "\nmine & 21.0" in made.latex() and r"\textit{static}" in made.latex()


def test_films_of_a_folder(corpus: Path, tmp_path: Path) -> None:
    trial = real_trials(corpus)[0]
    make = films_in(tmp_path)
    with pytest.raises(MediaError, match="c0.mp4: there is no such film"):
        make(trial, 0)
    (tmp_path / "c0.mp4").write_bytes(trial.clip.video.read_bytes())
    assert np.abs(make(trial, 0).astype(int) - trial.rgb).max() == 0
    big = trial.rgb.repeat(2, 1).repeat(2, 2)
    assert fitted(big[:-2], trial, tmp_path / "x.mp4").shape == trial.rgb.shape
    with pytest.raises(MediaError, match="has 40 pictures for a clip of 60"):
        fitted(trial.rgb[:40], trial, tmp_path / "x.mp4")


def test_no_held_out_clip_is_told(tmp_path: Path) -> None:
    write_clip(tmp_path, "t", frames=30, style="warm", voice="rms", split="train", seed=0)
    with pytest.raises(MediaError, match="no clip of split 'heldout'"):
        real_trials(tmp_path)


def test_an_engine_must_know_the_person(corpus: Path) -> None:
    class Shelf:
        def names(self) -> tuple[str, ...]:
            return ("plain",)

        def get(self, name: str) -> None:
            raise AssertionError

    with pytest.raises(MediaError, match="shows 'drawn', whom the engine does not know; it knows kim, pat"):
        engine_films(tiny_engine(), Shelf(), None, 0)(real_trials(corpus)[0], 0)  # type: ignore[arg-type]


def test_a_style_without_a_preset_has_another(
    corpus: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Shelf:
        def names(self) -> tuple[str, ...]:
            return ("angry", "sad")

        def get(self, name: str) -> SimpleNamespace:
            asked.append(name)
            return SimpleNamespace(name=name, mu=None, log_var=None, strength=1.0)

    monkeypatch.setattr(paper_films, "play", lambda *_, **__: np.zeros((1, 2, 2, 3), np.uint8))
    engine: Any = SimpleNamespace(avatars=("drawn",))
    for otherwise in (None, "sad"):
        engine_films(engine, Shelf(), None, 0, otherwise)(real_trials(corpus)[0], 0)  # type: ignore[arg-type]
    assert asked == ["angry", "sad"]


class OneStyle:
    """A shelf of one preset."""

    def names(self) -> tuple[str, ...]:
        return ("warm",)

    def get(self, name: str) -> StylePreset:
        return StylePreset(name, np.zeros(4, np.float32), np.zeros(4, np.float32), "p")


def test_diversity_is_a_mean_over_clips_in_two_units(
    corpus: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose mouths open as wide as its temperature and seed say."""
    asked: list[tuple[float, int]] = []

    def drawn(engine: Any, vad: Any, sound: Any, *, style: StyleRequest, seed: int, **rest: Any) -> Bytes:
        asked.append((style.temperature, seed))
        wide = 0.3 + style.temperature * 0.1 * (seed % 5)
        return np.stack([draw(wide, 0.3)] * (len(sound) // 1920))

    monkeypatch.setattr(evaluate, "play", drawn)
    trials, engine = real_trials(corpus), SimpleNamespace(avatars=("drawn",))
    found = engine_diversity(engine, OneStyle(), None, judges, trials)
    titles = [f"diversity over 5 seeds at temperature {t} ({unit})" for t in (1, 0) for unit in ("deviations", "M-LMD")]
    assert list(found) == titles and all(i.n == 3 for i in found.values())
    assert found[titles[1]].mean > 2 and found[titles[0]].mean > 0, "five mouths differ"
    assert found[titles[2]].mean == found[titles[3]].mean == 0, "one mouth five times"
    assert found[titles[1]].low <= found[titles[1]].mean <= found[titles[1]].high
    assert len(asked) == 30 and len(set(asked)) == 10, "the same seeds for every clip"
    bare = engine_diversity(engine, OneStyle(), None, Judges(judges.evaluator), trials[:1])
    assert list(bare) == [titles[0], titles[2]]
    engine.avatars = ("pat",)
    assert engine_diversity(engine, OneStyle(), None, judges, trials) == {}


def test_frechet_grows_with_the_gap(judges: Judges) -> None:
    rng = np.random.default_rng(0)

    def film(shift: float) -> Seen:
        readings = rng.normal(size=(40, 49)).astype(np.float32)
        return Seen(rng.normal(shift, 1, (60, 4)), readings, None, None, {"psnr": 20.0})

    clips = [Measured(None, {TRUTH: film(0), MADE: film(0.5), STATIC: film(3)}) for _ in range(6)]
    cells = table(clips, judges)
    assert cells[TRUTH]["fd"].mean < 0.3 < cells[MADE]["fd"].mean < cells[STATIC]["fd"].mean
    assert cells[STATIC]["fd"].low < 36.5 < cells[STATIC]["fd"].high + 2


def test_a_style_embedding_needs_a_second(judges: Judges) -> None:
    readings = np.random.default_rng(0).normal(size=(30, 49)).astype(np.float32)
    assert style_embedding(judges.evaluator.judge, readings).shape == (6,)
    assert not style_embedding(judges.evaluator.judge, readings[:20]).any()


def test_training_clips_are_left_out(corpus: Path) -> None:
    assert len(Clips.open(corpus)) == 4 and [t.clip.id for t in real_trials(corpus)] == ["c0", "c1", "c2"]
