"""The evaluation as a whole, over drawn clips and an engine whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svp_stream.clock import FRAME_TICKS
from svp_stream.errors import EngineError, MediaError, WeightsError
from svp_stream.evaluation.evaluate import evaluate
from svp_stream.evaluation.measure import READING, READINGS, WEIGHTS, Evaluator, GaugeConfig, save_evaluator
from svp_stream.evaluation.metrics import Interval
from svp_stream.evaluation.report import Figure, Report, write_card
from svp_stream.evaluation.style_judge import JudgeConfig
from svp_stream.evaluation.trials import open_trials, play
from svp_stream.packets import AudioChunk, Bytes, Frame, Pose, SpeechState
from svp_stream.pipeline.engine import FaceStream, StyleRequest
from svp_stream.style.preset import StylePreset
from tests.evaluation.drawn import AVATAR, SIDE, draw, write_clip

STYLE = StyleRequest("warm", np.zeros(4, np.float32), np.zeros(4, np.float32))
FRAMES = 70


@dataclass
class LoudFace:
    """Opens its mouth as loud as its own frame is; a `late` one shows the frame before, a `lossy` one skips a frame."""

    script: Sequence[Pose] | None
    late: int = 0
    lossy: bool = False
    effort: int = 0
    latency: int = FRAME_TICKS
    _rest: list[float] = field(default_factory=list)
    _shown: list[float] = field(default_factory=list)

    def push(self, x: AudioChunk) -> list[Frame]:
        self._rest += [float(v) for v in x.samples]
        made = []
        while len(self._rest) >= 640:
            level = float(np.std(self._rest[:640])) * 32768 / 4000
            self._rest = self._rest[640:]
            self._shown.append(level)
            number = len(self._shown) - 1
            if not (self.lossy and number == 3):
                made.append(Frame(number * FRAME_TICKS, self._picture(number)))
        return made

    def _picture(self, number: int) -> Bytes:
        lids = 0.3 if self.script is None else 0.3 * (1 - self.script[min(number, len(self.script) - 1)].blink_left)
        return draw(self._shown[max(number - self.late, 0)], lids)

    def flush(self) -> list[Frame]:
        return self.push(AudioChunk(0, np.zeros(640 - len(self._rest), np.float32), 16000)) if self._rest else []

    def reset(self) -> None:
        self._rest, self._shown = [], []

    def hear(self, state: SpeechState) -> None:
        pass

    def set_style(self, style: StyleRequest) -> None:
        pass

    def set_avatar(self, name: str) -> None:
        pass


@dataclass
class LoudEngine:
    late: int = 0
    lossy: bool = False
    name: str = "loud"
    size: int = SIDE
    avatars: tuple[str, ...] = (AVATAR,)
    prior: str | None = None
    style_dim: int = 4

    def warm(self) -> None:
        pass

    def stream(
        self, *, avatar: str, style: StyleRequest, seed: int, script: Sequence[Pose] | None = None
    ) -> FaceStream:
        return LoudFace(script, self.late, self.lossy)


@dataclass
class OneStyle:
    known: tuple[str, ...] = ("tight", "warm")

    def names(self) -> tuple[str, ...]:
        return self.known

    def get(self, name: str) -> StylePreset:
        return StylePreset(name, STYLE.mu, STYLE.log_var, "prior")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heldout")
    for i, (style, voice, split) in enumerate([("warm", "rms", "heldout"), ("warm", "rms", "heldout"),
                                               ("teacher", "rms", "heldout"), ("warm", "slt", "train")]):
        write_clip(folder, f"clip-{i}", frames=FRAMES, style=style, voice=voice, split=split, seed=i)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """An evaluator whose gauge reads the redness of the mouth, by hand."""
    folder = tmp_path_factory.mktemp("weights")
    made = Evaluator(GaugeConfig(side=32, widths=(4, 4, 8, 8, 4), features=8), JudgeConfig(("warm", "tight"), 4))
    torch.manual_seed(0)
    gauge = made.gauge.eval()
    trials = open_trials(corpus, (AVATAR,))
    pictures = np.concatenate([t.rgb for t in trials])
    true = torch.from_numpy(np.concatenate([t.readings for t in trials]))
    with torch.no_grad():
        seen = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        looks = gauge.look(torch.nn.functional.interpolate(seen, size=(32, 32), mode="area")).double()
        solved = torch.linalg.lstsq(torch.cat([looks, torch.ones(len(looks), 1)], 1), true.double()).solution
        gauge.out.weight.copy_(solved[:-1].T)
        gauge.out.bias.copy_(solved[-1])
    save_evaluator(folder / WEIGHTS, made)
    return folder


@pytest.fixture(scope="module")
def report(corpus: Path, weights: Path) -> Report:
    return evaluate(LoudEngine(), corpus, shelf=OneStyle(), weights=weights, vad=None, seed=1, limit=2)


def test_only_held_out_clips_in_known_styles_count(report: Report) -> None:
    assert [row["clip"] for row in report.rows] == ["clip-0", "clip-1"]
    assert report.about["clips"] == "2" and report.about["voices"] == "rms"


def test_lips_that_follow_are_told_from_lips_that_do_not(report: Report) -> None:
    f = report.figures
    assert f["lip_open_r"].value > 0.7
    assert f["lip_open_r_gauge"].value > 0.7
    assert f["lip_open_r_shuffled"].value < 0.4
    assert abs(f["lag_ms"].value) < 40
    assert f["silence_ratio"].value < 0.5


def test_late_lips_are_found_late(corpus: Path, weights: Path, report: Report) -> None:
    late = evaluate(LoudEngine(late=2), corpus, shelf=OneStyle(), weights=weights, vad=None, limit=1)
    assert late.figures["lag_ms"].value - report.rows[0]["lag_ms"] == pytest.approx(80, abs=25)


def test_pictures_are_laid_over_the_renderers(report: Report) -> None:
    f = report.figures
    assert f["psnr_face"].value > f["psnr_face_static"].value
    assert f["flicker_ratio"].value < 3
    assert np.isnan(f["psnr_reference"].value) and f["psnr_reference"].n == 0


def test_every_style_gets_its_share_and_the_controls_stand_beside(report: Report) -> None:
    assert set(report.styles) == {"warm", "tight"}
    assert report.figures["style_acc"].n == 4
    assert report.figures["style_chance"].value == 0.5
    assert 0 <= report.figures["style_acc_shuffled"].value <= 1


def test_an_engine_without_chance_is_the_same_in_any_pieces(report: Report) -> None:
    assert report.figures["stream_offline"].value <= 1
    assert report.figures["diversity_1"].value == 0


def test_the_report_can_be_read_by_people_and_programs(report: Report) -> None:
    told = json.loads(json.dumps(report.json()))
    assert told["figures"]["psnr_reference"]["value"] is None
    assert told["figures"]["lip_open_r"]["n"] == 2
    text = report.markdown()
    assert "LipOpen r | " in text and "*control:*" in text and "nan" not in text


def test_figures_go_into_the_card(tmp_path: Path) -> None:
    report = Report({"engine": "loud"}, {"a": Figure.of("some figure", Interval(0.5, 0.4, 0.6, 9))})
    with pytest.raises(WeightsError, match="card"):
        write_card(report, tmp_path)
    card: dict[str, Any] = {"files": {}, "training": {}, "licences": {}, "figures": {}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    write_card(report, tmp_path)
    assert json.loads((tmp_path / "card.json").read_text())["figures"]["figures"]["a"]["n"] == 9
    assert "0.400 to 0.600" in (tmp_path / "README.md").read_text()


def test_pieces_of_any_size_give_every_picture(corpus: Path) -> None:
    trial = open_trials(corpus, (AVATAR,))[0]
    runs = [play(LoudEngine(), None, trial.sound, avatar=AVATAR, style=STYLE, seed=0, chunk=n) for n in (777, 1920)]
    assert len(runs[0]) == FRAMES and np.array_equal(runs[0], runs[1])


def test_a_picture_left_out_is_told(corpus: Path) -> None:
    trial = open_trials(corpus, (AVATAR,))[0]
    with pytest.raises(EngineError, match="left out picture 3"):
        play(LoudEngine(lossy=True), None, trial.sound, avatar=AVATAR, style=STYLE, seed=0)


def test_a_trial_knows_who_speaks_when(corpus: Path) -> None:
    trial = open_trials(corpus, (AVATAR,))[0]
    assert not trial.speaking[:5].any() and trial.speaking[20:50].all()
    assert trial.readings.shape == (FRAMES, len(READINGS)) and READING["lip_open"] == 0


def test_a_corpus_without_held_out_clips_is_told(corpus: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no held-out clip"):
        open_trials(corpus, ("nobody",))
    with pytest.raises(MediaError, match="preset"):
        evaluate(LoudEngine(), corpus, shelf=OneStyle(("angry",)), weights=weights, vad=None)
    with pytest.raises(WeightsError, match="missing"):
        evaluate(LoudEngine(), corpus, shelf=OneStyle(), weights=tmp_path, vad=None)
