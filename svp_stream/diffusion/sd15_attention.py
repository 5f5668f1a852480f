"""Attention of a diffusers UNet with our conditions beside it: reference features in `attn1`, style in `attn2`.

What it is: attention processors, one for each attention layer, that read what one pass is steered by from a `Walk`.
The new weights stand apart from the UNet's own, and each branch has a gate that is zero at first, so that an untrained
graft is the base UNet to the last bit.

    attn1   own = Attn(q, K, V);  own + gate (Attn(q, [K, K_ref], [V, V_ref]) - own)
    attn2   Attn(q, K_audio, V_audio) + strength gate Attn(q, K_style, V_style)

The concatenation of reference features is V-Express' and AnimateAnyone's [V], the decoupled sum IP-Adapter's
(arXiv 2308.06721) and DICE-Talk's [V], where the style's keys and values begin as the UNet's own; gates are ours [R].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KeyValue = tuple[Tensor, Tensor]
"""Keys and values, each [B, N, C]; of a temporal layer [B, T, cells, C]."""
Layers = dict[str, KeyValue]
"""By the name of the layer in the UNet."""


@dataclass(slots=True)
class Walk:
    """What one pass through the UNet reads at the grafted places, and what it leaves behind.

    `style`, `reference`, `past`, `sink`: keys and values by layer, none of which need be there. `strength` [B].
    `frames`: F, where the batch is B clips of F frames. `written`: the temporal keys and values of this pass.
    `record`: given, the pass is a reading of the reference: what enters each `attn1` and leaves each transformer.
    """

    style: Mapping[str, KeyValue] = field(default_factory=dict)
    strength: Tensor | None = None
    reference: Mapping[str, KeyValue] = field(default_factory=dict)
    past: Mapping[str, KeyValue] = field(default_factory=dict)
    sink: Mapping[str, KeyValue] = field(default_factory=dict)
    frames: int = 1
    written: Layers = field(default_factory=dict)
    record: dict[str, Tensor] | None = None


class Gate(nn.Module):
    """One learned scalar that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """x times the gate."""
        return x * self.weight.to(x.dtype)


class StyleKeys(nn.Module):
    """Own keys and values of the style at one `attn2`, begun as copies of the layer's own, and its gate."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        width, inner = attention.to_k.in_features, attention.to_k.out_features
        self.to_k = nn.Linear(width, inner, bias=False)
        self.to_v = nn.Linear(width, inner, bias=False)
        self.gate = Gate()
        with torch.no_grad():
            self.to_k.weight.copy_(attention.to_k.weight)
            self.to_v.weight.copy_(attention.to_v.weight)

    def forward(self, tokens: Tensor) -> KeyValue:
        """Style tokens [B, M, C] to keys and values [B, M, inner]."""
        return self.to_k(tokens), self.to_v(tokens)


class SelfAttention:
    """Processor of an `attn1`. Holds the gate without owning it: processors are no part of the UNet's state."""

    def __init__(self, name: str, gate: Gate | None) -> None:
        self._name, self._gate = name, gate

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, temb: Tensor | None = None, walk: Walk | None = None,
    ) -> Tensor:
        """hidden_states [B, N, C] to the same shape."""
        if walk is not None and walk.record is not None:
            walk.record[self._name] = hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        out = attend(q, k, v, attn.heads)
        if walk is not None and self._gate is not None and self._name in walk.reference:
            k_ref, v_ref = (spread(x, len(q)) for x in walk.reference[self._name])
            joint = attend(q, torch.cat([k, k_ref], 1), torch.cat([v, v_ref], 1), attn.heads)
            out = out + self._gate(joint - out)
        return leave(attn, out)


class CrossAttention:
    """Processor of an `attn2`: audio through the layer's own keys and values, style through `keys`."""

    def __init__(self, name: str, keys: StyleKeys | None) -> None:
        self._name, self._keys = name, keys

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, temb: Tensor | None = None, walk: Walk | None = None,
    ) -> Tensor:
        """hidden_states [B, N, C], encoder_hidden_states [B, A, D] to [B, N, C]."""
        told = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = attn.to_q(hidden_states)
        out = attend(q, attn.to_k(told), attn.to_v(told), attn.heads)
        if walk is not None and self._keys is not None and self._name in walk.style:
            k, v = (spread(x, len(q)) for x in walk.style[self._name])
            styled = self._keys.gate(attend(q, k, v, attn.heads))
            if walk.strength is not None:
                styled = styled * spread(walk.strength, len(q))[:, None, None].to(styled.dtype)
            out = out + styled
        return leave(attn, out)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot product attention of [B, N, C] over [B, M, C]."""
    own, keys, values = (x.view(len(x), x.shape[1], heads, -1).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(own, keys, values).transpose(1, 2).reshape(q.shape)


def leave(attn: Any, x: Tensor) -> Tensor:
    """The layer's own way out: projection and dropout."""
    out: Tensor = attn.to_out[1](attn.to_out[0](x)) / attn.rescale_output_factor
    return out


def spread(x: Tensor, batch: int) -> Tensor:
    """[b, ...] for a batch that is a multiple of b: each row serves its whole clip."""
    return x if len(x) == batch else x.repeat_interleave(batch // len(x), 0)


def attentions(unet: nn.Module, which: str) -> Iterator[tuple[str, Any]]:
    """(name, layer) of every `attn1` or `attn2` of a UNet, in its order."""
    for name, module in unet.named_modules():
        if name.endswith(f".{which}") and hasattr(module, "to_q"):
            yield name, module


def transformers(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    """(name, module) of every spatial transformer, which holds attention blocks."""
    for name, module in unet.named_modules():
        if hasattr(module, "transformer_blocks"):
            yield name, module


def key(name: str) -> str:
    """A layer's name as a key of `nn.ModuleDict`, which takes no dots."""
    return name.replace(".", "/")
