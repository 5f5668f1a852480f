"""Decoding: any rate and stamps to 25 pictures a second, any sound to 16 kHz on the same clock, faults in words."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from svp_stream.errors import MediaError
from svp_stream.preparing.decode import pictures, probe, sound
from tests.preparing.films import Take, turn_film, write_film


def grey(levels: list[int], width: int = 64, height: int = 48) -> Take:
    """Plain frames of these levels, and a sound that clicks where a frame of 200 or more begins."""
    frames = [np.full((height, width, 3), level, np.uint8) for level in levels]
    audio = np.concatenate([np.full(640, 12_000 if level >= 200 else 0, np.int16) for level in levels])
    wave = np.tile(np.repeat([1, -1], 20), len(audio) // 40).astype(np.int16)
    return Take(frames, [None] * len(frames), audio * wave)


def levels(path: Path) -> list[int]:
    """Mean level of each decoded picture, rounded to tens."""
    return [int(round(float(p.mean()), -1)) for p in pictures(path)]


def test_a_plain_film_comes_through_one_to_one(tmp_path: Path) -> None:
    steps = [10, 60, 110, 160, 210] * 5
    film = write_film(tmp_path / "a.mp4", grey(steps))
    assert levels(film) == steps
    info = probe(film)
    assert (info.width, info.height, info.turned) == (64, 48, 0) and info.rate_hz == pytest.approx(25)


@pytest.mark.parametrize("rate", [12.5, 30.0, 50.0, 59.94])
def test_another_rate_becomes_25(tmp_path: Path, rate: float) -> None:
    count = round(2 * rate)
    stamps = [round(n * 1000 / rate) for n in range(count)]
    ramp = [round(20 + 200 * n / count) for n in range(count)]
    seen = list(pictures(write_film(tmp_path / "a.mp4", grey(ramp), stamps_ms=stamps)))
    assert abs(len(seen) - 50) <= 1
    wanted = np.array([20 + 200 * (n + 0.5) / 50 for n in range(len(seen))])
    # A picture may be one of the source's frames old, and a level is coded to within a few.
    assert np.abs(np.array([p.mean() for p in seen]) - wanted).max() < 200 / count + 6


def test_a_variable_rate_follows_the_stamps(tmp_path: Path) -> None:
    stamps = [0, 40, 80, 400, 440, 800, 840, 880]
    film = write_film(tmp_path / "a.mp4", grey([10, 30, 60, 90, 120, 150, 180, 210]), stamps_ms=stamps)
    seen = levels(film)
    assert seen[:2] == [10, 30] and seen[2:10] == [60] * 8 and seen[10] == 90 and seen[11:20] == [120] * 9
    assert len(seen) >= 22


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_film_that_was_held_upright_stands_upright(tmp_path: Path, quarters: int) -> None:
    made = grey([40] * 10)
    for picture in made.pictures:
        picture[:12, :] = (250, 20, 20)  # what was up when the camera wrote it
    film = write_film(tmp_path / "a.mp4", made)
    turn_film(film, quarters)
    seen = next(iter(pictures(film)))
    assert seen.shape[:2] == ((48, 64) if quarters == 2 else (64, 48))
    wanted = {1: seen[:, -8:], 2: seen[-8:], 3: seen[:, :8]}[quarters]
    assert wanted[..., 0].mean() > 180 and wanted[..., 1].mean() < 80, "the red edge was turned clockwise"
    assert probe(film).turned == {1: 270, 2: 180, 3: 90}[quarters]


@pytest.mark.parametrize(("rate", "late_ms"), [(48_000, 0), (16_000, 0), (48_000, 400)])
def test_sound_lies_on_the_clock_of_the_picture(tmp_path: Path, rate: int, late_ms: int) -> None:
    made = grey([10] * 20 + [220] * 5 + [10] * 25)
    film = write_film(tmp_path / "a.mp4", made, rate=rate, sound_late_ms=late_ms)
    heard = sound(film, probe(film).start_s, tmp_path / "a.pcm")
    assert heard.dtype == np.int16 and abs(len(heard) - len(made.audio)) < 1600
    loud = np.abs(np.asarray(heard, np.float32)).reshape(-1)[: 48 * 640].reshape(-1, 640).mean(1)
    assert abs(int((loud > 3000).argmax()) - (20 + late_ms // 40)) <= 1


def test_memory_does_not_grow_with_the_film(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", grey([10, 200] * 200, 320, 240))
    peaks = []
    for most in (50, 400):
        tracemalloc.start()
        count = sum(1 for _, n in zip(pictures(film), range(most), strict=False) if n >= 0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == most
    assert peaks[1] < peaks[0] + 2_000_000, peaks


def test_what_is_no_talking_head_is_told(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video at all")
    with pytest.raises(MediaError, match="notes.mp4: not a readable video"):
        probe(text)
    with pytest.raises(MediaError, match="gone.mp4: there is no such file"):
        probe(tmp_path / "gone.mp4")
    dumb = write_film(tmp_path / "dumb.mp4", grey([10] * 20), with_sound=False)
    with pytest.raises(MediaError, match="dumb.mp4: has no sound"):
        probe(dumb)
    with pytest.raises(MediaError, match="has no sound"):
        sound(dumb, 0.0, tmp_path / "x.pcm")
    short = write_film(tmp_path / "short.mp4", grey([10] * 5))
    with pytest.raises(MediaError, match="s of sound; at least 0.5 s"):
        sound(short, 0.0, tmp_path / "x.pcm")


def test_a_hole_in_the_stamps_is_told(tmp_path: Path) -> None:
    stamps = [n * 40 + (9000 if n > 9 else 0) for n in range(20)]
    film = write_film(tmp_path / "a.mp4", grey([10] * 20), stamps_ms=stamps)
    seen = pictures(film)
    with pytest.raises(MediaError, match="no picture between .* repair or cut"):
        list(seen)
