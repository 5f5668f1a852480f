"""`svp style` on the command line: presets made from a clip, blended, drawn, shown; each fault one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svp_stream.style.preset import StylePreset, load_preset, save_preset
from tests.fakes.tiny_weights import PRIOR, write_tiny_weights
from tests.preparing.test_extract import faces, write_clip
from tests.test_cli import svp


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with its presets, and a profile that points there."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_weights(folder)
    (folder / "profile.yaml").write_text("model: {weights: .}\nstyle: {folder: styles}\n")
    flat = np.zeros(PRIOR.style_dim, np.float32)
    save_preset(folder / "alien.npz", StylePreset("alien", flat, flat, "0" * 64))
    return folder


def _style(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, *words: str
           ) -> tuple[int, str, str]:
    return svp(capsys, monkeypatch, "style", *words, "--profile", str(tiny / "profile.yaml"))


def test_extract(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    clip, out = write_clip(tmp_path / "talk.npz", faces(100)), tmp_path / "my.npz"
    code, told, err = svp(capsys, monkeypatch, "style", "extract", str(clip), "-o", str(out), "--weights", str(tiny))
    assert code == 0 and "my.npz: talk. From talk.mp4: 4.0 s" in told, err
    assert load_preset(out, prior=load_preset(tiny / "styles" / "warm.npz").prior, dim=PRIOR.style_dim).name == "talk"


def test_blend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    out, own = tmp_path / "mixed.npz", str(tiny / "styles" / "sad.npz")
    code, told, err = _style(capsys, monkeypatch, tiny, "blend", "warm:0.6", f"{own}:0.4", "-o", str(out))
    assert code == 0 and "Blend of 0.60 warm, 0.40 sad." in told, err
    warm, sad = (load_preset(tiny / "styles" / f"{n}.npz") for n in ("warm", "sad"))
    np.testing.assert_allclose(load_preset(out).mu, 0.6 * warm.mu + 0.4 * sad.mu, atol=1e-6)
    assert load_preset(out).name == "mixed"


def test_sample_repeats_by_seed_and_moves_by_temperature(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    def drawn(*words: str) -> StylePreset:
        code, _, err = _style(capsys, monkeypatch, tiny, "sample", "-o", str(tmp_path / "s.npz"), *words)
        assert code == 0, err
        return load_preset(tmp_path / "s.npz")

    warm = load_preset(tiny / "styles" / "warm.npz")
    np.testing.assert_array_equal(drawn("--from", "warm", "--temperature", "0").mu, warm.mu)
    one, again, other = (drawn("--from", "warm", "--seed", s).mu for s in ("1", "1", "2"))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.05
    between = drawn("--seed", "4", "--temperature", "0")
    assert "around" in between.description and "," in between.description
    assert not np.array_equal(between.mu, drawn("--seed", "5", "--temperature", "0").mu)


def test_show_draws_the_map(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.png"
    code, told, err = _style(capsys, monkeypatch, tiny, "show", "-o", str(out), "--size", "300")
    assert code == 0 and "3 presets" in told, err
    with Image.open(out) as picture:
        assert picture.size == (300, 300)
    words = ("show", "-o", str(out), "--size", "300", "--with", str(tiny / "styles" / "sad.npz"))
    assert "4 presets" in _style(capsys, monkeypatch, tiny, *words)[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("extract", "none.mp4", "-o", "o.npz"), "none.mp4: has no sidecar none.npz"),
        (("extract", "none.mp4", "-o", "o.npz", "--landmarker", "none.task"), "none.task: there is no such file"),
        (("blend", "warm", "sad:0.4", "-o", "o.npz", "--profile", "P"), "warm: expected NAME:WEIGHT"),
        (("blend", "warm:-1", "sad:0.4", "-o", "o.npz", "--profile", "P"), "blend weights are [-1.0, 0.4]"),
        (("blend", "worm:1", "sad:1", "-o", "o.npz", "--profile", "P"), "unknown style 'worm'; did you mean 'warm'?"),
        (("blend", "A:1", "sad:1", "-o", "o.npz", "--profile", "P"), "the style prior of this model"),
        (("sample", "--from", "A", "-o", "o.npz", "--profile", "P"), "the style prior of this model"),
        (("sample", "-o", "o.txt", "--profile", "P"), "o.txt: a preset's file ends in .npz"),
        (("show", "-o", "o.jpg", "--profile", "P"), "o.jpg: the map is a picture, its file ends in .png"),
        (("show", "-o", "o.png", "--with", "A", "--profile", "P"), "the style prior of this model"),
        (("ablate", "--runs", "r", "--distances", "cosine"), "expected some of bhatt, elk, w2, jeffreys"),
    ],
)
def test_faults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path,
    words: tuple[str, ...], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    known = {"P": str(tiny / "profile.yaml"), "A": str(tiny / "alien.npz"), "A:1": f"{tiny / 'alien.npz'}:1"}
    code, told, err = svp(capsys, monkeypatch, "style", *(known.get(w, w) for w in words))
    assert code == 2 and told == ""
    assert says in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
