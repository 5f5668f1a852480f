"""A real call on this machine: a server in a process of its own, and a Chromium whose microphone plays a recording.

In: arguments of `python -m server`; a WAV file. Out: the server's URL; a Playwright page. Remembers: nothing; what was
started is stopped at the end of each `with`. The flags of Chromium give it a fake microphone that needs no permission,
and candidates on the loopback interface.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from svp_stream.clock import WIRE_RATE_HZ
from svp_stream.errors import ConfigError, EngineError
from svp_stream.packets import Float32

CHROMIUM: Final = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
)  # fmt: skip
WARM_TIMEOUT_S: Final = 300.0
END_TIMEOUT_S: Final = 20.0


def write_recording(path: Path, samples: Float32) -> Path:
    """float32 [N] in [-1, 1] at 48 kHz as 16-bit mono WAV; returns `path`. Chromium repeats it when it ends."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(WIRE_RATE_HZ)
        out.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


@contextmanager
def open_server(arguments: Sequence[str]) -> Iterator[str]:
    """`python -m server` on a free port; yields its URL. Raises `EngineError` with its own words when it ends first."""
    command = [sys.executable, "-m", "server", "--port", "0", "--log-level", "warning", *arguments]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True
    ) as process:
        try:
            assert process.stdout is not None
            words = next((line for line in process.stdout if line.startswith("open ")), None)
            if words is None:
                log.seek(0)
                raise EngineError(f"the server did not start: {log.read().strip()[-500:]}")
            yield words.removeprefix("open ").strip()
        finally:
            process.terminate()
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def open_page(recording: Path) -> Iterator[Any]:
    """A page of a headless Chromium whose microphone plays `recording` from the moment it is asked for.

    Raises `ConfigError` when Playwright or Chromium is missing, `EngineError` when something fails in the page.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as e:
        raise ConfigError("a call through a browser needs Playwright: pip install 'svp-stream[dev]'") from e
    browser = next((path for path in CHROMIUM if Path(path).exists()), None)
    if browser is None:
        raise ConfigError("a call through a browser needs Chromium: apt-get install chromium")
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={recording.resolve()}"]
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=browser, headless=True, args=flags
        )
        try:
            yield context.new_page()
        except Error as e:
            raise EngineError(f"the call in the page failed: {str(e).splitlines()[0]}") from e
        finally:
            context.close()


def wait_until_warm(page: Any, url: str) -> None:
    """Until the server at `url` has its model ready; leaves the page at `/readyz`, a secure origin of the server.

    Raises `EngineError` after `WARM_TIMEOUT_S`.
    """
    until = time.monotonic() + WARM_TIMEOUT_S
    while page.goto(f"{url}readyz").status != 200:
        if time.monotonic() > until:
            raise EngineError(f"the server was not ready after {WARM_TIMEOUT_S:.0f} s: {page.inner_text('body')}")
        time.sleep(0.5)
