"""`svp`: what it prints, what it returns, and that no error of ours shows a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from svp_stream import cli


def svp(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of one command in this process."""
    monkeypatch.setattr(sys, "argv", ["svp", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    told = capsys.readouterr()
    return int(caught.value.code or 0), told.out, told.err


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        t = np.arange(12_800) / 16_000
        out.writeframes((8000 * np.sin(2 * np.pi * 200 * t)).astype("<i2").tobytes())
    return path


def test_render(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, speech: Path, tmp_path: Path
) -> None:
    out = tmp_path / "film.mp4"
    code, told, _ = svp(
        capsys, monkeypatch, "render", str(speech), "-o", str(out), "--engine", "noop", "--style", "sad",
        "--avatar", "square", "--strength", "1.5", "--temperature", "0.2", "--seed", "3",
    )  # fmt: skip
    assert code == 0
    assert "20 frames, 0.80 s, style sad, avatar square" in told
    assert out.stat().st_size > 1000


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.fakes.tiny_sd15 import write_tiny_sd15

    path = tmp_path_factory.mktemp("sd15")
    write_tiny_sd15(path)
    return path


def test_render_by_sd15(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, speech: Path, tmp_path: Path, sd15: Path
) -> None:
    out = tmp_path / "film.mp4"
    code, told, err = svp(
        capsys, monkeypatch, "render", str(speech), "-o", str(out), "--engine", "sd15", "--model", str(sd15),
        "--style", str(sd15 / "styles" / "warm.npz"), "--avatar", "kim",
    )  # fmt: skip
    assert code == 0, err
    assert "20 frames, 0.80 s, style warm, avatar kim" in told
    assert "GFLOP a frame" in err and "memory for" in err
    assert out.stat().st_size > 1000


def test_bench_encoder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sd15: Path
) -> None:
    words = ("bench", "encoder", "--model", str(sd15 / "wav2vec2"), "--seconds", "2")
    code, told, err = svp(capsys, monkeypatch, *words, "--freeze", str(tmp_path / "norm.safetensors"))
    assert code == 0, err
    assert "| window | 0 ms ahead | 40 ms ahead |" in told and "| 2 s |" in told
    assert "| rolling window of 4 s | " in told and "| causal copy | " in told
    assert (tmp_path / "norm.safetensors").is_file()


def test_bench_street(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, speech: Path) -> None:
    words = ("bench", "street", "--engine", "noop", "--speech", str(speech), "--seconds", "1")
    code, told, _ = svp(capsys, monkeypatch, *words)
    assert code == 0
    assert "p95" in told and "frames a second" in told and "face" in told
    code, told, _ = svp(capsys, monkeypatch, *words, "--json")
    figures = json.loads(told)
    assert figures["frames"] == 20
    assert set(figures["stages"]) == {"resample", "vad", "speech", "face", "total"}


def test_styles(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, told, _ = svp(capsys, monkeypatch, "style", "list", "--engine", "noop")
    assert [line.split()[0] for line in told.splitlines()] == ["calm", "lively", "neutral", "sad", "stern", "warm"]
    _, told, _ = svp(capsys, monkeypatch, "style", "list", "--engine", "noop", "--json")
    assert json.loads(told)[-1]["name"] == "warm"
    _, told, _ = svp(capsys, monkeypatch, "style", "show", "warm", "--engine", "noop")
    assert json.loads(told)["dimensions"] == 128


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("render", "none.wav", "-o", "o.mp4", "--engine", "noop"), "none.wav: there is no such file"),
        (("render", "none.wav", "-o", "o.avi", "--engine", "noop"), "ends in .mp4"),
        (("render", "n.wav", "-o", "o.mp4", "--engine", "noop", "--style", "worm"), "unknown style 'worm'"),
        (("render", "n.wav", "-o", "o.mp4", "--engine", "noop", "--style", "x.npz"), "x.npz: cannot be read"),
        (("render", "n.wav", "-o", "o.mp4", "--engine", "noop", "--strength", "9"), "strength is 9.0"),
        (("render", "n.wav", "-o", "o.mp4", "--engine", "maxi"), "unknown engine 'maxi'"),
        (("render", "n.wav", "-o", "o.mp4", "--engine", "sd15"), "--model FOLDER"),
        (("render", "n.wav", "-o", "o.mp4", "--model", "none"), "there is no folder none"),
        (("bench", "encoder", "--model", "./none"), "there is no folder ./none"),
        (("bench", "street", "--engine", "noop", "--avatar", "oval"), "unknown avatar 'oval'"),
        (("style", "list", "--profile", "none.yaml"), "none.yaml: cannot be read"),
        (("train", "nothing", "--corpus", "c", "--out", "o"), "no training stage 'nothing'"),
        (("train", "evaluator", "--corpus", "c", "--out", "o", "--config", "none.yaml"), "none.yaml: cannot be read"),
        (("evaluate", "--corpus", "c", "--weights", "w"), "w holds no avatar"),
        (("corpus", "--avatars", "a", "--out", "o", "--config", "none.yaml"), "none.yaml"),
    ],
)
def test_errors_are_one_clear_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    words: tuple[str, ...], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, told, err = svp(capsys, monkeypatch, *words)
    assert code == 2
    assert told == ""
    assert says in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("svp: ")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick_to_import() -> None:
    """`svp --help` loads neither torch nor numpy nor any other heavy library."""
    code = "import sys, svp_stream.cli; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "av", "pydantic", "transformers", "rich.progress"} & set(out)


def test_stages_of_the_help_are_those_there_are() -> None:
    from svp_stream.training.stages import STAGES

    assert cli.STAGES == STAGES
