"""LoRA of the sd15 stages: silent at first, trained alone, kept apart, folded in to serve; diffusers is the oracle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from svp_stream.config import CONFIGS, load_yaml
from svp_stream.diffusion.sd15 import Sd15
from svp_stream.diffusion.sd15_files import fingerprint, load_sd15, load_unet
from svp_stream.diffusion.sd15_folder import CARD, Folder
from svp_stream.diffusion.sd15_lora import LoraConfig, attach, lora_parameters, read_lora, restore_lora, save_lora
from svp_stream.errors import ConfigError, WeightsError
from svp_stream.packets import AudioChunk
from svp_stream.pipeline.sd15 import Sd15Engine
from svp_stream.style.prior import StylePrior, save_prior
from svp_stream.training.checkpoint import read_checkpoint
from svp_stream.training.loop import LoopConfig, run_stage
from svp_stream.training.sd15 import Sd15Stage
from svp_stream.training.sd15_run import LORA, Sd15Profile, default_profile, run_sd15
from tests.fakes.sd15_clips import tiny_graft, tiny_loop, tiny_stage
from tests.fakes.tiny_sd15 import AUDIO_DIM, PRIOR, tiny_sd15_styles, tiny_unet, write_tiny_sd15
from tests.laws.stages import voice
from tests.training.test_sd15 import write_corpus

SMALL = LoraConfig(rank=2, alpha=2.0)


def adapted(config: LoraConfig = SMALL, *, moved: bool = False) -> Sd15:
    model, _ = tiny_graft()
    torch.manual_seed(5)
    attach(model, config)
    if moved:
        with torch.no_grad():
            for name, p in lora_parameters(model).items():
                if "lora_B" in name:
                    p.normal_(std=0.2)
    return model


def made(model: Sd15) -> Tensor:
    """A pass with every condition."""
    stage = tiny_stage("video")
    stage.model.sd15 = model
    batch = stage.batch(np.random.default_rng(0), 1)
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t, level = torch.full((3,), 500), torch.ones(3)
    with torch.no_grad():
        out: Tensor = stage.model.eval()(batch, x, t, x, 0.05 * level, 3)
    return out


def test_at_first_it_changes_nothing() -> None:
    plain, _ = tiny_graft()
    assert torch.equal(made(plain), made(adapted()))
    assert not torch.equal(made(plain), made(adapted(moved=True)))


def test_only_the_low_rank_layers_are_trained_and_a_run_goes_on_exactly(tmp_path: Path) -> None:
    def stage(stop: bool = False) -> Sd15Stage:
        made = tiny_stage("consistency", lora={"rank": 2, "alpha": 2})
        torch.manual_seed(5)
        attach(made.model.sd15, SMALL)
        again = Sd15Stage(made.config, made._data, made.model.sd15, made.model.projection)
        if stop:
            again.batch = _stopping(again.batch)  # type: ignore[method-assign]
        return again

    begun = stage()
    before = {n: p.detach().clone() for n, p in begun.model.named_parameters()}
    run = tiny_loop(checkpoint_every_s=0.0, lr=1e-2)
    run_stage(begun, run, tmp_path / "whole")
    moved = {n for n, p in begun.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(".lora_" in n for n in moved)
    assert set(begun.model.state_dict()) == {n for n in before if ".lora_" in n}
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage(stop=True), run, tmp_path / "cut")
    run_stage(stage(), run, tmp_path / "cut")
    a, b = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "cut"))
    assert a.step == b.step == run.steps and all(torch.equal(v, b.model[k]) for k, v in a.model.items())


def _stopping(batch: Any) -> Any:
    calls = iter(range(9))

    def cut_off(*a: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return batch(*a)

    return cut_off


def test_folded_in_it_is_what_was_trained_and_what_diffusers_makes_of_the_file(tmp_path: Path) -> None:
    write_tiny_sd15(tmp_path / "tiny")
    folder = Folder.open(tmp_path / "tiny")
    mark = fingerprint(load_unet(folder.place("base")))
    trained = load_sd15(folder.file(folder.card.adapters), folder.place("base"))
    attach(trained, SMALL)
    with torch.no_grad():
        for p in lora_parameters(trained).values():
            p.normal_(std=0.2)
    save_lora(tmp_path / LORA, trained, SMALL, mark, half=False)
    fused = load_sd15(folder.file(folder.card.adapters), folder.place("base"), tmp_path / LORA)
    assert not lora_parameters(fused)
    torch.testing.assert_close(made(fused), made(trained), rtol=0, atol=1e-5)

    oracle = tiny_unet()
    oracle.load_lora_adapter(read_lora(tmp_path / LORA)[2], prefix="unet")
    oracle.fuse_lora()
    theirs = {n.replace(".base_layer", ""): p for n, p in oracle.named_parameters() if ".lora_" not in n}
    ours = {n.replace("conv_in.base", "conv_in"): p for n, p in fused.unet.named_parameters()}
    changed = [n for n, p in tiny_unet().named_parameters() if not torch.equal(p, ours[n])]
    assert len(changed) == len(lora_parameters(trained)) / 2 > 40
    for name, p in theirs.items():
        torch.testing.assert_close(ours[name], p, rtol=0, atol=1e-6)


def test_another_base_is_refused(tmp_path: Path) -> None:
    write_tiny_sd15(tmp_path / "tiny")
    save_lora(tmp_path / LORA, adapted(), SMALL, "another")
    with pytest.raises(WeightsError, match="trained on another UNet .*another"):
        load_sd15(tmp_path / "tiny" / "adapters.safetensors", str(tmp_path / "tiny" / "base"), tmp_path / LORA)
    model, _ = tiny_graft()
    save_lora(tmp_path / LORA, adapted(LoraConfig(2, 2.0, ("to_q",))), SMALL, "another")
    with pytest.raises(WeightsError, match="does not fit this UNet"):
        restore_lora(tmp_path / LORA, model)
    with pytest.raises(ConfigError, match=r"lora.targets \['to_z'\]"):
        attach(tiny_graft()[0], LoraConfig(2, 2.0, ("to_z",)))


def profile(kind: Any, **lora: Any) -> dict[str, Any]:
    loop = LoopConfig(steps=2, batch=1, lr=3e-2, warmup=1, ema=0.0, precision="fp32", tensorboard=False)
    told = Sd15Profile(kind=kind, loop=loop, frames=2, checkpointing=True, film_frames=4)
    return told.model_dump(mode="json") | {"lora": lora or None}


def test_a_served_folder_uses_it(tmp_path: Path) -> None:
    """Consistency by LoRA, then a rollout of the rest over it: adapters stay apart, the server folds both."""
    write_corpus(tmp_path / "corpus")
    write_tiny_sd15(tmp_path / "sd15-video")
    prior = StylePrior(replace(PRIOR, audio_dim=AUDIO_DIM))
    save_prior(tmp_path / "sd15-video" / "style_prior.safetensors", prior)
    for kind, lora in (("consistency", {"rank": 2, "alpha": 4.0}), ("rollout", {})):
        (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(profile(kind, **lora)))
        run_sd15(f"sd15-{kind}", tmp_path / f"{kind}.yaml", tmp_path / "corpus", tmp_path)
    tuned, rolled = tmp_path / "sd15-consistency", tmp_path / "sd15-rollout"
    assert (tuned / "adapters.safetensors").read_bytes() == (tmp_path / "sd15-video/adapters.safetensors").read_bytes()
    assert (rolled / "adapters.safetensors").read_bytes() != (tuned / "adapters.safetensors").read_bytes()
    assert (rolled / LORA).read_bytes() == (tuned / LORA).read_bytes(), "frozen while the rest learns"
    assert len(list((tuned / "films").glob("*.mp4"))) == 1
    bare = tmp_path / "bare"
    shutil.copytree(tuned, bare)
    card = yaml.safe_load((bare / CARD).read_text())
    (bare / CARD).write_text(yaml.safe_dump(card | {"lora": None}))
    frames = []
    for folder in (tuned, bare):
        face = Sd15Engine.load(folder, "cpu", 1).stream(avatar="ann", style=tiny_sd15_styles()["warm"], seed=0)
        frames.append(face.push(AudioChunk(0, voice(9, 16_000, 0.2), 16_000)) + face.flush())
    assert len(frames[0]) == 5 and any((a.rgb != b.rgb).any() for a, b in zip(*frames, strict=True))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(profile("rollout", rank=3)))
    with pytest.raises(ConfigError, match="lora: .*rank=2.*asks for.*rank=3"):
        run_sd15("sd15-rollout", tmp_path / "other.yaml", tmp_path / "corpus", tmp_path)
    (tuned / LORA).unlink()
    with pytest.raises(WeightsError, match="names lora.safetensors, which is missing"):
        Sd15Engine.load(tuned, "cpu", 1)


def test_the_shipped_profile() -> None:
    found = load_yaml(CONFIGS / "train" / "sd15-consistency-lora.yaml", Sd15Profile)
    full = default_profile("consistency")
    assert found.lora is not None and LoraConfig(**found.lora.model_dump()) == LoraConfig()
    loop = full.loop.model_copy(update={"lr": found.loop.lr, "weight_decay": 0.0})
    assert found == full.model_copy(update={"lora": found.lora, "loop": loop}) and found.loop.lr == 1e-4
