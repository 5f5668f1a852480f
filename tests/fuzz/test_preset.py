"""Whatever bytes a stranger sends, loading a preset gives a sound preset or a PresetError, quickly and without code."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from svp_stream.errors import PresetError
from svp_stream.style.preset import StylePreset, load_preset, save_preset

MANY = settings(max_examples=250, deadline=None, derandomize=True, database=None,
                suppress_health_check=list(HealthCheck))
KEYS = ["format", "name", "mu", "log_var", "prior", "description", "temperature", "strength", "thumbnail", "more"]
TEXT = st.text(max_size=90)
ARRAYS = st.one_of(
    npst.arrays(st.one_of(npst.scalar_dtypes(), npst.unicode_string_dtypes(), npst.byte_string_dtypes()),
                npst.array_shapes(min_dims=0, max_dims=3, max_side=9)),
    TEXT.map(np.asarray),
    st.integers(-3, 3).map(np.asarray),
    st.just(np.zeros(4, np.float32)),
)


def _whole() -> bytes:
    buffer = io.BytesIO()
    mu, log_var = np.linspace(0, 1, 8, dtype=np.float32), np.zeros(8, np.float32)
    np.savez_compressed(buffer, format=np.asarray(1), name=np.asarray("warm"), mu=mu, log_var=log_var,
                        prior=np.asarray("abc"), strength=np.asarray(1.5))
    return buffer.getvalue()


WHOLE = _whole()


def attempt(path: Path, data: bytes) -> StylePreset | None:
    path.write_bytes(data)
    try:
        loaded = load_preset(path)
    except PresetError as e:
        assert str(path) in str(e)
        return None
    assert loaded.mu.dtype == loaded.log_var.dtype == np.float32 and loaded.mu.shape == loaded.log_var.shape
    assert np.isfinite(loaded.mu).all() and np.isfinite(loaded.log_var).all() and loaded.name and loaded.prior
    assert 0 <= loaded.strength <= 2 and 0 <= loaded.temperature <= 2
    return loaded


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "p.npz"


def test_the_seed_is_sound(path: Path) -> None:
    assert attempt(path, WHOLE) is not None


@MANY
@given(data=st.binary(max_size=400))
def test_any_bytes(path: Path, data: bytes) -> None:
    assert attempt(path, data) is None


@MANY
@given(edits=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8),
       cut=st.one_of(st.none(), st.integers(0, len(WHOLE))))
def test_a_damaged_file(path: Path, edits: list[tuple[int, int]], cut: int | None) -> None:
    data = bytearray(WHOLE)
    for at, value in edits:
        data[at] = value
    attempt(path, bytes(data[:cut]))


@MANY
@given(header=st.one_of(st.binary(max_size=120), st.builds(
    "{{'descr': {!r}, 'fortran_order': {!r}, 'shape': {!r}}}".format,
    st.one_of(st.sampled_from(["<f4", ">f8", "|O", "<U3", "V8", "a", "<U99999999999", "f", "M8[ns]", "<f3", "|u1"]),
              st.text(max_size=6), st.just([("a", "<f4")])),
    st.sampled_from([False, True, 1, None]),
    st.one_of(st.lists(st.integers(-2, 2**70), max_size=4).map(tuple), st.none(), st.just((True,)), st.integers()),
).map(str.encode)), body=st.binary(max_size=64), version=st.integers(0, 4))
def test_any_array_header(path: Path, header: bytes, body: bytes, version: int) -> None:
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    buffer = io.BytesIO(WHOLE)
    with zipfile.ZipFile(buffer, "a") as z:
        z.writestr("more.npy", b"\x93NUMPY" + bytes([version, 0]) + size + header + body)
    attempt(path, buffer.getvalue())


@MANY
@given(arrays=st.dictionaries(st.sampled_from(KEYS), ARRAYS))
def test_any_arrays(path: Path, arrays: dict[str, np.ndarray[Any, np.dtype[Any]]]) -> None:
    base: dict[str, Any] = dict(np.load(io.BytesIO(WHOLE)).items())
    buffer = io.BytesIO()
    np.savez(buffer, **(base | arrays))
    loaded = attempt(path, buffer.getvalue())
    if loaded is not None:
        save_preset(path, loaded)
        again = load_preset(path)
        assert again.name == loaded.name and np.array_equal(again.mu, loaded.mu)
        assert {k: v.tobytes() for k, v in again.extra.items()} == {k: v.tobytes() for k, v in loaded.extra.items()}
