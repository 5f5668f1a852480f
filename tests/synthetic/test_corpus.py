"""The corpus: a plan that holds out what it must, and clips whose picture, sound and numbers agree."""

from __future__ import annotations

import json
import queue
import shutil
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import yaml

from svp_stream.arkit import INDEX
from svp_stream.errors import ConfigError, MediaError
from svp_stream.motion.manner import Manner
from svp_stream.packets import Pose
from svp_stream.synthetic import clip as clip_room
from svp_stream.synthetic import corpus, life, sentences
from svp_stream.synthetic.corpus import CorpusConfig, draw, make_corpus
from svp_stream.synthetic.render import Renderer
from svp_stream.synthetic.rig import LANDMARKS, Rig
from svp_stream.synthetic.sidecar import SAMPLES_PER_FRAME, Sidecar
from svp_stream.synthetic.speech import ABROAD, HELD_OUT_VOICES, VOICES
from svp_stream.synthetic.styles import HELD_OUT_CAST, HELD_OUT_STYLES, NAMED, TRAINING_CAST, TRAINING_STYLES
from svp_stream.synthetic.video import matte_path, read_pictures
from tests.fakes.procedural_head import write_procedural_head

speaks = pytest.mark.skipif(shutil.which("flite") is None or shutil.which("espeak-ng") is None,
                            reason="flite and espeak-ng are not installed")
TINY = CorpusConfig(avatars=("tiny",), rendered_minutes=0.03, rendered_heldout_minutes=0.01, speech_minutes=0.08,
                    speech_heldout_minutes=0.01, size=64, supersample=1, sentences_per_clip=(1, 1), silent_share=0.0,
                    breath_chance=0.0)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    write_procedural_head(folder, "tiny")
    return folder


@pytest.fixture(scope="module")
def made(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    try:
        Renderer(16, 1).close()
    except MediaError as error:
        pytest.skip(f"no OpenGL here: {error}")
    make_corpus(TINY, heads, out, workers=1)
    return out


def test_the_default_file_equals_the_code() -> None:
    path = Path(__file__).parents[2] / "configs" / "corpus.yaml"
    assert CorpusConfig.load(path) == CorpusConfig()
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) == set(CorpusConfig.model_fields)


@pytest.mark.parametrize(("text", "complaint"), [
    ("rendered_minuts: 3", "did you mean rendered_minutes?"),
    ("size: 255", "size: input should be a multiple of 2, found 255"),
    ("pause_s: [2.0, 1.0]", "pause_s: expected 0 <= low <= high, found [2.0, 1.0]"), ("a: [", "is not YAML"),
    ("sampled_share: 2", "sampled_share: "),
])
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="corpus.yaml") as fault:
        CorpusConfig.load(path)
    assert complaint in str(fault.value)


def test_training_never_sees_what_is_held_out() -> None:
    plans = draw(CorpusConfig(speech_minutes=240, speech_heldout_minutes=20))
    train = [p for p in plans if p.split == "train"]
    held = [p for p in plans if p.split == "heldout"]
    assert not {p.voice for p in train} & set(HELD_OUT_VOICES)
    assert not {p.style for p in train} & set(HELD_OUT_CAST)
    assert {sentences.split(s) for p in train for s in p.sentences} == {"train"}
    assert {sentences.split(s) for p in held for s in p.sentences} == {"heldout"}
    assert all((p.voice in HELD_OUT_VOICES) != (p.style in HELD_OUT_CAST) for p in held)
    assert {p.style for p in train} == {*TRAINING_CAST, clip_room.SAMPLED}
    assert {p.voice for p in train} == {*VOICES, *ABROAD} - set(HELD_OUT_VOICES)
    assert {p.style for p in held} >= set(HELD_OUT_CAST) and {p.voice for p in held} >= set(HELD_OUT_VOICES)


def test_a_corpus_has_forty_styles_in_three_voices_each() -> None:
    voices: dict[str, set[str]] = {}
    for p in draw(CorpusConfig(speech_minutes=240)):
        if p.split == "train" and p.style != clip_room.SAMPLED:
            voices.setdefault(p.style, set()).add(p.voice)
    assert len(voices) >= 40 and min(map(len, voices.values())) >= 3
    plain = draw(CorpusConfig(intensities=False))
    assert {p.style for p in plain} == {*TRAINING_STYLES, *HELD_OUT_STYLES, clip_room.SAMPLED}


def test_other_languages_and_listeners_are_for_training_alone() -> None:
    plans = draw(CorpusConfig(speech_minutes=240, speech_heldout_minutes=20))
    abroad = [p for p in plans if p.voice in ABROAD]
    assert all(set(p.sentences) <= set(sentences.abroad()[ABROAD[p.voice].language]) for p in abroad)
    assert len({ABROAD[p.voice].language for p in abroad}) == 6
    silent = [p for p in plans if not p.sentences]
    assert {p.split for p in [*abroad, *silent]} == {"train"}
    share = len(abroad) / sum(p.split == "train" for p in plans)
    assert 0.08 < share < 0.16 and 0.02 < len(silent) / len(plans) < 0.06
    english = draw(CorpusConfig(abroad_share=0, silent_share=0))
    assert all(p.sentences and p.voice in VOICES for p in english)


def test_the_large_corpus_has_heads_of_both_families_women_and_men() -> None:
    config = CorpusConfig.load(Path(__file__).parents[2] / "configs" / "corpus-large.yaml")
    assert len(set(config.avatars)) >= 8 and len(CorpusConfig().avatars) == 2
    kinds = {(a.split("_")[0], a.split("_")[2] if a.startswith("valid") else a.split("_")[1][0].upper())
             for a in config.avatars}
    assert kinds == {("valid", "F"), ("valid", "M"), ("cc0", "F"), ("cc0", "M")}
    assert len({a.split("_")[1] for a in config.avatars if a.startswith("valid")}) >= 4
    small = config.model_copy(update={"rendered_minutes": 0.1, "speech_minutes": 0.1})
    assert {p.avatar for p in draw(small) if p.split == "heldout"} == {None, *config.avatars}


def test_a_plan_grows_without_changing() -> None:
    small, large = draw(CorpusConfig()), draw(CorpusConfig(rendered_minutes=9, speech_minutes=120,
                                                           avatars=(*CorpusConfig().avatars, "another")))
    assert small == draw(CorpusConfig())
    assert set(small) < set(large)
    assert len({p.id for p in large}) == len(large)
    assert {p.id for p in draw(CorpusConfig(seed=8))}.isdisjoint(p.id for p in small)
    assert {p.id for p in draw(CorpusConfig(crf=20))}.isdisjoint(p.id for p in small)


def test_a_part_of_the_plan_is_balanced() -> None:
    pictures = [p for p in draw(CorpusConfig()) if p.avatar]
    half = pictures[: len(pictures) // 2]
    shares = [sum(p.avatar == a for p in half) / len(half) for a in CorpusConfig().avatars]
    assert min(shares) > 0.35
    assert {p.split for p in half} == {"train", "heldout"}


@speaks
def test_a_clip_agrees_with_itself(made: Path) -> None:
    plans = draw(TINY)
    assert {p.split for p in plans} == {"train", "heldout"}
    for plan in plans:
        s = Sidecar(made / f"{plan.id}.npz")
        frames = len(s.array("stress"))
        assert frames > 25
        assert len(s.array("audio")) == frames * SAMPLES_PER_FRAME
        assert len(s.array("expression")) == len(s.array("pose")) == frames
        sounds = s.phonemes()
        assert sounds[0].symbol == sounds[-1].symbol == "pau"
        assert [a.end_s for a in sounds[:-1]] == pytest.approx([b.start_s for b in sounds[1:]])
        assert sounds[-1].end_s == pytest.approx(frames / 25, abs=1e-3)
        assert (s.avatar, s.split, s.voice, s.seed) == (plan.avatar or "", plan.split, plan.voice, plan.seed)
        assert s.text == " ".join(plan.sentences)
        assert s.style == plan.style or (plan.style == "sampled" and s.style.startswith("sampled-"))
        Manner.from_vector(s.array("manner"))
        level = np.abs(s.array("audio").astype(np.float64)).reshape(frames, -1).mean(axis=1)
        assert level.max() > 200 and level[:3].max() < 30, "silence leads, speech follows"
        jaw = s.array("expression")[:, INDEX["jawOpen"]]
        assert np.corrcoef(jaw, level)[0, 1] > 0.25
        pose = s.array("pose")
        np.testing.assert_allclose(s.array("expression")[:, INDEX["eyeBlinkLeft"]], pose[:, 5], atol=1e-6)
        assert np.all((s.array("expression") >= 0) & (s.array("expression") <= 1))


@speaks
def test_the_picture_is_what_the_numbers_say(made: Path, heads: Path) -> None:
    plan = next(p for p in draw(TINY) if p.avatar and p.split == "train")
    path = made / f"{plan.id}.mp4"
    s = Sidecar(made / f"{plan.id}.npz")
    rgb, matte = read_pictures(path, None), read_pictures(matte_path(path), None)[..., 0]
    expression, pose = s.array("expression"), s.array("pose")
    assert rgb.shape == (len(pose), 64, 64, 3) and matte.shape == (len(pose), 64, 64)
    assert s.array("landmarks").shape == (len(pose), len(LANDMARKS), 2)
    rig = Rig.load(heads, "tiny")
    with Renderer(64, 1) as renderer:
        for n in (0, len(pose) // 2, len(pose) - 1):
            eyeless = expression[n].copy()
            eyeless[:10] = 0
            framing = life.frame(TINY.framing_jitter, np.random.default_rng([plan.seed, 5]))[0]
            truth = renderer.draw(rig, eyeless, Pose(0, *(float(v) for v in pose[n])), framing)
            assert np.abs(rgb[n].astype(float) - truth.rgb).mean() < 4
            assert np.abs(matte[n].astype(float) - truth.alpha).mean() < 4
            np.testing.assert_allclose(s.array("kps")[n], truth.kps, atol=0.02)


@speaks
def test_sound_and_picture_start_together(made: Path) -> None:
    plan = next(p for p in draw(TINY) if p.avatar)
    audio = Sidecar(made / f"{plan.id}.npz").array("audio").astype(np.float64)
    with av.open(str(made / f"{plan.id}.mp4")) as container:
        heard = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)]) * 32768.0
    n = min(len(heard), len(audio))
    a, b = audio[:n], heard[:n]
    lags = range(-1600, 1601, 16)
    best = max(lags, key=lambda lag: float(np.dot(np.roll(a, lag), b)))
    assert abs(best) <= 64, f"the sound of the MP4 is {best / 16:.0f} ms off"


@speaks
def test_a_cut_off_run_goes_on_and_equals_a_whole_one(made: Path, heads: Path, tmp_path: Path) -> None:
    plans = draw(TINY)
    lost = plans[0].id
    kept = {p.name: p.stat().st_mtime_ns for p in made.iterdir() if lost not in p.name and p.name != "manifest.jsonl"}
    before = Sidecar(made / f"{lost}.npz")
    arrays = {k: before.array(k) for k in ("audio", "expression", "pose", "stress")}
    (made / f"{lost}.npz").unlink()
    make_corpus(TINY, heads, made, workers=2, only="speech")
    again = Sidecar(made / f"{lost}.npz")
    for key, array in arrays.items():
        np.testing.assert_array_equal(again.array(key), array)
    after = {p.name: p.stat().st_mtime_ns for p in made.iterdir() if lost not in p.name and p.name != "manifest.jsonl"}
    assert after == kept, "finished clips are left alone and nothing else lies about"
    rows = [json.loads(line) for line in (made / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [p.id for p in plans]
    assert all(row["frames"] > 25 for row in rows)


@speaks
def test_failed_clips_are_counted_and_leave_nothing(heads: Path, tmp_path: Path) -> None:
    nobody = TINY.model_copy(update={"avatars": ("nobody",)})
    with pytest.raises(MediaError, match=r"clips failed; the first, nobody-.*no head 'nobody'"):
        make_corpus(nobody, heads, tmp_path, workers=1, only="rendered")
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.jsonl"]
    with pytest.raises(ConfigError, match="workers is 0"):
        make_corpus(TINY, heads, tmp_path, workers=0)


@speaks
def test_pauses_are_lived_through() -> None:
    plan = clip_room.ClipPlan("x", ("Hello there.", "Good night, my friend."), "slt", "warm", None, 3, "train")
    look = clip_room.ClipLook(pause_s=(1.0, 1.2), edge_s=(0.6, 0.7), pause_chance=1.0)
    said = clip_room.speak(plan, look, np.random.default_rng(0))
    assert len(said.samples) % SAMPLES_PER_FRAME == 0
    pauses = [p.end_s - p.start_s for p in said.phonemes if p.symbol == "pau"]
    assert sum(p > 0.9 for p in pauses) >= 1 and min(pauses[0], pauses[-1]) >= 0.6
    frames = len(said.samples) // SAMPLES_PER_FRAME
    speaking = clip_room.speaking(said, frames)
    assert not speaking[:10].any() and speaking.any() and not speaking[-3:].any()
    poses = clip_room.move(NAMED["warm"], said, np.zeros(frames, np.float32), 1)
    silent = np.flatnonzero(~speaking)
    assert np.ptp([poses[n].dy for n in silent]) > 1e-4


def test_the_manifest_skips_what_is_not_there(tmp_path: Path) -> None:
    corpus.write_manifest(tmp_path, draw(TINY))
    assert (tmp_path / "manifest.jsonl").read_text(encoding="utf-8") == ""


def test_a_dead_worker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "WAIT_S", 0.01)
    crew = [SimpleNamespace(exitcode=None), SimpleNamespace(exitcode=-9)]
    with pytest.raises(MediaError, match="exit code -9"):
        corpus._next(queue.Queue(), crew)
