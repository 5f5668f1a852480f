"""Stable Diffusion's UNet as a talking head: diffusers' `UNet2DConditionModel` with our conditions grafted on.

In: a noisy latent, a timestep, and what steers the frame. Out: the v-prediction. Remembers: nothing; the temporal keys
and values of a run are returned, and whoever streams hands the last of them back in.

    audio      Perceiver over wav2vec2 embeddings       stands in the place of the text, through the UNet's own `attn2`
    style      tokens of the style projection           own keys and values beside the audio's, weighted by `strength`
    kps        HEAD-Kps fields                          guider, added behind `conv_in`
    previous   clean latent of the frame before         four more channels of `conv_in`, with its noise level
    reference  the person, by a UNet of the same class  read once; its features join each self-attention, and are the
                                                        sink of each attention over time
    past       frames before                            attention over time behind each spatial transformer

All that is new starts silent: an untrained graft equals the base UNet. The new weights are kept apart (`sd15_files`).
Shape of the network after V-Express and DICE-Talk [V]; gates, sink, biases and masks are ours [R].
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from svp_stream.diffusion import sd15_attention as taps
from svp_stream.diffusion.sd15_attention import Layers, Walk, key
from svp_stream.diffusion.sd15_audio import AudioProjection, AudioProjectionConfig
from svp_stream.diffusion.sd15_guider import ExtendedInput, Guider, HistoryEmbedding, Lent, PreviousLatent
from svp_stream.diffusion.sd15_temporal import TemporalAttention, TemporalHook, rolled


@dataclass(frozen=True, slots=True)
class Sd15Config:
    """What is grafted; stored with the adapters.

    `reference`: own (a second UNet, trained), shared (the denoiser itself reads the reference), none. `temporal_window`
    counts frames before (0: no attention over time); `temporal_levels` are the UNet's levels that have it, 0 the
    outermost. `kps_scale`: cells of the HEAD-Kps fields for one cell of the latent, 1 to 8. `tuned`: parameters of the
    UNet whose name holds one of these words are trained and kept with the adapters ("" would be all of them).
    """

    audio: AudioProjectionConfig = field(default_factory=AudioProjectionConfig)
    kps_fields: int = 11
    kps_channels: tuple[int, ...] = (16, 32, 96, 256)
    kps_scale: int = 8
    reference: Literal["own", "shared", "none"] = "own"
    temporal_window: int = 8
    temporal_heads: int = 8
    temporal_levels: tuple[int, ...] = (0, 1, 2, 3)
    tuned: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kps_scale not in (1, 2, 4, 8):
            raise ValueError(f"kps_scale is {self.kps_scale}; use 1, 2, 4 or 8")
        if self.reference not in ("own", "shared", "none"):
            raise ValueError(f"reference is '{self.reference}'; use own, shared or none")
        if self.temporal_window < 0 or self.temporal_heads < 1:
            raise ValueError(f"temporal_window >= 0 and temporal_heads >= 1 are needed, got {self}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A person as the denoiser sees them: keys and values by layer, of self-attention and of attention over time."""

    features: Layers = field(default_factory=dict)
    sink: Layers = field(default_factory=dict)

    def numbers(self) -> int:
        """How many numbers are kept."""
        return sum(x.numel() for layers in (self.features, self.sink) for kv in layers.values() for x in kv)


class Steering(NamedTuple):
    """What steers one frame (or each of B F), computed once for all its denoising steps.

    `lead` [B, width, h, w] from the pose, `audio` tokens [B, Q, D], `style` keys and values by layer, `strength` [B].
    """

    lead: Tensor
    audio: Tensor
    style: Layers
    strength: Tensor
    reference: Reference


class Sd15(nn.Module):
    """See the card. Owns `unet` (the base), `adapters` (all that is new) and, where asked, `reference_net`."""

    def __init__(self, unet: Any, config: Sd15Config) -> None:
        super().__init__()
        self.config = config
        self.reference_net = copy.deepcopy(unet) if config.reference == "own" else None
        self.unet = unet
        self.adapters = _adapters(unet, config)
        _graft(unet, self.adapters)
        if self.reference_net is not None:
            _listen(self.reference_net)
        self.latent: int = unet.config.in_channels

    @property
    def token_width(self) -> int:
        """D of audio and style tokens."""
        return int(self.unet.config.cross_attention_dim)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        found: torch.dtype = self.unet.dtype
        return found

    def parameters_to_train(self) -> dict[str, nn.Parameter]:
        """By name, what the adapters file holds: all that is new, the own reference net, and `tuned` of the UNet."""
        kept = {f"adapters.{n}": p for n, p in self.adapters.named_parameters()}
        if self.reference_net is not None:
            kept |= {f"reference_net.{n}": p for n, p in self.reference_net.named_parameters()}
        # Where a LoRA stands before a layer, peft calls the layer itself `base_layer`; the LoRA has a file of its own.
        base = {n.replace(".base_layer", ""): p for n, p in self.unet.named_parameters() if ".lora_" not in n}
        return kept | {f"unet.{n}": p for n, p in base.items() if any(w in n for w in self.config.tuned)}

    def style_keys(self, tokens: Tensor) -> Layers:
        """Style tokens [B, M, D] to keys and values by layer; the same until the style changes."""
        own: Any = self.adapters["style"]
        return {name: own[key(name)](tokens) for name, _ in taps.attentions(self.unet, "attn2")}

    def read_reference(self, latent: Tensor) -> Reference:
        """A clean latent [B, 4, h, w] of the person to what every frame of theirs reads."""
        if self.config.reference == "none":
            return Reference()
        walk = Walk(record={})
        tokens = latent.new_zeros(len(latent), 1, self.token_width)
        own = self.reference_net
        seen = latent if own is not None else torch.cat([latent, self._no_lead(latent)], 1)
        (own or self.unet)(
            seen, torch.zeros(len(latent), dtype=torch.long, device=latent.device), tokens,
            class_labels=None if own is not None else latent.new_full((len(latent),), -1.0),
            cross_attention_kwargs={"walk": walk},
        )  # fmt: skip
        assert walk.record is not None
        features = {
            name: (layer.to_k(walk.record[name]), layer.to_v(walk.record[name]))
            for name, layer in taps.attentions(self.unet, "attn1")
        }
        temporal: Any = self.adapters["temporal"]
        sink = {
            name: temporal[key(name)].keys(walk.record[name])
            for name, _ in taps.transformers(self.unet) if key(name) in temporal
        }  # fmt: skip
        return Reference(features, sink)

    def steer(
        self, kps: Tensor, audio: Tensor, heard: Tensor, style: Layers, strength: Tensor, reference: Reference
    ) -> Steering:
        """kps [B, K, s h, s w], audio [B, W, A], heard [B, W], strength [B]; see `Steering`."""
        return Steering(self.adapters["guider"](kps), self.adapters["audio"](audio, heard), style, strength, reference)

    def forward(
        self, x_t: Tensor, t: Tensor, previous: Tensor, history: Tensor, steering: Steering, past: Layers | None = None,
        frames: int = 1,
    ) -> tuple[Tensor, Layers]:
        """v-prediction [B F, 4, h, w], and the keys and values over time of these frames.

        x_t and previous [B F, 4, h, w]; t int64 [B F]; history [B F], noise level of `previous`, negative where there
        is none; `past` of the frames before; reference, style and strength may have one row for each clip.
        """
        lead = steering.lead + self.adapters["previous"](previous)
        walk = Walk(
            steering.style, steering.strength, steering.reference.features, past or {}, steering.reference.sink, frames
        )
        v: Tensor = self.unet(
            torch.cat([x_t, lead], 1), t, steering.audio, class_labels=history, cross_attention_kwargs={"walk": walk}
        ).sample
        return v, walk.written

    def rolled(self, past: Layers, written: Layers) -> Layers:
        """`past` for the next frame."""
        return {n: rolled(past.get(n), kv, self.config.temporal_window) for n, kv in written.items()}

    def _no_lead(self, latent: Tensor) -> Tensor:
        width: int = self.unet.conv_in.base.out_channels
        return latent.new_zeros(len(latent), width, *latent.shape[2:])


def _adapters(unet: Any, config: Sd15Config) -> nn.ModuleDict:
    conv_in = unet.conv_in
    groups = unet.config.norm_num_groups
    temporal = {}
    for name, module in taps.transformers(unet):
        if config.temporal_window and level_of(unet, name) in config.temporal_levels:
            width = module.norm.num_channels
            temporal[key(name)] = TemporalAttention(width, config.temporal_heads, groups, config.temporal_window)
    guider = Guider(config.kps_fields, config.kps_channels, conv_in.out_channels, config.kps_scale)
    return nn.ModuleDict({
        "audio": AudioProjection(config.audio, unet.config.cross_attention_dim),
        "style": nn.ModuleDict({key(n): taps.StyleKeys(layer) for n, layer in taps.attentions(unet, "attn2")}),
        "reference": nn.ModuleDict({key(n): taps.Gate() for n, _ in taps.attentions(unet, "attn1")}),
        "temporal": nn.ModuleDict(temporal),
        "guider": guider,
        "previous": PreviousLatent(conv_in),
        "history": HistoryEmbedding(unet.time_embedding.linear_2.out_features),
    })  # fmt: skip


def _graft(unet: Any, adapters: Any) -> None:
    """Put the adapters in their places; none of them becomes part of the UNet's state."""
    for name, layer in taps.attentions(unet, "attn1"):
        layer.set_processor(taps.SelfAttention(name, adapters["reference"][key(name)]))
    for name, layer in taps.attentions(unet, "attn2"):
        layer.set_processor(taps.CrossAttention(name, adapters["style"][key(name)]))
    _hook(unet, adapters["temporal"])
    unet.conv_in = ExtendedInput(unet.conv_in)
    unet.class_embedding = Lent(adapters["history"])


def _listen(unet: Any) -> None:
    """A reference net: plain attention that records what passes."""
    for name, layer in taps.attentions(unet, "attn1"):
        layer.set_processor(taps.SelfAttention(name, None))
    for name, layer in taps.attentions(unet, "attn2"):
        layer.set_processor(taps.CrossAttention(name, None))
    for name, module in taps.transformers(unet):
        module.register_forward_hook(_recorder(name), with_kwargs=True)


def _hook(unet: Any, temporal: Any) -> None:
    for name, module in taps.transformers(unet):
        layer = temporal[key(name)] if key(name) in temporal else None
        module.register_forward_hook(TemporalHook(name, layer), with_kwargs=True)


def _recorder(name: str) -> Any:
    def record(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        walk = (kwargs.get("cross_attention_kwargs") or {}).get("walk")
        if walk is not None and walk.record is not None:
            walk.record[name] = output[0]

    return record


def level_of(unet: Any, name: str) -> int:
    """Of a transformer by its name: how many times the picture was halved before it."""
    depth = len(unet.config.block_out_channels) - 1
    side, *rest = name.split(".")
    if side == "mid_block":
        return depth
    return int(rest[0]) if side == "down_blocks" else depth - int(rest[0])


def x0_from_v(x_t: Tensor, v: Tensor, alpha: float, sigma: float) -> Tensor:
    """x0 = alpha x_t - sigma v; exact at zero terminal signal, where it is -v (arXiv 2202.00512, appendix D)."""
    return alpha * x_t - sigma * v
