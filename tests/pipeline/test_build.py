"""The wiring: engines, shelves and rules from a profile, and the words for what cannot be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.config import Config, LadderKeys, Model, Speech, Style
from svp_stream.errors import ConfigError, EngineError, PresetError
from svp_stream.pipeline import build
from svp_stream.pipeline.budget import Ladder
from svp_stream.pipeline.noop import STYLE_DIM, DrawnShelf, NoopEngine
from svp_stream.style.preset import StylePreset, save_preset

NOOP = Config(model=Model(engine="noop"))


def preset(folder: Path, name: str, dim: int = STYLE_DIM) -> Path:
    path = folder / f"{name}.npz"
    vector = np.linspace(-1, 1, dim, dtype=np.float32)
    save_preset(path, StylePreset(name, vector, 0 * vector - 2, "anything", temperature=0.25, strength=1.5))
    return path


def test_noop_engine_takes_its_look_ahead_from_the_profile() -> None:
    engine = build.build_engine(Config(model=Model(engine="noop", look_ahead=1)))
    assert isinstance(engine, NoopEngine)
    assert engine.look_ahead == 1
    assert isinstance(build.build_engine(Config(), "noop"), NoopEngine), "the command line wins over the profile"


def test_unknown_engine() -> None:
    with pytest.raises(ConfigError, match="'maxi'.*mini, noop, sd15"):
        build.build_engine(Config(), "maxi")


def test_backend_from_environment_before_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(model=Model(backend="openvino"))
    assert build.build_backend(config) == "openvino"
    monkeypatch.setenv(build.BACKEND_VARIABLE, "torch")
    assert build.build_backend(config) == "torch"
    monkeypatch.setenv(build.BACKEND_VARIABLE, "abacus")
    with pytest.raises(ConfigError, match="SVP_BACKEND=abacus.*openvino, torch"):
        build.build_backend(config)


def test_auto_backend_is_the_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.build_backend(Config()) == "openvino"
    monkeypatch.setenv(build.BACKEND_VARIABLE, "auto")
    assert build.build_backend(Config(model=Model(backend="torch"))) == "openvino"


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert build.set_threads(Config(model=Model(engine="noop", threads=2))) == 2
        assert build.set_threads(NOOP) == 1
        assert build.set_threads(Config(model=Model(backend="torch", threads=3))) == 3
    finally:
        torch.set_num_threads(before)


def test_vad_and_rules() -> None:
    assert build.build_vad(Config(speech=Speech(detector="none"))) is None
    assert build.build_vad(Config()) is not None
    rule = build.build_rule(Config(speech=Speech(open_above=0.7, keep_above=0.2, hangover_ms=100)))
    assert (rule.on, rule.off, rule.hangover_ms) == (0.7, 0.2, 100)
    assert build.build_ladder(Config()) == Ladder()
    assert build.build_ladder(Config(ladder=LadderKeys(worst=2))) == Ladder(worst=2)


def test_noop_brings_its_own_styles() -> None:
    engine = build.build_engine(NOOP)
    shelf = build.build_shelf(NOOP, engine)
    assert shelf.names() == DrawnShelf().names()
    assert build.first_style(NOOP, shelf).name == "warm"


def test_a_folder_of_presets_replaces_them(tmp_path: Path) -> None:
    preset(tmp_path, "dry")
    config = Config(model=Model(engine="noop"), style=Style(folder=tmp_path))
    shelf = build.build_shelf(config, build.build_engine(config))
    assert shelf.names() == ("dry",)
    with pytest.raises(PresetError, match="dry"):
        shelf.get("warm")


def test_paths_only_where_allowed(tmp_path: Path) -> None:
    path = str(preset(tmp_path, "dry"))
    engine = build.build_engine(NOOP)
    assert build.build_shelf(NOOP, engine, allow_paths=True).get(path).name == "dry"
    assert build.build_shelf(NOOP, engine, allow_paths=True).get("warm").name == "warm"
    with pytest.raises(PresetError, match="unknown style"):
        build.build_shelf(NOOP, engine).get(path)


def test_a_preset_of_another_dimension(tmp_path: Path) -> None:
    path = str(preset(tmp_path, "tiny", 8))
    with pytest.raises(PresetError, match=r"tiny\.npz.*mu.*128"):
        build.build_shelf(NOOP, build.build_engine(NOOP), allow_paths=True).get(path)


def test_style_request_takes_the_presets_own_controls(tmp_path: Path) -> None:
    preset(tmp_path, "dry")
    config = Config(model=Model(engine="noop"), style=Style(folder=tmp_path, default="dry"))
    shelf = build.build_shelf(config, build.build_engine(config))
    own = build.style_request(shelf, "dry")
    assert (own.strength, own.temperature) == (1.5, 0.25)
    zero = build.style_request(shelf, "dry", strength=0.0, temperature=0.0)
    assert (zero.strength, zero.temperature) == (0.0, 0.0)
    for wrong in ({"strength": 2.5}, {"strength": float("nan")}, {"temperature": -0.1}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}.*from 0 to"):
            build.style_request(shelf, "dry", **wrong)


def test_first_avatar() -> None:
    engine = build.build_engine(NOOP)
    assert build.first_avatar(NOOP, engine) == "disc"
    assert build.first_avatar(Config(model=Model(avatar="square")), engine) == "square"
    with pytest.raises(EngineError, match="'oval'.*disc, square"):
        build.first_avatar(Config(model=Model(avatar="oval")), engine)
