"""The commands of research: `svp prepare` for real video, `svp paper` for the tables of a paper.

In: arguments. Out: files, tables. `cli` hangs them beside its own; heavy libraries are imported when a command runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from svp_stream.evaluation.face_reader import FaceReader

LandmarkerOption = Annotated[Path | None, typer.Option(help="MediaPipe's face_landmarker.task; needs the extra video.")]
ReaderOption = Annotated[str | None, typer.Option(help="module:function that returns a FaceReader, for a 3DMM.")]


def register(app: typer.Typer) -> None:
    """Hang the commands on `app`."""
    app.command()(prepare)


def prepare(
    videos: Annotated[list[Path], typer.Argument(help="Videos, or folders of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the clips; what is there is kept.")],
    landmarker: LandmarkerOption = None,
    reader: ReaderOption = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/prepare.yaml.")] = None,
    matte: Annotated[str | None, typer.Option(help="module:function, crop to matte; opaque without.")] = None,
    syncnet: Annotated[Path | None, typer.Option(help="syncnet.safetensors: judges the offset of sound too.")] = None,
    features: Annotated[str | None, typer.Option(help="Encoder file, folder or hub id, to cache wav2vec.")] = None,
) -> None:
    """Make clips of real talking-head video: cuts, face, crop, numbers, judgement, report. Goes on where it stopped."""
    from svp_stream.preparing.config import PrepareConfig
    from svp_stream.preparing.prepare import Workshop
    from svp_stream.preparing.prepare import prepare as work

    settings = PrepareConfig.load(config)
    face = face_reader(landmarker, reader)
    sync = None
    if syncnet is not None:
        from svp_stream.evaluation.syncnet import clip_offset, load_syncnet

        net = load_syncnet(syncnet)

        def sync(clip: Any) -> tuple[float, float] | None:
            return clip_offset(net, clip)
    with _bar() as advance:
        verdicts = work(videos, Workshop(out, settings, face, _function(matte), sync, advance))
    if features is not None:
        from svp_stream.preparing.features import cache_features

        cache_features(out, features)
    kept = sum(v.kept for v in verdicts)
    typer.echo(f"{out}: {kept} of {len(verdicts)} clips kept; see {out / 'report.md'}")


def face_reader(landmarker: Path | None, spec: str | None) -> FaceReader:
    """The reader that the options name. Raises ConfigError for none, or both."""
    from svp_stream.errors import ConfigError
    from svp_stream.evaluation.face_reader import load_reader

    if (landmarker is None) == (spec is None):
        raise ConfigError("give either --landmarker face_landmarker.task (MediaPipe, extra `video`) or "
                          "--reader module:function (a 3DMM or network of your own)")
    if landmarker is not None:
        from svp_stream.evaluation.mediapipe_reader import MediaPipeReader

        return MediaPipeReader(landmarker)
    return load_reader(str(spec))


def _function(spec: str | None) -> Callable[[Any], Any] | None:
    import importlib

    from svp_stream.errors import ConfigError

    if spec is None:
        return None
    module, _, name = spec.partition(":")
    try:
        found: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise ConfigError(f"matte '{spec}': expected module:function that can be imported ({e})") from e
    return found


@contextmanager
def _bar() -> Iterator[Callable[[str, int], None]]:
    """A progress bar on standard error for frames of unknown number."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} frames"),
               TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("preparing", total=None)
        what = ""

        def advance(now: str, frames: int) -> None:
            nonlocal what
            if now != what:
                progress.reset(task, description=now, total=None)
                what = now
            progress.advance(task, frames)

        yield advance
