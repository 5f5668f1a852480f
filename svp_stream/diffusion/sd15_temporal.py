"""Attention over time at one place of the UNet: each cell looks at itself in the frames before, and in the reference.

In: features [B F, C, h, w] of F frames, keys and values of up to `window` frames before, those of the reference (the
sink, which never leaves). Out: features of the same shape, and this run's keys and values. Remembers: nothing; whoever
streams keeps the keys and values. A stream and a whole clip agree: attention is causal and sees `window` frames back.

Motion modules at every resolution are AnimateDiff's and V-Express' [V]; causal attention with rolling keys and a sink
follows StreamingLLM (arXiv 2309.17453) and StreamV2V [V]; distances as learned biases and the rest of the sizes are
ours [R]. The way out is zero-initialised: an untrained layer is the identity.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from svp_stream.diffusion.sd15_attention import KeyValue, Walk


class TemporalAttention(nn.Module):
    """One causal attention over time and a feed-forward layer, pre-norm, with a zero-initialised way out."""

    def __init__(self, channels: int, heads: int, groups: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.enter = nn.GroupNorm(groups, channels)
        self.norm, self.norm_feed = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.feed = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        self.leave = nn.Linear(channels, channels)
        # By distance 0 to `window`, then the sink.
        self.distance = nn.Parameter(torch.zeros(heads, window + 2))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def tokens(self, x: Tensor) -> Tensor:
        """[N, C, h, w] to [N, cells, C], group-normalised."""
        out: Tensor = self.enter(x).flatten(2).transpose(1, 2)
        return out

    def keys(self, x: Tensor) -> KeyValue:
        """Keys and values of one frame each: [B, C, h, w] to [B, 1, cells, C]."""
        normed = self.norm(self.tokens(x))
        return self.to_k(normed)[:, None], self.to_v(normed)[:, None]

    def bias(self, frames: int, past: int, sink: int) -> Tensor:
        """[heads, F, sink + past + F]: learned by distance, minus infinity where a key may not be seen."""
        at = torch.arange(past, past + frames, device=self.distance.device)[:, None]
        far = at - torch.arange(past + frames, device=self.distance.device)
        table = self.distance[:, far.clamp(0, self.window)]
        table = table.masked_fill((far < 0) | (far > self.window), -torch.inf)
        return torch.cat([self.distance[:, -1:, None].expand(-1, frames, sink), table], 2)

    def forward(self, x: Tensor, frames: int, past: KeyValue | None, sink: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """See the card. `past` [B, P, cells, C], `sink` [B, 1, cells, C]; returns (features, keys and values)."""
        n, c, h, w = x.shape
        b, cells = n // frames, h * w
        tokens = self.tokens(x)
        normed = self.norm(tokens)
        q, k, v = (to(normed).view(b, frames, cells, c) for to in (self.to_q, self.to_k, self.to_v))
        held = [kv for kv in (sink, past) if kv is not None]
        keys = torch.cat([*(kv[0].expand(b, -1, -1, -1) for kv in held), k], 1)
        values = torch.cat([*(kv[1].expand(b, -1, -1, -1) for kv in held), v], 1)
        bias = self.bias(frames, 0 if past is None else past[0].shape[1], 0 if sink is None else sink[0].shape[1])
        seen = F.scaled_dot_product_attention(
            self._split(q), self._split(keys), self._split(values), attn_mask=bias.to(q.dtype)
        )
        seen = seen.transpose(1, 2).reshape(b, cells, frames, c).transpose(1, 2).reshape(n, cells, c)
        y = tokens + self.out(seen)
        y = y + self.feed(self.norm_feed(y))
        change: Tensor = self.leave(y).transpose(1, 2).reshape(n, c, h, w)
        return x + change, (k, v)

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, cells, C] to [B cells, heads, T, C / heads]."""
        b, t, cells, c = x.shape
        return x.permute(0, 2, 1, 3).reshape(b * cells, t, self.heads, c // self.heads).transpose(1, 2)


class TemporalHook:
    """Runs behind a spatial transformer: what the reference reading records, or attention over time."""

    def __init__(self, name: str, layer: TemporalAttention | None) -> None:
        self._name, self._layer = name, layer

    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """A forward hook with keyword arguments; the transformer returns a tuple of one tensor."""
        walk: Walk | None = (kwargs.get("cross_attention_kwargs") or {}).get("walk")
        if walk is None or self._layer is None:
            return None
        features = output[0]
        if walk.record is not None:
            walk.record[self._name] = features
            return None
        past, sink = walk.past.get(self._name), walk.sink.get(self._name)
        changed, walk.written[self._name] = self._layer(features, walk.frames, past, sink)
        return (changed, *output[1:])


def rolled(past: KeyValue | None, written: KeyValue, window: int) -> KeyValue:
    """What the next frame finds: the last `window` frames of keys and values."""
    if past is None:
        return written[0][:, -window:], written[1][:, -window:]
    keys, values = (torch.cat([a, b], 1)[:, -window:] for a, b in zip(past, written, strict=True))
    return keys, values
