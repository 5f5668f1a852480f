"""`svp bench encoder`: what streaming a wav2vec2 checkpoint costs, and its frozen normalisation as a file.

In: a checkpoint by folder or hub id, and speech (a recording, or made-up syllables). Out: the table of
`audio.rolling_error`, arithmetic and time of a frame by window and for the causal copy, and where asked the statistics
file that an sd15 folder names. Remembers: nothing.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from svp_stream.audio.resample import Resampler
from svp_stream.audio.rolling_error import WINDOWS_S, EncoderReport, measure_errors
from svp_stream.audio.wav2vec import TAIL, EncoderConfig, Wav2VecEncoder
from svp_stream.audio.wav2vec_rolling import (
    FRAME,
    RollingConfig,
    RollingEncoder,
    load_wav2vec2,
    measure_statistics,
    save_statistics,
)
from svp_stream.clock import FRAME_RATE_HZ, WIRE_RATE_HZ
from svp_stream.packets import AudioChunk
from svp_stream.pipeline import bench
from svp_stream.pipeline.sd15_cost import count_hearing

logger = logging.getLogger(__name__)
REPEATS: Final = 5


@dataclass(frozen=True, slots=True)
class HearingCost:
    """Of one video frame: floating point operations in 1e9 (a multiplication and an addition are two), and the median
    time in milliseconds on this machine."""

    name: str
    gflop: float
    ms: float


@dataclass(frozen=True, slots=True)
class EncoderBench:
    """Errors and costs of one checkpoint, and the costs of a causal copy of it."""

    errors: EncoderReport
    costs: tuple[HearingCost, ...]
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def table(self) -> str:
        """Markdown."""
        lines = [self.errors.table(), "", f"| heard by ({self.threads} threads) | GFLOP a frame | GFLOP/s, live | "
                 f"ms a frame (40 is live) |", "|---|---:|---:|---:|"]
        lines += [f"| {c.name} | {c.gflop:.3g} | {c.gflop * FRAME_RATE_HZ:.3g} | {c.ms:.1f} |" for c in self.costs]
        return "\n".join(lines)


def report(model: str, speech: Path | None, seconds: float, freeze: Path | None, copy: EncoderConfig) -> EncoderBench:
    """`copy`: size of the causal copy that the checkpoint could be distilled into.

    Raises WeightsError for the checkpoint and MediaError for the recording.
    """
    loaded = load_wav2vec2(model)
    sound = bench.syllables(seconds) if speech is None else bench.read_speech(speech, seconds)
    heard = Resampler(WIRE_RATE_HZ).push(AudioChunk(0, sound, WIRE_RATE_HZ))[0].samples
    if freeze is not None:
        save_statistics(freeze, measure_statistics(loaded, [heard]))
        logger.info("normalisation over %.1f s of sound written to %s", seconds, freeze)
    errors = measure_errors(loaded, heard)
    return EncoderBench(errors, hearing_costs(loaded, copy), torch.get_num_threads())


def hearing_costs(model: Any, copy: EncoderConfig) -> tuple[HearingCost, ...]:
    """Cost of a frame through `model` over each window, and through a causal copy of the size `copy`.

    `model` is left with its normalisation frozen, at values of no meaning.
    """
    group = model.config.feat_extract_norm == "group"
    idle = torch.zeros(model.config.conv_dim[0]), torch.ones(model.config.conv_dim[0])
    encoder = RollingEncoder(model, RollingConfig(), idle if group else None)
    rows = []
    with torch.inference_mode():
        for seconds in WINDOWS_S:
            window = round(seconds * FRAME_RATE_HZ)
            encoder.config = replace(encoder.config, window=window)
            kept = encoder.features(torch.zeros(1, FRAME + TAIL)).repeat(1, window, 1)

            def hear(kept: torch.Tensor = kept) -> None:
                encoder.features(torch.zeros(1, FRAME + TAIL))
                encoder.context(kept)

            rows.append(HearingCost(f"rolling window of {seconds:g} s", count_hearing(encoder) / 1e9, _ms(hear)))
        small = Wav2VecEncoder(copy).eval()
        sound, state = torch.zeros(1, copy.window), small.initial()
        rows.append(HearingCost("causal copy", count_hearing(small) / 1e9, _ms(lambda: small.step(sound, state))))
    return tuple(rows)


def _ms(work: Callable[[], object]) -> float:
    """Median of some runs, after one that does not count."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)
