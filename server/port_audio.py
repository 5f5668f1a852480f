"""The sound devices of this machine through PortAudio (sounddevice), behind the protocol of `local_mic`.

In: a device. Out: blocks of float32 in PortAudio's own thread. Remembers: whether the library is up.
Two names that sounddevice keeps to itself are used here and nowhere else: PortAudio makes its list of devices once,
when it is initialised, so a device that was plugged in later is seen only after `_terminate` and `_initialize`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from server.local_mic import BLOCK_S, Block, MicDevice, MicError, now_s
from svp_stream.clock import WIRE_RATE_HZ
from svp_stream.packets import Float32

MOST_CHANNELS: Final = 2


def _library() -> Any:
    """sounddevice; raises `MicError` when PortAudio is not installed. Importing it opens every sound card."""
    try:
        import sounddevice
    except OSError as error:
        raise MicError(
            f"PortAudio is missing ({error}); on Debian and Ubuntu: apt-get install libportaudio2"
        ) from error
    return sounddevice


class PortAudio:
    """Implements `local_mic.Microphones`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[int] = set()

    def devices(self) -> list[MicDevice]:
        """Those there are now: the list is made afresh while none of ours is open. Raises `MicError`."""
        library = _library()
        with self._lock:
            try:
                if not self._open:
                    library._terminate()
                    library._initialize()
                found = list(library.query_devices())
                preferred = int(library.default.device[0])
            except library.PortAudioError as error:
                raise MicError(f"the sound system does not answer: {error}") from error
        return [
            MicDevice(
                i, str(d["name"]), int(d["max_input_channels"]), round(d["default_samplerate"]), i == preferred
            )
            for i, d in enumerate(found)
            if d["max_input_channels"] > 0
        ]

    def open(self, device: MicDevice, hear: Callable[[Block], None]) -> PortStream:
        """Record at 48 kHz if the device can, at its own rate if not; raises `MicError`."""
        library = _library()
        channels = min(device.channels, MOST_CHANNELS)
        try:
            rate = WIRE_RATE_HZ
            try:
                library.check_input_settings(device.index, channels, "float32", samplerate=rate)
            except library.PortAudioError:
                rate = device.rate_hz
            return PortStream(self, library, device.index, channels, rate, hear)
        except (library.PortAudioError, ValueError) as error:
            raise MicError(f"the microphone {device.name!r} cannot be opened: {error}") from error

    def opened(self, stream: PortStream) -> None:
        """From a stream that begins."""
        with self._lock:
            self._open.add(id(stream))

    def closed(self, stream: PortStream) -> None:
        """From a stream that has ended."""
        with self._lock:
            self._open.discard(id(stream))


class PortStream:
    """Implements `local_mic.OpenMic`."""

    def __init__(
        self, owner: PortAudio, library: Any, index: int, channels: int, rate_hz: int, hear: Callable[[Block], None]
    ) -> None:
        self._owner = owner
        self._library = library

        def heard(samples: Float32, _frames: int, _time: object, _status: object) -> None:
            hear(Block(now_s(), np.array(samples, np.float32), rate_hz))

        self._stream = library.InputStream(
            device=index, channels=channels, samplerate=rate_hz, dtype="float32", blocksize=round(rate_hz * BLOCK_S),
            latency="low", callback=heard,
        )  # fmt: skip
        owner.opened(self)
        try:
            self._stream.start()
        except library.PortAudioError:
            self.close()
            raise

    @property
    def active(self) -> bool:
        """See `OpenMic`."""
        return bool(self._stream.active)

    def close(self) -> None:
        """See `OpenMic`; raises `MicError`."""
        try:
            self._stream.close(ignore_errors=True)
        except self._library.PortAudioError as error:
            raise MicError(f"the microphone did not close: {error}") from error
        finally:
            self._owner.closed(self)
