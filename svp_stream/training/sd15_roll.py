"""Clips made frame after frame on what was made before, as the engine makes them: to learn from, measure, and show.

In: a trained graft, a batch of B clips of F frames, noise. Out: every estimate on the way, by frame. Remembers: nothing
outside of one call; inside it keeps what a session keeps, the last clean latent and the rolled keys and values.

The real cache in training is Self-Forcing's idea (arXiv 2506.08009 [V in its code]), gradients cut between frames;
the plain distance to the true frame in place of its critic is ours [R].
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from svp_stream.diffusion import sampler
from svp_stream.diffusion.schedule import SCHEDULE
from svp_stream.diffusion.sd15 import Steering
from svp_stream.diffusion.sd15_attention import Layers
from svp_stream.training.loop import Batch
from svp_stream.training.sd15_model import Trained

SERVED_HISTORY = 0.05
"""The noise level that the server tells the network of its own, clean, previous latent."""
RHO = 0.9
"""Share of a clip's noise that its frames have in common, as when served (PYoCo, arXiv 2305.10474)."""


def clip_noise(x0: Tensor) -> Tensor:
    """Noise for clips [B, F, 4, h, w], of unit variance, shared in part within a clip."""
    shared = torch.randn_like(x0[:, :1]).expand_as(x0)
    out: Tensor = RHO**0.5 * shared + (1 - RHO) ** 0.5 * torch.randn_like(x0)
    return out


def unroll(
    model: Trained, b: Batch, noise: Tensor, *, steps: int | None = None, alone: bool = False
) -> Iterator[tuple[int, Tensor]]:
    """(frame, x0 estimate [B, 4, h, w]) for noise [B, F, 4, h, w]; the last of a frame is the frame.

    `steps` None: two steps cold, then one warm for each frame; else so many of DDIM for every frame. `alone`: no frame
    sees another (before the video stage has taught it). Estimates have gradients where autograd is on, within a frame.
    """
    frames = noise.shape[1]
    whole, past, last = model.steering(b), Layers(), None
    for f in range(frames):
        now, cold = _of_frame(whole, f, frames), last is None or alone
        previous = torch.zeros_like(noise[:, f]) if cold or last is None else last
        history = torch.full((len(noise),), -1.0 if cold else SERVED_HISTORY, device=noise.device)
        seen, told, written = Layers() if cold else past, list[Tensor](), Layers()

        def denoise(
            x_t: Tensor, t: int, now: Steering = now, previous: Tensor = previous, history: Tensor = history,
            seen: Layers = seen, told: list[Tensor] = told, written: Layers = written,
        ) -> Tensor:
            step = torch.full((len(x_t),), t, dtype=torch.long, device=x_t.device)
            estimate, kept = model.estimate(x_t, step, previous, history, now, seen)
            told.append(estimate)
            written.update({n: (k.detach(), v.detach()) for n, (k, v) in kept.items()})
            return estimate.detach()

        if steps is not None:
            last = sampler.ddim(denoise, noise[:, f], SCHEDULE, sampler.trailing(steps))
        elif cold:
            last = sampler.cold(denoise, noise[:, f], SCHEDULE)
        else:
            last = sampler.warm(denoise, previous, noise[:, f], SCHEDULE)
        past = model.sd15.rolled(seen, written)
        yield from ((f, estimate) for estimate in told)


@torch.no_grad()
def rolled(model: Trained, b: Batch, noise: Tensor, *, steps: int | None = None, alone: bool = False) -> Tensor:
    """The frames of `unroll` alone, [B, F, 4, h, w]."""
    made = dict(unroll(model, b, noise, steps=steps, alone=alone))
    return torch.stack(list(made.values()), 1)


def _of_frame(steering: Steering, f: int, frames: int) -> Steering:
    lead, audio = (x.view(-1, frames, *x.shape[1:])[:, f] for x in (steering.lead, steering.audio))
    return steering._replace(lead=lead, audio=audio)
