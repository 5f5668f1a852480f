"""The avatar as a camera of this machine, for meeting programs: v4l2loopback through pyvirtualcam (extra `camera`).

In: frames of the inference thread. Out: pictures of one size, sent from a thread of its own.
Remembers: the newest frame only. Latency: none; the device keeps no queue either.
"""

from __future__ import annotations

import importlib
import logging
import threading
from types import ModuleType
from typing import Any, Final

import numpy as np

from svp_stream.clock import FRAME_RATE_HZ
from svp_stream.errors import ConfigError
from svp_stream.packets import Frame
from svp_stream.pipeline.compose import Background, plain, scaled

logger = logging.getLogger(__name__)

DEFAULT: Final = "default"
"""Asks for the first virtual camera that is free."""
MODULE: Final = "pyvirtualcam"
STOP_TIMEOUT_S: Final = 2.0


def _module() -> ModuleType:
    try:
        return importlib.import_module(MODULE)
    except ImportError as error:
        raise ConfigError(
            "--camera needs the extra 'camera': pip install 'svp-stream[camera]' (pyvirtualcam, GPL-2.0); "
            f"{error}"
        ) from error


class VirtualCamera:
    """An open virtual camera. `show` for the inference thread; `background` may be replaced at any time."""

    def __init__(self, device: str, side: int) -> None:
        """Open `device` (`/dev/video7`, or `default`) for pictures of `side` x `side`.

        Raises `ConfigError` that names what is missing: the extra, the kernel module or the device.
        """
        module = _module()
        try:
            self._camera: Any = module.Camera(
                width=side, height=side, fps=FRAME_RATE_HZ, fmt=module.PixelFormat.RGB,
                device=None if device == DEFAULT else device,
            )  # fmt: skip
        except (RuntimeError, OSError, ValueError) as error:
            where = "there is no virtual camera" if device == DEFAULT else f"the camera {device} cannot be opened"
            raise ConfigError(
                f"--camera: {where} ({error}); load the kernel module first: "
                "sudo modprobe v4l2loopback exclusive_caps=1 card_label=Avatar"
            ) from error
        self.background: Background | None = None
        self.sent = 0
        self.dropped = 0
        self.failure: str | None = None
        self._side = side
        self._frame: Frame | None = None
        self._stopping = False
        self._bell = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="virtual camera", daemon=True)
        self._thread.start()

    @property
    def device(self) -> str:
        """The name under which other programs find it."""
        return str(self._camera.device)

    def show(self, frame: Frame) -> None:
        """The newest frame takes the place of one that still waits; never waits itself."""
        with self._bell:
            self.dropped += self._frame is not None
            self._frame = frame
            self._bell.notify()

    def close(self) -> None:
        """Send no more and let go of the device; idempotent."""
        with self._bell:
            self._stopping = True
            self._bell.notify()
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            while (frame := self._next()) is not None:
                picture = scaled(plain(frame, self.background), self._side, self._side)
                self._camera.send(np.ascontiguousarray(picture))
                self.sent += 1
        except Exception as error:
            # a driver may raise anything: it costs the camera, not the sessions
            self.failure = f"{type(error).__name__}: {error}"
            logger.exception("the virtual camera has failed")
        finally:
            self._camera.close()

    def _next(self) -> Frame | None:
        with self._bell:
            while self._frame is None and not self._stopping:
                self._bell.wait()
            frame, self._frame = self._frame, None
            return None if self._stopping else frame
