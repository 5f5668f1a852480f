"""Reads a folder of clips: the synthetic corpus, or real video prepared to the same format.

What it is: `Clips`, a filterable list of `Clip`; `read_frames`, pictures by number; `pack_frames`, which decodes
a whole list once into one memory-mapped array for random access while training. The format is that of
`synthetic.sidecar`.

In: a folder with `<id>.npz` and, for clips with a picture, `<id>.mp4` and `<id>.matte.mp4`. Out: typed arrays;
`frames.npy` uint8 [F, H, W, 4] (RGB and matte) with `index.npz`. Remembers: the sidecars' words, no arrays.
Every fault is a MediaError that names file and key.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from svp_stream.errors import MediaError
from svp_stream.motion.kps import HeadGeometry, fit_geometry
from svp_stream.packets import Bytes, Float32
from svp_stream.synthetic.sidecar import SAMPLES_PER_FRAME, Sidecar, Sound
from svp_stream.synthetic.video import matte_path, read_pictures

logger = logging.getLogger(__name__)

PER_FRAME: Final = ("expression", "pose", "kps", "landmarks", "stress")
PER_CLIP: Final = ("avatar", "style", "split", "voice")


@dataclass(frozen=True)
class Clip:
    """One clip. Arrays are read from the file each time they are asked for: keep what you need.

    Frame n shows the instant (n + 0.5) / 25 s and the sound of samples [640 n, 640 (n + 1))."""

    sidecar: Sidecar

    @property
    def id(self) -> str:
        """Name without ending."""
        return self.sidecar.path.stem

    @property
    def split(self) -> str:
        """'train' or 'heldout'."""
        return self.sidecar.split

    @property
    def voice(self) -> str:
        """Name of the speaker."""
        return self.sidecar.voice

    @property
    def style(self) -> str:
        """Name of the speaking style; 'sampled-XXXX' for a mixed one."""
        return self.sidecar.style

    @property
    def avatar(self) -> str:
        """Name of the head; '' without picture."""
        return self.sidecar.avatar

    @property
    def text(self) -> str:
        """What is said."""
        return self.sidecar.text

    @property
    def video(self) -> Path:
        """Where the picture lies, if there is one."""
        return self.sidecar.path.with_suffix(".mp4")

    @cached_property
    def has_video(self) -> bool:
        """Whether picture and matte are there."""
        return self.video.is_file() and matte_path(self.video).is_file()

    @cached_property
    def frames(self) -> int:
        """T, the length in frames of 40 ms."""
        return len(self.sidecar.array("stress"))

    @property
    def expression(self) -> Float32:
        """float32 [T, 52] in ARKIT order, lids and looks included."""
        return self._per_frame("expression")

    @property
    def pose(self) -> Float32:
        """float32 [T, 9]: yaw, pitch, roll, dx, dy, blink_left, blink_right, gaze_x, gaze_y (see `packets.Pose`)."""
        return self._per_frame("pose")

    @property
    def stress(self) -> Float32:
        """Vocal emphasis, float32 [T] in [0, 1]."""
        return self._per_frame("stress")

    @property
    def landmarks(self) -> Float32:
        """float32 [T, L, 2] pixels; clips with a picture only."""
        return self._per_frame("landmarks")

    @property
    def kps(self) -> Float32:
        """float32 [T, 3, 2] pixels: right eye, left eye, nose tip; clips with a picture only."""
        return self._per_frame("kps")

    @property
    def audio(self) -> NDArray[np.int16]:
        """int16 [T * 640], mono at 16 kHz."""
        audio = self.sidecar.array("audio")
        self._expect("audio", len(audio), self.frames * SAMPLES_PER_FRAME)
        return audio

    @property
    def style_vector(self) -> Float32:
        """float32 [P]: the numbers of the style."""
        return self.sidecar.array("style_vector")

    @property
    def manner(self) -> Float32:
        """float32 [M]: see `motion.manner.Manner.from_vector`."""
        return self.sidecar.array("manner")

    @property
    def phonemes(self) -> tuple[Sound, ...]:
        """What is said when."""
        return self.sidecar.phonemes()

    def _per_frame(self, key: str) -> Float32:
        array = self.sidecar.array(key)
        self._expect(key, len(array), self.frames)
        return array

    def _expect(self, key: str, found: int, wanted: int) -> None:
        if found != wanted:
            raise MediaError(f"{self.sidecar.path}: key '{key}': expected {wanted} rows for {self.frames} frames, "
                             f"found {found}")


class Clips(Sequence[Clip]):
    """Clips in the order of their names."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = tuple(clips)

    @classmethod
    def open(cls, folder: Path) -> Clips:
        """All clips of `folder`. Raises MediaError when there is no such folder or a sidecar is malformed."""
        if not folder.is_dir():
            raise MediaError(f"{folder}: no such folder; make a corpus there with `svp corpus --out`")
        return cls([Clip(Sidecar(path)) for path in sorted(folder.glob("*.npz")) if not path.name.startswith(".")])

    def where(self, *, split: str | None = None, voice: str | None = None, style: str | None = None,
              avatar: str | None = None, has_video: bool | None = None) -> Clips:
        """The clips that agree with every filter given."""
        wanted = {"split": split, "voice": voice, "style": style, "avatar": avatar, "has_video": has_video}
        asked = {k: v for k, v in wanted.items() if v is not None}
        return Clips([c for c in self._clips if all(getattr(c, k) == v for k, v in asked.items())])

    def geometry(self, avatar: str, size: int, most: int = 12) -> HeadGeometry:
        """The rigid head of `avatar` fitted to up to `most` of its clips, whose pictures have side `size`.

        Raises MediaError when there is no clip of that avatar with a picture, ValueError when its poses hardly differ.
        """
        seen = list(self.where(avatar=avatar, has_video=True))[:most]
        if not seen:
            known = ", ".join(sorted({c.avatar for c in self._clips if c.avatar})) or "none"
            raise MediaError(f"no clip shows avatar '{avatar}'; avatars there: {known}")
        return fit_geometry(np.concatenate([c.pose for c in seen]), np.concatenate([c.kps for c in seen]), size)

    def __len__(self) -> int:
        return len(self._clips)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> Clips: ...
    def __getitem__(self, index: int | slice) -> Clip | Clips:
        return Clips(self._clips[index]) if isinstance(index, slice) else self._clips[index]

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._clips)


def read_frames(clip: Clip, indices: Sequence[int] | None = None) -> tuple[Bytes, Bytes]:
    """Pictures of `clip` at `indices` (all when None): rgb uint8 [n, H, W, 3], alpha uint8 [n, H, W] (person 255).

    Raises MediaError when the clip has no picture, or not these frames.
    """
    if not clip.has_video:
        raise MediaError(f"{clip.video}: the clip has no picture and matte; filter with has_video=True")
    rgb = read_pictures(clip.video, indices)
    matte = read_pictures(matte_path(clip.video), indices)
    if indices is None and not len(rgb) == len(matte) == clip.frames:
        raise MediaError(f"{clip.video}: expected {clip.frames} frames of picture and matte, found {len(rgb)} and "
                         f"{len(matte)}")
    return rgb, np.ascontiguousarray(matte[..., 0])


def pack_frames(clips: Sequence[Clip], out: Path) -> None:
    """Decode `clips` once into `out`: `frames.npy` uint8 [F, H, W, 4] (RGB and matte), and `index.npz` with, for each
    frame, expression, pose, kps, landmarks, stress, the strings clip, avatar, style, split, voice, and its number.

    Does nothing when `out` holds just these clips; a run that was cut off goes on where it stopped; both files appear
    whole. Raises MediaError for clips without picture or of different sizes.
    """
    seen = [c for c in clips if c.has_video]
    if not seen:
        raise MediaError(f"no clip with a picture to pack into {out}; render some with `svp corpus`")
    out.mkdir(parents=True, exist_ok=True)
    ids = [c.id for c in seen]
    if _packed(out) == ids:
        return
    pixels, part, notes = out / "frames.npy", out / ".frames.npy.part", out / ".frames.json"
    side = read_frames(seen[0], [0])[0].shape[1:3]
    shape = (sum(c.frames for c in seen), *side, 4)
    done = _resumed(part, notes, ids, shape)
    mode: Any = "r+" if done else "w+"
    store = np.lib.format.open_memmap(part, mode=mode, dtype=np.uint8, shape=None if done else shape)
    row = sum(c.frames for c in seen[:done])
    for count, clip in enumerate(track(seen[done:], "packing frames"), done + 1):
        rgb, alpha = read_frames(clip)
        if rgb.shape[1:3] != side:
            raise MediaError(f"{clip.video}: expected {side[1]}x{side[0]} pixels as in {seen[0].id}, found "
                             f"{rgb.shape[2]}x{rgb.shape[1]}; pack one size at a time")
        store[row : row + len(rgb), ..., :3] = rgb
        store[row : row + len(rgb), ..., 3] = alpha
        row += len(rgb)
        notes.write_text(json.dumps({"ids": ids, "done": count}), encoding="utf-8")
    store.flush()
    del store
    # The index is what vouches for the pictures, so it goes away first and comes back last.
    (out / "index.npz").unlink(missing_ok=True)
    part.replace(pixels)
    _write_index(out, seen)
    notes.unlink(missing_ok=True)
    logger.info("packed %d frames of %d clips into %s", row, len(seen), out)


def _packed(out: Path) -> list[str]:
    """Ids of the clips that `out` already holds, in order."""
    index = out / "index.npz"
    if not index.is_file() or not (out / "frames.npy").is_file():
        return []
    with np.load(index, allow_pickle=False) as stored:
        return [str(name) for name in stored["clips"]]


def _resumed(part: Path, notes: Path, ids: list[str], shape: tuple[int, ...]) -> int:
    """How many clips an earlier, unfinished run over the same clips has stored."""
    if not part.is_file() or not notes.is_file():
        return 0
    try:
        known = json.loads(notes.read_text(encoding="utf-8"))
        fits = known["ids"] == ids and np.load(part, mmap_mode="r").shape == shape
        return int(known["done"]) if fits else 0
    except (ValueError, KeyError, OSError):
        return 0


def _write_index(out: Path, seen: list[Clip]) -> None:
    content: dict[str, Any] = {"clips": np.array([c.id for c in seen])}
    for key in PER_FRAME:
        content[key] = np.concatenate([getattr(c, key) for c in seen])
    lengths = [c.frames for c in seen]
    for key in PER_CLIP:
        content[key] = np.repeat(np.array([getattr(c, key) for c in seen]), lengths)
    content["clip"] = np.repeat(content["clips"], lengths)
    content["number"] = np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
    part = out / ".index.npz.part"
    with part.open("wb") as file:
        np.savez_compressed(file, **content)
    part.replace(out / "index.npz")
