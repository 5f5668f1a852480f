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
from scipy.stats import spearmanr
from torch import Tensor

from svp_stream.arkit import SPEECH
from svp_stream.style.distance import DISTANCES, DistanceName
from svp_stream.style.prior import StyleEncoder, StylePrior
from svp_stream.synthetic.styles import (
    CAST,
    HELD_OUT_CAST,
    HELD_OUT_STYLES,
    NAMED,
    PLAIN,
    TRAINING_CAST,
    TRAINING_STYLES,
    sample,
)
from svp_stream.training import curves
from svp_stream.training.coefficients import Take
from svp_stream.training.sheets import write_png
from svp_stream.training.style_clips import Posterior, posterior

CROWD: Final = 60
"""Sampled styles that retrieval is made hard with; chance is one in this many."""
SHORT: Final = (3, 6, 12, 36)
"""Frames of clips that tell ever more."""
SPOILED: Final = (0.3, 0.6, 0.9)
"""Severities that tell ever less."""


def check(encoder: StyleEncoder, takes: Sequence[Take], frames: int, distance: DistanceName) -> dict[str, float]:
    """Retrieval and nearest centroid among all of `CAST`, for training and held-out styles, both with shuffled labels
    as control; retrieval in the crowd, from whole and from half-second clips; sigma of clear and unclear clips."""
    first, second = takes[: len(takes) // 2], takes[len(takes) // 2 :]
    every = [CAST[n] for n in (*TRAINING_CAST, *HELD_OUT_CAST)]
    query, gallery = (posterior(encoder, every, t, frames, i) for i, t in enumerate((first[:6], second[:6])))
    hits, unseen = _retrieval(query, gallery, distance), query.labels >= len(TRAINING_CAST)
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
    return figures | sigma_figures(encoder, second[:4], first[:4], frames)


def sigma_figures(encoder: StyleEncoder, takes: Sequence[Take], others: Sequence[Take], whole: int) -> dict[str, float]:
    """Whether sigma foretells error: both as root mean squares over dimensions, error from the centre that the style
    has in `others`, for clips ever shorter and ever more spoiled.

    `sigma_error_r` is the rank correlation over single clips, `..._shuffled` its control; `sigma_short_to_long`,
    `sigma_spoiled_to_clean` and `sigma_plain_to_strong` (clips of the plain style over strong ones) are ratios.
    """
    plain = [*TRAINING_STYLES[::2]]
    names = [*plain, *(f"{n}-strong" for n in plain if n != PLAIN)]
    styles = [CAST[n] for n in names]
    clear = posterior(encoder, styles, others, whole, 5)
    centres = torch.stack([clear.mu[clear.labels == k].mean(0) for k in range(len(styles))])
    figures: dict[str, float] = {}
    sigmas, errors = [], []
    for tag, frames, severity in ((*((str(n), n, 0.0) for n in (*SHORT, whole)),
                                   *((f"spoiled_{s:g}", whole, s) for s in SPOILED))):
        found = posterior(encoder, styles, takes, frames, 2, severity)
        sigma = found.log_var.exp().mean(1).sqrt()
        error = (found.mu - centres[found.labels]).square().mean(1).sqrt()
        figures |= {f"sigma_{tag}": _rms(sigma), f"error_{tag}": _rms(error)}
        sigmas.append(sigma)
        errors.append(error)
        if tag == str(whole):
            strong, mild = found.labels >= len(plain), found.labels == names.index(PLAIN)
            figures["sigma_plain_to_strong"] = _rms(sigma[mild]) / _rms(sigma[strong])
    every, wrong = torch.cat(sigmas).numpy(), torch.cat(errors).numpy()
    figures["sigma_short_to_long"] = figures[f"sigma_{SHORT[0]}"] / figures[f"sigma_{whole}"]
    figures["sigma_spoiled_to_clean"] = figures[f"sigma_spoiled_{SPOILED[-1]:g}"] / figures[f"sigma_{whole}"]
    figures["sigma_error_r"] = float(spearmanr(every, wrong).statistic)
    mixed = np.random.default_rng(0).permutation(wrong)
    return figures | {"sigma_error_r_shuffled": float(spearmanr(every, mixed).statistic)}


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


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
