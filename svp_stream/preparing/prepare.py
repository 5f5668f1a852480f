"""`svp prepare`: a folder of videos becomes a folder of clips, with a report.

In: video files, a `FaceReader`, thresholds. Out: `<id>.mp4`, `<id>.matte.mp4`, `<id>.npz` as `svp corpus` writes them,
`report.md`, `report.jsonl`, `thumbnails/`. Remembers: the folder itself: surveys lie in `.prepare/`, finished clips are
kept, so that a run that was cut off goes on; files appear whole or not at all.

Every video is decoded twice, one picture at a time: once to read it (`survey`), once to cut the clips out. Memory is
that of the survey's numbers; the sound lies in a file that is mapped. A video that cannot be read is told in the report
and the others go on. What a picture cannot tell is left open: `text` and phonemes are empty, `style_vector` is 0 [1],
the matte is opaque unless a `matte` function is given.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from svp_stream.errors import ConfigError, MediaError
from svp_stream.evaluation.face_reader import FaceReader, key_points
from svp_stream.packets import Bytes, Float32
from svp_stream.preparing import framing, survey
from svp_stream.preparing.config import PrepareConfig
from svp_stream.preparing.decode import pictures, probe, sound
from svp_stream.preparing.judge import Look, judge, offset_fault, pooled_offset, stress
from svp_stream.preparing.report import THUMBS, Verdict, write_report, write_thumbnail
from svp_stream.preparing.shots import clips
from svp_stream.synthetic import sidecar
from svp_stream.synthetic.sidecar import SAMPLES_PER_FRAME
from svp_stream.synthetic.video import ClipWriter, matte_path
from svp_stream.training.clips import Clip

logger = logging.getLogger(__name__)
VIDEOS: Final = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts")
Advance = Callable[[str, int], None]
"""What is being done, and how many more frames of it are."""
Matte = Callable[[Bytes], Bytes]
"""A crop uint8 [S, S, 3] to the person's matte uint8 [S, S]."""
Sync = Callable[[Clip], tuple[float, float] | None]
"""A written clip to (confidence, ms by which the picture is behind the sound), or None where nothing can be said."""


@dataclass(frozen=True)
class Workshop:
    """What every video is worked on with."""

    out: Path
    config: PrepareConfig
    reader: FaceReader
    matte: Matte | None = None
    sync: Sync | None = None
    advance: Advance = lambda what, frames: None


def find_videos(sources: list[Path], out: Path | None = None) -> list[tuple[Path, str]]:
    """(file, name) of the videos in `sources`, files or folders (looked through to the bottom, but for `out`), the name
    being relative to the folder given. Raises MediaError when there is none."""
    found: dict[Path, str] = {}
    for source in sources:
        if source.is_dir():
            for path in sorted(source.rglob("*")):
                if out is not None and out.resolve() in path.resolve().parents:
                    continue
                if path.suffix.lower() in VIDEOS and path.is_file() and not _is_ours(path):
                    found.setdefault(path, path.relative_to(source).as_posix())
        elif source.is_file():
            found.setdefault(source, source.name)
        else:
            raise MediaError(f"{source}: there is no such file or folder")
    if not found:
        raise MediaError(f"no video in {', '.join(map(str, sources))}; known endings: {' '.join(VIDEOS)}")
    return list(found.items())


def _is_ours(path: Path) -> bool:
    """Hidden files, and mattes of clips, are no videos to prepare."""
    return path.name.startswith(".") or path.name.endswith(".matte.mp4")


def prepare(sources: list[Path], shop: Workshop) -> list[Verdict]:
    """Prepare every video of `sources` into `shop.out`; returns what became of every clip.

    Raises ConfigError when the folder holds clips of another configuration or a matte is misshapen, MediaError when no
    video could be read.
    """
    videos = find_videos(sources, shop.out)
    shop.out.mkdir(parents=True, exist_ok=True)
    (shop.out / ".prepare").mkdir(exist_ok=True)
    (shop.out / THUMBS).mkdir(exist_ok=True)
    _claim(shop)
    verdicts: list[Verdict] = []
    failed: dict[str, str] = {}
    for path, name in videos:
        try:
            verdicts += _video(path, name, shop, sum(v.kept for v in verdicts))
        except MediaError as error:
            logger.warning("%s", error)
            failed[name] = str(error)
        write_report(shop.out, verdicts, failed)
    if len(failed) == len(videos):
        more = "" if len(failed) == 1 else f" (none of {len(failed)} videos could be read; see report.md)"
        raise MediaError(next(iter(failed.values())) + more)
    return verdicts


def _claim(shop: Workshop) -> None:
    """One folder, one configuration: clips of different crops do not mix."""
    path = shop.out / ".prepare" / "config.json"
    told = shop.config.model_dump_json()
    if path.is_file() and path.read_text(encoding="utf-8") != told:
        raise ConfigError(f"{shop.out}: holds clips of another configuration ({path}); give another folder with -o")
    path.write_text(told, encoding="utf-8")


def _video(path: Path, name: str, shop: Workshop, before: int) -> list[Verdict]:
    """One video, `before` clips being kept of the others."""
    info = probe(path)
    id = identity(path, name)
    record = shop.out / ".prepare" / f"{id}.json"
    known = _recorded(record, shop.out)
    if known is not None:
        shop.advance(f"{name} (done)", sum(v.end - v.first for v in known))
        return known
    seen = _surveyed(path, name, id, shop)
    pcm = shop.out / ".prepare" / f"{id}.pcm"
    try:
        audio = sound(path, info.start_s, pcm)
        plans = _decided(list(_plans(name, id, seen, audio, shop.config)), shop.config, before)
        _cut(path, name, plans, shop)
    finally:
        pcm.unlink(missing_ok=True)
    verdicts = [_synced(plan.verdict, shop) for plan in plans]
    record.write_text(json.dumps([asdict(v) for v in verdicts]), encoding="utf-8")
    return verdicts


def identity(path: Path, name: str) -> str:
    """The id of a video: its name made plain, and six letters of its place and length in bytes."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:40] or "video"
    return f"{plain}-{hashlib.sha256(f'{name} {path.stat().st_size}'.encode()).hexdigest()[:6]}"


def _recorded(record: Path, out: Path) -> list[Verdict] | None:
    """What an earlier run made of the video, if all of it is still there."""
    if not record.is_file():
        return None
    rows = json.loads(record.read_text(encoding="utf-8"))
    verdicts = [Verdict(**row | {"faults": tuple(row["faults"])}) for row in rows]
    whole = all((out / THUMBS / f"{v.id}.png").is_file() and (not v.kept or _finished(out, v.id)) for v in verdicts)
    return verdicts if whole else None


def _finished(out: Path, id: str) -> bool:
    picture = out / f"{id}.mp4"
    return all(p.is_file() for p in (out / f"{id}.npz", picture, matte_path(picture)))


def _surveyed(path: Path, name: str, id: str, shop: Workshop) -> survey.Survey:
    cache = shop.out / ".prepare" / f"{id}.survey.npz"
    seen = survey.kept(cache)
    if seen is None:
        seen = survey.survey(path, shop.reader, shop.config, lambda n: shop.advance(f"reading {name}", n))
        survey.keep(cache, seen)
    return seen


@dataclass(frozen=True)
class _Plan:
    """A clip to be: its verdict, its look in source pixels, its expression [T, 52] and words."""

    verdict: Verdict
    words: dict[str, str]
    look: Look
    expression: Float32


def _plans(name: str, id: str, seen: survey.Survey, audio: Any, config: PrepareConfig) -> Iterator[_Plan]:
    """Every clip of a video with its own faults."""
    frames = min(len(seen), len(audio) // SAMPLES_PER_FRAME)
    starts = [int(s) for s in seen.starts if s < frames]
    words = named(name, config)
    for number, (shot, first, end) in enumerate(clips(starts, frames, config.clip_s)):
        span = slice(first, end)
        found = seen.found[span]
        whole = slice(starts[shot], [*starts[1:], frames][shot])
        look = Look(
            landmarks=survey.filled(seen.landmarks[span], found), angles=survey.filled(seen.angles[span], found),
            lost=float(1 - found.mean()),
            boxes=_shot_boxes(seen, whole, config)[first - whole.start : end - whole.start],
            size=(int(seen.size[0]), int(seen.size[1])), sharpness=seen.sharpness[span][found],
            audio=audio[first * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME],
        )  # fmt: skip
        faults = tuple(f"{f.key}: {f.words}" for f in judge(look, config))
        verdict = Verdict(name, f"{id}-{number:04d}", shot, first, end, "", faults)
        yield _Plan(verdict, words, look, survey.filled(seen.expression[span], found))


def _decided(plans: list[_Plan], config: PrepareConfig, before: int) -> list[_Plan]:
    """With the fault of the whole video, if its sound is out of step, and the split of what is kept: one clip in
    1 / heldout_share is held out, spread evenly over all videos, of which `before` clips are kept so far."""
    told = pooled_offset([p.look for p in plans if p.verdict.kept], config)
    fault = offset_fault(told, config.sync_least_r, config)
    decided, kept = [], before
    for plan in plans:
        verdict = plan.verdict
        if fault is not None and verdict.kept:
            verdict = replace(verdict, faults=(f"{fault.key}: {fault.words}",))
        if verdict.kept:
            verdict = replace(verdict, split=_split(kept, config))
            kept += 1
        decided.append(replace(plan, verdict=verdict))
    return decided


def _shot_boxes(seen: survey.Survey, whole: slice, config: PrepareConfig) -> Float32:
    """Boxes of a whole shot, so that its clips are framed alike; of no use where no face was found."""
    found = seen.found[whole]
    if not found.any():
        return np.tile(np.array([0, 0, 1], np.float32), (len(found), 1))
    marks, angles = survey.filled(seen.landmarks[whole], found), survey.filled(seen.angles[whole], found)
    return framing.boxes(key_points(marks), angles, config)


def _split(kept: int, config: PrepareConfig) -> str:
    if config.heldout_share == 0:
        return "train"
    every = max(round(1 / config.heldout_share), 2)
    return "heldout" if (kept + config.seed) % every == 1 % every else "train"


def named(name: str, config: PrepareConfig) -> dict[str, str]:
    """avatar, style and voice of a video by its relative name: the groups of `naming`; else the name of its folder, or
    its own, for all three. `avatar` of the configuration goes before both. Raises MediaError for a name that `naming`
    does not match."""
    path = Path(name)
    plain = path.parts[0] if len(path.parts) > 1 else path.stem
    words = dict.fromkeys(("avatar", "style", "voice"), plain)
    if config.naming is not None:
        match = re.search(config.naming, name)
        if match is None:
            raise MediaError(f"{name}: the key `naming` ({config.naming}) does not match this name")
        words |= {k: v for k, v in match.groupdict().items() if v}
    if config.avatar is not None:
        words["avatar"] = config.avatar
    return words


def _synced(v: Verdict, shop: Workshop) -> Verdict:
    """The verdict after a SyncNet has seen the clip: one that is out of step is taken away again."""
    if shop.sync is None or not v.kept:
        return v
    told = shop.sync(Clip(sidecar.Sidecar(shop.out / f"{v.id}.npz")))
    fault = offset_fault(told, shop.config.syncnet_least, shop.config)
    if fault is None:
        return v
    picture = shop.out / f"{v.id}.mp4"
    for path in (shop.out / f"{v.id}.npz", picture, matte_path(picture)):
        path.unlink()
    return replace(v, split="", faults=(f"{fault.key}: {fault.words}",))


def _cut(path: Path, name: str, plans: list[_Plan], shop: Workshop) -> None:
    """The second pass: thumbnails of all clips, pictures and sidecars of those that are kept and missing."""
    waiting = iter(plans)
    plan = next(waiting, None)
    writer: ClipWriter | None = None
    with ExitStack() as held:
        for number, rgb in enumerate(pictures(path)):
            if plan is None:
                break
            v = plan.verdict
            wanted = v.kept and not _finished(shop.out, v.id)
            if number == v.first and wanted:
                writer = held.enter_context(ClipWriter(shop.out / f"{v.id}.mp4", shop.config.size, shop.config.crf,
                                                       shop.config.matte_crf))
            shown = framing.crop(rgb, plan.look.boxes[number - v.first], shop.config.size) if wanted else rgb
            if number == (v.first + v.end) // 2:
                write_thumbnail(shop.out, v.id, shown)
            if writer is not None and wanted:
                writer.add(shown, _matte(shown, shop))
            if number == v.end - 1:
                if writer is not None:
                    writer.sound(plan.look.audio)
                    held.close()
                    _write_sidecar(plan, shop)
                    writer = None
                plan = next(waiting, None)
            shop.advance(f"cutting {name}", 1)


def _matte(shown: Bytes, shop: Workshop) -> Bytes:
    if shop.matte is None:
        return np.full(shown.shape[:2], 255, np.uint8)
    made = shop.matte(shown)
    if made.shape != shown.shape[:2] or made.dtype != np.uint8:
        raise ConfigError(f"the matte function gave {made.dtype} {list(made.shape)}; expected uint8 "
                         f"{list(shown.shape[:2])}")
    return made


def _write_sidecar(plan: _Plan, shop: Workshop) -> None:
    size = shop.config.size
    look = plan.look
    marks = framing.into(look.landmarks, look.boxes, size)
    kps = key_points(marks)
    pose = framing.pose(look.angles, kps, plan.expression, size)
    arrays: dict[str, NDArray[Any]] = {
        "expression": plan.expression, "pose": pose, "stress": stress(look.audio), "landmarks": marks, "kps": kps,
        "audio": look.audio, "style_vector": np.zeros(1, np.float32), "manner": framing.manner(pose).vector(),
    }
    words = plan.words | {"text": "", "split": plan.verdict.split}
    sidecar.write(shop.out / f"{plan.verdict.id}.npz", arrays, words, shop.config.seed, ())
