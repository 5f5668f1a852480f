"""Films to clips, whole: what training reads equals what the renderer drew; rejected clips say why; runs go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from svp_stream.config import CONFIGS
from svp_stream.errors import ConfigError, MediaError
from svp_stream.evaluation.face_reader import key_points
from svp_stream.packets import Bytes
from svp_stream.preparing.config import PrepareConfig
from svp_stream.preparing.prepare import Workshop, find_videos, named, prepare
from svp_stream.training.clips import Clips, pack_frames, read_frames
from svp_stream.training.frames import open_frames
from tests.preparing.films import SIDE, Take, TruthReader, take, write_film

SMALL = PrepareConfig(size=64, least_eyes_px=8, clip_s=(2.0, 4.0))


@pytest.fixture(scope="module")
def composed() -> Take:
    """Two shots of the head in different places of a larger picture, then one without a face."""
    empty = Take([np.full((120, 160, 3), 30, np.uint8)] * 60, [None] * 60, np.zeros(60 * 640, np.int16))
    return take().placed(160, 120, 40, 10) + take(75, 1).placed(160, 120, 10, 20, (200, 120, 90)) + empty


@pytest.fixture(scope="module")
def made(composed: Take, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    (folder / "pat").mkdir()
    write_film(folder / "pat" / "one.mp4", composed)
    reader = TruthReader(composed)
    verdicts = prepare([folder], Workshop(folder / "clips", SMALL, reader))
    assert [v.kept for v in verdicts] == [True, True, False]
    assert reader.resets == 3, "a reader is told of every shot"
    return folder


def test_clips_are_what_training_reads(made: Path, composed: Take, tmp_path: Path) -> None:
    clips = Clips.open(made / "clips")
    assert [(c.frames, c.split, c.avatar, c.has_video) for c in clips] == [
        (75, "train", "pat", True), (75, "heldout", "pat", True)]  # fmt: skip
    for number, clip in enumerate(clips):
        true = [r for r in composed.readings[75 * number : 75 * (number + 1)] if r is not None]
        assert np.allclose(clip.pose[:, :3], [r.angles for r in true], atol=1e-4)
        assert np.allclose(clip.expression, [r.expression for r in true])
        assert np.abs(clip.pose[:, 3:5]).max() < 0.01, "a head that only turns has no shift"
        assert np.allclose(clip.kps, key_points(clip.landmarks))
        heard = clip.audio.astype(float).reshape(-1, 640).std(1)
        said = composed.audio[75 * 640 * number : 75 * 640 * (number + 1)].astype(float).reshape(-1, 640).std(1)
        assert np.corrcoef(heard, said)[0, 1] > 0.98
    pack_frames(list(clips), tmp_path / "frames")
    frames = open_frames(tmp_path / "frames")
    assert frames.pixels.shape == (150, 64, 64, 4) and (frames.pixels[:, ..., 3][0] > 250).all()


def test_the_crop_shows_the_head_as_the_renderer_frames_it(made: Path) -> None:
    clips = Clips.open(made / "clips")
    for clip, drawn in zip(clips, (take(), take(75, 1)), strict=True):
        rgb, _ = read_frames(clip, [0, 40])
        eyes = clip.kps[:, :2].mean(1)
        assert np.abs(np.median(eyes, axis=0) / 64 - [0.5, 0.43]).max() < 0.01
        middle = rgb[1, 20:44, 20:44].astype(float).mean((0, 1))
        first = round(0.31 * SIDE)
        assert np.abs(middle - drawn.pictures[40][first : -first, first : -first].astype(float).mean((0, 1))).max() < 25


def test_the_report_says_why(made: Path) -> None:
    text = (made / "clips" / "report.md").read_text(encoding="utf-8")
    assert "2 of 3 clips kept (6.0 of 8.4 s), 1 of them held out." in text
    assert "| no face | 1 |" in text and "no face: in no frame a face was found" in text
    rows = [json.loads(line) for line in (made / "clips" / "report.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all((made / "clips" / "thumbnails" / f"{row['id']}.png").stat().st_size > 100 for row in rows)


def test_a_second_run_reads_nothing_and_a_lost_clip_is_made_again(made: Path, composed: Take) -> None:
    reader = TruthReader(composed)
    out = made / "clips"
    clip = Clips.open(out)[0]
    before = clip.sidecar.path.read_bytes(), clip.video.stat().st_mtime_ns
    prepare([made], Workshop(out, SMALL, reader))
    assert reader.reads == 0 and clip.video.stat().st_mtime_ns == before[1]
    clip.video.unlink()
    prepare([made], Workshop(out, SMALL, reader))
    assert reader.reads == 0, "the survey was kept"
    assert Clips.open(out)[0].has_video and clip.sidecar.path.read_bytes()[:4] == before[0][:4]
    (out / ".prepare").joinpath(f"{clip.id[:-5]}.survey.npz").write_bytes(b"cut off")
    clip.video.unlink()
    prepare([made], Workshop(out, SMALL, reader))
    assert reader.reads == 210, "an unreadable survey is made again"
    assert not [p for p in out.rglob("*") if ".part" in p.name or p.suffix == ".pcm"]
    with pytest.raises(ConfigError, match="another configuration"):
        prepare([made], Workshop(out, SMALL.model_copy(update={"size": 32}), reader))


def test_one_bad_video_does_not_stop_the_others(tmp_path: Path) -> None:
    film = take().placed(120, 120, 10, 10)
    write_film(tmp_path / "good.mp4", film)
    (tmp_path / "bad.mp4").write_text("nothing")
    verdicts = prepare([tmp_path], Workshop(tmp_path / "out", SMALL, TruthReader(film)))
    assert [v.video for v in verdicts] == ["good.mp4"]
    assert "bad.mp4: not a readable video" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    with pytest.raises(MediaError, match="bad.mp4: not a readable video"):
        prepare([tmp_path / "bad.mp4"], Workshop(tmp_path / "out2", SMALL, TruthReader(film)))


def test_a_whole_video_out_of_step_is_rejected(tmp_path: Path) -> None:
    film = sum((take(75, s).placed(120, 120, 10, 10, (40 * s, 90, 250 - 60 * s)) for s in range(1, 4)),
               take().placed(120, 120, 10, 10))
    write_film(tmp_path / "late.mp4", film, sound_late_ms=320)
    verdicts = prepare([tmp_path], Workshop(tmp_path / "out", SMALL, TruthReader(film)))
    assert len(verdicts) >= 3 and all("picture ahead of the sound by 2" in v.faults[0] for v in verdicts)
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_a_syncnet_takes_a_clip_away_again(tmp_path: Path) -> None:
    film = take().placed(120, 120, 10, 10)
    write_film(tmp_path / "a.mp4", film)
    shop = Workshop(tmp_path / "out", SMALL, TruthReader(film), sync=lambda clip: (2.0, 200.0))
    verdicts = prepare([tmp_path], shop)
    assert "picture behind the sound by 200 ms" in verdicts[0].faults[0] and not len(Clips.open(tmp_path / "out"))


def test_a_matte_may_be_given(tmp_path: Path) -> None:
    film = take().placed(120, 120, 10, 10)
    write_film(tmp_path / "a.mp4", film)

    def half(rgb: Bytes) -> Bytes:
        made = np.zeros(rgb.shape[:2], np.uint8)
        made[:, :32] = 255
        return made

    prepare([tmp_path], Workshop(tmp_path / "out", SMALL, TruthReader(film), matte=half))
    _, alpha = read_frames(Clips.open(tmp_path / "out")[0], [3])
    assert alpha[0, :, :30].min() > 240 and alpha[0, :, 34:].max() < 15
    with pytest.raises(ConfigError, match="matte function gave"):
        prepare([tmp_path], Workshop(tmp_path / "out2", SMALL, TruthReader(film), matte=lambda rgb: rgb))


def test_videos_are_found_and_named(tmp_path: Path) -> None:
    for name in ("M003/angry/1.mp4", "M003/sad/2.MOV", "notes.txt", "M005/x.webm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [n for _, n in find_videos([tmp_path])] == ["M003/angry/1.mp4", "M003/sad/2.MOV", "M005/x.webm"]
    with pytest.raises(MediaError, match="no such file or folder"):
        find_videos([tmp_path / "gone"])
    (tmp_path / "none").mkdir()
    with pytest.raises(MediaError, match="no video in .* known endings"):
        find_videos([tmp_path / "none"])
    assert named("M003/angry/1.mp4", SMALL) == {"avatar": "M003", "style": "M003", "voice": "M003"}
    assert named("home.mp4", SMALL)["avatar"] == "home"
    assert named("x/home.mp4", SMALL.model_copy(update={"avatar": "pat"}))["avatar"] == "pat"
    mead = SMALL.model_copy(update={"naming": r"(?P<avatar>[MW]\d+)/(?P<style>\w+)/"})
    assert named("M003/angry/1.mp4", mead) == {"avatar": "M003", "style": "angry", "voice": "M003"}
    with pytest.raises(MediaError, match="does not match this name"):
        named("other.mp4", mead)


def test_the_default_file_equals_the_code(tmp_path: Path) -> None:
    assert PrepareConfig.load(CONFIGS / "prepare.yaml") == PrepareConfig() == PrepareConfig.load(None)
    for text, told in (("siz: 3", "did you mean size"), ("clip_s: [3, 4]", "shortest <= longest / 2"),
                       ("avatar: a/b", "avatar: string should match"),
                       ("naming: '('", "no regular expression"), ("naming: 'x(?P<who>.)'", "must have groups")):
        path = tmp_path / "p.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=told):
            PrepareConfig.load(path)
