"""A real Chromium with a file as microphone, and a real server process beside it.

In: a WAV, server arguments. Out: a page, a base URL. Remembers: nothing; both end with their context.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import BrowserContext, Playwright

from svp_stream.config import ROOT
from svp_stream.packets import Float32

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--allow-loopback-in-peer-connection",
]  # fmt: skip


def chromium() -> str | None:
    """The path of the system's Chromium or Chrome, None where there is none (playwright's own is used then)."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


def write_wav(path: Path, samples: Float32) -> Path:
    """float32 mono at 48 kHz as 16-bit PCM."""
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(48_000)
        wav.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


@contextmanager
def browser(
    playwright: Playwright, profile: Path, microphone: Path | None, *, flags: tuple[str, ...] = ()
) -> Iterator[BrowserContext]:
    """A fresh profile; `microphone` plays in a loop, None leaves Chromium without any device."""
    args = [*FLAGS, *flags]
    if microphone is not None:
        args.append(f"--use-file-for-fake-audio-capture={microphone.resolve()}")
    else:
        args.remove("--use-fake-device-for-media-stream")
    context = playwright.chromium.launch_persistent_context(
        profile, executable_path=chromium(), headless=True, args=args, viewport={"width": 1280, "height": 860}
    )
    try:
        yield context
    finally:
        context.close()


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """`python -m server` on a free port; yields its URL, without the slash at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "--port", "0", "--log-level", "warning", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("open http"), f"the server said {line!r}"
        yield line.removeprefix("open ").strip().rstrip("/")
    finally:
        process.send_signal(signal.SIGINT)  # SIGTERM would let the calls of open pages go on for a while
        process.wait(timeout=30)
        process.stdout.close()
