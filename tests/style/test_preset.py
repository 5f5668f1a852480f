"""Presets: what is written comes back; what is wrong is named; strangers' names stay on the shelf."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from svp_stream.errors import PresetError
from svp_stream.style.preset import StylePreset, StyleShelf, load_preset, save_preset

DIM = 16


def preset(**changes: Any) -> StylePreset:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "name": "warm", "mu": rng.standard_normal(DIM).astype(np.float32),
        "log_var": rng.uniform(-3, 0, DIM).astype(np.float32), "prior": "abc123", "description": "Friendly.\nSlow.",
        "temperature": 0.3, "strength": 1.2, "thumbnail": rng.integers(0, 255, (64, 64, 3)).astype(np.uint8),
        "extra": {"made_by": np.asarray("svp"), "curve": np.arange(6).reshape(2, 3)},
    }
    return StylePreset(**(values | changes))


def arrays(**changes: Any) -> dict[str, NDArray[Any]]:
    """The least that a preset file holds, with changes; None takes a key away."""
    p = preset()
    base: dict[str, Any] = {"format": 1, "name": "warm", "mu": p.mu, "log_var": p.log_var, "prior": "abc123"}
    return {k: np.asarray(v) for k, v in (base | changes).items() if v is not None}


def written(path: Path, **changes: Any) -> Path:
    np.savez(path, **arrays(**changes))  # type: ignore[arg-type]
    return path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path, a = tmp_path / "warm.npz", preset()
    save_preset(path, a)
    b = load_preset(path, prior="abc123", dim=DIM)
    assert (b.name, b.prior, b.description, b.temperature, b.strength) == (
        a.name, a.prior, a.description, a.temperature, a.strength)
    assert np.array_equal(b.mu, a.mu) and np.array_equal(b.log_var, a.log_var)
    assert b.thumbnail is not None and a.thumbnail is not None and np.array_equal(b.thumbnail, a.thumbnail)
    assert set(b.extra) == {"made_by", "curve"} and np.array_equal(b.extra["curve"], a.extra["curve"])
    assert os.listdir(tmp_path) == ["warm.npz"] and path.stat().st_mode & 0o444 == 0o444


def test_unknown_keys_survive_a_round_trip(tmp_path: Path) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    save_preset(first, preset())
    save_preset(second, load_preset(first))
    assert first.read_bytes() == second.read_bytes()


def test_it_is_plain_npz(tmp_path: Path) -> None:
    save_preset(tmp_path / "a.npz", preset())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as z:
        assert int(z["format"]) == 1 and z["mu"].dtype == np.float32 and str(z["name"]) == "warm"


def test_the_least_preset_has_defaults(tmp_path: Path) -> None:
    p = load_preset(written(tmp_path / "a.npz"))
    assert (p.description, p.temperature, p.strength, p.thumbnail, dict(p.extra)) == ("", 0.0, 1.0, None, {})


@pytest.mark.parametrize(("changes", "says"), [
    ({"mu": None}, r"key 'mu': expected this key; found only format, log_var, name, prior"),
    ({"format": 2}, r"key 'format': expected 1; .*found 2"),
    ({"format": "1"}, r"key 'format': expected one number; found <U1"),
    ({"mu": np.zeros(DIM)}, r"key 'mu': expected float32 \[16\]; found float64 \[16\]"),
    ({"mu": np.zeros((DIM, 1), np.float32)}, r"key 'mu': .*found float32 \[16, 1\]"),
    ({"mu": np.zeros(15, np.float32)}, r"key 'mu': expected float32 \[16\]; found float32 \[15\]"),
    ({"log_var": np.zeros(15, np.float32)}, r"key 'log_var': expected float32 \[16\]; found float32 \[15\]"),
    ({"mu": np.full(DIM, np.nan, np.float32)}, r"key 'mu': expected finite numbers; found 16 that are NaN"),
    ({"log_var": np.full(DIM, np.inf, np.float32)}, r"key 'log_var': expected finite"),
    ({"log_var": np.full(DIM, 50, np.float32)}, r"key 'log_var': expected values within \+-20; found 50"),
    ({"prior": "other"}, r"key 'prior': expected 'abc123'.*make the preset again.*found other"),
    ({"prior": 7}, r"key 'prior': expected text; found int64"),
    ({"name": ""}, r"key 'name': expected text; found an empty string"),
    ({"name": "a\x1b[31m"}, r"key 'name': expected at most 80 printable"),
    ({"name": "a" * 81}, r"key 'name': expected at most 80 printable"),
    ({"temperature": 3.0}, r"key 'temperature': expected 0 to 2; found 3"),
    ({"temperature": np.nan}, r"key 'temperature': .*found nan"),
    ({"strength": -1}, r"key 'strength': expected 0 to 2; found -1"),
    ({"strength": np.zeros(2)}, r"key 'strength': expected one number; found float64 \[2\]"),
    ({"thumbnail": np.zeros((64, 64), np.uint8)}, r"key 'thumbnail': expected uint8 \[64, 64, 3\]; found uint8"),
])
def test_each_fault_names_file_key_expected_and_found(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = written(tmp_path / "bad.npz", **changes)
    with pytest.raises(PresetError, match=r"bad\.npz: " + says):
        load_preset(path, prior="abc123", dim=DIM)


def _zip(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as z:
        for name, data in members:
            z.writestr(name, data)
    return path


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_files_that_are_no_presets(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(PresetError, match=r"x\.npz: cannot be read"):
        load_preset(path)
    for data in (b"", b"PK\x03\x04 and then nothing", os.urandom(500)):
        path.write_bytes(data)
        with pytest.raises(PresetError, match=r"x\.npz: not an \.npz file"):
            load_preset(path)
    path.write_bytes(b"\0" * ((1 << 20) + 1))
    with pytest.raises(PresetError, match="more than 1048576 bytes"):
        load_preset(path)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays(), evil=np.array([os.getcwd], dtype=object))  # type: ignore[arg-type]
    with pytest.raises(PresetError, match=r"key 'evil' has type '\|O'"):
        load_preset(path)


def test_bombs_do_not_go_off(tmp_path: Path) -> None:
    zeros = _npy(np.zeros(8 << 20, np.uint8))
    with pytest.raises(PresetError, match="unpacked, the arrays have more than 4194304 bytes"):
        load_preset(_zip(tmp_path / "a.npz", [("mu.npy", zeros)]))
    half = _npy(np.zeros(3 << 20, np.uint8))
    with pytest.raises(PresetError, match="unpacked"):
        load_preset(_zip(tmp_path / "b.npz", [("mu.npy", half), ("nu.npy", half)]))
    with pytest.raises(PresetError, match="neither stored nor deflated"):
        load_preset(_zip(tmp_path / "c.npz", [("mu.npy", zeros)], zipfile.ZIP_BZIP2))
    with pytest.raises(PresetError, match="65 members"):
        load_preset(_zip(tmp_path / "d.npz", [(f"k{i}.npy", _npy(np.zeros(1))) for i in range(65)]))
    huge = _npy(np.zeros(4, np.float32)).replace(b"(4,), }          ", b"(4000000, 999), }")
    with pytest.raises(PresetError, match="claims float32 .*holds 16 bytes"):
        load_preset(_zip(tmp_path / "e.npz", [("mu.npy", huge)]))


def test_members_must_be_plainly_named_arrays(tmp_path: Path) -> None:
    good = _npy(np.zeros(4, np.float32))
    for name in ("../mu.npy", "readme.txt", "a b.npy", ".npy"):
        with pytest.raises(PresetError, match="not named like an array"):
            load_preset(_zip(tmp_path / "x.npz", [(name, good)]))
    with pytest.raises(PresetError, match="not a .npy array"):
        load_preset(_zip(tmp_path / "x.npz", [("mu.npy", b"hello world, hello")]))


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays())  # type: ignore[arg-type]
    data = bytearray(path.read_bytes())
    at = data.find(preset().mu.tobytes()) + 5
    data[at] ^= 4
    path.write_bytes(data)
    with pytest.raises(PresetError, match=r"mu\.npy' is damaged"):
        load_preset(path)


def test_saving_refuses_what_would_not_load(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for bad in (preset(mu=np.full(DIM, np.nan, np.float32)), preset(extra={"mu": np.zeros(1)}),
                preset(extra={"big": np.random.default_rng(0).random(200_000)}),
                preset(extra={"no good": np.zeros(1)})):
        with pytest.raises(PresetError):
            save_preset(path, bad)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    save_preset(path, preset())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_preset(path, preset(name="other"))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.npz"]


@pytest.fixture
def shelf(tmp_path: Path) -> StyleShelf:
    for name in ("warm", "calm", "stern"):
        save_preset(tmp_path / f"{name}.npz", preset(name=name))
    save_preset(tmp_path / "foreign.npz", preset(prior="other"))
    return StyleShelf(tmp_path, "abc123", DIM)


def test_a_shelf_lists_and_serves(shelf: StyleShelf) -> None:
    assert shelf.names() == ("calm", "foreign", "stern", "warm")
    assert shelf.get("calm").name == "calm"
    assert shelf.get("calm") is shelf.get("calm")
    with pytest.raises(PresetError, match=r"foreign\.npz: key 'prior'"):
        shelf.get("foreign")


def test_an_unknown_name_gets_help(shelf: StyleShelf) -> None:
    with pytest.raises(PresetError, match=r"'wram'; did you mean 'warm'\? .* has: calm, foreign, stern, warm"):
        shelf.get("wram")
    with pytest.raises(PresetError, match="has: none"):
        StyleShelf("/nowhere/at/all").get("warm")


def test_a_changed_file_is_read_again(shelf: StyleShelf, tmp_path: Path) -> None:
    first = shelf.get("calm")
    save_preset(tmp_path / "calm.npz", preset(name="calmer", description="x"))
    assert shelf.get("calm").name == "calmer" != first.name
    (tmp_path / "calm.npz").unlink()
    with pytest.raises(PresetError, match="unknown style 'calm'"):
        shelf.get("calm")


@pytest.mark.parametrize("name", ["../warm", "sub/warm", "/etc/passwd", "", ".", "..", "warm.npz", "warm\0", "*"])
def test_names_from_the_wire_never_leave_the_folder(tmp_path: Path, name: str) -> None:
    save_preset(tmp_path / "warm.npz", preset())
    inner = tmp_path / "inner"
    (inner / "sub").mkdir(parents=True)
    save_preset(inner / "sub" / "warm.npz", preset())
    with pytest.raises(PresetError, match="unknown style"):
        StyleShelf(inner).get(name)


def test_a_command_line_may_name_a_path(tmp_path: Path) -> None:
    save_preset(tmp_path / "mine.npz", preset(name="mine"))
    assert StyleShelf(tmp_path / "none", allow_paths=True).get(str(tmp_path / "mine.npz")).name == "mine"
    with pytest.raises(PresetError, match="unknown style"):
        StyleShelf(tmp_path / "none").get(str(tmp_path / "mine.npz"))
