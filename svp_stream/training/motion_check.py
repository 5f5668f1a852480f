"""How lifelike the learned motion is: laws of movement on held-out speech against the truth, with controls.

In: a trained network, scenes to learn the probe from, scenes held out. Out: named figures, a sheet of curves.
Nothing here compares frame with frame, for two lives of one person differ; figures are ratios, distances between
distributions, and a probe that names the style from head, lids and gaze alone. `_again` is the same measure on a second
life by the rule over the same sound (what a perfect generator would get), `_shuffled` on that of other styles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch
from scipy.stats import ks_2samp

from svp_stream.clock import FRAME_RATE_HZ, FRAME_TICKS
from svp_stream.motion.attention import Role
from svp_stream.motion.generator import MotionDrive
from svp_stream.motion.kps import pose_vector
from svp_stream.motion.learned import LearnedMotion, MotionModel
from svp_stream.motion.network import MotionNet
from svp_stream.packets import Float32
from svp_stream.training import curves
from svp_stream.training.motion_reading import Reading, read
from svp_stream.training.motion_scenes import Heard, Life, Scene, act
from svp_stream.training.sheets import write_png

VIEWER_DEG: Final = 2.0
NODS_HZ: Final = (0.8, 4.0)
STRESS_LAGS: Final = range(3, 16)
SHRINK: Final = 0.1
ASSENT_FRAMES: Final = 25
_Track = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Lives:
    """Three lives over the same scenes: as it was, by the network, by the rule once more; and the scenes."""

    scenes: list[Scene]
    true: list[Float32]
    made: list[Float32]
    again: list[Float32]


def move(model: MotionModel, s: Float32, heard: Heard, seed: int) -> Float32:
    """Poses [T, 9] of a stream that hears what `heard` says."""
    stream = LearnedMotion(model, s, seed)
    rows = zip(heard.speaking, heard.stress, heard.addressed, heard.voice, strict=True)
    drives = [MotionDrive(n * FRAME_TICKS, bool(speaks), float(stress), bool(addressed), voice.astype(np.float32))
              for n, (speaks, stress, addressed, voice) in enumerate(rows)]
    return np.stack([pose_vector(pose) for drive in drives for pose in stream.push(drive)])


def live(net: MotionNet, trial: Life) -> Lives:
    """Every scene of `trial` lived by the network, in the mean of its style's posteriors, and once more by the rule."""
    model = MotionModel(net)
    made, again = [], []
    for n, scene in enumerate(trial.scenes):
        known = trial.known[scene.style]
        made.append(move(model, known.mu.mean(0), scene.heard, 1000 + n))
        again.append(act(scene.heard, known.style, 5000 + n))
    return Lives(trial.scenes, [s.pose for s in trial.scenes], made, again)


def check(net: MotionNet, life: Life, trial: Life) -> dict[str, float]:
    """See the card; every figure is over the scenes of `trial`."""
    lives = live(net, trial)
    reflex = float(net.reflex)
    turned = [lives.true[(i + len(lives.true) // 2) % len(lives.true)] for i in range(len(lives.true))]
    kinds = {"": lives.made, "_again": lives.again, "_shuffled": turned}
    readings = {name: [read(p, reflex) for p in poses] for name, poses in {**kinds, "_true": lives.true}.items()}
    out: dict[str, float] = {}
    for name, poses in kinds.items():
        out |= {f"{k}{name}": v for k, v in _head(lives, poses).items()}
        out |= {f"{k}{name}": v for k, v in _eyes(lives.scenes, readings["_true"], readings[name]).items()}
    for name, poses in {**kinds, "_true": lives.true}.items():
        out |= {f"{k}{name}": v for k, v in _conduct(lives.scenes, poses, readings[name]).items()}
    return out | _probe(life, lives, reflex)


def _head(lives: Lives, poses: Sequence[Float32]) -> dict[str, float]:
    """Size and speed of yaw and pitch against the truth, style by style: median ratio and mean distance in octaves;
    distance of the spectra of pitch where nods live, in dB."""
    styles = sorted({s.style for s in lives.scenes})
    of = {k: [i for i, s in enumerate(lives.scenes) if s.style == k] for k in styles}
    out = {}
    for name, order in (("size", 0), ("speed", 1)):
        ratios = np.array([[_deviation(poses, of[k], order, c) / _deviation(lives.true, of[k], order, c)
                            for c in (0, 1)] for k in styles])
        out[f"{name}_ratio"] = float(np.median(ratios))
        out[f"{name}_octaves"] = float(np.abs(np.log2(ratios)).mean())
    spectra = [np.abs(_decibels(poses, of[k]) - _decibels(lives.true, of[k])).mean() for k in styles]
    return out | {"nod_spectrum_db": float(np.mean(spectra))}


def _deviation(poses: Sequence[Float32], of: Sequence[int], order: int, column: int) -> float:
    """Root mean variance within scenes of a column or of its speed."""
    tracks = [np.diff(poses[i][:, column], n=order) for i in of]
    return float(np.sqrt(np.mean([t.var() for t in tracks]))) + 1e-6


def _decibels(poses: Sequence[Float32], of: Sequence[int]) -> _Track:
    """Power of pitch at the frequencies of nods."""
    density = np.mean([welch(poses[i][:, 1], FRAME_RATE_HZ, nperseg=128)[1] for i in of], axis=0)
    hz = np.fft.rfftfreq(128, 1 / FRAME_RATE_HZ)
    return np.asarray(10 * np.log10(density[(hz >= NODS_HZ[0]) & (hz <= NODS_HZ[1])] + 1e-9))


def _eyes(scenes: Sequence[Scene], true: Sequence[Reading], made: Sequence[Reading]) -> dict[str, float]:
    """Kolmogorov-Smirnov distances of the times between blinks and of fixations; correlation over styles of how often
    they blink."""
    styles = sorted({s.style for s in scenes})
    rates = [[np.mean([r.blink.mean() for s, r in zip(scenes, rs, strict=True) if s.style == k]) for k in styles]
             for rs in (true, made)]
    return {
        "blink_intervals_ks": _apart([_gaps(r.blink) for r in true], [_gaps(r.blink) for r in made]),
        "fixations_ks": _apart([_gaps(r.saccade) for r in true], [_gaps(r.saccade) for r in made]),
        "blink_rate_r": float(np.corrcoef(rates)[0, 1]) if min(np.std(rates, axis=1)) > 0 else 0.0,
    }


def _gaps(events: NDArray[np.bool_]) -> _Track:
    return np.diff(np.flatnonzero(events)).astype(np.float64)


def _apart(a: Sequence[_Track], b: Sequence[_Track]) -> float:
    x, y = np.concatenate(a), np.concatenate(b)
    return float(ks_2samp(x, y).statistic) if len(x) and len(y) else float("nan")


def _conduct(scenes: Sequence[Scene], poses: Sequence[Float32], readings: Sequence[Reading]) -> dict[str, float]:
    """Blinks a minute, time at the viewer by role, movement of listener and idler over that of the speaker, nodding
    of who is spoken to over who idles, and how pitch follows stress."""
    roles = np.concatenate([_roles(s.heard) for s in scenes])
    addressed = np.concatenate([s.heard.addressed for s in scenes])
    away = np.concatenate([np.hypot(*r.look.T) for r in readings])
    speed = np.concatenate([np.concatenate([[0], np.abs(np.diff(p[:, :2], axis=0)).mean(1)]) for p in poses])
    nods = np.concatenate([_quick(p[:, 1]) for p in poses])
    minutes = len(roles) / FRAME_RATE_HZ / 60
    out = {"blinks_a_minute": sum(int(r.blink.sum()) for r in readings) / minutes}
    for role in Role:
        out[f"viewer_{role.name.lower()}"] = float(np.mean(away[roles == role] < VIEWER_DEG))
    talk = speed[roles == Role.SPEAKING].mean()
    out["listener_speed"] = float(speed[roles == Role.LISTENING].mean() / talk)
    out["idler_speed"] = float(speed[roles == Role.IDLE].mean() / talk)
    # Assent comes with the other's words and, most of all, right after them.
    near = np.convolve(addressed, np.ones(ASSENT_FRAMES))[: len(addressed)] > 0
    quiet = roles != Role.SPEAKING
    if (near & quiet).any() and (~near & quiet).any():
        out["assent"] = float(nods[near & quiet].std() / nods[~near & quiet].std())
    return out | {"stress_r": _stress(scenes, poses)}


def _roles(heard: Heard) -> NDArray[np.int64]:
    d = heard.drive()
    return np.where(d[:, 2] > 0, Role.SPEAKING, np.where(d[:, 4] > 0, Role.LISTENING, Role.IDLE)).astype(np.int64)


def _quick(track: Float32) -> _Track:
    """A track without what is slower than a nod."""
    kernel = np.ones(25) / 25
    return np.asarray(track - np.convolve(np.pad(track, 12, mode="edge"), kernel, mode="valid"))


def _stress(scenes: Sequence[Scene], poses: Sequence[Float32]) -> float:
    """Best correlation of pitch with the stress some frames before, in speech, mean over scenes."""
    curves_ = []
    for scene, pose in zip(scenes, poses, strict=True):
        talk = scene.heard.speaking
        if talk.sum() > 100:
            pitch, stress = _quick(pose[:, 1])[talk], _quick(scene.heard.stress)[talk]
            curves_.append([np.corrcoef(pitch[k:], stress[:-k])[0, 1] for k in STRESS_LAGS])
    return float(np.max(np.mean(curves_, axis=0))) if curves_ else float("nan")


def features(pose: Float32, reading: Reading) -> _Track:
    """What a scene says about who moves, without a word of what is said: [F]."""
    head, calm = pose[:, :5].astype(np.float64), reading.lid[reading.calm]
    seconds = len(pose) / FRAME_RATE_HZ
    speed = np.diff(head, axis=0)
    away = np.hypot(*reading.look.T)
    return np.concatenate([
        head.mean(0), np.log(head.std(0) + 1e-4), np.log(speed.std(0) + 1e-5),
        np.log(_quick(pose[:, 1]).std(keepdims=True) + 1e-3),
        [np.log(reading.blink.sum() / seconds + 0.05), np.log(reading.saccade.sum() / seconds + 0.05),
         np.log(away.std() + 0.1), float(np.mean(away > VIEWER_DEG)), float(calm.mean()) if len(calm) else 0.0],
    ])


def _probe(life: Life, lives: Lives, reflex: float) -> dict[str, float]:
    """Share of scenes whose style a linear discriminant, fitted to training scenes, names from motion alone."""
    named = [s for s in life.scenes if s.style < life.named]
    x = np.stack([features(s.pose, read(s.pose, reflex)) for s in named])
    y = np.array([s.style for s in named])
    classes = np.unique(y)
    means = np.stack([x[y == k].mean(0) for k in classes])
    inside = x - means[np.searchsorted(classes, y)]
    scatter = inside.T @ inside / max(len(x) - len(classes), 1)
    scatter = (1 - SHRINK) * scatter + SHRINK * np.diag(np.diag(scatter) + 1e-9)
    inverse = np.linalg.inv(scatter)
    right = np.array([s.style for s in lives.scenes])

    def share(poses: Sequence[Float32], labels: NDArray[np.int64]) -> float:
        f = np.stack([features(p, read(p, reflex)) for p in poses])
        gap = f[:, None] - means
        return float(np.mean(classes[np.einsum("nkf,fg,nkg->nk", gap, inverse, gap).argmin(1)] == labels))

    mixed = np.random.default_rng(0).permutation(right)
    return {"style_probe": share(lives.made, right), "style_probe_true": share(lives.true, right),
            "style_probe_shuffled": share(lives.made, mixed), "style_probe_chance": 1 / len(classes)}


def draw_check(net: MotionNet, trial: Life, path: Path) -> None:
    """Three styles over the same kind of scene: yaw, pitch, gaze and lids, true and generated."""
    model = MotionModel(net)
    rows = []
    step = max(trial.named // 4, 1)
    for style in range(0, trial.named, step):
        scene = next((s for s in trial.scenes if s.style == style), None)
        if scene is None:
            continue
        known = trial.known[style]
        made = move(model, known.mu.mean(0), scene.heard, 77)
        spans = (("yaw", 0, 12), ("pitch", 1, 10), ("roll", 2, 8), ("gaze x", 7, 15))
        row = [curves.Panel(f"{known.style.name} {name}", {"true": scene.pose[:, c], "generated": made[:, c]}, -m, m)
               for name, c, m in spans]
        row.append(curves.Panel(f"{known.style.name} lids", {"true": scene.pose[:, 5], "generated": made[:, 5],
                                                             "speaks": 0.9 * scene.heard.speaking,
                                                             "spoken to": 0.8 * scene.heard.addressed}))
        rows.append(row)
    write_png(path, curves.draw(rows, width=620, height=150))
