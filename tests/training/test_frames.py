"""Packed frames: views that copy no pictures, pairs that never cross a cut, boxes that hold the face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svp_stream.errors import MediaError
from svp_stream.training.frames import Frames, face_boxes, open_frames, to_tensors
from tests.fakes.painted_faces import painted_frames

KEYS = ("expression", "pose", "kps", "avatar", "clip", "style", "split", "number")


def pack(folder: Path, frames: Frames, **changed: Any) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "frames.npy", np.asarray(frames.pixels))
    arrays = {k: getattr(frames, k) for k in KEYS} | changed
    np.savez(folder / "index.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder


@pytest.fixture(scope="module")
def frames() -> Frames:
    return painted_frames(clips=3, frames=5, size=32)


def test_open(tmp_path: Path, frames: Frames) -> None:
    opened = open_frames(pack(tmp_path, frames))
    assert len(opened) == 15 and opened.size == 32
    assert isinstance(opened.pixels, np.memmap) and not opened.pixels.flags.writeable
    np.testing.assert_array_equal(opened.pixels[7], frames.pixels[7])
    assert opened.clip.tolist() == frames.clip.tolist()


@pytest.mark.parametrize("name", ["frames.npy", "index.npz"])
def test_a_missing_file_is_named(tmp_path: Path, frames: Frames, name: str) -> None:
    (pack(tmp_path, frames) / name).unlink()
    with pytest.raises(MediaError, match=f"{name} is missing; pack the corpus"):
        open_frames(tmp_path)


def test_a_missing_array_is_named(tmp_path: Path, frames: Frames) -> None:
    with pytest.raises(MediaError, match=r"lacks \['kps', 'split'\]"):
        open_frames(pack(tmp_path, frames, kps=None, split=None))


def test_select_by_mask_and_by_number(frames: Frames) -> None:
    by_mask = frames.select(frames.clip == "clip1")
    assert len(by_mask) == 5 and set(by_mask.clip) == {"clip1"}
    np.testing.assert_array_equal(by_mask.pixels[2], frames.pixels[7])
    shuffled = frames.select(np.array([9, 0, 9]))
    np.testing.assert_array_equal(shuffled.pixels[np.arange(3)], frames.pixels[[9, 0, 9]])
    np.testing.assert_array_equal(shuffled.pose, frames.pose[[9, 0, 9]])


def test_select_twice(frames: Frames) -> None:
    odd = frames.select(np.arange(15) % 2 == 1)
    late = odd.select(odd.number > 2)
    rows = [i for i in range(15) if i % 2 and frames.number[i] > 2]
    assert late.number.tolist() == frames.number[rows].tolist()
    np.testing.assert_array_equal(late.pixels[0 : len(rows)], frames.pixels[rows])
    np.testing.assert_array_equal(late.pixels[1, 3:9, 4:6], frames.pixels[rows[1], 3:9, 4:6])
    assert late.pixels.source is frames.pixels, "a view of a view reads the first source"


def test_pairs_stay_within_clips(frames: Frames) -> None:
    assert frames.pairs().tolist() == [i for i in range(15) if i % 5]


def test_pairs_do_not_bridge_what_was_left_out(frames: Frames) -> None:
    holed = frames.select(np.array([0, 1, 3, 4, 6, 5, 7]))
    assert holed.pairs().tolist() == [1, 3]


def test_face_boxes() -> None:
    kps = np.array([[[40, 50], [60, 50], [50, 60]], [[2, 10], [42, 10], [20, 20]]], np.float32)
    assert face_boxes(kps, 100).tolist() == [[31, 40, 69, 85], [0, 0, 60, 80]]


def test_face_boxes_follow_a_tilted_head() -> None:
    kps = np.array([[[40, 42], [52, 58], [40, 55]]], np.float32)
    box = face_boxes(kps, 100)[0]
    assert box.tolist() == [27, 40, 65, 85], "20 pixels between the eyes, whichever way they lie"


def test_to_tensors(frames: Frames) -> None:
    rgb, matte = to_tensors(frames.pixels[:2])
    assert rgb.shape == (2, 3, 32, 32) and matte.shape == (2, 1, 32, 32)
    assert float(rgb[1, 2, 5, 6]) == pytest.approx(frames.pixels[1, 5, 6, 2] / 127.5 - 1)
    assert matte.min() == -1 and matte.max() == 1
    again, _ = to_tensors(torch.from_numpy(frames.pixels[:2]))
    torch.testing.assert_close(again, rgb, rtol=0, atol=0)
