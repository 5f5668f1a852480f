"""The presets that ship: the aggregated posterior of every named training style, one file each.

In: a style prior, takes of speech. Out: `NAME.npz` in a folder. `mu` is the mean over many clips; the variance is that
of mu between clips plus the mean of sigma^2 (law of total variance), so that a sample is as wide as clips of the style
are. No preset is written for held-out styles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from svp_stream.style.preset import StylePreset, save_preset
from svp_stream.style.prior import load_prior
from svp_stream.synthetic.styles import NAMED, TRAINING_STYLES
from svp_stream.training.coefficients import CoefficientBank, Take
from svp_stream.training.style_clips import stack, two_cuts
from svp_stream.weights_file import sha256

TEMPERATURE: Final = 0.3
DESCRIPTIONS: Final = {
    "neutral": "Plain and even: nothing stands out.",
    "warm": "A kind half smile, soft eyes, unhurried nods.",
    "cheerful": "Bright smile, lifted brows, lively mouth.",
    "serious": "Level gaze, brows a little drawn, small movements.",
    "tight": "Lips pressed, jaw hardly moves.",
    "mumble": "Half-closed mouth, words run into each other.",
    "dramatic": "Wide mouth, strong accents, brows that rise and fall.",
    "newsreader": "Crisp and symmetrical, accents with brow and nod.",
    "shy": "Head lowered and turned away, timid smile, eyes that wander.",
    "angry": "Brows down, nose wrinkled, teeth show.",
    "sad": "Inner brows raised, corners of the mouth down, slow.",
    "excited": "Eyes wide, large fast movements, quick head.",
    "bored": "Heavy lids, slack lips, nothing is stressed.",
    "sly": "One-sided smile, one brow up, narrowed eyes.",
    "sceptical": "Mouth drawn to one side, one brow raised.",
    "tender": "Soft brows and lips, head tilted, quiet.",
}


def write_presets(
    weights: Path, bank: CoefficientBank, folder: Path, *, clips: int = 24, frames: int = 100
) -> list[Path]:
    """Write one preset for each named training style; returns the files. Raises WeightsError for unusable weights."""
    prior, digest = load_prior(weights), sha256(weights)
    talking = [take for take in bank.train if not take.silent().all()]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, name in enumerate(TRAINING_STYLES):
        rng = np.random.default_rng([7, number])
        takes: list[Take] = [talking[i] for i in rng.integers(len(talking), size=clips)]
        batch = stack([two_cuts(take, NAMED[name], frames, rng)[0] for take in takes])
        with torch.no_grad():
            mu, log_var = prior.encoder(batch["expression"], batch["audio"], batch["mask"])
        variance = mu.var(0) + log_var.exp().mean(0)
        preset = StylePreset(
            name=name, mu=mu.mean(0).numpy().astype(np.float32), log_var=variance.log().numpy().astype(np.float32),
            prior=digest, description=DESCRIPTIONS.get(name, ""), temperature=TEMPERATURE, strength=1.0,
        )
        written.append(folder / f"{name}.npz")
        save_preset(written[-1], preset)
    return written
