"""A real Chromium whose tab dies without hanging up: the server frees everything, again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Error, sync_playwright

from tests.browser.test_call_noop import PATIENCE_MS, speech_like, start
from tests.fakes.browser import browser, write_wav
from tests.fakes.processes import Held, server_process
from tests.loopback.test_leaks import more

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def eventually(true: Callable[[], bool], what: str, timeout_s: float = 20.0) -> float:
    """Seconds until it is true; what is promised is 5 s, a machine under load is given more."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < timeout_s, f"no {what}"
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_tab_that_dies_frees_everything(tmp_path: Path) -> None:
    with server_process("--capacity", "1") as running, sync_playwright() as playwright:
        running.wait_warm()
        with browser(playwright, tmp_path / "profile", write_wav(tmp_path / "mic.wav", speech_like())) as context:
            context.set_default_timeout(PATIENCE_MS)
            held: Held | None = None
            tasks, freed = 0.0, []
            for _ in range(3):
                page = context.new_page()
                page.goto(running.url)
                page.wait_for_selector("#styles button")
                start(page)
                assert running.metric("svp_calls") == 1
                with suppress(Error):  # the renderer dies in the midst of it: no pagehide, no DELETE
                    page.goto("chrome://crash")
                freed.append(eventually(lambda: running.metric("svp_calls") == 0, "free place"))
                page.close()
                if held is None:
                    time.sleep(2.0)  # Chromium keeps its HTTP connections for a while; so it does in each round
                    held, tasks = running.held(), running.metric("svp_tasks")
                else:
                    kept = held
                    eventually(lambda kept=kept: not more(running.held(), kept), f"return to {held}")  # type: ignore[misc]
                    assert running.metric("svp_tasks") <= tasks
            sys.stdout.write(f"\nfreed after {', '.join(f'{s:.2f}' for s in freed)} s\n")
