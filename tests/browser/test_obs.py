"""The page for OBS in a real Chromium: truly transparent, with a voice, back by itself; the background of the call.

With `SVP_WRITE_DOCS=1` it also makes `docs/obs.png`, the screenshot of the README, with the trained avatar.
"""

from __future__ import annotations

import io
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import BrowserContext, Page, Playwright, expect, sync_playwright

from svp_stream.config import ROOT
from svp_stream.pipeline.cartoon import mouth_opening
from tests.browser.test_call_noop import pixels, speech_like, start
from tests.fakes.browser import browser, server, write_wav
from tests.fakes.sound_server import SoundServer, missing

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
PATIENCE_MS = 90_000
TOKEN = "a-token-of-some-length"
WEBGL = ("--enable-unsafe-swiftshader",)
"""Chromium without a graphics card draws WebGL by itself only when told."""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine without weights, never on a worse rung of the ladder: its scene is looked at."""
    path = tmp_path_factory.mktemp("profile") / "noop.yaml"
    path.write_text(f"server: {{capacity: 4, token: {TOKEN}}}\nmodel: {{engine: noop}}\nladder: {{worst: 0}}\n")
    return path


@pytest.fixture(scope="module")
def url(profile: Path) -> Iterator[str]:
    with server("--config", str(profile)) as page:
        yield page.partition("/#")[0]


@pytest.fixture(scope="module")
def player() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chrome(player: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    folder = tmp_path_factory.mktemp("chromium")
    microphone = write_wav(folder / "mic.wav", speech_like())
    with browser(player, folder / "profile", microphone, flags=WEBGL) as context:
        context.set_default_timeout(PATIENCE_MS)
        errors: list[str] = []
        context.on("weberror", lambda error: errors.append(str(error.error)))
        yield context
        assert not errors, "in the scripts of a page"


def ask(url: str, method: str = "GET", body: object = None) -> Any:
    """JSON of the server's API; asks again while the engine warms up."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    for _ in range(100):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as response:
                text = response.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with closing(error):
                if error.code != 503:
                    raise
        time.sleep(0.1)
    pytest.fail("the engine does not get warm")


def staged(url: str) -> str:
    """A session without any connection."""
    return str(ask(f"{url}/v1/sessions", "POST", {})["id"])


@pytest.fixture
def session(url: str) -> Iterator[str]:
    """A session for one test; it would linger for a minute."""
    made = staged(url)
    yield made
    ask(f"{url}/v1/sessions/{made}", "DELETE")


def overlay(chrome: BrowserContext, url: str, query: str, before: str = "") -> Page:
    """The page for OBS; the script `before` runs before its own."""
    page = chrome.new_page()
    page.add_init_script(before)
    page.set_viewport_size({"width": 512, "height": 512})
    page.goto(f"{url}/obs{query}#token={TOKEN}")
    return page


def live(page: Page) -> None:
    page.wait_for_selector("body[data-phase=live]")
    page.wait_for_timeout(300)


def shot(page: Page) -> NDArray[np.int16]:
    """RGBA int16 [H, W, 4] of what the page shows, with nothing behind it."""
    image = Image.open(io.BytesIO(page.screenshot(omit_background=True))).convert("RGBA")
    return np.asarray(image).astype(np.int16)


@pytest.mark.parametrize(("query", "painter"), [("", "webgl"), ("&compose=2d", "2d")])
def test_only_the_person_is_opaque(
    chrome: BrowserContext, url: str, session: str, query: str, painter: str
) -> None:
    page = overlay(chrome, url, f"?session={session}{query}")
    live(page)
    assert page.evaluate("document.body.dataset.painter") == painter
    alone = shot(page)
    assert (alone[:24, :, 3] == 0).all() and (alone[:, :16, 3] == 0).all() and (alone[:, -16:, 3] == 0).all()
    assert (alone[200:360, 200:320, 3] == 255).all(), "the face has no holes"
    assert (alone[-8:, 200:320, 3] == 255).all(), "down to the last row"
    share = float((alone[..., 3] == 255).mean())
    assert 0.2 < share < 0.8
    assert float(((alone[..., 3] > 0) & (alone[..., 3] < 255)).mean()) > 0.002, "with a soft edge"
    for colour in ((200, 30, 220), (255, 255, 255), (0, 0, 0)):
        page.evaluate(f"document.documentElement.style.background = 'rgb{colour}'")
        page.wait_for_timeout(60)
        over = shot(page)
        assert (over[4, 4, :3] == colour).all() and (over[..., 3] == 255).all()
        edge = (alone[..., 3] > 90) & (alone[..., 3] < 160)
        between = np.abs(over[edge][:, :3] - np.array(colour)).mean()
        assert between > 5, "at the edge the person mixes with what is behind"
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "no scroll bars"
    assert page.evaluate("document.getElementById('voice').srcObject !== null")
    page.wait_for_function("document.getElementById('voice').currentTime > 0.2")
    page.close()


def test_the_edge_does_not_show_the_old_backdrop(chrome: BrowserContext, url: str, session: str) -> None:
    """Over black no pixel of the edge may be brighter than the person's own hair and skin near it."""
    page = overlay(chrome, url, f"?session={session}")
    live(page)
    alone = shot(page)
    rows = alone[70:200]
    edge = (rows[..., 3] > 40) & (rows[..., 3] < 220)
    hair = rows[:60][rows[:60, :, 3] == 255][:, :3]
    assert edge.sum() > 50 and hair.size
    blue_over_red = rows[edge][:, 2] - rows[edge][:, 0]
    assert np.quantile(blue_over_red, 0.9) < 10, "hair and skin are warm, the backdrop is not"
    page.close()


def test_a_colour_can_stand_behind(chrome: BrowserContext, url: str, session: str) -> None:
    page = overlay(chrome, url, f"?session={session}&background=%2300ff00&sound=off")
    live(page)
    picture = shot(page)
    assert (picture[4, 4] == (0, 255, 0, 255)).all() and abs(int(picture[280, 256, 1]) - 255) > 20
    assert page.evaluate("document.getElementById('voice').srcObject === null")
    page.close()


def test_it_follows_the_newest_session_and_comes_back_after_a_restart(chrome: BrowserContext, profile: Path) -> None:
    with server("--config", str(profile)) as where:
        base = where.partition("/#")[0]
        page = overlay(chrome, base, "")
        page.wait_for_timeout(1500)
        assert page.evaluate("document.body.dataset.phase") == "waiting", "nobody is on stage"
        first = staged(base)
        live(page)
        assert (shot(page)[280, 256, 3]) == 255
        ask(f"{base}/v1/sessions/{first}", "DELETE")
        page.wait_for_selector("body[data-phase=waiting]", state="attached")
        assert (shot(page)[..., 3] == 0).all(), "no frozen face is left"
        staged(base)
        live(page)
    page.wait_for_selector("body[data-phase=waiting]", state="attached")
    with server("--config", str(profile), "--port", base.rsplit(":", 1)[1]) as where:
        assert where.partition("/#")[0] == base
        staged(base)
        live(page)
        assert shot(page)[280, 256, 3] == 255
        page.close()


def test_the_background_of_a_call_is_chosen_on_the_page(chrome: BrowserContext, url: str, tmp_path: Path) -> None:
    page = chrome.new_page()
    page.goto(f"{url}/#token={TOKEN}")
    page.wait_for_selector("#styles button")
    start(page)

    def corner() -> NDArray[np.float32]:
        page.wait_for_timeout(1200)
        mean: NDArray[np.float32] = pixels(page, (4, 4, 16, 16)).reshape(-1, 3).mean(axis=0)
        return mean

    drawn = corner()
    page.evaluate(
        "() => { const c = document.getElementById('backdrop-colour');"
        " c.value = '#00ff00'; c.dispatchEvent(new Event('input')); }"
    )
    assert np.abs(corner() - (0, 255, 0)).max() < 40
    picture = tmp_path / "room.png"
    Image.new("RGB", (64, 64), (220, 20, 200)).save(picture)
    page.set_input_files("#backdrop-picture", str(picture))
    assert np.abs(corner() - (220, 20, 200)).max() < 40
    page.click("#backdrop-none")
    assert np.abs(corner() - drawn).max() < 12
    assert page.get_attribute("#backdrop-none", "aria-pressed") == "true"
    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("#backdrop-picture", str(tmp_path / "text.png"))
    expect(page.locator("#notice")).to_contain_text("PNG, JPEG or WebP")
    page.click("#start")
    page.close()


KEEP = """(() => {
  const Connection = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Connection { constructor(...a) { super(...a); window.connection = this; } };
})()"""
ENERGY = """async () => {
  const all = [...(await window.connection.getStats()).values()];
  return all.find((one) => one.type === 'inbound-rtp' && one.kind === 'audio')?.totalAudioEnergy ?? 0;
}"""
"""Of all sound received, as WebRTC statistics define it: grows by the mean square in each second."""


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_machines_microphone_moves_the_lips_and_is_heard(
    chrome: BrowserContext, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real device of PortAudio, the server as a process, the page as OBS would open it; no browser microphone."""
    sounds = SoundServer(tmp_path)
    sounds.start()
    for name in ("PULSE_SERVER", "PULSE_SOURCE", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, sounds.env[name])
    with server("--config", str(profile), "--mic", "pulse") as where:
        page = overlay(chrome, where.partition("/#")[0], "?session=mic&background=%23ffffff", KEEP)
        page.set_viewport_size({"width": 256, "height": 256})
        live(page)

        def mouth() -> float:
            return mouth_opening(shot(page)[..., :3].astype(np.uint8))

        def until(so: Callable[[], bool]) -> None:
            for _ in range(600):
                if so():
                    return
                page.wait_for_timeout(100)
            pytest.fail("never")

        until(lambda: mouth() > 0.4)
        until(lambda: float(page.evaluate(ENERGY)) > 0.02)
        sounds.stop()
        until(lambda: mouth() < 0.1)
        assert page.evaluate("document.body.dataset.phase") == "live", "a lost microphone ends no session"
        sounds.start()
        until(lambda: mouth() > 0.4)
        page.close()
    sounds.stop()


SCENE = """() => {
  const scene = document.createElement('canvas');
  scene.width = 1280; scene.height = 720;
  Object.assign(scene.style, { position: 'absolute', inset: '0', zIndex: '-1' });
  const c = scene.getContext('2d');
  const sky = c.createLinearGradient(0, 0, 0, 720);
  for (const [at, colour] of [[0, '#1b2a5c'], [0.5, '#b0587d'], [0.72, '#f3a56b'], [1, '#f8d59c']]) {
    sky.addColorStop(at, colour);
  }
  c.fillStyle = sky; c.fillRect(0, 0, 1280, 720);
  c.fillStyle = '#fff3d6'; c.beginPath(); c.arc(380, 420, 70, 0, 7); c.fill();
  [['#5a3f6e', 470, 90], ['#3c2f5a', 540, 70], ['#221f40', 620, 50]].forEach(([colour, base, high], n) => {
    c.fillStyle = colour; c.beginPath(); c.moveTo(0, 720);
    for (let x = 0; x <= 1280; x += 8) {
      c.lineTo(x, base + high * Math.sin(x / (90 + 40 * n) + n * 2) * Math.sin(x / 310 + n));
    }
    c.lineTo(1280, 720); c.fill();
  });
  c.fillStyle = '#ffffff'; c.font = '700 46px sans-serif'; c.fillText('Any scene of yours', 70, 110);
  c.font = '24px sans-serif'; c.fillText('OBS Browser Source: /obs?session=mic', 72, 150);
  document.body.prepend(scene);
  const avatar = document.getElementById('avatar');
  Object.assign(avatar.style, { position: 'absolute', right: '60px', bottom: '0', width: '560px', height: '560px' });
}"""


@pytest.mark.skipif(os.environ.get("SVP_WRITE_DOCS") != "1", reason="makes docs/obs.png; set SVP_WRITE_DOCS=1")
def test_the_screenshot_of_the_readme(chrome: BrowserContext) -> None:
    with server("--engine", "mini", "--token", TOKEN, "--avatar", "valid_Hispanic_M_2_Casual") as where:
        base = where.partition("/#")[0]
        staged(base)
        page = overlay(chrome, base, "")
        page.set_viewport_size({"width": 1280, "height": 720})
        live(page)
        page.evaluate(SCENE)
        page.wait_for_timeout(4000)
        page.screenshot(path=ROOT / "docs" / "obs.png")
        page.close()
