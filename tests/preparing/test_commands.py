"""`svp prepare` and `svp paper` on the command line, and the reader that knows a corpus' truth."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream import cli
from svp_stream.errors import ConfigError, MediaError
from svp_stream.evaluation.landmark_gauge import LandmarkConfig, LandmarkGauge, save_landmark_gauge
from svp_stream.evaluation.measure import Evaluator, GaugeConfig, save_evaluator
from svp_stream.evaluation.style_judge import JudgeConfig
from svp_stream.evaluation.syncnet import SyncConfig, SyncNet, save_syncnet
from svp_stream.preparing.config import PrepareConfig
from svp_stream.preparing.prepare import Workshop, prepare
from svp_stream.preparing.truth_reader import TruthReader, reader
from svp_stream.training.clips import Clips
from tests.preparing import films
from tests.preparing.films import take, write_film

READER = "svp_stream.preparing.truth_reader:reader"
SMALL = "size: 64\nleast_eyes_px: 8\nheldout_share: 0.5\nleast_sharpness: 0\n"


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with their truth, as a corpus has them."""
    folder = tmp_path_factory.mktemp("truth")
    film = take().placed(120, 120, 10, 10) + take(75, 1).placed(120, 120, 20, 10, (200, 120, 90))
    write_film(folder / "a.mp4", film)
    config = PrepareConfig(size=64, least_eyes_px=8, least_sharpness=0, heldout_share=0)
    prepare([folder / "a.mp4"], Workshop(folder / "corpus", config, films.TruthReader(film)))
    return folder / "corpus"


def svp(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["svp", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    told = capsys.readouterr()
    return int(caught.value.code or 0), told.out, told.err


def test_preparing_a_corpus_again_changes_little(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVP_TRUTH", str(truth))
    (tmp_path / "p.yaml").write_text(SMALL)
    out = tmp_path / "clips"
    code, told, err = svp(capsys, monkeypatch, "prepare", str(truth), "-o", str(out), "--reader", READER,
                          "--config", str(tmp_path / "p.yaml"))  # fmt: skip
    assert code == 0 and "2 of 2 clips kept" in told, err
    for old, new in zip(Clips.open(truth), Clips.open(out), strict=True):
        assert np.abs(new.landmarks - old.landmarks).max() < 1.0 and np.allclose(new.pose[:, :3], old.pose[:, :3])
    assert [c.split for c in Clips.open(out)] == ["train", "heldout"], "counted over all videos"


def test_the_reader_needs_its_corpus(tmp_path: Path, truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SVP_TRUTH", raising=False)
    with pytest.raises(ConfigError, match="set SVP_TRUTH"):
        reader()
    with pytest.raises(MediaError, match="no clip with a picture"):
        TruthReader(tmp_path)
    known = TruthReader(truth)
    known.reset()
    assert known.read(np.full((100, 100, 3), 255, np.uint8)) is None, "a picture of another film"


@pytest.mark.parametrize(("words", "says"), [
    (("prepare", "films", "-o", "o"), "give either --landmarker"),
    (("prepare", "films", "-o", "o", "--landmarker", "x.task"), "x.task: there is no such file"),
    (("prepare", "films", "-o", "o", "--reader", "x"), "expected module:function"),
    (("prepare", "films", "-o", "o", "--reader", "tests.evaluation.test_face_reader:Blind"), "films: there is no such"),
    (("prepare", "films", "-o", "o", "--reader", "tests.evaluation.test_face_reader:Blind", "--matte", "x"),
     "matte 'x': expected module:function"),
    (("paper", "--real", "r"), "r: no such folder"),
    (("train", "syncnet", "--corpus", "c", "--out", "o"), "c: no such folder"),
])  # fmt: skip
def test_errors_are_one_clear_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    words: tuple[str, ...], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, told, err = svp(capsys, monkeypatch, *words)
    assert code == 2 and told == "" and says in err and "Traceback" not in err


def test_the_table_of_a_folder_of_films(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made, weights = tmp_path / "real", tmp_path / "made", tmp_path / "w"
    shutil.copytree(truth, real)
    for clip in Clips.open(real):
        with np.load(clip.sidecar.path) as z:
            np.savez(clip.sidecar.path, **{**z, "split": np.array("heldout")})
    made.mkdir()
    weights.mkdir()
    for clip in Clips.open(real):
        shutil.copy(clip.video, made / clip.video.name)
    torch.manual_seed(0)
    save_evaluator(weights / "evaluator.safetensors",
                   Evaluator(GaugeConfig(side=32, widths=(4, 4, 8, 8, 4), features=8), JudgeConfig(("a", "b"), 4)))
    save_syncnet(weights / "syncnet.safetensors", SyncNet(SyncConfig((4, 4, 8, 8), 8)))
    words = ("paper", "--real", str(real), "--made", str(made), "--weights", str(weights), "--name", "copies",
             "--syncnet", str(weights / "syncnet.safetensors"))  # fmt: skip
    code, told, err = svp(capsys, monkeypatch, *words)
    assert code == 0 and "| made | equal | equal | 1.00" in told and "*static*" in told, err
    assert "not measured: M-LMD, F-LMD (`svp train landmarks`" in told
    save_landmark_gauge(weights / "landmarks.safetensors", LandmarkGauge(LandmarkConfig(32, (4, 4, 8, 8))))
    _, told, _ = svp(capsys, monkeypatch, *words, "--as", "latex")
    assert told.startswith("% method copies") and r"\end{tabular}" in told and r"M-LMD $\downarrow$" in told
    assert "landmarks " in told.splitlines()[0], "the table says which gauge found them"
    code, _, err = svp(capsys, monkeypatch, *words, "--landmarks", "x.safetensors", "--reader", READER)
    assert code == 2 and "one finds the landmarks" in err
    _, told, _ = svp(capsys, monkeypatch, *words, "--as", "json")
    cells = json.loads(told)["cells"]
    assert cells["made"]["fd"]["mean"] == pytest.approx(0, abs=1e-6)
    assert cells["made"]["m_lmd"]["mean"] == pytest.approx(cells["ground truth"]["m_lmd"]["mean"])
    assert cells["ground truth"]["m_lmd"]["mean"] > 1, "an untrained gauge is off, and its row says so"
