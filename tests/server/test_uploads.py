"""Uploads: presets of strangers, sound, malformed, hostile and too many."""

from __future__ import annotations

import io
import resource
import time
import zipfile
from typing import Any

import numpy as np
import pytest

from server.uploads import PREFIX, UploadShelf
from svp_stream.errors import PresetError
from tests.fakes.engines import FakeShelf
from tests.server.test_app import served

ZIP = {"Content-Type": "application/zip"}


def preset(name: str = "mine", **changes: object) -> bytes:
    buffer = io.BytesIO()
    fields: dict[str, Any] = {
        "format": np.asarray(1), "name": np.asarray(name), "mu": np.full(4, 0.5, np.float32),
        "log_var": np.zeros(4, np.float32), "prior": np.asarray("p"), "strength": np.asarray(1.5), **changes,
    }  # fmt: skip
    np.savez_compressed(buffer, **fields)
    return buffer.getvalue()


def bomb(claimed: int | None = None) -> bytes:
    """A zip of a few kilobytes that inflates to 200 MB; the directory may claim less."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z, z.open("mu.npy", "w", force_zip64=True) as member:
        for _ in range(200):
            member.write(bytes(1_000_000))
    data = buffer.getvalue()
    if claimed is not None:
        at = data.rindex(b"PK\x01\x02")
        data = data[: at + 24] + claimed.to_bytes(4, "little") + data[at + 28 :]
    return data


def shelf(most: int = 32, prior: str | None = "p") -> UploadShelf:
    return UploadShelf(FakeShelf(), prior, 4, most)


def test_an_upload_is_found_by_its_name_and_stands_on_no_list() -> None:
    uploads = shelf()
    name = uploads.add(preset("mine"))
    assert name.startswith(PREFIX) and len(name) == len(PREFIX) + 32
    assert uploads.get(name).name == "mine" and uploads.get("calm").name == "calm"
    assert uploads.names() == FakeShelf().names()
    assert uploads.add(preset("mine")) == name and len(uploads) == 1
    assert uploads.add(preset("calm")) != "calm" and uploads.get("calm").strength == 0.8, "nobody's name is taken"
    with pytest.raises(PresetError, match="never uploaded"):
        uploads.get(PREFIX + "0" * 32)


def test_what_is_kept_is_bounded_and_what_is_used_stays() -> None:
    uploads = shelf(most=3)
    names = [uploads.add(preset(f"p{i}")) for i in range(3)]
    uploads.get(names[0])
    uploads.add(preset("p3"))
    assert len(uploads) == 3 and uploads.get(names[0]).name == "p0"
    with pytest.raises(PresetError, match="took its place"):
        uploads.get(names[1])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an .npz"), (b"PK", "not an .npz"), (preset()[:-30], "npz"), (b"x" * 2_000_000, "more than"),
        (preset(mu=np.zeros(3, np.float32)), r"float32 \[4\]"), (preset(mu=np.zeros(4)), "float64"),
        (preset(mu=np.full(4, np.nan, np.float32)), "finite"), (preset(prior="other"), "prior"),
        (preset(format=2), "format"), (preset(strength=9), "strength"), (preset(""), "name"),
        (preset("a\nb"), "printable"), (preset(thumbnail=np.zeros((9, 9, 3), np.uint8)), "thumbnail"),
        (preset(more=np.asarray([{}], dtype=object)), "only numbers and text"),
    ],
)  # fmt: skip
def test_presets_that_are_refused(data: bytes, words: str) -> None:
    uploads = shelf()
    with pytest.raises(PresetError, match=words) as caught:
        uploads.add(data)
    assert str(caught.value).startswith("the upload") and len(uploads) == 0


@pytest.mark.parametrize("claimed", [None, 400])
def test_a_zip_bomb_takes_neither_memory_nor_time(claimed: int | None) -> None:
    data = bomb(claimed)
    assert len(data) < 1 << 20
    before_kb, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(PresetError):
        shelf().add(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000
    assert time.process_time() - started < 2.0


async def test_over_http_and_for_a_style_order() -> None:
    async with served() as http:
        made = await http.post("/v1/styles", content=preset("own voice"), headers=ZIP)
        assert made.status_code == 201 and made.json()["title"] == "own voice" and made.json()["strength"] == 1.5
        assert (await http.put("/v1/styles", content=preset("own voice"), headers=ZIP)).json() == made.json()
        listed = (await http.get("/v1/styles")).json()["styles"]
        assert made.json()["name"] not in {style["name"] for style in listed}
        bad = await http.post("/v1/styles", content=b"junk", headers=ZIP)
        assert bad.status_code == 422 and "npz" in bad.json()["error"]
        plain = await http.post("/v1/styles", content=preset(), headers={"Content-Type": "text/plain"})
        assert plain.status_code == 415
        assert (await http.post("/v1/styles", content=bytes(2 << 20), headers=ZIP)).status_code == 413
        assert (await http.post("/v1/styles", content=bytes(11 << 20), headers=ZIP)).status_code == 413
