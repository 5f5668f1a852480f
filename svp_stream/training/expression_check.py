"""How well the conditioner speaks: figures and curves on held-out voices and sentences, with controls.

In: a trained conditioner and projection, the style encoder, held-out takes. Out: named figures, a sheet of curves.
Styles are known from one set of held-out takes and spoken in another, as a user's clip would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svp_stream.arkit import MOUTH, SPEECH, SPEECH_INDEX
from svp_stream.diffusion.conditioner import Conditioner, gather_windows
from svp_stream.packets import Float32
from svp_stream.style.prior import StyleEncoder
from svp_stream.style.projection import StyleProjection
from svp_stream.synthetic.styles import HELD_OUT_STYLES, NAMED, SpeakingStyle
from svp_stream.training import curves
from svp_stream.training.coefficients import CoefficientBank, Take
from svp_stream.training.sheets import write_png
from svp_stream.training.style_clips import stack, two_cuts

LAGS: Final = range(-6, 7)
CHECKED: Final = ("neutral", "warm", "serious", "mumble", "dramatic", "angry", "sly", *HELD_OUT_STYLES)
_Track = NDArray[np.floating[Any]]


class Speaker(Protocol):
    """What is checked."""

    @property
    def conditioner(self) -> Conditioner:
        """Window and style to expression."""
        ...

    @property
    def projection(self) -> StyleProjection:
        """Style to tokens."""
        ...


@torch.no_grad()
def speak(
    model: Speaker, take: Take, s: Tensor, *, look_ahead: int = 2, strength: float = 1.0, variant: int = 0
) -> Float32:
    """Expression [T, 42] of a whole take, clipped to [0, 1]; `s` [D]."""
    frames = torch.arange(take.frames)
    audio = torch.from_numpy(take.audio(variant))
    windows, heard = gather_windows(audio, frames, look_ahead, model.conditioner.config)
    style = model.projection(s[None]).expand(take.frames, -1, -1)
    found = model.conditioner(windows, heard, style, torch.full((take.frames,), strength)).expression
    return np.asarray(found.clamp(0, 1).numpy(), dtype=np.float32)


def gap(expression: Float32) -> _Track:
    """Opening between the lips [T]: jaw less closure, and the lips' own parting."""
    i = SPEECH_INDEX
    lips = expression[:, [i["mouthLowerDownLeft"], i["mouthUpperUpLeft"]]].sum(1)
    return np.asarray(expression[:, i["jawOpen"]] - expression[:, i["mouthClose"]] + 0.3 * lips)


def pearson(a: _Track, b: _Track) -> float:
    """Correlation; 0 where one of them stands still."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / size) if size > 1e-9 else 0.0


def lag_ms(guess: _Track, truth: _Track) -> float:
    """Shift in ms at which they agree best, refined by a parabola; positive: the guess is late."""
    edge = max(LAGS)
    middle = truth[edge:-edge]
    r = [pearson(guess[edge + k : len(guess) - edge + k], middle) for k in LAGS]
    best = int(np.argmax(r))
    if not 0 < best < len(r) - 1:
        return float(LAGS[best] * 40)
    bend = r[best - 1] - 2 * r[best] + r[best + 1]
    return float(40 * (LAGS[best] + 0.5 * (r[best - 1] - r[best + 1]) / bend)) if bend < 0 else float(LAGS[best] * 40)


def style_mean(encoder: StyleEncoder, style: SpeakingStyle, takes: Sequence[Take], frames: int = 72) -> Tensor:
    """mu [D] of a style, the mean over one clip from each take."""
    rng = np.random.default_rng(31)
    b = stack([two_cuts(take, style, frames, rng)[0] for take in takes])
    with torch.no_grad():
        mu: Tensor = encoder(b["expression"], b["audio"], b["mask"])[0]
    return mu.mean(0)


def check(model: Speaker, encoder: StyleEncoder, bank: CoefficientBank, takes: int = 5) -> dict[str, float]:
    """`gap_r`, its shuffled control and lag; `mouth_r` over mouth coefficients; `gap_r_STYLE`; error with the right
    and with a wrong style; motion and opening of the mouth in silence; openness where lips must meet; `articulation`,
    the gain of the opening that gives voices of the training, saying other sentences, their true size."""
    talking = [t for t in bank.held_out if t.held_out_voice and not t.silent().all()]
    teach, test = talking[:6], talking[-takes:]
    mus = {name: style_mean(encoder, NAMED[name], teach) for name in CHECKED}
    rows: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    for i, take in enumerate(test):
        for j, name in enumerate(CHECKED):
            truth = take.expression(NAMED[name], np.random.default_rng(41))
            guess = speak(model, take, mus[name])
            r = pearson(gap(guess), gap(truth))
            for key in ("gap_r", f"gap_r_{name}"):
                note(key, r)
            other = test[(i + 1) % len(test)].expression(NAMED[name], np.random.default_rng(41))
            shortest = min(len(other), len(guess))
            note("gap_r_shuffled", pearson(gap(guess)[:shortest], gap(other)[:shortest]))
            note("lag_ms", lag_ms(gap(guess), gap(truth)))
            note("mouth_r", _mouth_r(guess, truth))
            note("error", float(np.abs(guess - truth).mean()))
            wrong = speak(model, take, mus[CHECKED[(j + 3) % len(CHECKED)]])
            note("error_wrong_style", float(np.abs(wrong - truth).mean()))
            _note_details(note, take, guess, truth)
        note("gap_r_noisy", pearson(gap(speak(model, take, mus["warm"], variant=1)),
                                    gap(take.expression(NAMED["warm"], np.random.default_rng(41)))))
    known = [t for t in bank.held_out if not t.held_out_voice and not t.silent().all()]
    means = {name: float(np.nanmean(values)) for name, values in rows.items()}
    return means | _look_ahead(model, test, mus["warm"]) | _articulation(model, known, mus)


def _articulation(model: Speaker, takes: Sequence[Take], mus: dict[str, Tensor]) -> dict[str, float]:
    """The median over takes and styles of true over predicted deviation of the opening."""
    ratios = []
    for take in takes:
        for name in CHECKED:
            truth = gap(take.expression(NAMED[name], np.random.default_rng(41)))
            ratios.append(truth.std() / max(float(gap(speak(model, take, mus[name])).std()), 1e-6))
    return {"articulation": float(np.median(ratios))} if ratios else {}


def _note_details(note: Any, take: Take, guess: Float32, truth: Float32) -> None:
    """Silence and closures of one take."""
    quiet = take.silent()
    if quiet.sum() > 5:
        note("silent_opening", float(gap(guess)[quiet].mean()))
        note("silent_opening_true", float(gap(truth)[quiet].mean()))
        note("silent_motion", float(np.abs(np.diff(gap(guess)))[quiet[1:] & quiet[:-1]].mean()))
    close, jaw = (truth[:, SPEECH_INDEX[n]] for n in ("mouthClose", "jawOpen"))
    met = (jaw > 0.02) & (close > 0.9 * jaw)
    if met.any():
        note("opening_where_shut", float(gap(guess)[met].mean()))
        note("opening_elsewhere", float(gap(guess)[~met & ~quiet].mean()))


def _mouth_r(guess: Float32, truth: Float32) -> float:
    """Mean correlation over the mouth's coefficients that move in the truth."""
    chosen = [SPEECH_INDEX[n] for n in MOUTH]
    moving = [k for k in chosen if truth[:, k].std() > 0.02]
    return float(np.mean([pearson(guess[:, k], truth[:, k]) for k in moving])) if moving else float("nan")


def _look_ahead(model: Speaker, takes: Sequence[Take], s: Tensor) -> dict[str, float]:
    """`gap_r_ahead_L`: the correlation for each look-ahead in frames, in style `warm`."""
    truths = [gap(take.expression(NAMED["warm"], np.random.default_rng(41))) for take in takes]
    return {
        f"gap_r_ahead_{n}": float(np.mean([
            pearson(gap(speak(model, take, s, look_ahead=n)), truth) for take, truth in zip(takes, truths, strict=True)
        ]))
        for n in range(model.conditioner.config.max_look_ahead + 1)
    }


def draw_check(model: Speaker, encoder: StyleEncoder, bank: CoefficientBank, path: Path) -> None:
    """One held-out sentence in three styles: opening, closure, smile and brows, true and predicted."""
    talking = [t for t in bank.held_out if t.held_out_voice and not t.silent().all()]
    rows = []
    for name in ("warm", "mumble", "angry", HELD_OUT_STYLES[0]):
        guess = speak(model, talking[-1], style_mean(encoder, NAMED[name], talking[:6]))
        truth = talking[-1].expression(NAMED[name], np.random.default_rng(41))
        row = [curves.Panel(f"{name} gap", {"true": gap(truth), "predicted": gap(guess)}, -0.1, 0.8)]
        for coefficient in ("jawOpen", "mouthPucker", "mouthSmileLeft", "browInnerUp"):
            k = SPEECH.index(coefficient)
            row.append(curves.Panel(f"{name} {coefficient}", {"true": truth[:, k], "predicted": guess[:, k]}))
        rows.append(row)
    write_png(path, curves.draw(rows, width=420, height=150))
