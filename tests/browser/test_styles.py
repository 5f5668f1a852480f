"""The choice of a style in a real Chromium: families, intensities, presets that belong to none, a blend, the keyboard.

What is in effect is read off the server's list of sessions, not off the page.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright

from svp_stream.config import ROOT
from svp_stream.style.preset import load_preset, save_preset
from tests.browser.test_call_noop import speech_like, start, wait_empty
from tests.fakes.browser import browser, server, write_wav

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
PATIENCE_MS = 90_000
SHIPPED = ROOT / "configs" / "styles"
LONG = "Grandmother tells a very long story, Donaudampfschifffahrtsgesellschaftskapitan"
OWN = ("evening-soft", "my own_voice", LONG)
FAMILIES = sorted({path.stem.split("-")[0] for path in SHIPPED.glob("*.npz")} - {"neutral"})

CUT = """() => [...document.querySelectorAll('.style .name, .step .name')].filter((name) => {
  const [inner, outer] = [name, name.parentElement].map((e) => e.getBoundingClientRect());
  return name.scrollWidth > name.clientWidth || inner.left < outer.left || inner.right > outer.right
    || inner.top < outer.top || inner.bottom > outer.bottom || outer.right > innerWidth;
}).map((name) => name.textContent)"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The engine without weights, with the presets that ship and three of somebody's own."""
    folder = tmp_path_factory.mktemp("styles")
    for path in SHIPPED.glob("*.npz"):
        (folder / path.name).symlink_to(path)
    for name in OWN:
        save_preset(folder / f"{name}.npz", replace(load_preset(SHIPPED / "warm.npz"), name=name, description="Mine."))
    profile = folder / "noop.yaml"
    profile.write_text(f"model: {{engine: noop}}\nladder: {{worst: 0}}\nstyle: {{folder: {folder}}}\n")
    with server("--config", str(profile), "--style", "sad-strong") as base:
        yield base


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    folder = tmp_path_factory.mktemp("chromium")
    with sync_playwright() as playwright, browser(
        playwright, folder / "profile", write_wav(folder / "mic.wav", speech_like())
    ) as context:
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
    wait_empty(url)
    assert not errors


def group(page: Page, name: str) -> Locator:
    return page.get_by_role("radiogroup", name=name)


def chosen(page: Page, name: str) -> list[str]:
    """The labels of what is checked in a group, as a screen reader finds them."""
    labels: list[str] = group(page, name).get_by_role("radio", checked=True).all_inner_texts()
    return labels


def ask(url: str, method: str = "GET", body: bytes | None = None, kind: str = "application/json") -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def until_spoken(url: str, weights: dict[str, float]) -> None:
    """Until the one call of the server is set to these weights."""
    for _ in range(100):
        told = [session["weights"] for session in ask(f"{url}/v1/sessions")["sessions"]]
        if told == [pytest.approx(weights)]:
            return
        time.sleep(0.1)
    pytest.fail(f"the server speaks in {told}, not in {weights}")


def test_one_entry_a_family_and_the_start_style_is_marked(page: Page) -> None:
    radios = group(page, "Speaking style").get_by_role("radio")
    own = ["Evening soft", LONG, "My own voice"]
    assert radios.all_inner_texts() == ["Neutral", *(name.capitalize() for name in FAMILIES), *own]
    assert chosen(page, "Speaking style") == ["Sad"] and chosen(page, "Intensity") == ["Strong"]
    assert group(page, "Intensity").get_by_role("radio").all_inner_texts() == ["Soft", "Medium", "Strong"]
    expect(page.locator("#style-hint")).to_contain_text("Overdone")


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_name_is_cut(page: Page, width: int, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(11, 13, 18)") == (scheme == "dark")


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.locator("#styles [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    assert chosen(page, "Speaking style") == ["Sceptical"] and chosen(page, "Intensity") == ["Strong"]
    page.keyboard.press("Tab")
    expect(group(page, "Intensity").get_by_role("radio", name="Strong")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(group(page, "Intensity").get_by_role("radio", name="Medium")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    assert chosen(page, "Intensity") == ["Soft"]
    page.keyboard.press("Shift+Tab")
    expect(group(page, "Speaking style").get_by_role("radio", name="Sceptical")).to_be_focused()
    for _ in FAMILIES:
        page.keyboard.press("ArrowUp")
        if chosen(page, "Speaking style") == ["Neutral"]:
            break
    expect(group(page, "Intensity")).to_be_hidden()
    page.keyboard.press("Tab")
    expect(page.locator("#blend-with")).to_be_focused()


def test_what_is_chosen_is_spoken(page: Page, url: str) -> None:
    start(page)
    until_spoken(url, {"sad-strong": 1})
    page.click("#styles button[data-value=angry]")
    until_spoken(url, {"angry-strong": 1})
    group(page, "Intensity").get_by_role("radio", name="Soft").click()
    until_spoken(url, {"angry-soft": 1})
    group(page, "Speaking style").get_by_role("radio", name="Neutral").click()
    until_spoken(url, {"neutral": 1})
    group(page, "Speaking style").get_by_role("radio", name="My own voice").click()
    until_spoken(url, {"my own_voice": 1})
    expect(group(page, "Intensity")).to_be_hidden()
    page.click("#styles button[data-value=shy]")
    until_spoken(url, {"shy-soft": 1})
    expect(page.locator("#notice")).to_be_empty()


def test_a_blend_of_two_intensities_and_its_ends(page: Page, url: str) -> None:
    page.select_option("#blend-with", "warm")
    start(page)
    until_spoken(url, {"sad-strong": 0.5, "warm": 0.5})
    page.select_option("#blend-intensity", label="Strong")
    until_spoken(url, {"sad-strong": 0.5, "warm-strong": 0.5})
    group(page, "Intensity").get_by_role("radio", name="Soft").click()
    until_spoken(url, {"sad-soft": 0.5, "warm-strong": 0.5})
    page.locator("#blend").fill("100")
    until_spoken(url, {"warm-strong": 1})
    page.locator("#blend").fill("25")
    until_spoken(url, {"sad-soft": 0.75, "warm-strong": 0.25})
    assert chosen(page, "Speaking style") == ["Sad"] and chosen(page, "Intensity") == ["Soft"]
    page.select_option("#blend-with", label="My own voice")
    until_spoken(url, {"sad-soft": 0.75, "my own_voice": 0.25})
    expect(page.locator("#blend-intensity")).to_be_hidden()
    page.select_option("#blend-with", label="nothing")
    until_spoken(url, {"sad-soft": 1})


def test_what_others_choose_is_marked_uploads_too(page: Page, url: str) -> None:
    start(page)
    style = f"{url}/v1/sessions/{ask(f'{url}/v1/sessions')['sessions'][0]['id']}/style"
    ask(style, "PUT", b'{"name": "tender-soft"}')
    expect(group(page, "Intensity").get_by_role("radio", name="Soft")).to_be_checked(timeout=PATIENCE_MS)
    assert chosen(page, "Speaking style") == ["Tender"]
    preset = (SHIPPED / "sly.npz").read_bytes()
    upload = ask(f"{url}/v1/styles", "POST", preset, "application/zip")["name"]
    ask(style, "PUT", json.dumps({"name": upload}).encode())
    label = f"Uploaded {upload.removeprefix('upload-')[:6]}"
    expect(group(page, "Speaking style").get_by_role("radio", name=label)).to_be_checked(timeout=PATIENCE_MS)
    page.click("#styles button[data-value=bored]")
    until_spoken(url, {"bored-soft": 1})
    group(page, "Speaking style").get_by_role("radio", name=label).click()
    until_spoken(url, {upload: 1})
