"""Over plain http from another machine the page says why there is no microphone; over our own https it works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect, sync_playwright

from tests.browser.test_call_noop import speech_like, start
from tests.fakes.browser import browser, server, write_wav

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
PATIENCE_MS = 90_000
NAME = "avatar.test"
"""Not localhost: to the browser this is another machine."""


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    folder = tmp_path_factory.mktemp("chromium")
    flags = (f"--host-resolver-rules=MAP {NAME} 127.0.0.1", "--ignore-certificate-errors")
    with (
        sync_playwright() as playwright,
        browser(playwright, folder / "profile", write_wav(folder / "mic.wav", speech_like()), flags=flags) as context,
    ):
        context.set_default_timeout(PATIENCE_MS)
        yield context


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_another_machine(chrome: BrowserContext, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    wide = ("--engine", "noop", "--host", "0.0.0.0", "--token", "a-token-of-some-length")
    with server(*wide, *(("--tls", "auto") if secure else ())) as url:
        scheme, _, rest = url.partition("://")
        assert scheme == ("https" if secure else "http")
        port = rest.partition("/")[0].rpartition(":")[2]
        page = chrome.new_page()
        page.goto(f"{scheme}://{NAME}:{port}/#token=a-token-of-some-length")
        page.wait_for_selector("#styles button")
        if secure:
            start(page)
            assert (tmp_path / "svp-stream" / "tls.pem").stat().st_mode & 0o777 == 0o600
        else:
            page.click("#start")
            expect(page.locator("#failure-title")).to_have_text("This page is not secure")
            expect(page.locator("#failure")).to_contain_text("https://")
            page.click("#listen-only")
            page.wait_for_selector("body[data-phase=live].has-picture")
        page.close()
