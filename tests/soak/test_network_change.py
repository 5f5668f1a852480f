"""A caller changes from one network to another in the middle of a call: the page restarts ICE, the picture comes back.

Run with `pytest -m soak -s tests/soak/test_network_change.py` for the figures.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.browser.test_call_noop import speech_like, start
from tests.fakes import browser as browsers
from tests.fakes.network import OUTSIDE, Home, home
from tests.network.test_nat import TOKEN, serving

pytestmark = [pytest.mark.soak, pytest.mark.browser, pytest.mark.timeout(400)]

KNOWN_MS = 6_000
"""Chromium tells its pages of a network 2 to 4 s after it has come up; nothing can go over it before."""
CATCH = """
  window.calls = [];
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(configuration) { super(configuration); window.calls.push(this); }
  };
"""
WATCH = """(ms) => {
  const video = document.getElementById('video');
  window.gaps = [];
  let last = performance.now();
  const seen = () => {
    const now = performance.now();
    window.gaps.push(now - last);
    last = now;
    video.requestVideoFrameCallback(seen);
  };
  video.requestVideoFrameCallback(seen);
}"""
SESSION = """async () => {
  const stats = await window.calls.at(-1).getStats();
  const transport = [...stats.values()].find((s) => s.type === 'transport');
  return stats.get(stats.get(transport.selectedCandidatePairId).localCandidateId).usernameFragment;
}"""


@pytest.fixture
def networks() -> Iterator[Home]:
    """With a second way out, which is worse: 10.77.3.2."""
    with home() as made:
        inside, router = made.inside[-1], made.router[-1]
        for words in (
            f"link add eth1 netns {inside} type veth peer name second netns {router}",
            f"-n {inside} addr add 10.77.3.2/24 dev eth1",
            f"-n {router} addr add 10.77.3.1/24 dev second",
            f"-n {inside} link set eth1 up",
            f"-n {router} link set second up",
            f"-n {inside} route add default via 10.77.3.1 metric 500",
        ):
            subprocess.run(["ip", *words.split()], check=True, capture_output=True)
        made.rule("-t", "nat", "-A", "POSTROUTING", "-s", "10.77.3.0/24", "-d", "10.77.2.0/24", "-j", "MASQUERADE")
        yield made


def largest_gap_ms(page: Page, seconds: float) -> float:
    page.wait_for_timeout(seconds * 1000)
    gap: float = page.evaluate("() => Math.max(...window.gaps.splice(0))")
    return gap


def test_from_one_network_to_another_and_back(
    networks: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = tmp_path / "chromium"
    inner.write_text(f'#!/bin/sh\nexec {shlex.join(networks.inside)} {browsers.chromium()} "$@"\n')
    inner.chmod(0o755)
    monkeypatch.setattr(browsers, "chromium", lambda: str(inner))
    microphone = browsers.write_wav(tmp_path / "mic.wav", speech_like())
    flags = (f"--unsafely-treat-insecure-origin-as-secure=http://{OUTSIDE}:8080",)
    with (
        serving(networks.outside, OUTSIDE, "", tmp_path) as url,
        sync_playwright() as playwright,
        browsers.browser(playwright, tmp_path / "profile", microphone, flags=flags) as context,
    ):
        context.set_default_timeout(90_000)
        context.add_init_script(CATCH)
        page = context.pages[0]
        page.goto(f"{url}/#token={TOKEN}")
        page.wait_for_selector("#styles button")
        start(page)
        page.evaluate(WATCH)
        gaps = {"undisturbed": largest_gap_ms(page, 4)}
        sessions = [page.evaluate(SESSION)]
        for name, device, state in (("away", "eth0", "down"), ("back and away", "eth1", "down")):
            if device == "eth1":
                for words in ("link set eth0 up", "route add default via 10.77.1.1"):
                    command = ["ip", "-n", networks.inside[-1], *words.split()]
                    subprocess.run(command, check=True, capture_output=True)
                page.wait_for_timeout(KNOWN_MS)
            command = ["ip", "-n", networks.inside[-1], "link", "set", device, state]
            subprocess.run(command, check=True, capture_output=True)
            gaps[name] = largest_gap_ms(page, 8)
            sessions.append(page.evaluate(SESSION))
            assert page.evaluate("document.body.dataset.phase") == "live"
        with capsys.disabled():
            sys.stdout.write(f"\nlongest gap between pictures, ms: {({k: round(v) for k, v in gaps.items()})}\n")
        assert len(set(sessions)) == 3, "each change restarts ICE"
        assert max(gaps.values()) < 6_000
