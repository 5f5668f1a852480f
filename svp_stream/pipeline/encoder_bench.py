"""`svp bench encoder`: what streaming a wav2vec2 checkpoint costs, and its frozen normalisation as a file.

In: a checkpoint by folder or hub id, and speech (a recording, or made-up syllables). Out: the table of
`audio.rolling_error`, and where asked the statistics file that an sd15 folder names. Remembers: nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path

from svp_stream.audio.resample import Resampler
from svp_stream.audio.rolling_error import EncoderReport, measure_errors
from svp_stream.audio.wav2vec_rolling import load_wav2vec2, measure_statistics, save_statistics
from svp_stream.clock import WIRE_RATE_HZ
from svp_stream.packets import AudioChunk
from svp_stream.pipeline import bench

logger = logging.getLogger(__name__)


def report(model: str, speech: Path | None, seconds: float, freeze: Path | None) -> EncoderReport:
    """Raises WeightsError for the checkpoint and MediaError for the recording."""
    loaded = load_wav2vec2(model)
    sound = bench.syllables(seconds) if speech is None else bench.read_speech(speech, seconds)
    heard = Resampler(WIRE_RATE_HZ).push(AudioChunk(0, sound, WIRE_RATE_HZ))[0].samples
    if freeze is not None:
        save_statistics(freeze, measure_statistics(loaded, [heard]))
        logger.info("normalisation over %.1f s of sound written to %s", seconds, freeze)
    return measure_errors(loaded, heard)
