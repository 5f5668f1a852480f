"""Synthetic voices: text in, sound and the exact time of every phoneme out.

In: text and a `Voice`. Out: `Utterance`, 16 kHz mono with phonemes that cover it without a gap, silence first and last.
Three free synthesisers serve: flite and Festival (voices built from recorded humans; both tell where each phoneme ends)
and espeak-ng (formant voices, male and female, run in a child process, see `espeak`). None tells stress, so vowels are
ranked by loudness and length within the utterance.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from scipy.signal import resample_poly

from svp_stream.clock import MODEL_RATE_HZ
from svp_stream.errors import MediaError
from svp_stream.packets import Float32
from svp_stream.synthetic.phonemes import VOWELS, Phoneme, from_abroad, from_espeak, from_flite

__all__ = ["ABROAD", "HELD_OUT_VOICES", "VOICES", "Phoneme", "Utterance", "Voice", "synthesise"]

TIMEOUT_S: Final = 60
EDGE_S: Final = 0.12
"""Least silence before and after speech."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One speaker: `f0_hz` mean pitch (None: as the engine has it), `stretch` longer than 1 speaks slower; `language`
    is a code that `sentences.abroad` knows, or 'en'."""

    name: str
    engine: Literal["flite", "festival", "espeak"]
    f0_hz: float | None
    stretch: float
    language: str = "en"

    def jitter(self, rng: np.random.Generator, pitch_spread: float = 0.08, pace_spread: float = 0.15) -> Voice:
        """The same speaker on another day: pitch and pace off by factors of up to 1 + spread, either way.

        Beyond some 10 % it is a speaker of its own: the vocal tract keeps its size while the pitch leaves it.
        """
        pitch, pace = (float(np.exp(rng.uniform(-1, 1) * np.log1p(s))) for s in (pitch_spread, pace_spread))
        return replace(self, f0_hz=None if self.f0_hz is None else self.f0_hz * pitch, stretch=self.stretch * pace)


@dataclass(frozen=True, slots=True)
class Utterance:
    """Spoken `text`: float32 [N] at 16 kHz in [-1, 1]; `phonemes` cover 0..N without a gap, 'pau' first and last.

    `breaths` are (start, end) of audible breaths within pauses, `accents` the middles of words that the speaker singles
    out, both in seconds.
    """

    text: str
    voice: str
    samples: Float32
    phonemes: tuple[Phoneme, ...]
    breaths: tuple[tuple[float, float], ...] = ()
    accents: tuple[float, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of the sound in seconds."""
        return len(self.samples) / MODEL_RATE_HZ


VOICES: Final[dict[str, Voice]] = {
    voice.name: voice
    for voice in (
        Voice("slt", "flite", 167.0, 1.0),
        Voice("awb", "flite", 124.0, 1.0),
        Voice("kal16", "flite", 100.0, 1.0),
        Voice("rms", "flite", None, 1.0),
        Voice("ked", "festival", 105.0, 1.0),
        Voice("slt-high", "flite", 205.0, 0.95),
        Voice("slt-low", "flite", 145.0, 1.08),
        Voice("awb-high", "flite", 150.0, 0.95),
        Voice("en-us", "espeak", 100.0, 1.0),
        Voice("en-us+f2", "espeak", 190.0, 1.0),
        Voice("en-us+f4", "espeak", 180.0, 1.05),
        Voice("en-us+m3", "espeak", 110.0, 1.0),
        Voice("en-us+m7", "espeak", 105.0, 1.05),
        Voice("en-gb-x-rp+f1", "espeak", 180.0, 1.0),
        Voice("en-gb-x-rp+m3", "espeak", 95.0, 1.0),
        Voice("en-us+f1", "espeak", 185.0, 1.0),
        Voice("en-us+f3", "espeak", 200.0, 0.97),
        Voice("en-us+f5", "espeak", 170.0, 1.0),
        Voice("en-us+m1", "espeak", 100.0, 0.97),
        Voice("en-us+m4", "espeak", 90.0, 1.0),
        Voice("en-us+m6", "espeak", 115.0, 1.0),
        Voice("en-us+m8", "espeak", 120.0, 1.0),
        Voice("en-us+klatt2", "espeak", 105.0, 1.0),
        Voice("en-us+klatt4", "espeak", 110.0, 1.0),
        Voice("en-us+Andy", "espeak", 100.0, 1.0),
        Voice("en-us+linda", "espeak", 190.0, 1.0),
    )
}
ABROAD: Final[dict[str, Voice]] = {
    voice.name: voice
    for voice in (
        Voice("de+f2", "espeak", 185.0, 1.0, "de"),
        Voice("de+m3", "espeak", 105.0, 1.0, "de"),
        Voice("fr+f4", "espeak", 185.0, 1.0, "fr"),
        Voice("fr+m1", "espeak", 105.0, 1.0, "fr"),
        Voice("es+f1", "espeak", 185.0, 1.0, "es"),
        Voice("es+m4", "espeak", 100.0, 1.0, "es"),
        Voice("it+f3", "espeak", 190.0, 1.0, "it"),
        Voice("it+m6", "espeak", 115.0, 1.0, "it"),
        Voice("nl+f5", "espeak", 175.0, 1.0, "nl"),
        Voice("nl+m7", "espeak", 105.0, 1.0, "nl"),
        Voice("pl+f2", "espeak", 185.0, 1.0, "pl"),
        Voice("pl+m8", "espeak", 115.0, 1.0, "pl"),
    )
}
"""Voices of other languages; apart from `VOICES`, which all speak English."""
HELD_OUT_VOICES: Final = ("rms",)
"""Never heard in training."""
HUMAN_SHARE: Final = 12.0
"""How much oftener a recorded human speaks than a formant voice, which is far easier to read."""


def draw_voice(rng: np.random.Generator, held_out: bool) -> Voice:
    """One of the training voices, or of those held out, by their shares."""
    voices = [v for name, v in VOICES.items() if (name in HELD_OUT_VOICES) == held_out]
    speakers = [v.name if v.engine == "espeak" else v.name.partition("-")[0] for v in voices]
    share = np.array([HUMAN_SHARE / speakers.count(s) if v.engine != "espeak" else 1.0
                      for v, s in zip(voices, speakers, strict=True)])
    return voices[int(rng.choice(len(voices), p=share / share.sum()))]


def synthesise(text: str, voice: Voice) -> Utterance:
    """Speak `text`. Raises MediaError when the text is empty, the synthesiser is missing or it fails."""
    text = " ".join(text.split())
    if not any(c.isalnum() for c in text):
        raise MediaError(f"nothing to speak in {text!r}; give at least one word")
    samples, marks = {"flite": _flite, "festival": _festival, "espeak": _espeak}[voice.engine](text, voice)
    if len(samples) == 0 or not marks:
        raise MediaError(f"{voice.engine} voice {voice.name!r} gave no sound for {text!r}")
    samples, marks = _pad(samples, marks)
    return Utterance(text, voice.name, samples, _with_stress(samples, marks))


_Marks = list[tuple[str, float, float]]


def _run(command: Sequence[str], stdin: bytes | None, hint: str) -> bytes:
    """Output of a child; MediaError with its own words when it fails."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise MediaError(f"{command[0]} took more than {TIMEOUT_S} s; give a shorter text") from late
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-300:] or f"exit status {done.returncode}"
        raise MediaError(f"{' '.join(command[:3])} failed: {reason}; {hint}")
    return done.stdout


def _flite(text: str, voice: Voice) -> tuple[Float32, _Marks]:
    program = shutil.which("flite")
    if program is None:
        raise MediaError("the program flite is missing; install it: apt install flite")
    name = voice.name.partition("-")[0]
    with tempfile.TemporaryDirectory(prefix="svp-flite-") as folder:
        sound = Path(folder) / "speech.wav"
        command = [program, "-psdur", "-voice", name, "--setf", f"duration_stretch={voice.stretch:.4f}"]
        if voice.f0_hz is not None:
            command += ["--setf", f"int_f0_target_mean={voice.f0_hz:.2f}"]
        printed = _run([*command, "-t", text, "-o", str(sound)], None, f"check that `flite -lv` lists {name!r}")
        samples = _read_wave(sound)
    marks: _Marks = []
    start = 0.0
    for item in printed.decode(errors="replace").split():
        symbol, _, end = item.rpartition(":")
        try:
            marks.append((from_flite(symbol), start, float(end)))
        except (KeyError, ValueError) as odd:
            raise MediaError(f"flite printed {item!r} where 'phoneme:end' was expected (text {text!r})") from odd
        start = float(end)
    return samples, marks


def _festival(text: str, voice: Voice) -> tuple[Float32, _Marks]:
    """Diphones of a recorded human; `int_lr_params` are Festival's linear-regression intonation (manual, s. 18)."""
    program = shutil.which("festival")
    if program is None:
        raise MediaError("the program festival is missing; install it: apt install festival festvox-kdlpc16k")
    f0_hz = voice.f0_hz or 105.0
    quoted = text.replace("\\", " ").replace('"', " ")
    with tempfile.TemporaryDirectory(prefix="svp-festival-") as folder:
        sound, segments = Path(folder) / "speech.wav", Path(folder) / "segments"
        script = (
            f"(voice_{voice.name}_diphone)\n(Parameter.set 'Duration_Stretch {voice.stretch:.4f})\n"
            f"(set! int_lr_params '((target_f0_mean {f0_hz:.2f}) (target_f0_std {0.13 * f0_hz:.2f})"
            " (model_f0_mean 170) (model_f0_std 34)))\n"
            f'(set! said (utt.synth (Utterance Text "{quoted}")))\n'
            f'(utt.save.segs said "{segments}")\n(utt.save.wave said "{sound}" \'riff)\n'
        )
        _run([program, "--pipe"], script.encode(), f"is festvox-{voice.name[:2]}lpc16k installed?")
        if not sound.is_file() or not segments.is_file():
            raise MediaError(f"festival said nothing with the voice {voice.name!r}; apt install festvox-kdlpc16k")
        samples, lines = _read_wave(sound), segments.read_text().splitlines()
    marks: _Marks = []
    start = 0.0
    for end, _, symbol in (line.split() for line in lines if len(line.split()) == 3):
        marks.append((from_flite(symbol), start, float(end)))
        start = float(end)
    return samples, marks


def _read_wave(path: Path) -> Float32:
    with wave.open(str(path), "rb") as sound:
        if sound.getnchannels() != 1 or sound.getsampwidth() != 2:
            raise MediaError(f"{path.name}: expected 16-bit mono, found {sound.getparams()}")
        raw, rate_hz = sound.readframes(sound.getnframes()), sound.getframerate()
    return _to_model_rate(np.frombuffer(raw, dtype="<i2"), rate_hz)


def _to_model_rate(pcm: np.ndarray[tuple[int], np.dtype[np.int16]], rate_hz: int) -> Float32:
    samples = pcm.astype(np.float32) / np.float32(32768)
    if rate_hz == MODEL_RATE_HZ or len(samples) == 0:
        return samples
    common = int(np.gcd(rate_hz, MODEL_RATE_HZ))
    resampled = resample_poly(samples, MODEL_RATE_HZ // common, rate_hz // common)
    return np.asarray(resampled.clip(-1, 1), dtype=np.float32)  # filters overshoot a full-scale edge


def _espeak(text: str, voice: Voice) -> tuple[Float32, _Marks]:
    base = (VOICES | ABROAD).get(voice.name, voice)
    spelled = from_espeak if voice.language == "en" else from_abroad
    pitch = 50
    if voice.f0_hz is not None and base.f0_hz is not None:
        pitch += round(90 * float(np.log2(voice.f0_hz / base.f0_hz)))
    command = [sys.executable, "-I", str(Path(__file__).with_name("espeak.py")), voice.name,
               str(round(165 / voice.stretch)), str(int(np.clip(pitch, 0, 99)))]
    out = _run(command, text.encode(), "install it: apt install espeak-ng")
    line, _, sound = out.partition(b"\n")
    head = json.loads(line)
    marks: _Marks = []
    starts = [float(start) for start, _ in head["phonemes"]] + [float(head["end_s"])]
    for (start, mnemonic), end in zip(head["phonemes"], starts[1:], strict=True):
        try:
            symbols = spelled(mnemonic)
        except KeyError as odd:
            where = f"in {text!r} (voice {voice.name!r})"
            raise MediaError(f"espeak-ng spoke {mnemonic!r}, which is no known sound, {where}") from odd
        edges = np.linspace(start, end, len(symbols) + 1)
        marks += [(s, float(a), float(b)) for s, a, b in zip(symbols, edges[:-1], edges[1:], strict=True)]
    return _to_model_rate(np.frombuffer(sound, dtype="<i2"), int(head["rate_hz"])), marks


def _pad(samples: Float32, marks: _Marks) -> tuple[Float32, _Marks]:
    """Joins gaps and repeated silences, and makes the marks begin and end in silence and cover the whole sound."""
    total = len(samples) / MODEL_RATE_HZ
    joined: _Marks = []
    clock = 0.0
    for symbol, _, end in marks:
        end = min(end, total)
        if end - clock < 1e-4:
            continue
        if symbol == "pau" and joined and joined[-1][0] == "pau":
            joined[-1] = ("pau", joined[-1][1], end)
        else:
            joined.append((symbol, clock, end))
        clock = end
    lead = EDGE_S if not joined or joined[0][0] != "pau" else max(0.0, EDGE_S - (joined[0][2] - joined[0][1]))
    lead = round(lead * MODEL_RATE_HZ) / MODEL_RATE_HZ
    tail = EDGE_S if joined[-1][0] != "pau" else max(0.0, EDGE_S - (total - joined[-1][1]))
    padded = np.pad(samples, (round(lead * MODEL_RATE_HZ), round(tail * MODEL_RATE_HZ))).astype(np.float32)
    shifted = [(s, a + lead, b + lead) for s, a, b in joined]
    if shifted[0][0] == "pau":
        shifted[0] = ("pau", 0.0, shifted[0][2])
    else:
        shifted.insert(0, ("pau", 0.0, lead))
    total = len(padded) / MODEL_RATE_HZ
    if shifted[-1][0] == "pau":
        shifted[-1] = ("pau", shifted[-1][1], total)
    else:
        shifted.append(("pau", shifted[-1][2], total))
    return padded, shifted


def _with_stress(samples: Float32, marks: _Marks) -> tuple[Phoneme, ...]:
    """Ranks vowels by loudness (dB) and length: the upper third fully stressed, lower third and schwa not."""
    vowels = [i for i, (symbol, _, _) in enumerate(marks) if symbol in VOWELS]
    weight = np.zeros(len(marks))
    for i in vowels:
        symbol, start, end = marks[i]
        piece = samples[round(start * MODEL_RATE_HZ): max(round(end * MODEL_RATE_HZ), round(start * MODEL_RATE_HZ) + 1)]
        level_db = 10 * np.log10(float(np.mean(piece * piece)) + 1e-7) if len(piece) else -70.0
        weight[i] = level_db / 6 + np.log2(max(end - start, 0.02)) - (3.0 if symbol == "ax" else 0.0)
    if vowels:
        low, high = np.quantile(weight[vowels], [1 / 3, 2 / 3])
    stress = [0 if i not in vowels else int(weight[i] >= low) + int(weight[i] >= high) for i in range(len(marks))]
    return tuple(Phoneme(s, a, b, 0 if s == "ax" else k) for (s, a, b), k in zip(marks, stress, strict=True))
