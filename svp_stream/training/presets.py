"""The presets that ship: the aggregated posterior of every training style of the cast, one file each.

In: a style prior, takes of speech. Out: `NAME.npz` in a folder, pooled over many clips. No two clips are spoken quite
alike: each is a little more or less of the style, and a little off it, as people are from day to day, so that a sample
at temperature 1 is another day of the same manner. No preset is written for held-out styles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from svp_stream.style.preset import StylePreset, save_preset
from svp_stream.style.prior import load_prior, pool
from svp_stream.synthetic.styles import CAST, TRAINING_CAST, vary
from svp_stream.training.coefficients import CoefficientBank, Take
from svp_stream.training.style_clips import stack, two_cuts
from svp_stream.weights_file import sha256

TEMPERATURE: Final = 0.3
SUFFIXES: Final = {"-soft": " Held back.", "-strong": " Overdone."}
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
    """Write one preset for each of `TRAINING_CAST`; returns the files. Raises WeightsError for unusable weights."""
    prior, digest = load_prior(weights), sha256(weights)
    talking = [take for take in bank.train if not take.silent().all()]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, name in enumerate(TRAINING_CAST):
        rng = np.random.default_rng([7, number])
        takes: list[Take] = [talking[i] for i in rng.integers(len(talking), size=clips)]
        batch = stack([two_cuts(take, vary(CAST[name], rng), frames, rng)[0] for take in takes])
        with torch.no_grad():
            mu, log_var = pool(*prior.encoder(batch["expression"], batch["audio"], batch["mask"]))
        preset = StylePreset(
            name=name, mu=mu.numpy().astype(np.float32), log_var=log_var.numpy().astype(np.float32),
            prior=digest, description=describe(name), temperature=TEMPERATURE, strength=1.0,
        )
        written.append(folder / f"{name}.npz")
        save_preset(written[-1], preset)
    return written


def describe(name: str) -> str:
    """What a preset says of itself: its family's words, and how much of it there is."""
    for suffix, words in SUFFIXES.items():
        if name.endswith(suffix):
            return DESCRIPTIONS[name.removesuffix(suffix)] + words
    return DESCRIPTIONS[name]
