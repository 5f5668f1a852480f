"""`python -m server` and `svp render` with the engine sd15: what is missing or wrong ends both, in words that help."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import server.__main__ as command
from server import logs
from server.house import House
from svp_stream import cli
from svp_stream.config import STYLES, Config
from svp_stream.errors import SvpError
from svp_stream.pipeline import sd15_cost
from svp_stream.style.projection import KIND, ProjectionConfig, StyleProjection
from svp_stream.weights_file import save_weights
from tests.fakes.tiny_sd15 import tiny_unet, write_tiny_sd15

APP = typer.Typer()
APP.command()(command.main)
Fault = Callable[[Path, pytest.MonkeyPatch], list[str]]
"""Spoils the folder or the machine; more words for the command line."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd15")
    write_tiny_sd15(path, norm="layer")
    return path


def no_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    profile = folder / "gpu.yaml"
    profile.write_text("model: {engine: sd15, device: cuda}\n")
    return ["PROFILE", str(profile)]


def no_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sd15_cost, "free_bytes", lambda device: 1000)
    return []


def no_adapters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (folder / "adapters.safetensors").unlink()
    return []


def no_base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    shutil.rmtree(folder / "base" / "unet")
    return []


def another_preset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return ["--style", str(STYLES / "warm.npz")]


def another_base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    tiny_unet(seed=5).save_pretrained(folder / "base" / "unet")
    return []


def another_projection(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    config = ProjectionConfig(style_dim=8, tokens=4, width=16)
    tensors = {f"projection.{k}": v for k, v in StyleProjection(config).state_dict().items()}
    save_weights(folder / "style_projection.safetensors", KIND, {"projection": asdict(config)}, tensors, half=False)
    return []


def damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    path = folder / "style_prior.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return []


FAULTS: list[tuple[Fault, list[str]]] = [
    (no_gpu, ["torch finds no GPU", "nvidia-smi", "model.device: cpu"]),
    (no_memory, ["too little memory on cpu", "reference: shared", "--engine mini"]),
    (no_adapters, ["names adapters.safetensors, which is missing", "copy it there, or train again"]),
    (no_base, ["holds no unet/config.json", "diffusers' layout"]),
    (another_preset, ["warm.npz: key 'prior'", "or take one of those that came with the model"]),
    (another_base, ["were trained on another UNet", "name the base they belong to"]),
    (another_projection, ["wrong prior? style_projection.safetensors maps 8 to 16", "the style prior has 16"]),
    (damaged, ["style_prior.safetensors are damaged", "fetch the file again"]),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=lambda v: getattr(v, "__name__", ""))
def test_both_commands_say_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, words: list[str]
) -> None:
    monkeypatch.setattr(command, "serve", lambda *_: pytest.fail("it listens"))
    copy = tmp_path / "person"
    shutil.copytree(folder, copy)
    more = fault(copy, monkeypatch)
    sd15 = ["--engine", "sd15", "--model", str(copy)]
    (tmp_path / "a.wav").write_bytes(b"")
    runs = [
        (APP, [*sd15, "--log-level", "error", *(w.replace("PROFILE", "--config") for w in more)]),
        (cli.app, ["render", str(tmp_path / "a.wav"), "-o", str(tmp_path / "o.mp4"), *sd15,
                   *(w.replace("PROFILE", "--profile") for w in more)]),
    ]  # fmt: skip
    for app, arguments in runs:
        result = CliRunner().invoke(app, arguments)
        # `svp` itself turns these errors into one line and exit code 2 (tests/test_cli.py); the server does it here.
        told = str(result.exception) if isinstance(result.exception, SvpError) else result.output
        assert result.exit_code != 0 and not (tmp_path / "o.mp4").exists()
        plain = " ".join(told.split())
        assert all(word in plain for word in words), plain


def test_a_gpu_that_is_too_small_is_told() -> None:
    device = torch.device("cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sd15_cost, "free_bytes", lambda _: 4 << 30)
        with pytest.raises(SvpError, match=r"too little memory on cuda: the model needs about 7.50 GiB, 4.00 GiB are"):
            sd15_cost.require_room(6 << 30, device, "the model")
        sd15_cost.require_room(3 << 30, device, "the model")


def test_the_cost_is_logged_before_anybody_is_served(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def serve(house: House, settings: Config) -> int:
        told.extend(record.getMessage() for record in caplog.records)
        return 0

    monkeypatch.setattr(command, "serve", serve)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    with caplog.at_level(logging.INFO):
        result = CliRunner().invoke(APP, ["--engine", "sd15", "--model", str(folder)])
    assert result.exit_code == 0, result.output
    cost = next(line for line in told if "GFLOP a frame" in line)
    assert "TFLOP/s for each session at 25 fps" in cost and "memory for" in cost and "weights" in cost
