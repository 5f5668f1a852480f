"""A session fed by the machine's microphone, from the start of the server to its end; the camera that films it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from server import __main__ as command
from server.house import House
from server.local_mic import MicDevice
from server.presenter import SOURCE, Filming, Presenter, overlay_url
from server.security import Guard
from server.signaling import Wish
from svp_stream.packets import Frame
from svp_stream.pipeline.compose import Background
from tests.fakes.engines import FakeStages, fake_studio
from tests.fakes.microphones import FakeMicrophones
from tests.fakes.peers import until
from tests.server.test_main import APP, NOOP

USB = MicDevice(3, "USB Podcast Mic", 1, 48_000)
PAGE = "http://127.0.0.1:9/#token=abc"


@asynccontextmanager
async def presenting(
    stages: FakeStages | None = None, capacity: int = 2
) -> AsyncIterator[tuple[House, FakeMicrophones, list[str]]]:
    microphones, said = FakeMicrophones([USB]), list[str]()
    house = House(fake_studio(stages), Guard(None, local=True), capacity=capacity)
    presenter = Presenter(house.signaling, house.readiness, microphones, "podcast", lambda: PAGE, said.append)
    house.companions.append(presenter.run)
    async with house.lifespan(house.app):
        await until(lambda: bool(said), "session")
        yield house, microphones, said
    assert all(stream.closed for stream in microphones.streams), "the device is let go"


async def test_the_session_is_there_from_the_start_is_fed_and_said_with_its_url() -> None:
    async with presenting() as (house, microphones, said):
        live = house.signaling.registry.holders()[0]
        assert said == [f"session {live.id}\nobs http://127.0.0.1:9/obs?session=mic#token=abc"]
        await until(lambda: live.source is not None and live.source.kind == SOURCE, "source")
        await until(lambda: live.pictures.made > 5, "pictures")
        await until(lambda: live.source is not None and (live.source.level.take_db() or -100) > -20, "sound")
        events: list[tuple[str, dict[str, Any]]] = []
        live.desk.listen(lambda kind, fields: events.append((kind, fields)))
        microphones.streams[0].active = False
        await until(lambda: any(k == "source" for k, _ in events), "event")
        told = next(fields for kind, fields in events if kind == "source")
        assert told["state"] == "lost" and "USB Podcast Mic" in told["words"] and live.state == "connected"


async def test_a_session_that_fails_is_staged_anew() -> None:
    async with presenting() as (house, _, said):
        first = house.signaling.registry.holders()[0]
        await first.close("a test wants it")
        await until(lambda: len(said) == 2, "second session")
        second = house.signaling.registry.holders()[0]
        assert second is not first and second.id in said[1]
        await until(lambda: second.source is not None, "source")


def test_the_url_for_obs() -> None:
    assert overlay_url("http://127.0.0.1:9/") == "http://127.0.0.1:9/obs?session=mic"
    assert overlay_url("https://a.b:9/#token=t") == "https://a.b:9/obs?session=mic#token=t"


class Lens:
    """As much of a virtual camera as filming needs."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.background: Background | None = None
        self.closed = False

    def show(self, frame: Frame) -> None:
        self.frames.append(frame)

    def close(self) -> None:
        self.closed = True


async def test_the_camera_follows_the_newest_session_and_prefers_the_presenters() -> None:
    lens = Lens()
    house = House(fake_studio(), Guard(None, local=True), capacity=3)
    filming = Filming(house.signaling, lens)
    house.companions.append(filming.run)
    async with house.lifespan(house.app):
        await until(lambda: house.readiness.warm, "warm engine")
        first = await house.signaling.stage(Wish())
        first.pictures.background = Background.of_colour("#010203")
        await until(lambda: bool(lens.frames) and lens.background is first.pictures.background, "frames")
        own = await house.signaling.stage(Wish())
        own.take_source(SOURCE)
        await until(lambda: lens.background is None, "the presenter's")
        await house.signaling.stage(Wish())
        await asyncio.sleep(0.5)
        assert filming._chosen() is own
        await own.close("a test wants it")
        await until(lambda: filming._chosen() is not own, "another")
        count = len(lens.frames)
        await until(lambda: len(lens.frames) > count, "frames of another")
    assert lens.closed


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("", ""), ("--port 9", "--port 9"), ("--mic", "--mic default"), ("--mic --port 9", "--mic default --port 9"),
        ("--mic USB", "--mic USB"), ("--mic=USB --camera", "--mic=USB --camera default"),
        ("--camera x --mic", "--camera x --mic default"),
    ],
)  # fmt: skip
def test_a_device_asked_for_without_a_name_is_the_default(given: str, made: str) -> None:
    assert command.with_values(given.split()) == made.split()


class Board:
    """Stands in for PortAudio."""

    def devices(self) -> list[MicDevice]:
        return [USB]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--list-mics"], 0, ["USB Podcast Mic", "48000 Hz"]),
        (["--mic", "webcam"], 2, ["no microphone 'webcam'", "USB Podcast Mic"]),
        (["--camera", "default"], 2, ["--camera"]),
        (["--background", "#00f"], 2, ["media.background", "#rrggbb"]),
    ],
)
def test_the_command_line_says_what_is_not_there(
    arguments: list[str], code: int, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "serve", lambda *_: pytest.fail("it listens"))
    monkeypatch.setattr(command, "PortAudio", Board)
    result = CliRunner().invoke(APP, [*NOOP, *arguments])
    assert result.exit_code == code, result.output
    for word in words:
        assert word in result.output


def test_the_microphone_is_wired_to_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    houses: list[House] = []

    def serve(house: House, _: object) -> int:
        houses.append(house)
        return 0

    monkeypatch.setattr(command, "serve", serve)
    monkeypatch.setattr(command, "PortAudio", Board)
    assert CliRunner().invoke(APP, [*NOOP, "--mic", "usb"]).exit_code == 0
    assert [companion.__qualname__ for companion in houses[0].companions] == ["Presenter.run"]


