"""What the caller of the acceptance test says, and what the lips should do meanwhile.

In: what lips go by. Out: `Score`: about 40 s of the held-out voice saying held-out sentences, when it speaks, and how
far the lips should be open: in the style `warm` for a face that knows the words, by the loudness of the voice for a
drawn one, which knows nothing else. Remembers: nothing.

    lead of silence | sentences | silence | sentences | the first sentences again, for the change of style | silence
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from svp_stream.arkit import SPEECH_INDEX
from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ, WIRE_RATE_HZ
from svp_stream.packets import Float32
from svp_stream.synthetic.articulation import articulate
from svp_stream.synthetic.sentences import split
from svp_stream.synthetic.speech import HELD_OUT_VOICES, VOICES, Utterance, synthesise
from svp_stream.synthetic.styles import NAMED

FIRST = (
    "Your order should arrive on Thursday before noon.",
    "Mum made marmalade from bitter oranges.",
    "Would you like the window seat or the aisle?",
)
SECOND = (
    "My grandmother turned eighty-seven in June.",
    "I like swimming, you like chess, and Pam likes both.",
    "The map shows a path between the two ponds.",
    "There's a bump on the bottom of the boat.",
    "Come over here and bring a mop, Bob.",
)
LEAD_S, PAUSE_S, BETWEEN_S, TAIL_S = 2.0, 4.0, 0.25, 1.5
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """`samples` at 48 kHz; spans in seconds of the sound; `lips` [T] is the right opening at (n + 0.5) / 25 s."""

    samples: Float32
    lips: Float32
    spoken: tuple[tuple[float, float], ...]
    """Every sentence in the first style."""
    silence: tuple[float, float]
    first: tuple[float, float]
    again: tuple[float, float]
    """The words of `first`, after the change of style."""

    @property
    def duration_s(self) -> float:
        """Length of the sound."""
        return len(self.samples) / WIRE_RATE_HZ

    def truth(self, times_s: Doubles) -> Doubles:
        """True lip opening at moments of the sound."""
        return np.interp(times_s * FRAME_RATE_HZ - 0.5, np.arange(len(self.lips)), self.lips)

    def speaks(self, times_s: Doubles) -> NDArray[np.bool_]:
        """Whether a sentence in the first style is being said."""
        return np.asarray(np.any([(times_s >= a) & (times_s < b) for a, b in self.spoken], axis=0))


def write_score(lips_by: Literal["words", "loudness"]) -> Score:
    """The same score at every call. Raises `MediaError` when flite is missing."""
    assert all(split(text) == "heldout" for text in (*FIRST, *SECOND)), "the sentences must be held out"
    voice = VOICES[HELD_OUT_VOICES[0]]
    said = {text: synthesise(text, voice) for text in (*FIRST, *SECOND)}
    pieces, starts, clock = [_quiet(LEAD_S)], [], LEAD_S
    for block, after in ((FIRST, PAUSE_S), (SECOND, BETWEEN_S), (FIRST, TAIL_S)):
        for n, text in enumerate(block):
            starts.append((clock, said[text]))
            rest = after if n == len(block) - 1 else BETWEEN_S
            pieces += [said[text].samples, _quiet(rest)]
            clock += said[text].duration_s + rest
    spans = tuple((start, start + u.duration_s) for start, u in starts)
    one, two = len(FIRST), len(FIRST) + len(SECOND)
    sound = resample_poly(np.concatenate(pieces), WIRE_RATE_HZ // MODEL_RATE_HZ, 1).astype(np.float32)
    lips = _opening(starts, clock) if lips_by == "words" else _loudness(sound)
    return Score(
        sound, lips, spans[:two], silence=(spans[one - 1][1], spans[one][0]),
        first=(spans[0][0], spans[one - 1][1]), again=(spans[two][0], spans[-1][1]),
    )  # fmt: skip


def _quiet(seconds: float) -> Float32:
    return np.zeros(round(seconds * MODEL_RATE_HZ), np.float32)


def _opening(starts: list[tuple[float, Utterance]], duration_s: float) -> Float32:
    """Jaw opening less what the lips close again, [T]."""
    out = np.zeros(round(duration_s * FRAME_RATE_HZ), np.float32)
    rng = np.random.default_rng(0)
    for start, utterance in starts:
        face = articulate(utterance, NAMED["warm"], int(utterance.duration_s * FRAME_RATE_HZ), rng)
        opening = face[:, SPEECH_INDEX["jawOpen"]] - face[:, SPEECH_INDEX["mouthClose"]]
        at = round(start * FRAME_RATE_HZ)
        opening = opening[: len(out) - at]
        out[at : at + len(opening)] = opening
    return out


def _loudness(samples: Float32) -> Float32:
    """Level of each frame of the sound in [0, 1]: 0 at -50 dB and below, 1 at -18 dB and above, [T]."""
    hop = WIRE_RATE_HZ // FRAME_RATE_HZ
    power = np.mean(samples[: len(samples) // hop * hop].reshape(-1, hop).astype(np.float64) ** 2, axis=1)
    return np.asarray(np.clip((10 * np.log10(power + 1e-12) + 50) / 32, 0, 1), dtype=np.float32)
