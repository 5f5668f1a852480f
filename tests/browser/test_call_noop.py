"""The call page in a real Chromium against the engine without weights: picture, sound, controls, words of failure."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, expect, sync_playwright

from svp_stream.packets import Float32
from tests.fakes.browser import browser, server, write_wav

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
PATIENCE_MS = 90_000

SEE = """([x, y, w, h]) => {
  const video = document.getElementById('video');
  const canvas = document.createElement('canvas');
  canvas.width = w; canvas.height = h;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(video, x, y, w, h, 0, 0, w, h);
  return [...context.getImageData(0, 0, w, h).data];
}"""
OPENING = """() => {
  const [x, y, w, h] = [76, 150, 104, 72]; // the mouth's box, see svp_stream.pipeline.cartoon
  const canvas = document.createElement('canvas');
  canvas.width = w; canvas.height = h;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(document.getElementById('video'), x, y, w, h, 0, 0, w, h);
  const { data } = context.getImageData(0, 0, w, h);
  const columns = new Array(w).fill(0);
  for (let i = 0; i < data.length; i += 4) {
    const [red, green, blue] = [data[i], data[i + 1], data[i + 2]];
    if (red < 110 && red - green > 18 && green < 60 && blue < 70) columns[(i / 4) % w] += 1;
  }
  const tallest = columns.sort((a, b) => b - a).slice(0, 12);
  return Math.min(1, tallest.reduce((sum, n) => sum + n, 0) / 12 / 23);
}"""
WHOLE = (0, 0, 256, 256)


def speech_like() -> Float32:
    """Two seconds loud, two seconds silent, again and again: syllables at 4 Hz over a low voice."""
    t = np.arange(48_000 * 8) / 48_000
    voice = np.sin(2 * np.pi * 140 * t) + 0.5 * np.sin(2 * np.pi * 700 * t)
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)
    return (0.3 * voice * syllables * (t % 4 < 2)).astype(np.float32)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    profile = tmp_path_factory.mktemp("profile") / "noop.yaml"
    # a busy machine must not freeze the scene that the tests look at: no rung but the first
    profile.write_text("server: {capacity: 1}\nmodel: {engine: noop}\nladder: {worst: 0}\n")
    with server("--config", str(profile)) as base:
        yield base


@pytest.fixture(scope="module")
def player() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chrome(player: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    folder = tmp_path_factory.mktemp("chromium")
    with browser(player, folder / "profile", write_wav(folder / "mic.wav", speech_like())) as context:
        context.set_default_timeout(PATIENCE_MS)
        yield context


@pytest.fixture
def page(chrome: BrowserContext, url: str) -> Iterator[Page]:
    """The page, open and filled; anything that goes wrong in its scripts fails the test."""
    page = chrome.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#styles button")
    yield page
    page.close()
    assert not errors


def start(page: Page) -> None:
    page.click("#start")
    page.wait_for_selector("body[data-phase=live].has-picture")


def pixels(page: Page, box: tuple[int, int, int, int]) -> Float32:
    _, _, width, height = box
    rgba = np.array(page.evaluate(SEE, list(box)), np.float32)
    return rgba.reshape(height, width, 4)[..., :3]


def test_the_picture_plays_and_moves_with_the_sound(page: Page) -> None:
    start(page)
    assert page.evaluate("document.getElementById('video').videoWidth") == 256
    opening = []
    for _ in range(80):  # two rounds of two seconds loud, two seconds silent
        opening.append(page.evaluate(OPENING))
        page.wait_for_timeout(100)
    assert max(opening) - min(opening) > 0.4, "the mouth opens with the sound and rests without"
    loud = float(np.mean(np.array(opening) > (max(opening) + min(opening)) / 2))
    assert 0.2 < loud < 0.8, "half of the time there is sound"
    page.click("#figures")
    page.wait_for_function("parseInt(document.getElementById('fps').textContent) >= 5")
    page.wait_for_function("parseInt(document.getElementById('latency').textContent) > 0")
    page.click("#start")
    expect(page.locator("#status-words")).to_have_text("Ready when you are")


def test_a_style_changes_the_picture_and_is_marked(page: Page) -> None:
    start(page)
    before = pixels(page, WHOLE).mean(axis=(0, 1))
    page.click("#styles button[data-value=sad]")
    page.wait_for_timeout(1500)
    after = pixels(page, WHOLE).mean(axis=(0, 1))
    assert np.abs(before - after).max() > 4, "another style, another colour"
    expect(page.locator("#styles button[data-value=sad]")).to_have_attribute("aria-checked", "true")
    expect(page.locator("#notice")).to_be_empty()
    page.locator("#strength").fill("0")
    page.wait_for_timeout(1200)
    assert np.abs(pixels(page, WHOLE).mean(axis=(0, 1)) - after).max() > 2, "strength 0 is the neutral look"
    page.click("#mute")
    expect(page.locator("#mute")).to_have_attribute("aria-pressed", "true")
    page.wait_for_selector("body:not(.is-speaking)")
    page.click("#start")


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.focus("#avatars button[tabindex='0']")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#avatars button[data-value=square]")).to_be_focused()
    expect(page.locator("#avatars button[data-value=square]")).to_have_attribute("aria-checked", "true")
    page.focus("#start")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-phase=live]")
    page.keyboard.press("Escape")
    page.wait_for_selector("body[data-phase=idle]")


def test_a_full_server_says_so_and_retry_works(page: Page, chrome: BrowserContext, url: str) -> None:
    start(page)
    other = chrome.new_page()
    other.goto(url)
    other.wait_for_selector("#styles button")
    other.click("#start")
    expect(other.locator("#failure-title")).to_have_text("The server is full")
    page.close()
    wait_empty(url)
    other.click("#retry")
    other.wait_for_selector("body[data-phase=live]")
    other.close()
    wait_empty(url)


def wait_empty(url: str) -> None:
    """A closed tab frees its place; the page says goodbye, so it takes no time-out."""
    for _ in range(100):
        with urllib.request.urlopen(f"{url}/metrics") as response:
            if "svp_calls 0.0" in response.read().decode():
                return
        time.sleep(0.1)
    pytest.fail("the place of a closed tab is not free")


def test_without_a_microphone_there_are_words_and_a_way_on(url: str, player: Playwright, tmp_path: Path) -> None:
    with browser(player, tmp_path / "profile", None) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.pages[0]
        page.goto(url)
        page.wait_for_selector("#styles button")
        page.click("#start")
        expect(page.locator("#failure-title")).to_have_text("No microphone found", timeout=PATIENCE_MS)
        page.click("#listen-only")
        page.wait_for_selector("body[data-phase=live].has-picture")


def test_a_server_that_goes_away_and_a_refused_microphone(chrome: BrowserContext) -> None:
    page = chrome.new_page()
    with server("--engine", "noop") as base:
        page.goto(base)
        page.wait_for_selector("#styles button")
        start(page)
    expect(page.locator("#failure")).to_be_visible(timeout=PATIENCE_MS)
    assert page.inner_text("#failure-title") in ("The server ended the call", "The connection was lost")
    page.click("#retry")
    expect(page.locator("#failure-title")).to_have_text("The server cannot be reached", timeout=PATIENCE_MS)
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => {"
        " throw new DOMException('', 'NotAllowedError'); }; }"
    )
    page.click("#retry")
    expect(page.locator("#failure-title")).to_have_text("The microphone was refused", timeout=PATIENCE_MS)
    page.close()
