"""The clip reader: filters, honest errors, exact frames, and packing that can be cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svp_stream.errors import MediaError
from svp_stream.motion import kps
from svp_stream.motion.manner import Manner
from svp_stream.packets import Bytes, Float32
from svp_stream.synthetic import sidecar
from svp_stream.synthetic.video import ClipWriter
from svp_stream.training import clips as room
from svp_stream.training.clips import Clips, pack_frames, read_frames

SIZE = 64
HEAD = kps.HeadGeometry(
    points=np.array([[-0.11, -0.08, 0.20], [0.11, -0.08, 0.20], [0.0, 0.05, 0.28]], dtype=np.float32),
    neck=np.array([0.0, -0.2, 0.03], dtype=np.float32), pivot=np.array([0.5, 0.75], dtype=np.float32), neck_share=0.4)


def pictures(frames: int, seed: int) -> tuple[Bytes, Bytes]:
    """Smooth pictures whose level tells the frame's number."""
    level = (30 + 7 * np.arange(frames) + 60 * seed) % 200 + 20
    ramp = np.arange(SIZE) // 4
    rgb = np.clip(level[:, None, None, None] + ramp[None, None, :, None] * np.array([1, 0, -1]), 0, 255)
    alpha = np.broadcast_to(255 - level[:, None, None], (frames, SIZE, SIZE))
    return np.broadcast_to(rgb, (frames, SIZE, SIZE, 3)).astype(np.uint8), alpha.astype(np.uint8)


def arrays(frames: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    pose: Float32 = (rng.standard_normal((frames, 9)) * [4, 3, 2, 0.01, 0.01, 0.1, 0.1, 2, 2]).astype(np.float32)
    return {"expression": rng.random((frames, 52), dtype=np.float32), "pose": pose,
            "stress": rng.random(frames, dtype=np.float32), "style_vector": np.zeros(4, np.float32),
            "audio": rng.integers(-99, 99, frames * 640).astype(np.int16), "manner": Manner().vector()}


def write_clip(folder: Path, name: str, frames: int = 12, seed: int = 0, picture: bool = True, size: int = SIZE,
               **words: str) -> None:
    known = {"style": "warm", "voice": "slt", "text": "Hi.", "avatar": "ann" if picture else "", "split": "train"}
    content = arrays(frames, seed)
    if picture:
        content["kps"] = kps.project_batch(HEAD, content["pose"]) * SIZE
        content["landmarks"] = np.zeros((frames, 5, 2), np.float32)
        with ClipWriter(folder / f"{name}.mp4", size, 4, 4) as writer:
            for rgb, alpha in zip(*pictures(frames, seed), strict=True):
                writer.add(rgb[:size, :size], alpha[:size, :size])
            writer.sound(content["audio"])
    sounds = (sidecar.Sound("pau", 0.0, 0.2, 0), sidecar.Sound("ay", 0.2, frames / 25, 2))
    sidecar.write(folder / f"{name}.npz", content, {**known, **words}, seed, sounds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "corpus"
    out.mkdir()
    write_clip(out, "a", 12, 0)
    write_clip(out, "b", 40, 1, split="heldout", style="sad")
    write_clip(out, "c", 9, 2, picture=False, voice="awb")
    return out


def test_filters_and_fields(folder: Path) -> None:
    clips = Clips.open(folder)
    assert [c.id for c in clips] == ["a", "b", "c"]
    assert [c.id for c in clips.where(has_video=True)] == ["a", "b"]
    assert [c.id for c in clips.where(has_video=True, split="train")] == ["a"]
    assert [c.id for c in clips.where(voice="awb")] == ["c"]
    assert [c.id for c in clips.where(style="sad", avatar="ann")] == ["b"]
    assert [c.id for c in clips[1:]] == ["b", "c"] and clips[-1].id == "c"
    b, truth = clips[1], arrays(40, 1)
    assert b.frames == 40
    for key in ("expression", "pose", "stress", "audio", "manner"):
        np.testing.assert_array_equal(getattr(b, key), truth[key])
    assert [p.symbol for p in b.phonemes] == ["pau", "ay"]


def test_frames_come_in_the_order_asked(folder: Path) -> None:
    clip = Clips.open(folder)[1]
    rgb, alpha = read_frames(clip)
    truth_rgb, truth_alpha = pictures(40, 1)
    assert rgb.shape == (40, SIZE, SIZE, 3) and alpha.shape == (40, SIZE, SIZE) and rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - truth_rgb).mean() < 3
    assert np.abs(alpha.astype(int) - truth_alpha).mean() < 3
    some, matte = read_frames(clip, [30, 2, 30])
    np.testing.assert_array_equal(some, rgb[[30, 2, 30]])
    np.testing.assert_array_equal(matte, alpha[[30, 2, 30]])


def test_errors_name_file_and_key(folder: Path) -> None:
    clips = Clips.open(folder)
    with pytest.raises(MediaError, match=r"c\.mp4: the clip has no picture"):
        read_frames(clips[2])
    with pytest.raises(MediaError, match=r"c\.npz: key 'kps' is missing"):
        _ = clips[2].kps
    with pytest.raises(MediaError, match=r"b\.mp4: frame 40 is not in the video"):
        read_frames(clips[1], [40])
    with pytest.raises(MediaError, match="no such folder"):
        Clips.open(folder / "nowhere")
    (folder / "a.mp4").write_bytes(b"not a video")
    with pytest.raises(MediaError, match=r"a\.mp4: not a readable video"):
        read_frames(clips[0])


@pytest.mark.parametrize(("change", "complaint"), [
    ({"format": 2}, "key 'format': expected 1, found 2"),
    ({"fps": 30}, "key 'fps': expected 25, found 30"),
    ({"pose": np.zeros((12, 8), np.float32)}, r"key 'pose': expected float32 \['T', 9\], found float32 \[12, 8\]"),
    ({"pose": np.zeros((12, 9))}, "key 'pose': expected float32"),
    ({"pose": np.full((12, 9), np.nan, np.float32)}, "key 'pose': holds numbers that are not finite"),
    ({"pose": np.zeros((11, 9), np.float32)}, "key 'pose': expected 12 rows"),
    ({"audio": np.zeros(12 * 640 - 1, np.int16)}, "key 'audio': expected 7680 rows"),
    ({"phonemes": "[[1, 2]]"}, "key 'phonemes': expected JSON rows"),
    ({"style": None}, "key 'style' is missing"),
])
def test_damaged_sidecars(folder: Path, change: dict[str, Any], complaint: str) -> None:
    path = folder / "a.npz"
    with np.load(path, allow_pickle=False) as archive:
        content: dict[str, Any] = {k: archive[k] for k in archive.files}
    content.update(change)
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    with pytest.raises(MediaError, match=complaint) as fault:
        clip = Clips.open(folder)[0]
        _ = clip.pose, clip.audio, clip.phonemes
    assert "a.npz" in str(fault.value)


def test_what_is_not_an_archive_is_refused(folder: Path) -> None:
    (folder / "a.npz").write_bytes(b"PK nonsense")
    with pytest.raises(MediaError, match=r"a\.npz: not a readable sidecar"):
        Clips.open(folder)


def test_the_writer_refuses_what_the_reader_would(tmp_path: Path) -> None:
    content = arrays(5, 0) | {"stress": np.zeros(4, np.float32)}
    with pytest.raises(MediaError, match=r"key 'stress': expected float32 \[5\], found float32 \[4\]"):
        sidecar.write(tmp_path / "x.npz", content, {}, 0, ())
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="stop"), ClipWriter(tmp_path / "x.mp4", SIZE, 8, 8) as writer:
        writer.add(*(p[0] for p in pictures(1, 0)))
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())


def test_packing(folder: Path, tmp_path: Path) -> None:
    clips, out = Clips.open(folder), tmp_path / "packed"
    pack_frames(clips, out)
    pixels = np.load(out / "frames.npy", mmap_mode="r")
    assert pixels.shape == (52, SIZE, SIZE, 4) and pixels.dtype == np.uint8
    rgb, alpha = read_frames(clips[1])
    np.testing.assert_array_equal(pixels[12:, ..., :3], rgb)
    np.testing.assert_array_equal(pixels[12:, ..., 3], alpha)
    with np.load(out / "index.npz", allow_pickle=False) as index:
        assert list(index["clip"][[0, 11, 12, 51]]) == ["a", "a", "b", "b"]
        assert list(index["number"][[0, 11, 12, 51]]) == [0, 11, 0, 39]
        assert list(index["split"][[11, 12]]) == ["train", "heldout"]
        np.testing.assert_array_equal(index["pose"][12:], clips[1].pose)
        np.testing.assert_array_equal(index["kps"][:12], clips[0].kps)
    assert sorted(p.name for p in out.iterdir()) == ["frames.npy", "index.npz"]
    stamp = (out / "frames.npy").stat().st_mtime_ns
    pack_frames(clips, out)
    assert (out / "frames.npy").stat().st_mtime_ns == stamp, "the same clips are not packed twice"
    pack_frames(clips.where(split="train"), out)
    assert len(np.load(out / "frames.npy", mmap_mode="r")) == 12


def test_packing_goes_on_where_it_was_cut_off(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, out, whole = Clips.open(folder), tmp_path / "packed", tmp_path / "whole"
    pack_frames(clips, whole)
    read = room.read_frames
    decoded: list[str] = []

    def failing(clip: room.Clip, indices: Any = None) -> tuple[Bytes, Bytes]:
        if clip.id == "b":
            raise MediaError("the disk is gone")
        return read(clip, indices)

    def counting(clip: room.Clip, indices: Any = None) -> tuple[Bytes, Bytes]:
        if indices is None:
            decoded.append(clip.id)
        return read(clip, indices)

    monkeypatch.setattr(room, "read_frames", failing)
    with pytest.raises(MediaError, match="disk"):
        pack_frames(clips, out)
    assert not (out / "index.npz").exists() and not (out / "frames.npy").exists()
    monkeypatch.setattr(room, "read_frames", counting)
    pack_frames(clips, out)
    assert decoded == ["b"]
    np.testing.assert_array_equal(np.load(out / "frames.npy"), np.load(whole / "frames.npy"))


def test_packing_refuses_nothing_and_mixtures(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no clip with a picture"):
        pack_frames(Clips.open(folder).where(voice="awb"), tmp_path / "none")
    write_clip(folder, "d", 5, size=32)
    with pytest.raises(MediaError, match=r"d\.mp4: expected 64x64 pixels as in a, found 32x32"):
        pack_frames(Clips.open(folder), tmp_path / "mixed")


def test_geometry_of_an_avatar(folder: Path) -> None:
    clips = Clips.open(folder)
    fit = clips.geometry("ann", SIZE)
    assert kps.residual_px(fit, clips[1].pose, clips[1].kps, SIZE) < 0.1
    with pytest.raises(MediaError, match="no clip shows avatar 'bob'; avatars there: ann"):
        clips.geometry("bob", SIZE)
