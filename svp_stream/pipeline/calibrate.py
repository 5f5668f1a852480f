"""What the activations of an engine range over while it speaks: the calibration of the eight-bit programs.

In: a weights folder, sound. Out: `ranges.json` in that folder (see `runtime.quantised`). Remembers: nothing.
The engine runs in fp32 and speaks in every avatar and in styles drawn from the prior's N(0, I); a sample of what its
programs were given is measured in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from svp_stream.clock import MODEL_RATE_HZ, WIRE_RATE_HZ
from svp_stream.packets import AudioChunk, Float32, SpeechState
from svp_stream.pipeline.bench import syllables
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.mini import MiniEngine, pixel_modules
from svp_stream.runtime.backend import Program
from svp_stream.runtime.quantised import FILE, Ranges, measure, write_ranges
from svp_stream.weights_file import record_hash

PROGRAMS: Final = ("denoise", "paint")
STYLES: Final = 8
SAMPLES: Final = 40
SECONDS: Final = 2.0

_Given = dict[str, list[tuple[NDArray, ...]]]  # type: ignore[type-arg]


def calibrate(
    folder: Path, sounds: Sequence[Float32] = (), seed: int = 0, styles: int = STYLES, backend: str = "auto"
) -> Path:
    """Measure and write; `sounds` float32 [N] at 16 kHz, made-up syllables without any. Raises WeightsError."""
    engine = MiniEngine.load(folder, backend, precision="fp32")
    spoken = list(sounds) or [syllables(SECONDS, k)[:: WIRE_RATE_HZ // MODEL_RATE_HZ] for k in range(3)]
    given = _listen(engine, spoken, seed, styles)
    rng = np.random.default_rng([seed, 2])
    modules = pixel_modules(folder)
    ranges: dict[str, Ranges] = {}
    for name in PROGRAMS:
        chosen = rng.permutation(len(given[name]))[:SAMPLES]
        ranges[name] = measure(modules[name], [[torch.from_numpy(a) for a in given[name][i]] for i in chosen])
    write_ranges(folder / FILE, ranges)
    record_hash(folder / FILE)
    return folder / FILE


def _listen(engine: MiniEngine, sounds: Sequence[Float32], seed: int, styles: int) -> _Given:
    """What the programs are given while the engine speaks."""
    given: _Given = {name: [] for name in PROGRAMS}

    def noted(name: str, program: Program) -> Program:
        def run(*arrays: NDArray) -> tuple[NDArray, ...]:  # type: ignore[type-arg]
            given[name].append(tuple(np.array(a) for a in arrays))
            return program(*arrays)

        return run

    programs = replace(engine.programs, **{n: noted(n, getattr(engine.programs, n)) for n in PROGRAMS})
    watched = replace(engine, programs=programs)
    rng = np.random.default_rng([seed, 1])
    zeros = np.zeros(engine.style_dim, np.float32)
    for k in range(styles):
        mu = rng.standard_normal(engine.style_dim, dtype=np.float32)
        who = engine.avatars[k % len(engine.avatars)]
        face = watched.stream(avatar=who, style=StyleRequest("calibration", mu, zeros, 0.0), seed=seed + k)
        face.hear(SpeechState(0, True))
        face.push(AudioChunk(0, sounds[k % len(sounds)], MODEL_RATE_HZ))
        face.flush()
    return given
