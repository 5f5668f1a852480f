"""The call page over TURN (UDP and TCP), credentials from `Link` headers, and ICE restarts, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, sync_playwright

from tests.browser.test_call_noop import speech_like, start
from tests.fakes.browser import browser, server, write_wav
from tests.fakes.coturn import SECRET, coturn

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
PATIENCE_MS = 90_000

CATCH = """
  window.calls = [];
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: 'relay' });
      window.calls.push(this);
    }
    setConfiguration(configuration) {
      const iceServers = configuration.iceServers.filter((server) => server.urls.endsWith(window.wanted));
      super.setConfiguration({ ...configuration, iceServers });
    }
  };
"""
"""Keeps every connection of the page for the test; they use nothing but TURN over `window.wanted`."""
PATH = """async () => {
  const stats = await window.calls.at(-1).getStats();
  const all = [...stats.values()];
  const transport = all.find((s) => s.type === 'transport');
  const pair = stats.get(transport.selectedCandidatePairId);
  const local = stats.get(pair.localCandidateId);
  const video = all.find((s) => s.type === 'inbound-rtp' && s.kind === 'video');
  return { kind: local.candidateType, relay: local.relayProtocol ?? '', port: local.port, pair: pair.id,
           frames: video.framesDecoded, ufrag: local.usernameFragment };
}"""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with coturn(tmp_path_factory.mktemp("coturn")) as port:
        yield port


@pytest.fixture(scope="module")
def player() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chrome(player: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    folder = tmp_path_factory.mktemp("chromium")
    with browser(player, folder / "profile", write_wav(folder / "mic.wav", speech_like())) as context:
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(CATCH)
        yield context


@pytest.fixture(scope="module")
def url(relay: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that goes through TURN, too."""
    path = tmp_path_factory.mktemp("profile") / "relay.yaml"
    urls = f'["turn:127.0.0.1:{relay}?transport=udp", "turn:127.0.0.1:{relay}?transport=tcp"]'
    path.write_text(f"model: {{engine: noop}}\nice: {{turn: {urls}, secret: {SECRET}, policy: relay}}\n")
    with server("--config", str(path)) as base:
        yield base


def frames_go_on(page: Page) -> dict[str, Any]:
    """Waits for ten more decoded frames; returns the path they came on."""
    before = page.evaluate(PATH)["frames"]
    for _ in range(300):
        now: dict[str, Any] = page.evaluate(PATH)
        if now["frames"] >= before + 10:
            return now
        page.wait_for_timeout(100)
    pytest.fail("no further frames")


def restarted(page: Page, seen: set[str]) -> dict[str, Any]:
    """What the page does when the network has changed; returns the path that the pictures come on then."""
    page.evaluate("window.dispatchEvent(new Event('online'))")
    for _ in range(60):
        path = frames_go_on(page)
        if path["ufrag"] not in seen:
            return path
    pytest.fail("the pictures still come on the old path")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_call_through_turn_alone_and_an_ice_restart(chrome: BrowserContext, url: str, transport: str) -> None:
    page = chrome.new_page()
    page.add_init_script(f"window.wanted = '{transport}';")
    page.goto(url)
    page.wait_for_selector("#styles button")
    start(page)
    first = frames_go_on(page)
    assert (first["kind"], first["relay"]) == ("relay", transport)
    seen = {first["ufrag"]}
    for _ in range(2):
        path = restarted(page, seen)
        assert (path["kind"], path["relay"]) == ("relay", transport)
        seen.add(path["ufrag"])
    assert len(seen) == 3 and page.evaluate("document.body.dataset.phase") == "live"
    page.close()
