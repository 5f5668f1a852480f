"""Films for people: every head in a few styles, saying what no training heard, as MP4 with sound.

In: an engine, held-out clips (their sound alone), names of presets. Out: `<head>-<style>.mp4`, made by the very same
`offline.render` as `svp render`: the engine's own motion, blinks and gaze. Remembers: nothing.
"""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from svp_stream.clock import WIRE_RATE_HZ
from svp_stream.evaluation.evaluate import Bench
from svp_stream.evaluation.trials import Trial
from svp_stream.packets import Float32
from svp_stream.pipeline import offline
from svp_stream.pipeline.engine import Engine

MOST_HEADS: Final = 3
PAUSE_S: Final = 0.5


def make_films(
    out: Path, engine: Engine, bench: Bench, trials: Sequence[Trial], styles: Sequence[str], seconds: float
) -> list[Path]:
    """A film for each of the first three heads and each style. Raises PresetError for an unknown style, MediaError
    where a film cannot be written."""
    out.mkdir(parents=True, exist_ok=True)
    asked = [bench.style(name) for name in styles]
    plan = [(avatar, style) for avatar in engine.avatars[:MOST_HEADS] for style in asked]
    with tempfile.TemporaryDirectory() as name:
        speech = Path(name) / "speech.wav"
        _write(speech, speech_of(trials, seconds))
        made = [
            offline.render(speech, out / f"{avatar}-{style.name}.mp4", engine, style, avatar, vad=bench.vad,
                           seed=bench.seed + number)
            for number, (avatar, style) in enumerate(bench.counted("films", plan))
        ]  # fmt: skip
    return [film.path for film in made]


def speech_of(trials: Sequence[Trial], seconds: float) -> Float32:
    """Clips one after another with pauses between, float32 [48000 * seconds]; the first again where they are few."""
    wanted = round(seconds * WIRE_RATE_HZ)
    pause = np.zeros(round(PAUSE_S * WIRE_RATE_HZ), np.float32)
    parts: list[Float32] = []
    while sum(map(len, parts)) < wanted:
        for trial in trials:
            parts += [pause, trial.sound]
            if sum(map(len, parts)) >= wanted:
                break
    return np.concatenate(parts)[:wanted]


def _write(path: Path, sound: Float32) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(WIRE_RATE_HZ)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
