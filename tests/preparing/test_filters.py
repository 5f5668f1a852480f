"""Every filter on a film of the renderer: what is rejected, why, and how the report shows it; a run that is cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from svp_stream.evaluation.face_reader import FaceReading
from svp_stream.evaluation.syncnet import SyncNet, clip_offset, load_syncnet
from svp_stream.evaluation.syncnet_training import SyncTrainConfig, make_sync_stage
from svp_stream.packets import Bytes
from svp_stream.preparing.config import PrepareConfig
from svp_stream.preparing.prepare import Workshop, prepare
from svp_stream.preparing.report import Verdict
from svp_stream.training.clips import Clips
from svp_stream.training.loop import LoopConfig, run_stage
from tests.preparing.films import SIDE, Take, take, write_film

SMALL = PrepareConfig(size=64, least_eyes_px=8, clip_s=(2.0, 4.0), heldout_share=0.0)
WIDE, HIGH, FRAMES = 180, 130, 55
FOLLOWS = {"small": "blurred", "turned": "at the edge"}
"""A small face is a blurred one once it is drawn to size; of one that looks aside the crop is large."""


def painted(made: Take, paint: Callable[[Bytes], Bytes], scale: float = 1.0) -> Take:
    """The take with other pictures, its landmarks drawn nearer by `scale`."""
    readings = [None if r is None else replace(r, landmarks=r.landmarks * np.float32(scale)) for r in made.readings]
    return Take([paint(p) for p in made.pictures], readings, made.audio)


def blurred(picture: Bytes) -> Bytes:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(3)), np.uint8)


def quarter(picture: Bytes) -> Bytes:
    return np.asarray(Image.fromarray(picture).resize((SIDE // 4, SIDE // 4), Image.Resampling.LANCZOS), np.uint8)


def turned(made: Take) -> Take:
    """The take as a reader would tell it of a head that looks aside; it falls silent before its end."""
    told: list[FaceReading | None] = [
        None if r is None else replace(r, angles=r.angles + np.array([60, 0, 0], np.float32)) for r in made.readings]
    audio = made.audio.copy()
    audio[-6 * 640 :] = 0
    return Take(made.pictures, told, audio)


class InOrder:
    """A reader that tells of a film's frames one after the other, whatever it is shown."""

    def __init__(self, film: Take) -> None:
        self._film = film
        self.reads = 0

    def read(self, rgb: Bytes) -> FaceReading | None:
        self.reads += 1
        return self._film.readings[self.reads - 1]

    def reset(self) -> None:
        return None


@pytest.fixture(scope="module")
def spoilt() -> tuple[Take, list[str]]:
    """A film of six shots, and what is wrong with each."""
    good = take(FRAMES)
    mute = Take(good.pictures, good.readings, np.zeros_like(good.audio))
    half = painted(good.placed(WIDE + 40, HIGH, WIDE - 56, 20, (220, 220, 90)), lambda p: p[:, :WIDE])
    shots = {
        "": good.placed(WIDE, HIGH, 40, 20),
        "blurred": painted(good, blurred).placed(WIDE, HIGH, 40, 20, (200, 90, 60)),
        "small": painted(good, quarter, 0.25).placed(WIDE, HIGH, 80, 50, (30, 160, 60)), "at the edge": half,
        "turned": turned(good.placed(WIDE, HIGH, 40, 20, (90, 20, 150))),
        "silent": mute.placed(WIDE, HIGH, 40, 20, (20, 20, 20)),
    }  # fmt: skip
    film = list(shots.values())
    return sum(film[1:], film[0]), list(shots)


@pytest.fixture(scope="module")
def judged(spoilt: tuple[Take, list[str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Verdict]]:
    folder = tmp_path_factory.mktemp("spoilt")
    film = write_film(folder / "film.mp4", spoilt[0])
    return folder / "clips", prepare([film], Workshop(folder / "clips", SMALL, InOrder(spoilt[0])))


def test_every_shot_is_found_and_rejected_for_its_own_fault(
    spoilt: tuple[Take, list[str]], judged: tuple[Path, list[Verdict]]
) -> None:
    _, verdicts = judged
    assert [(v.first, v.end) for v in verdicts] == [(FRAMES * n, FRAMES * n + FRAMES) for n in range(6)]
    for verdict, fault in zip(verdicts, spoilt[1], strict=True):
        keys = [f.split(":")[0] for f in verdict.faults]
        assert (fault in keys if fault else verdict.kept), (fault, verdict.faults)
        assert set(keys) <= {fault, FOLLOWS.get(fault, fault)} - {""}, verdict.faults


def test_the_report_shows_each_rejected_clip_with_its_reason(judged: tuple[Path, list[Verdict]]) -> None:
    out, verdicts = judged
    text = (out / "report.md").read_text(encoding="utf-8")
    for verdict in verdicts:
        line = next(row for row in text.splitlines() if f"| {verdict.id} |" in row)
        assert f"![](thumbnails/{verdict.id}.png)" in line
        with Image.open(out / "thumbnails" / f"{verdict.id}.png") as shown:
            assert max(shown.size) == (64 if verdict.kept else 96)
        assert all(fault in line for fault in verdict.faults) and ("kept, train" in line) == verdict.kept
    assert sorted(p.stem for p in out.glob("*.npz")) == [v.id for v in verdicts if v.kept]


def test_a_run_that_is_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    film = take(FRAMES).placed(WIDE, HIGH, 40, 20) + take(FRAMES, 1).placed(WIDE, HIGH, 20, 10, (200, 90, 60))
    path, calls = write_film(tmp_path / "film.mp4", film), 0

    def matte(rgb: Bytes) -> Bytes:
        nonlocal calls
        calls += 1
        if calls == FRAMES + 20:
            raise KeyboardInterrupt
        return rgb[..., 0]

    whole, cut = (Workshop(tmp_path / name, SMALL, InOrder(film), matte=matte) for name in ("whole", "cut"))
    with pytest.raises(KeyboardInterrupt):
        prepare([path], cut)
    assert len(list(cut.out.glob("*.npz"))) == 1 and not [p for p in cut.out.glob("*.mp4") if ".part" in p.name]
    reader = InOrder(film)
    prepare([path], replace(cut, reader=reader))
    assert reader.reads == 0, "the survey was kept"
    assert calls == FRAMES + 20 + FRAMES, "the finished clip was not cut again"
    prepare([path], whole)
    for one, two in zip(Clips.open(cut.out), Clips.open(whole.out), strict=True):
        assert one.id == two.id and np.array_equal(one.landmarks, two.landmarks)
        assert np.array_equal(one.audio, two.audio)
        assert one.video.read_bytes() == two.video.read_bytes()
    assert not [p for p in cut.out.rglob("*") if ".part" in p.name or p.suffix == ".pcm"]


@pytest.fixture(scope="module")
def syncnet(tmp_path_factory: pytest.TempPathFactory) -> SyncNet:
    """Trained for seconds on prepared films of the renderer's head."""
    folder = tmp_path_factory.mktemp("heard")
    film = take(80, 20).placed(120, 120, 10, 10)
    for n in range(1, 5):
        film = film + take(80, 20 + n).placed(120, 120, 10, 10, (40 * n, 90, 250 - 40 * n))
    shop = Workshop(folder / "clips", SMALL.model_copy(update={"heldout_share": 0.34}), InOrder(film))
    assert all(v.kept for v in prepare([write_film(folder / "film.mp4", film)], shop))
    config = SyncTrainConfig(widths=(4, 8, 16, 16), dim=16, windows=4, shift_px=1, loop=LoopConfig(
        steps=110, batch=48, lr=4e-3, warmup=5, ema=0.9, precision="fp32", threads=1))
    run_stage(make_sync_stage(config, folder / "clips"), config.loop, folder / "run")
    return load_syncnet(folder / "run" / "syncnet.safetensors")


@pytest.mark.parametrize("late_ms", [0, 280])
def test_our_own_syncnet_rejects_a_film_whose_sound_is_late(syncnet: SyncNet, tmp_path: Path, late_ms: int) -> None:
    film = take(80, 31).placed(120, 120, 10, 10)
    path = write_film(tmp_path / "film.mp4", film, sound_late_ms=late_ms)
    config = SMALL.model_copy(update={"syncnet_least": 0.05})
    shop = Workshop(tmp_path / "out", config, InOrder(film), sync=partial(clip_offset, syncnet))
    (verdict,) = prepare([path], shop)
    assert verdict.kept == (late_ms == 0), verdict.faults
    if late_ms:
        assert verdict.faults[0].startswith("offset: ") and "picture ahead of the sound by" in verdict.faults[0]
        assert not list(shop.out.glob("*.mp4")) and (shop.out / "thumbnails" / f"{verdict.id}.png").is_file()
