"""What the sd15 stages train: the grafted model and the style projection, as one module.

In: a batch of conditions (`sd15_data.Cut`, and what `Sd15Stage.conditions` adds). Out: x0 estimates. Remembers:
nothing. Its state is what is trained alone, so that checkpoints and averages leave out the base.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from svp_stream.diffusion.sd15 import Reference, Sd15, Steering
from svp_stream.diffusion.sd15_attention import Layers
from svp_stream.diffusion.sd15_lora import lora_parameters
from svp_stream.style.projection import StyleProjection
from svp_stream.training import sd15_losses as losses
from svp_stream.training.loop import Batch


class Trained(nn.Module):
    """See the card. `words`: parameters whose name holds one are trained (none: all that the adapters hold).

    `low_rank`: only the layers of a LoRA are trained, which must be attached.
    """

    def __init__(
        self, model: Sd15, projection: StyleProjection, words: tuple[str, ...], *, low_rank: bool = False
    ) -> None:
        super().__init__()
        self.sd15, self.projection = model, projection
        model.requires_grad_(False)
        projection.requires_grad_(not low_rank)
        for name, p in model.parameters_to_train().items():
            p.requires_grad_(not low_rank and (not words or any(w in name for w in words)))
        for p in lora_parameters(model).values():
            p.requires_grad_(low_rank)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trained parameters by name."""
        return {n: p.detach() for n, p in self.named_parameters() if p.requires_grad}

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """What `state_dict` gave; strict."""
        with torch.no_grad():
            for name, p in self.named_parameters():
                if p.requires_grad:
                    p.copy_(state_dict[name])

    def steering(self, b: Batch) -> Steering:
        """Of all B F frames of a batch."""
        sd15 = self.sd15
        tokens = self.projection(b["s"]) * b["style_on"][:, None, None]
        shown = bool(b["reference_on"].item())
        reference = sd15.read_reference(b["reference"]) if shown else Reference()
        return sd15.steer(
            b["kps"], b["audio"], b["heard"], sd15.style_keys(tokens), torch.ones_like(b["style_on"]), reference
        )

    def estimate(
        self, x_t: Tensor, t: Tensor, previous: Tensor, history: Tensor, steering: Steering, past: Layers | None = None,
        frames: int = 1,
    ) -> tuple[Tensor, Layers]:
        """x0 estimates [B F, 4, h, w] and the keys and values over time; see `Sd15.forward`."""
        v, written = self.sd15(x_t, t, previous, history, steering, past, frames=frames)
        return losses.estimate(x_t, v.float(), t), written

    def forward(self, b: Batch, x_t: Tensor, t: Tensor, previous: Tensor, history: Tensor, frames: int) -> Tensor:
        """x0 estimates [B F, 4, h, w] under the conditions of a batch."""
        return self.estimate(x_t, t, previous, history, self.steering(b), frames=frames)[0]
