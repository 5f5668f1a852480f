"""`svp person` end to end on the procedural head: a film becomes a served face, it learns, it goes on."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from server.__main__ import main as serve
from svp_stream import cli
from svp_stream.config import MINI_WEIGHTS, load_config
from svp_stream.diffusion.unet import Denoiser, DenoiserConfig, save_denoiser
from svp_stream.diffusion.vae import Autoencoder, AutoencoderConfig, load_autoencoder, save_autoencoder
from svp_stream.errors import ConfigError, MediaError, WeightsError
from svp_stream.evaluation.face_reader import FaceReader
from svp_stream.packets import AudioChunk
from svp_stream.person import person
from svp_stream.person.order import Order, PersonConfig
from svp_stream.person.person import make_person
from svp_stream.pipeline import build
from svp_stream.pipeline.bench import syllables
from svp_stream.pipeline.calibrate import calibrate
from svp_stream.pipeline.session import Session
from svp_stream.training import stages
from svp_stream.training.clips import Clips
from svp_stream.training.frames import to_tensors
from svp_stream.training.pixels import WIDTH
from tests.fakes import painted_faces
from tests.preparing.films import Take, TruthReader, take, write_film

pytestmark = pytest.mark.timeout(900)
"""The first test makes the person: most of a minute on a quiet core."""

Figures = dict[str, Any]
STEPS = ["prepare", "share", "before", "autoencoder", "denoiser", "release", "table"]
CLIPS, FRAMES = 4, 52
CONFIG = PersonConfig.model_validate({
    "least_s": 4, "most_steps": 50, "autoencoder_lr": 3e-3, "autoencoder_batch": 4, "denoiser_lr": 2e-3,
    "denoiser_batch": 8, "warmup": 4, "threads": 1,
    "prepare": {"heldout_share": 0.5, "least_sharpness": 0, "clip_s": [1.0, 2.5]},
})  # fmt: skip


def write_start(folder: Path) -> None:
    """The shipped ears, prior, conditioner and evaluator; a small autoencoder that has seen painted faces, which have a
    matte, and a small denoiser that spoils a reference at random."""
    folder.mkdir()
    for name in ("audio_encoder", "style_prior", "conditioner", "evaluator", "motion"):
        shutil.copy(MINI_WEIGHTS / f"{name}.safetensors", folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Autoencoder(AutoencoderConfig(widths=(16, 8, 8), depths=(1, 1, 1)))
        rgb, alpha = to_tensors(painted_faces.paint(*painted_faces.course(16, 1), 256))
        model.start_from_patches(rgb, alpha)
        model.measure_latents(rgb)
        save_autoencoder(folder / "autoencoder.safetensors", model)
        denoiser = Denoiser(DenoiserConfig(token=WIDTH, embedding=32, widths=(16, 16, 16, 16), head=8, groups=4))
        torch.nn.init.normal_(denoiser.conv_out.weight, std=0.1)
        save_denoiser(folder / "denoiser.safetensors", denoiser)


@pytest.fixture(scope="module")
def film() -> Take:
    """Four shots of the head, told apart by what surrounds it."""
    colours = [(60, 70, 80), (200, 120, 90)]
    shots = [take(FRAMES, seed, 256).placed(288, 288, 16, 16, colours[seed % 2]) for seed in range(CLIPS)]
    return sum(shots[1:], shots[0])


@pytest.fixture(scope="module")
def order(film: Take, tmp_path_factory: pytest.TempPathFactory) -> Order:
    """Done, but for the table: cut off there, then asked for again."""
    folder = tmp_path_factory.mktemp("home")
    write_start(folder / "start")
    write_film(folder / "pat.mp4", film)
    made = Order("pat", [folder / "pat.mp4"], folder / "mine", CONFIG, 60.0, lambda: TruthReader(film),
                 folder / "start")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(build.BACKEND_VARIABLE, "torch")
        patch.setattr(person, "calibrate", partial(calibrate, styles=2))
        patch.setattr(person, "write_table", _cut_off)
        with pytest.raises(KeyboardInterrupt):
            make_person(made)
    return made


def _cut_off(order: Order, book: Path) -> None:
    raise KeyboardInterrupt


def _unwanted() -> FaceReader:
    raise AssertionError("the film is read once")


@pytest.fixture(scope="module")
def figures(order: Order) -> Figures:
    """What the second call told, which had the table to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(build.BACKEND_VARIABLE, "torch")
        assert make_person(replace(order, reader=_unwanted)) == ["table"]
    return dict(json.loads((order.out / "figures.json").read_text()))


def test_it_goes_on_where_it_was_cut_off(order: Order, figures: Figures) -> None:
    known = json.loads((order.out / "steps.json").read_text())
    assert list(known) == STEPS and figures["steps"].keys() == set(STEPS[:-1])
    assert (order.weights / "motion.safetensors").is_file(), "the avatar moves as the one it was made from"
    assert make_person(replace(order, reader=_unwanted)) == []


def test_training_beats_its_start_on_clips_it_never_saw(order: Order, figures: Figures) -> None:
    before, after = figures["parts"]["before"], figures["parts"]["after"]
    assert after["psnr"] > before["psnr"] and after["psnr_face"] > before["psnr_face"]
    assert after["matte"] < 0.2 * before["matte"], "nothing is cut out of a home video"
    assert before["steps1_face"] < before["reference_face"] - 1, "*control:* the closed form alone is better at first"
    assert after["steps1_face"] > before["steps1_face"] + 1 and after["warm_psnr"] > before["warm_psnr"] + 1
    cells = figures["table"]["cells"]
    assert list(cells) == ["ground truth", "shuffled", "static", "before", "after"]
    assert cells["after"]["psnr"]["mean"] > cells["before"]["psnr"]["mean"] + 1, "as served, from sound"


def test_the_latents_stay_what_the_denoiser_knows(order: Order) -> None:
    old, new = (load_autoencoder(f / "autoencoder.safetensors") for f in (order.start, order.weights))
    assert all(torch.equal(a, b) for a, b in zip(old.encoder.parameters(), new.encoder.parameters(), strict=True))
    assert torch.equal(old.scale, new.scale) and torch.equal(old.shift, new.shift)
    assert not torch.equal(old.decoder.linear.weight, new.decoder.linear.weight)


def test_the_profile_serves_the_person(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.BACKEND_VARIABLE, "torch")
    config = load_config(order.profile)
    engine = build.build_engine(config)
    assert engine.avatars == ("pat",) and build.first_avatar(config, engine) == "pat"
    style = build.first_style(config, build.build_shelf(config, engine))
    session = Session(engine, None, avatar="pat", style=style, seed=0)
    sound = syllables(1.0, 0)
    frames = session.push(AudioChunk(0, sound, 48_000)) + session.flush()
    assert len(frames) == 25 and all(f.rgb.shape == (256, 256, 3) for f in frames)
    rgb = np.stack([f.rgb for f in frames]).astype(float)
    seen = np.concatenate([c.pose[:1] for c in Clips.open(order.clips)])
    assert len(seen) == CLIPS and rgb.std() > 20, "a face, not a flat picture"
    assert np.abs(np.diff(rgb, axis=0)).max() > 5, "which moves"


def test_the_command_tells_how_to_serve(
    order: Order, figures: Figures, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "person.yaml"
    config.write_text(yaml.safe_dump(json.loads(CONFIG.model_dump_json())))
    words = ["svp", "person", str(order.videos[0]), "-o", str(order.out), "--name", "pat", "--minutes", "60",
             "--weights", str(order.start)]
    assert "config" in inspect.signature(serve).parameters, "what the command tells, the server knows"
    code, told, _ = _svp(capsys, monkeypatch, [*words, "--config", str(config)])
    assert code == 0 and f"python -m server --config {order.profile}" in told, "all was done, no reader is asked for"
    assert "| *shuffled* |" in told and "| before |" in told and "| after |" in told and "| *static* |" in told
    assert (order.out / "looks.png").is_file()
    words[4] = str(tmp_path / "anew")
    code, told, err = _svp(capsys, monkeypatch, words)
    assert (code, told) == (2, "") and "svp: give either --landmarker" in err and "Traceback" not in err


def _svp(capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, words: list[str]) -> tuple[int, str, str]:
    patch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    told = capsys.readouterr()
    return int(caught.value.code or 0), told.out, told.err


def test_more_minutes_train_on(order: Order, figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def train(stage: str, profile: object, corpus: Path, out: Path, minutes: float) -> Path:
        asked.append((stage, minutes))
        return out / stage

    monkeypatch.setattr(stages, "train", train)
    monkeypatch.setattr(person, "_release", lambda order: None)
    monkeypatch.setattr(person, "write_table", lambda order, book: None)
    known = (order.out / "steps.json").read_text()
    try:
        assert make_person(replace(order, minutes=100.0, reader=_unwanted)) == STEPS[3:]
        assert [stage for stage, _ in asked] == ["autoencoder", "video"]
        assert [minutes for _, minutes in asked] == pytest.approx([35, 65])
    finally:
        (order.out / "steps.json").write_text(known)


def _film(folder: Path, made: Take) -> Path:
    return write_film(folder / "short.mp4", made)


@pytest.mark.parametrize(("change", "kind", "told"), [
    (lambda o: {"name": "../x"}, ConfigError, "is no name for a person: give --name"),
    (lambda o: {"minutes": 0.0}, ConfigError, "--minutes is 0"),
])  # fmt: skip
def test_a_wrong_order_is_told(
    order: Order, change: Callable[[Order], dict[str, object]], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        replace(order, **change(order))  # type: ignore[arg-type]


def test_what_cannot_be_worked_with_is_told(order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="other: holds other things"):
        make_person(replace(order, out=other))
    with pytest.raises(ConfigError, match=r"letter\.txt: is a file"):
        make_person(replace(order, out=other / "letter.txt"))
    with pytest.raises(WeightsError, match=r"lacks audio_encoder\.safetensors, .*--weights"):
        make_person(replace(order, out=tmp_path / "o", start=other))
    with pytest.raises(MediaError, match="nowhere: there is no such file or folder"):
        make_person(replace(order, videos=[tmp_path / "nowhere"]))
    small = CONFIG.model_copy(update={"prepare": CONFIG.prepare.model_copy(update={"size": 128})})
    with pytest.raises(ConfigError, match=r"prepare\.size is 128; the engine mini draws 256"):
        make_person(replace(order, out=tmp_path / "o", config=small))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(MediaError, match=r"needs 0\.\d GB for 208 pictures .* 0\.0 GB are free"):
        person._before(order)


def test_a_film_that_will_not_do_says_why(order: Order, tmp_path: Path) -> None:
    short = take(FRAMES, 0, 256).placed(288, 288, 16, 16)
    nobody = Take(short.pictures, [None] * len(short), short.audio)
    for made, told in ((short, r"2\.1 s of film to learn from and 0\.0 s to measure on are too little: at least 4 s"),
                       (nobody, r"none of 1 clips is fit to learn from; most often: .*face.*report\.md")):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        path = _film(tmp_path, made)
        wanted = replace(order, videos=[path], out=folder, reader=lambda made=made: TruthReader(made))  # type: ignore[misc]
        with pytest.raises(MediaError, match=told):
            make_person(wanted)
        assert not (folder / "steps.json").exists(), "a step that failed is not done"
