"""Profiles: defaults equal the shipped file, every shipped file loads, and wrong ones are told apart in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from svp_stream.config import CONFIGS, Config, load_config, load_yaml
from svp_stream.errors import ConfigError

FILES = sorted(CONFIGS.rglob("*.yaml"))


def load_any(path: Path) -> object:
    """Load a shipped file by what it is."""
    if path.parent.name == "train":
        from svp_stream.evaluation.gauge_training import EvaluatorTrainConfig
        from svp_stream.training.audio_distil import AudioDistilConfig
        from svp_stream.training.stages import read_profile

        if path.stem == "audio-distil":
            return load_yaml(path, AudioDistilConfig)
        if path.stem.startswith("sd15-"):
            from svp_stream.training.sd15_run import Sd15Profile

            return load_yaml(path, Sd15Profile)
        if path.stem == "evaluator":
            return load_yaml(path, EvaluatorTrainConfig)
        if path.stem == "landmarks":
            from svp_stream.evaluation.landmark_training import LandmarkTrainConfig

            return load_yaml(path, LandmarkTrainConfig)
        if path.stem == "syncnet":
            from svp_stream.evaluation.syncnet_training import SyncTrainConfig

            return load_yaml(path, SyncTrainConfig)
        return read_profile(path.stem, path)
    if path.stem in ("corpus", "corpus-large"):
        from svp_stream.synthetic.corpus import CorpusConfig

        return CorpusConfig.load(path)
    if path.name == "recipe.yaml":
        from svp_stream.training.recipe import load_recipe

        return load_recipe(path)
    if path.name == "prepare.yaml":
        from svp_stream.preparing.config import PrepareConfig

        return PrepareConfig.load(path)
    if path.name == "person.yaml":
        from svp_stream.person.order import PersonConfig

        return PersonConfig.load(path)
    return load_config(path)


def test_default_profile_equals_the_code() -> None:
    assert load_config(CONFIGS / "default.yaml") == Config() == load_config(None)


def test_default_profile_shows_every_key() -> None:
    shown = yaml.safe_load((CONFIGS / "default.yaml").read_text(encoding="utf-8"))
    assert {section: set(keys) for section, keys in shown.items()} == {
        section: set(keys) for section, keys in Config().model_dump().items()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_shipped_file_loads(path: Path) -> None:
    assert load_any(path) is not None


@pytest.mark.parametrize("path", [p for p in FILES if p.parent == CONFIGS], ids=lambda p: p.name)
def test_every_key_is_explained(path: Path) -> None:
    """A comment on the key's own line, or at the head of the block that it stands in."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#"), "a file opens by saying what it is"
    silent = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("#") and not text.startswith(block):
            continue
        keys = (line for line in lines if ":" in line.split("#")[0] and not line.rstrip().endswith(":"))
        silent += [line.strip() for line in keys if "#" not in line]
    assert not silent, f"{path.name}: no comment on {silent}"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_profile_is_the_default(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "# nothing\n")) == Config()


def test_paths_are_relative_to_the_profile(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "style: {folder: mine}\nmodel: {weights: /abs/w}\nserver: {}\n"))
    assert config.style.folder == tmp_path.resolve() / "mine"
    assert config.model.weights == Path("/abs/w")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server: {prot: 80}", r"server\.prot: unknown key; did you mean port\?"),
        ("sever: {port: 80}", r"sever: unknown key; did you mean server\?"),
        ("ladder: {zzz: 1}", r"ladder\.zzz: unknown key; known here: late_ms, lost_ms"),
        ("server: {port: 70000}", r"server\.port: .*65535, found 70000"),
        ("server: {port: eighty}", r"server\.port: .*integer.*found 'eighty'"),
        ("server: {token: short}", r"server\.token: .*16 characters"),
        ("server: {tls_key: a.pem}", "belong together"),
        ("model: {engine: maxi}", r"model\.engine: .*'mini', 'noop' or 'sd15'.*found 'maxi'"),
        ("style: {strength: .nan}", r"style\.strength"),
        ("style: {strength: 3}", r"style\.strength: .*2"),
        ("speech: {open_above: 0.3}", r"speech: keep_above \(0.35\) must be below open_above \(0.3\)"),
        ("ladder: {late_ms: 500}", r"ladder: late_ms \(500.0\) must be below lost_ms"),
        ("server: 5", "server: .*dictionary"),
        ("- a\n- b", "must be a mapping"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_wrong_profiles_are_told(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(path)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


def test_all_faults_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "server: {prot: 1, port: -1}\nfoo: 1"))
    assert len(str(caught.value).splitlines()) == 3


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(binary)


def test_a_profile_is_frozen_and_survives_a_round_trip(tmp_path: Path) -> None:
    data: dict[str, Any] = Config().model_dump(mode="json")
    path = write(tmp_path, yaml.safe_dump(data))
    assert load_yaml(path, Config) == Config()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(Config().server, "port", 1)  # noqa: B010
