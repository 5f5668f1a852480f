"""What a rolling window costs: error of streamed wav2vec2 hidden states against the offline pass.

In: a `Wav2Vec2Model` and speech. Out: rows of window and look-ahead with the relative error, and the error of freezing
the normalisation alone. Remembers: nothing; a workshop tool behind `svp bench encoder`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from svp_stream.audio.wav2vec import TAIL
from svp_stream.audio.wav2vec_rolling import FRAME, RollingConfig, RollingEncoder, measure_statistics
from svp_stream.packets import Float32

WINDOWS_S = (1.0, 2.0, 4.0)
LOOK_AHEADS = (0, 1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class RollingError:
    """`error`: |streamed - offline| / |offline - its mean|, over all hidden states; `cosine`: mean of states less
    the mean state."""

    window_s: float
    look_ahead_ms: int
    error: float
    cosine: float


@dataclass(frozen=True, slots=True)
class EncoderReport:
    """`frozen`: error of frozen normalisation against the checkpoint as shipped, whole clip both; then the windows."""

    norm: str
    seconds: float
    frozen: float
    rows: tuple[RollingError, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def table(self) -> str:
        """Markdown: windows down, look-ahead across."""
        aheads = sorted({r.look_ahead_ms for r in self.rows})
        by = {(r.window_s, r.look_ahead_ms): r for r in self.rows}
        lines = [
            f"feat_extract_norm {self.norm}, {self.seconds:.1f} s of speech; frozen normalisation and running level "
            f"alone: relative error {self.frozen:.3f}", "",
            "| window | " + " | ".join(f"{a} ms ahead" for a in aheads) + " |", "|---" * (len(aheads) + 1) + "|",
        ]  # fmt: skip
        for window in sorted({r.window_s for r in self.rows}):
            cells = (by.get((window, a)) for a in aheads)
            told = (f"{c.error:.3f} (cos {c.cosine:.3f})" if c else "" for c in cells)
            lines.append(f"| {window:g} s | " + " | ".join(told) + " |")
        return "\n".join(lines)


def measure_errors(
    model: Any, speech: Float32, windows_s: Sequence[float] = WINDOWS_S, look_aheads: Sequence[int] = LOOK_AHEADS,
) -> EncoderReport:
    """The table for one checkpoint over speech, float32 [N] at 16 kHz; `model` stays as it is.

    The statistics of a group norm are measured over the same speech: the report is of windows, not of voices.
    """
    own = copy.deepcopy(model)
    group = own.config.feat_extract_norm == "group"
    encoder = RollingEncoder(own, RollingConfig(), measure_statistics(model, [speech]) if group else None)
    whole = encoder.encode_whole(speech)
    rows = []
    for seconds in windows_s:
        for ahead in look_aheads:
            window = round(seconds * 25)
            if ahead >= window:
                continue
            encoder.config = replace(encoder.config, window=window, look_ahead=ahead)
            error, cosine = difference(encoder.encode(speech), whole)
            rows.append(RollingError(seconds, 40 * ahead, error, cosine))
    frozen, _ = difference(whole, as_shipped(model, speech)[: len(whole)])
    return EncoderReport(own.config.feat_extract_norm, len(speech) / 16_000, frozen, tuple(rows))


@torch.inference_mode()
def as_shipped(model: Any, speech: Float32) -> Float32:
    """Hidden states [T, d] by the checkpoint's own pre-processing: the utterance at zero mean and unit variance."""
    whole = speech[: (len(speech) - TAIL) // FRAME * FRAME + TAIL]
    levelled = (whole - whole.mean()) / np.sqrt(whole.var() + 1e-7)
    out: Float32 = model(torch.from_numpy(levelled.astype(np.float32))[None]).last_hidden_state[0].numpy()
    return out


def difference(ours: Float32, truth: Float32) -> tuple[float, float]:
    """(relative error, mean cosine), both [T, d], about the mean state of the truth."""
    mean = truth.mean(0)
    a, b = ours - mean, truth - mean
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-12)), float(((a * b).sum(1) / (norms + 1e-12)).mean())
