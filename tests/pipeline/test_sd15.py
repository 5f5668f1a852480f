"""The sd15 engine over a tiny random folder: frames, styles, avatars, rungs, neighbours, words for what is wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from svp_stream.clock import FRAME_TICKS
from svp_stream.config import CONFIGS, Config, Model, Style, load_config
from svp_stream.diffusion.sd15 import Sd15, Sd15Config
from svp_stream.diffusion.sd15_folder import CARD, SamplingCard
from svp_stream.errors import ConfigError, EngineError, PresetError, WeightsError
from svp_stream.packets import AudioChunk, Frame
from svp_stream.pipeline import build, sd15_cost
from svp_stream.pipeline.sd15 import Sd15Engine, choose_device
from svp_stream.pipeline.sd15_face import Sd15Face
from svp_stream.style.preset import StylePreset, save_preset
from tests.fakes.tiny_sd15 import tiny_sd15_engine, tiny_sd15_styles, write_tiny_sd15
from tests.laws.stages import voice


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd15")
    write_tiny_sd15(path, norm="layer")
    return path


def face(seed: int = 0, style: str = "plain", avatar: str = "pat", engine: Sd15Engine | None = None) -> Sd15Face:
    return (engine or tiny_sd15_engine()).stream(avatar=avatar, style=tiny_sd15_styles()[style], seed=seed)


def speak(stage: Sd15Face, frames: int, at: int = 0, seed: int = 1) -> list[Frame]:
    wav = voice(seed, 16_000, 2.0)[at * 640 : (at + frames) * 640]
    return stage.push(AudioChunk(at * FRAME_TICKS, wav, 16_000))


def gap(a: Frame, b: Frame) -> float:
    return float(np.abs(a.rgb.astype(int) - b.rgb).mean())


def test_frames_on_the_grid() -> None:
    stage = face()
    frames = speak(stage, 8)
    assert len(frames) == 8 - 3, "the encoder and the projection wait for a frame each, and the tail for another"
    frames += stage.flush()
    assert [f.pts for f in frames] == [i * FRAME_TICKS for i in range(8)]
    assert all(f.rgb.shape == (64, 64, 3) and f.rgb.dtype == np.uint8 and f.alpha is None for f in frames)
    assert stage.latency == 3 * FRAME_TICKS + 240
    assert set(stage.take_times()) == {"wav2vec", "condition", "denoise", "paint"}
    assert gap(frames[0], frames[-1]) > 0


def test_a_style_arrives_and_glides() -> None:
    plain, turned = face(), face()
    before = speak(plain, 6), speak(turned, 6)
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(*before, strict=True))
    turned.set_style(tiny_sd15_styles()["warm"])
    after = [gap(a, b) for a, b in zip(speak(plain, 9, 6), speak(turned, 9, 6), strict=True)]
    assert after[0] < after[-1] and after[-1] > 0


def test_two_sessions_do_not_mix_and_seeds_differ() -> None:
    alone = speak(face(1), 6, seed=1), speak(face(2), 6, seed=2)
    a, b = face(1), face(2)
    together: tuple[list[Frame], list[Frame]] = ([], [])
    for i in range(6):
        together[0].extend(speak(a, 1, i, seed=1))
        together[1].extend(speak(b, 1, i, seed=2))
    for one, two in zip(alone, together, strict=True):
        assert len(one) == len(two) == 3
        assert all(np.array_equal(x.rgb, y.rgb) for x, y in zip(one, two, strict=True))
    assert gap(alone[0][0], alone[1][0]) > 0


def test_another_avatar() -> None:
    stage = face()
    speak(stage, 5)
    stage.set_avatar("kim")
    other = speak(stage, 2, 5)
    kept = face()
    assert gap(speak(kept, 7)[-1], other[-1]) > 0
    with pytest.raises(EngineError, match="unknown avatar 'bob'; the engine sd15 has pat, kim"):
        stage.set_avatar("bob")


@pytest.mark.parametrize(("effort", "levels"), [(0, [0] * 6), (1, [1] * 6), (2, [4, 2, 4, 2, 4, 2]),
                                                (3, [4, 4, 3, 4, 4, 3]), (4, [4] * 6)])
def test_every_rung_says_its_level(effort: int, levels: list[int]) -> None:
    stage = face()
    speak(stage, 5)
    stage.effort = effort
    assert [f.level for f in speak(stage, 6, 5)] == levels


def test_ddim_before_consistency_tuning() -> None:
    engine = replace(tiny_sd15_engine(), sampling=SamplingCard(kind="ddim", steps=3))
    frames = speak(face(engine=engine), 5)
    assert len(frames) == 2 and gap(frames[0], speak(face(), 5)[0]) > 0


def test_a_bad_latent_does_not_stay() -> None:
    stage = face()
    speak(stage, 5)
    stage._state.cache.previous = np.full((4, 8, 8), np.nan, np.float32)
    frames = speak(stage, 4, 5)
    assert frames[-1].rgb.std() > 1


def test_build_and_presets(folder: Path) -> None:
    config = Config(model=Model(engine="sd15", folder=folder, look_ahead=1, device="cpu"))
    engine = build.build_engine(config)
    assert isinstance(engine, Sd15Engine) and engine.avatars == ("pat", "kim")
    shelf = build.build_shelf(config, engine)
    assert shelf.names() == ("plain", "warm")
    assert build.first_style(config, shelf).name == "warm"
    engine.warm()
    foreign = folder / "foreign"
    foreign.mkdir()
    own = shelf.get("warm")
    save_preset(foreign / "warm.npz", StylePreset("warm", own.mu, own.log_var, "another prior"))
    wrong = Config(model=config.model, style=Style(folder=foreign))
    with pytest.raises(PresetError, match="prior"):
        build.first_style(wrong, build.build_shelf(wrong, engine))
    with pytest.raises(ConfigError, match=r"--model|model\.folder"):
        build.build_engine(Config(model=Model(engine="sd15")))


def test_the_shipped_profile() -> None:
    assert load_config(CONFIGS / "sd15.yaml").model.engine == "sd15"


def test_the_cost_is_counted() -> None:
    cost = tiny_sd15_engine().cost
    assert 1e6 < cost.warm < cost.cold
    assert cost.weights > 1e5 and cost.session > 1000 and cost.sessions is not None and cost.sessions > 0
    assert "GFLOP a frame" in cost.text() and "sessions" in cost.text()


def test_the_real_size_is_counted_without_making_it() -> None:
    """Stable Diffusion 1.5's own configuration on the meta device: its parameters are known, so is its arithmetic."""
    real: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    with torch.device("meta"):
        base = UNet2DConditionModel(**real)
        assert sum(p.numel() for p in base.parameters()) == 859_520_964
        with torch.no_grad(), FlopCounterMode(display=False) as plain:
            base(torch.empty(1, 4, 64, 64), torch.zeros(1, dtype=torch.long), torch.empty(1, 77, 768))
        model = Sd15(base, Sd15Config(reference="shared"))
        decoder = AutoencoderTiny()
    warm, cold = sd15_cost.count_flops(model, decoder, 64, (1, 2))
    step = cold - warm
    assert plain.get_total_flops() == pytest.approx(803e9, rel=0.01)
    assert 1.2 < step / plain.get_total_flops() < 1.6, "reference keys, style and attention over time"
    assert 0.05e12 < warm - step < 0.4e12, "the guider, the projections and a TAESD"
    cost = sd15_cost.Cost(warm, cold, sd15_cost.weight_bytes(model) // 2, sd15_cost.session_bytes(model, 64) // 2,
                          70 << 30, "cuda")  # fmt: skip
    assert 30 < cost.needed_tflops < 40 and cost.sessions == (70 << 30) // cost.session
    assert "1316 GFLOP a frame" in cost.text() and "a session 0.35 GiB; memory for 202 sessions" in cost.text()


def broken(folder: Path, tmp_path: Path, **card: object) -> Path:
    """A copy whose card says something else."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    told = yaml.safe_load((copy / CARD).read_text()) | card
    (copy / CARD).write_text(yaml.safe_dump(told))
    return copy


@pytest.mark.parametrize(("card", "words"), [
    ({"base": "nowhere/at/all"}, "there is no folder nowhere/at/all"),
    ({"adapters": "none.safetensors"}, "names none.safetensors, which is missing"),
    ({"style_prior": "style_projection.safetensors"}, "expected 'style_prior'"),
    ({"audio": {"model": "nowhere/at/all"}}, "there is no folder nowhere/at/all"),
    ({"avatars": {"x": {"image": "y.png"}}}, "y.png, which is missing"),
    ({"avatars": {"x": {"image": CARD}}}, "picture .* cannot be read"),
])  # fmt: skip
def test_a_missing_or_wrong_part_is_named(folder: Path, tmp_path: Path, card: dict[str, object], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        Sd15Engine.load(broken(folder, tmp_path, **card), "cpu", 1)


def test_a_folder_without_card_and_a_wrong_card(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"holds no {CARD}"):
        Sd15Engine.load(tmp_path)
    with pytest.raises(WeightsError, match="there is no folder"):
        Sd15Engine.load(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"bsae: unknown key; did you mean base\?"):
        Sd15Engine.load(broken(folder, tmp_path, bsae="x"))


def test_look_ahead_beyond_the_projection(folder: Path) -> None:
    with pytest.raises(EngineError, match="look_ahead is 0 to 2"):
        Sd15Engine.load(folder, "cpu", 3)


def test_no_gpu_and_no_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="no GPU.*model.device: cpu"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"
    monkeypatch.setattr(sd15_cost, "free_bytes", lambda device: 1000)
    with pytest.raises(EngineError, match="too little memory on cpu.*--engine mini"):
        Sd15Engine.load(folder, "cpu", 1)
