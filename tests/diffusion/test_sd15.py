"""The graft on diffusers' UNet: silent at first, alive in every branch, the same in a clip as in a stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from svp_stream.diffusion import sd15_attention as taps
from svp_stream.diffusion.sd15 import Reference, Sd15, Sd15Config, Steering
from svp_stream.diffusion.sd15_audio import windows
from svp_stream.diffusion.sd15_files import fingerprint, load_sd15, load_unet, load_vae, save_adapters
from svp_stream.diffusion.sd15_guider import PreviousLatent
from svp_stream.errors import WeightsError
from tests.fakes.tiny_sd15 import AUDIO_DIM, CONFIG, WIDTH, awaken, tiny_unet, tiny_vae

Kind = Literal["own", "shared", "none"]


def awake(model: Sd15) -> Sd15:
    torch.manual_seed(1)
    awaken(model)
    return model


def grafted(config: Sd15Config = CONFIG, *, alive: bool = False) -> Sd15:
    torch.manual_seed(3)
    model = Sd15(tiny_unet(), config).eval()
    return awake(model) if alive else model


class Scene:
    """Random inputs of `n` frames."""

    def __init__(self, model: Sd15, n: int = 2, seed: int = 5) -> None:
        g = torch.Generator().manual_seed(seed)
        self.x, self.previous, self.face = (torch.randn(n, 4, 8, 8, generator=g) for _ in range(3))
        self.t = torch.randint(0, 1000, (n,), generator=g)
        self.kps = torch.randn(n, 11, 64, 64, generator=g)
        self.audio = torch.randn(n, 10, AUDIO_DIM, generator=g)
        self.heard = torch.ones(n, 10)
        self.style = torch.randn(1, 4, WIDTH, generator=g)
        self.model = model
        self.reference = model.read_reference(self.face[:1])

    def steering(self, strength: float = 1.0) -> Steering:
        return self.model.steer(
            self.kps, self.audio, self.heard, self.model.style_keys(self.style), torch.tensor([strength]),
            self.reference,
        )  # fmt: skip

    def run(self, **changed: Tensor) -> Tensor:
        for name, value in changed.items():
            setattr(self, name, value)
        v: Tensor = self.model(self.x, self.t, self.previous, torch.full((len(self.x),), 0.1), self.steering())[0]
        return v


@pytest.mark.parametrize("reference", ["own", "shared", "none"])
@torch.no_grad()
def test_an_untrained_graft_is_the_base_unet(reference: Kind) -> None:
    base, model = tiny_unet(), grafted(replace(CONFIG, reference=reference))
    scene = Scene(model)
    v = scene.run()
    told = scene.steering().audio
    assert torch.equal(v, base(scene.x, scene.t, told).sample)


@pytest.mark.parametrize("what", ["previous", "kps", "audio", "style", "reference"])
@torch.no_grad()
def test_every_condition_shows_when_awake(what: str) -> None:
    model = grafted(alive=True)
    before = Scene(model).run()
    other = Scene(model)
    if what == "reference":
        other.reference = model.read_reference(other.face[1:])
    else:
        setattr(other, what, getattr(other, what) + 1.0)
    assert (other.run() - before).abs().max() > 1e-4


@torch.no_grad()
def test_strength_zero_is_no_style() -> None:
    model = grafted(alive=True)
    scene = Scene(model)
    v, _ = model(scene.x, scene.t, scene.previous, torch.zeros(2), scene.steering(0.0))
    bare, _ = model(scene.x, scene.t, scene.previous, torch.zeros(2), scene.steering()._replace(style={}))
    assert torch.equal(v, bare)


def test_style_begins_with_the_units_own_keys_and_values() -> None:
    model = grafted()
    for name, layer in taps.attentions(model.unet, "attn2"):
        own = model.adapters["style"][taps.key(name)]  # type: ignore[index]
        assert torch.equal(own.to_k.weight, layer.to_k.weight) and torch.equal(own.to_v.weight, layer.to_v.weight)
    assert len(list(taps.attentions(model.unet, "attn2"))) == 7


@torch.no_grad()
def test_previous_latent_is_an_extension_of_conv_in() -> None:
    base = nn.Conv2d(4, 8, 3, padding=1)
    own = PreviousLatent(base)
    own.conv.weight.normal_()
    wide = nn.Conv2d(8, 8, 3, padding=1)
    wide.weight.copy_(torch.cat([base.weight, own.conv.weight], 1))
    wide.bias.copy_(base.bias)  # type: ignore[union-attr, arg-type]
    x, previous = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(base(x) + own(previous), wide(torch.cat([x, previous], 1)), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_stream_over_time_equals_the_clip() -> None:
    model = grafted(alive=True)
    frames = 7
    scene = Scene(model, frames)
    history = torch.full((frames,), 0.1)
    s = scene.steering()
    whole, _ = model(scene.x, scene.t, scene.previous, history, s, frames=frames)
    past: taps.Layers = {}
    for i in range(frames):
        one = slice(i, i + 1)
        step = s._replace(lead=s.lead[one], audio=s.audio[one])
        v, written = model(scene.x[one], scene.t[one], scene.previous[one], history[one], step, past)
        past = model.rolled(past, written)
        torch.testing.assert_close(v, whole[one], rtol=0, atol=1e-5)
    assert {kv[0].shape[1] for kv in past.values()} == {CONFIG.temporal_window}


@torch.no_grad()
def test_the_past_and_the_sink_show() -> None:
    model = grafted(alive=True)
    scene = Scene(model, 3)
    history, s = torch.zeros(3), scene.steering()
    whole, _ = model(scene.x, scene.t, scene.previous, history, s, frames=3)
    apart, _ = model(scene.x, scene.t, scene.previous, history, s)
    assert torch.allclose(whole[:1], apart[:1], atol=1e-5)
    assert (whole[1:] - apart[1:]).abs().max() > 1e-4
    sunk, _ = model(scene.x, scene.t, scene.previous, history,
                    s._replace(reference=Reference(s.reference.features)), frames=3)
    assert (whole - sunk).abs().max() > 1e-4


def test_gradients_reach_every_adapter() -> None:
    model = grafted(alive=True).train()
    scene = Scene(model, 4)
    v, _ = model(scene.x, scene.t, scene.previous, torch.full((4,), 0.2), scene.steering(), frames=2)
    v.square().mean().backward()
    silent = [n for n, p in model.adapters.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not silent


def test_gradient_checkpointing_changes_nothing() -> None:
    model = grafted(alive=True).train()
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        if enabled:
            model.unet.enable_gradient_checkpointing()
        scene = Scene(model, 2)
        v, _ = model(scene.x, scene.t, scene.previous, torch.zeros(2), scene.steering(), frames=2)
        v.square().mean().backward()
        gradients.append([p.grad.clone() for p in model.adapters.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_unheard_embeddings_have_no_influence() -> None:
    audio = grafted().adapters["audio"]
    x, heard = torch.randn(1, 10, AUDIO_DIM), torch.ones(1, 10)
    heard[:, 6:] = 0
    other = x.clone()
    other[:, 6:] = 9.0
    assert torch.equal(audio(x, heard), audio(other, heard))
    cut, mask = windows(torch.arange(20.0)[:, None], torch.tensor([0, 4]), 1, CONFIG.audio)
    assert cut[1, :, 0].tolist() == list(range(4, 14))
    assert mask[0].tolist() == [0] * 4 + [1] * 4 + [0] * 2
    with pytest.raises(ValueError, match=r"0\.\.2"):
        windows(torch.zeros(4, 1), torch.tensor([0]), 3, CONFIG.audio)


@pytest.mark.parametrize("reference", ["own", "shared"])
@torch.no_grad()
def test_adapters_are_kept_apart_and_come_back(tmp_path: Path, reference: Kind) -> None:
    base = tiny_unet()
    base.save_pretrained(tmp_path / "base" / "unet")
    mark = fingerprint(base)
    model = awake(Sd15(base, replace(CONFIG, reference=reference, tuned=("attn2.to_q",))))
    for name, p in model.unet.named_parameters():
        if "attn2.to_q" in name:
            p.add_(0.5)
    save_adapters(tmp_path / "adapters.safetensors", model, mark, half=False)
    back = load_sd15(tmp_path / "adapters.safetensors", str(tmp_path / "base"))
    assert back.config == model.config
    assert torch.equal(Scene(back).run(), Scene(model).run())


def test_a_foreign_base_is_an_error(tmp_path: Path) -> None:
    tiny_unet(0).save_pretrained(tmp_path / "a" / "unet")
    tiny_unet(1).save_pretrained(tmp_path / "b")
    base = load_unet(str(tmp_path / "a"))
    mark = fingerprint(base)
    assert mark == fingerprint(tiny_unet(0).half()), "half precision is the same base"
    save_adapters(tmp_path / "x.safetensors", Sd15(base, CONFIG), mark)
    with pytest.raises(WeightsError, match="trained on another UNet"):
        load_sd15(tmp_path / "x.safetensors", str(tmp_path / "b"))
    with pytest.raises(WeightsError, match="no unet/config.json"):
        load_sd15(tmp_path / "x.safetensors", str(tmp_path))
    with pytest.raises(WeightsError, match="there is no folder"):
        load_unet(str(tmp_path / "none"))


@pytest.mark.parametrize("taesd", [False, True])
def test_either_autoencoder_loads(tmp_path: Path, taesd: bool) -> None:
    tiny_vae(taesd=taesd).save_pretrained(tmp_path / "vae")
    assert type(load_vae(str(tmp_path))).__name__ == ("AutoencoderTiny" if taesd else "AutoencoderKL")
    with pytest.raises(WeightsError, match="vae"):
        load_vae(str(tmp_path / "other"))
