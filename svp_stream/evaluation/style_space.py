"""What the style space is like: probes, diversity at equal lip sync, the way between presets, styles told from numbers.

In: style prior, conditioner and presets of a weights folder, takes of speech without pictures; for the probe of heads,
rendered clips and the gauge. Out: named figures, each control beside its figure. Remembers: nothing.
A probe is a ridge classifier of mu, fitted on some takes and asked about others. It should name the style, and fail to
name voice and head; that voice and head could be named shows in the probe of what the encoder was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch import Tensor

from svp_stream.evaluation.measure import SPEECH_READINGS, Gauge
from svp_stream.evaluation.metrics import diversity
from svp_stream.evaluation.style_judge import JudgeConfig, StyleJudge, fit_judge
from svp_stream.packets import Float32
from svp_stream.style.blend import StylePoint, mix, sample
from svp_stream.style.preset import StylePreset
from svp_stream.style.prior import StyleEncoder
from svp_stream.synthetic.styles import CAST, TRAINING_CAST
from svp_stream.training.clips import Clip, read_frames
from svp_stream.training.coefficients import CoefficientBank, Take
from svp_stream.training.expression_check import Speaker, gap, pearson, speak
from svp_stream.training.ridge import ridge
from svp_stream.training.style_clips import posterior

FRAMES: Final = 72
VOICES: Final = 6
TAKES_PER_VOICE: Final = 6
PROBE_STYLES: Final = tuple(TRAINING_CAST[::4])
RIDGE: Final = 1.0
STEPS: Final = 10
"""Steps on the way from one preset to another."""
SEEDS: Final = 5


@dataclass(frozen=True, slots=True)
class Space:
    """What is studied. `presets` are those of the prior whose encoder this is."""

    encoder: StyleEncoder
    speaker: Speaker
    bank: CoefficientBank
    presets: tuple[StylePreset, ...]

    def talking(self) -> list[Take]:
        """Held-out takes by a held-out voice."""
        return [t for t in self.bank.held_out if t.held_out_voice and not t.silent().all()]


def probe(features: Tensor, labels: Tensor, groups: Tensor, *, shuffle: int | None = None) -> float:
    """Accuracy of a ridge classifier of `features` [N, D] as to `labels` [N], cross-validated over two halves of
    `groups` [N]; `shuffle` seeds a control with the labels mixed."""
    if shuffle is not None:
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(shuffle))]
    x = features.double()
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    y = torch.nn.functional.one_hot(labels).double()
    right = torch.zeros(len(labels))
    for half in (groups % 2 == 0, groups % 2 == 1):
        weight, bias = ridge(x[~half], y[~half], RIDGE * x.shape[1] / 16)
        right[half] = ((x[half] @ weight.T + bias).argmax(1) == labels[half]).float()
    return float(right.mean())


def style_and_voice(space: Space) -> dict[str, float]:
    """Style and voice named off mu, over takes that the probe was not fitted on, with controls: labels shuffled, and
    the voice named off what the encoder hears. A speaker at another pitch is the same voice, and so are all of
    espeak-ng's."""
    by_voice: dict[str, list[Take]] = {}
    for take in space.bank.train:
        if not take.silent().all():
            by_voice.setdefault(take.utterance.voice.partition("-")[0], []).append(take)
    most = sorted(by_voice, key=lambda v: len(by_voice[v]), reverse=True)[:VOICES]
    takes = [(v, n, t) for v, name in enumerate(most) for n, t in enumerate(by_voice[name][:TAKES_PER_VOICE])]
    found = posterior(space.encoder, [CAST[n] for n in PROBE_STYLES], [t for _, _, t in takes], FRAMES, 6)
    voice, group = (torch.tensor([row[i] for row in takes] * len(PROBE_STYLES)) for i in (0, 1))
    heard = torch.from_numpy(np.stack([t.features().mean(0) for _, _, t in takes] * len(PROBE_STYLES)))
    return {
        "probe_style": probe(found.mu, found.labels, group),
        "probe_style_shuffled": probe(found.mu, found.labels, group, shuffle=0),
        "probe_style_chance": 1 / len(PROBE_STYLES),
        "probe_voice": probe(found.mu, voice, group), "probe_voice_shuffled": probe(found.mu, voice, group, shuffle=0),
        "probe_voice_chance": 1 / len(most), "probe_voice_off_the_sound": probe(heard, voice, group),
    }


@torch.no_grad()
def heads(space: Space, clips: Sequence[Clip], gauge: Gauge, hear: object) -> dict[str, float]:
    """The head named off mu, and off the mean face, of rendered clips as the gauge reads their pictures: `hear` gives
    audio features [T, A] of a clip. The probe is fitted on other clips than it is asked about."""
    assert callable(hear)
    names = sorted({c.avatar for c in clips})
    mus, faces, labels, groups = [], [], [], []
    count = dict.fromkeys(names, 0)
    for clip in clips:
        read = np.ascontiguousarray(gauge.read(read_frames(clip)[0])[:, SPEECH_READINGS])
        heard = hear(clip)
        for start in range(0, max(len(read) - FRAMES, 0) + 1, FRAMES):
            window = slice(start, start + FRAMES)
            mu, _ = space.encoder(*(torch.from_numpy(np.ascontiguousarray(x[window]))[None] for x in (read, heard)))
            mus.append(mu[0])
            faces.append(torch.from_numpy(read[window].mean(0)))
            labels.append(names.index(clip.avatar))
            groups.append(count[clip.avatar])
        count[clip.avatar] += 1
    label, group = torch.tensor(labels), torch.tensor(groups)
    most = max(labels.count(k) for k in range(len(names))) / len(labels)
    return {
        "probe_head": probe(torch.stack(mus), label, group),
        "probe_head_shuffled": probe(torch.stack(mus), label, group, shuffle=0), "probe_head_chance": most,
        "probe_head_off_the_face": probe(torch.stack(faces), label, group),
    }


def variety(space: Space, names: Sequence[str] = ("warm", "serious", "dramatic", "sad")) -> dict[str, float]:
    """Faces over `SEEDS` draws of a preset at each temperature: how far apart, in deviations, and how well the lips
    still follow the truth of the preset's style."""
    known = {p.name: p for p in space.presets}
    take = space.talking()[-1]
    figures: dict[str, float] = {}
    for temperature in (0.0, 0.3, 1.0):
        spread, lips = [], []
        for name in (n for n in names if n in known):
            truth = take.expression(CAST[name], np.random.default_rng(41))
            tracks = []
            for seed in range(SEEDS):
                eps = np.random.default_rng([51, seed]).standard_normal(len(known[name].mu)).astype(np.float32)
                s = sample(known[name].mu, known[name].log_var, temperature, eps)
                tracks.append(speak(space.speaker, take, torch.from_numpy(s)))
                lips.append(pearson(gap(tracks[-1]), gap(truth)))
            moving = truth.std(0) > 0.02
            spread.append(diversity(np.stack(tracks)[:, :, moving], truth[:, moving].std(0)))
        figures |= {f"diversity_{temperature:g}": float(np.mean(spread)), f"lips_{temperature:g}": float(np.mean(lips))}
    return figures


def ways(space: Space, pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, float], dict[str, list[Float32]]]:
    """Mean faces [42] on the way between pairs of presets in `STEPS` steps. `way_largest_step` is the largest change of
    the face in one step over the whole change: 1 / STEPS where it is even, 1 where it jumps (`way_even`,
    `way_jumping`); `way_detour` is the length of the way over the straight line."""
    known = {p.name: p for p in space.presets}
    take = space.talking()[-1]
    faces: dict[str, list[Float32]] = {}
    largest, detour = [], []
    for a, b in pairs:
        path = []
        for share in np.linspace(0, 1, STEPS + 1):
            mu, log_var = mix((known[a], known[b]), (1 - float(share), float(share)))
            point = StylePoint(mu, log_var)
            path.append(speak(space.speaker, take, torch.from_numpy(point.mu)).mean(0))
        faces[f"{a} to {b}"] = path
        whole = max(float(np.linalg.norm(path[-1] - path[0])), 1e-9)
        steps = [float(np.linalg.norm(y - x)) for x, y in pairwise(path)]
        largest.append(max(steps) / whole)
        detour.append(sum(steps) / whole)
    return {"way_largest_step": float(np.mean(largest)), "way_even": 1 / STEPS, "way_jumping": 1.0,
            "way_detour": float(np.mean(detour))}, faces


def told_styles(space: Space, takes: int = 24, tests: int = 6) -> dict[str, float]:
    """StyleAcc on coefficients: a judge that knows every preset's style from articulated speech of training takes names
    what the conditioner says in each preset, words and voice held out; beside it the truth of the same, and a guess."""
    names = tuple(p.name for p in space.presets if p.name in TRAINING_CAST)
    rng = np.random.default_rng(61)
    teach = [t for t in space.bank.train if not t.silent().all()][:takes]
    tracks = [t.expression(CAST[n], rng) for t in teach for n in names]
    torch.manual_seed(0)
    judge = StyleJudge(JudgeConfig(names, width=128))
    fit_judge(judge, tracks, [k for _ in teach for k in range(len(names))], steps=1200)
    known = {p.name: p for p in space.presets}
    asked = [(name, t) for t in space.talking()[-tests:] for name in names]
    said = [judge.name(speak(space.speaker, t, torch.from_numpy(known[n].mu))) for n, t in asked]
    true = [judge.name(t.expression(CAST[n], rng)) for n, t in asked]
    wanted = [n for n, _ in asked]
    mixed = [wanted[i] for i in rng.permutation(len(wanted))]

    def share(guesses: Sequence[str], of: Sequence[str]) -> float:
        return float(np.mean([a == b for a, b in zip(guesses, of, strict=True)]))

    family = [n.partition("-")[0] for n in wanted]
    return {"style_acc": share(said, wanted), "style_acc_truth": share(true, wanted),
            "style_acc_shuffled": share(said, mixed), "style_acc_chance": 1 / len(names),
            "style_acc_family": share([n.partition("-")[0] for n in said], family)}
