"""The virtual camera with a made-up module in the place of pyvirtualcam: pictures, the newest first, words."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.virtual_camera import VirtualCamera
from svp_stream.errors import ConfigError
from svp_stream.packets import Bytes, Frame
from svp_stream.pipeline.compose import Background


class FakeCamera:
    """Takes pictures as slowly as a test wants; `fails` makes it raise."""

    made: list[FakeCamera] = []  # noqa: RUF012 - reset by the fixture
    gone = False

    def __init__(self, **wish: Any) -> None:
        if FakeCamera.gone or wish["device"] == "/dev/video99":
            raise RuntimeError("'v4l2loopback' backend: No v4l2 device found")
        self.wish = wish
        self.device = wish["device"] or "/dev/video0"
        self.pictures: list[Bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False
        self.closed = False
        FakeCamera.made.append(self)

    def send(self, picture: Bytes) -> None:
        """One picture."""
        self.gate.wait(10)
        if self.fails:
            raise OSError("the device is gone")
        self.pictures.append(picture)

    def close(self) -> None:
        """The end."""
        self.closed = True


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCamera.made, FakeCamera.gone = [], False
    fake = SimpleNamespace(Camera=FakeCamera, PixelFormat=SimpleNamespace(RGB="rgb"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", fake)


def until(so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not so():
        assert time.monotonic() < end
        time.sleep(0.005)


def frame(grey: int, side: int = 32) -> Frame:
    alpha = np.full((side, side), 255, np.uint8)
    alpha[: side // 2] = 0
    return Frame(grey * 1920, np.full((side, side, 3), grey, np.uint8), alpha)


def test_pictures_arrive_scaled_and_over_the_background() -> None:
    camera = VirtualCamera("default", 64)
    fake = FakeCamera.made[0]
    assert camera.device == "/dev/video0" and fake.wish["fps"] == 25 and fake.wish["fmt"] == "rgb"
    camera.show(frame(90))
    until(lambda: camera.sent == 1)
    camera.background = Background.of_colour("#00ff00")
    camera.show(frame(90))
    until(lambda: camera.sent == 2)
    camera.close()
    camera.close()
    assert fake.closed
    own, green = fake.pictures
    assert own.shape == (64, 64, 3) and own.flags.c_contiguous and (own == 90).all()
    assert (green[0, 0] == (0, 255, 0)).all() and (green[-1, -1] == 90).all()


def test_a_slow_device_gets_the_newest_and_nobody_waits_for_it() -> None:
    camera = VirtualCamera("/dev/video7", 32)
    fake = FakeCamera.made[0]
    fake.gate.clear()
    camera.show(frame(1))
    until(lambda: camera._frame is None)
    for grey in range(2, 50):
        camera.show(frame(grey))
    fake.gate.set()
    until(lambda: camera.sent == 2)
    camera.close()
    assert [int(p[0, 0, 0]) for p in fake.pictures] == [1, 49] and camera.dropped == 47


def test_a_device_that_fails_is_said_and_ends_alone() -> None:
    camera = VirtualCamera("default", 32)
    FakeCamera.made[0].fails = True
    camera.show(frame(1))
    until(lambda: camera.failure is not None)
    assert "the device is gone" in str(camera.failure)
    until(lambda: FakeCamera.made[0].closed)
    camera.show(frame(2))
    camera.close()


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="/dev/video99 cannot be opened.*modprobe v4l2loopback"):
        VirtualCamera("/dev/video99", 32)
    FakeCamera.gone = True
    with pytest.raises(ConfigError, match="there is no virtual camera"):
        VirtualCamera("default", 32)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(ConfigError, match=r"pip install 'svp-stream\[camera\]'"):
        VirtualCamera("default", 32)
