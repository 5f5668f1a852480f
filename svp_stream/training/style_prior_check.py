"""What the style prior knows: retrieval with controls, sigma against ambiguity, and curves, on held-out takes.

In: an encoder (and its decoder for the curves), held-out takes. Out: named figures, a sheet. Remembers: nothing.
Named styles differ in their resting face, which makes them easy; the crowd of sampled styles between them is hard.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from svp_stream.arkit import SPEECH
from svp_stream.style.distance import DISTANCES, DistanceName
from svp_stream.style.prior import StyleEncoder, StylePrior
from svp_stream.synthetic.styles import HELD_OUT_STYLES, NAMED, TRAINING_STYLES, SpeakingStyle, sample
from svp_stream.training import curves
from svp_stream.training.coefficients import Take
from svp_stream.training.sheets import write_png
from svp_stream.training.style_clips import Posterior, posterior

CROWD: Final = 60
"""Sampled styles that retrieval is made hard with; chance is one in this many."""


def check(encoder: StyleEncoder, takes: Sequence[Take], frames: int, distance: DistanceName) -> dict[str, float]:
    """Retrieval and nearest centroid among all named styles, for training and held-out ones, both with shuffled
    labels as control; retrieval in the crowd, from whole and from half-second clips; sigma of clear and unclear."""
    first, second = takes[: len(takes) // 2], takes[len(takes) // 2 :]
    seen = [NAMED[n] for n in TRAINING_STYLES]
    every = seen + [NAMED[n] for n in HELD_OUT_STYLES]
    query, gallery = (posterior(encoder, every, t, frames, i) for i, t in enumerate((first, second)))
    hits, unseen = _retrieval(query, gallery, distance), query.labels >= len(seen)
    order = torch.randperm(len(gallery.labels), generator=torch.Generator().manual_seed(0))
    shuffled = Posterior(gallery.mu, gallery.log_var, gallery.labels[order])
    near = _nearest_centroid(query, gallery)
    figures = {
        "r1": float(hits[~unseen].mean()), "r1_held_out_styles": float(hits[unseen].mean()),
        "r1_shuffled": float(_retrieval(query, shuffled, distance).mean()),
        "centroid": float(near[~unseen].mean()), "centroid_held_out_styles": float(near[unseen].mean()),
        "centroid_shuffled": float(_nearest_centroid(query, shuffled).mean()), "chance": 1 / len(every),
    }
    crowd = [sample(np.random.default_rng([14, i])) for i in range(CROWD)]
    known = posterior(encoder, crowd, second[:3], frames, 3)
    for n in (12, frames):
        asked = posterior(encoder, crowd, first[:2], n, 4)
        figures[f"r1_crowd_{n}"] = float(_retrieval(asked, known, distance).mean())
    return figures | _sigma(encoder, seen, second[:4], frames)


def _sigma(encoder: StyleEncoder, styles: Sequence[SpeakingStyle], takes: Sequence[Take], whole: int
           ) -> dict[str, float]:
    """Mean sigma of whole clips, and how it grows where a clip tells less: short ones, spoiled ones."""

    def sigma(frames: int, severity: float) -> float:
        found = posterior(encoder, styles, takes, frames, 2, severity)
        return float((found.log_var / 2).exp().mean())

    figures = {f"sigma_{n}": sigma(n, 0.0) for n in (3, 12, whole)} | {"sigma_spoiled": sigma(whole, 0.9)}
    figures["sigma_short_to_long"] = figures["sigma_3"] / figures[f"sigma_{whole}"]
    figures["sigma_spoiled_to_clean"] = figures["sigma_spoiled"] / figures[f"sigma_{whole}"]
    return figures


def _retrieval(query: Posterior, gallery: Posterior, distance: DistanceName) -> Tensor:
    """Float [N], 1 where the nearest clip of the gallery has the query's style."""
    far = DISTANCES[distance](query.mu, query.log_var, gallery.mu, gallery.log_var)
    return (gallery.labels[far.argmin(1)] == query.labels).float()


def _nearest_centroid(query: Posterior, gallery: Posterior) -> Tensor:
    """Float [N], 1 where the nearest mean of a style, over the gallery's clips, is that of the query."""
    count = int(gallery.labels.max()) + 1
    centres = torch.stack([gallery.mu[gallery.labels == k].mean(0) for k in range(count)])
    return (torch.cdist(query.mu, centres).argmin(1) == query.labels).float()


@torch.no_grad()
def draw_check(prior: StylePrior, takes: Sequence[Take], frames: int, path: Path) -> None:
    """Held-out words rebuilt in named styles from mu alone: jaw, smile and inner brow against the truth."""
    take, rng = takes[0], np.random.default_rng(5)
    chosen = [SPEECH.index(n) for n in ("jawOpen", "mouthSmileLeft", "browInnerUp")]
    rows = []
    for name in ("warm", "angry", "mumble", *HELD_OUT_STYLES[:1]):
        found = posterior(prior.encoder, [NAMED[name]], takes[1:5], frames, 3)
        truth = take.expression(NAMED[name], rng)
        z = prior.decoder(torch.from_numpy(take.features())[None], found.mu.mean(0, keepdim=True))
        guess = prior.encoder.restore(z)[0].numpy()
        rows.append([
            curves.Panel(f"{name} {SPEECH[i]}", {"true": truth[:, i], "rebuilt": guess[:, i]}) for i in chosen
        ])
    write_png(path, curves.draw(rows, width=420))
