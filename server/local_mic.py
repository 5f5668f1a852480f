"""This machine's microphone as the source of a session, so that nothing but the server has to listen.

In: blocks of sound from a device's own thread. Out: `mailbox.Packet`s on the event loop; what happens, in words.
Remembers: the device that was opened first, how much sound it has brought. Latency: one block of the device (10 ms).

    device thread: block ─▶ [mailbox, half a second] ─▶ loop: mono at 48 kHz ─▶ deliver
    looking ─▶ open ─▶ heard ─▶ lost (an error, an end, or no block for a second) ─▶ looking again, every 2 s, for ever

A device that comes back may have another number, so it is looked for by the name that it had.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import av
import numpy as np

from server.mailbox import OldestOut, Packet
from server.mic import MonoVoice
from svp_stream.clock import WIRE_RATE_HZ
from svp_stream.errors import SvpError
from svp_stream.packets import Float32

logger = logging.getLogger(__name__)

DEFAULT: Final = "default"
"""Asks for the device that the system prefers."""
BLOCK_S: Final = 0.01
KEPT_BLOCKS: Final = 50
LOOK_S: Final = 0.25
QUIET_LOOKS: Final = 4
"""Looks in a row without a block after which a device is lost: counted, for a machine that stands still hears none."""
FIRST_LOOKS: Final = 12
"""As many for the first block: sound servers wake up slowly."""
RETRY_S: Final = 2.0
CLOSE_TIMEOUT_S: Final = 3.0


class MicError(SvpError):
    """There is no such microphone, or it cannot be opened; the words list those there are."""


@dataclass(frozen=True, slots=True)
class MicDevice:
    """A device that records: its number and name, channels at most, preferred rate."""

    index: int
    name: str
    channels: int
    rate_hz: int
    preferred: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """What a device brought: float32 [N, channels] at `rate_hz`, complete at wall time `arrived_s`."""

    arrived_s: float
    samples: Float32
    rate_hz: int


class OpenMic(Protocol):
    """A device that is recording."""

    @property
    def active(self) -> bool:
        """False once the device has ended by itself."""
        ...

    def close(self) -> None:
        """Stop recording; may take a moment, so not for the event loop."""
        ...


class Microphones(Protocol):
    """The devices of a machine. Every call may take a moment, so none is for the event loop."""

    def devices(self) -> Sequence[MicDevice]:
        """Those there are now."""
        ...

    def open(self, device: MicDevice, hear: Callable[[Block], None]) -> OpenMic:
        """Record; `hear` is called in a thread of the device's own. Raises `MicError`."""
        ...


def choose(devices: Sequence[MicDevice], wish: str) -> MicDevice:
    """The device by number, by name or part of it in any case, or the preferred one for `default`.

    Raises `MicError` listing those there are, also when a part of a name fits several of different names.
    """
    if not devices:
        raise MicError("this machine has no microphone")
    if wish.lower() == DEFAULT:
        named = [d for d in devices if d.name.lower() == DEFAULT]
        return next((d for d in devices if d.preferred), (named or list(devices))[0])
    if wish.isascii() and wish.isdecimal():
        found = [d for d in devices if d.index == int(wish)]
    else:
        exact = [d for d in devices if d.name.lower() == wish.lower()]
        found = exact or [d for d in devices if wish.lower() in d.name.lower()]
    if not found:
        raise MicError(f"there is no microphone {wish!r}; there are:\n{listed(devices)}")
    if len({d.name for d in found}) > 1:
        raise MicError(f"{wish!r} fits several microphones, say more of the name:\n{listed(found)}")
    return found[0]


def listed(devices: Sequence[MicDevice]) -> str:
    """One line for each device; the preferred one has a star."""
    if not devices:
        return "  (none)"
    return "\n".join(
        f"{'*' if d.preferred else ' '} {d.index:3d}  {d.name}  ({d.channels} ch, {d.rate_hz} Hz)" for d in devices
    )


class LocalMic:
    """Keeps one microphone open for as long as `run` runs.

    `say(state, words)` is called on the loop at each change: `open`, `lost`, `missing`.
    """

    def __init__(
        self, microphones: Microphones, wish: str, deliver: Callable[[Packet], None], say: Callable[[str, str], None],
        *, look_s: float = LOOK_S, retry_s: float = RETRY_S,
    ) -> None:
        self.state = "looking"
        self._microphones = microphones
        self._wish = wish
        self._deliver = deliver
        self._say_out = say
        self._look_s, self._retry_s = look_s, retry_s
        self._voice = MonoVoice()
        self._box: OldestOut[Block] = OldestOut(KEPT_BLOCKS, lambda block: len(block.samples))
        self._blocks = 0
        self._pts = 0
        self._loop = asyncio.get_running_loop()

    @property
    def dropped(self) -> int:
        """Blocks that the loop was too slow to take."""
        return self._box.dropped

    async def run(self) -> None:
        """Look for the device, record, look for it again; until cancelled."""
        while True:
            try:
                device, stream = await asyncio.to_thread(self._open)
            except MicError as error:
                self._say("missing", str(error))
            else:
                self._say("open", f"listening to the microphone {device.name!r}")
                self._wish = device.name
                try:
                    reason = await self._watch(stream)
                finally:
                    await self._close(stream)
                self._say("lost", f"the microphone {device.name!r} is lost: {reason}; it is looked for every 2 s")
            await asyncio.sleep(self._retry_s)

    def _open(self) -> tuple[MicDevice, OpenMic]:
        device = choose(self._microphones.devices(), self._wish)
        return device, self._microphones.open(device, self._hear)

    async def _watch(self, stream: OpenMic) -> str:
        """Why the device is lost."""
        first = seen = self._blocks
        quiet = 0
        while quiet < (QUIET_LOOKS if seen > first else FIRST_LOOKS):
            await asyncio.sleep(self._look_s)
            if not stream.active:
                return "it has stopped"
            quiet, seen = (quiet + 1 if self._blocks == seen else 0), self._blocks
        return "it brings no sound"

    async def _close(self, stream: OpenMic) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.to_thread(stream.close)
        except (TimeoutError, MicError) as error:
            logger.warning("the microphone did not close: %s", error or "it takes too long")

    def _hear(self, block: Block) -> None:
        """In the device's thread: hand over and go."""
        self._box.put(block)
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:
            logger.debug("sound for a loop that has closed")

    def _drain(self) -> None:
        lost = self._box.take_lost()
        for block in self._box.take(KEPT_BLOCKS):
            self._blocks += 1
            samples = self._mono(block)
            self._pts += lost * WIRE_RATE_HZ // block.rate_hz
            lost = 0
            if len(samples):
                self._deliver(Packet(block.arrived_s, self._pts, samples))
                self._pts += len(samples)

    def _mono(self, block: Block) -> Float32:
        mono: Float32 = block.samples.mean(axis=1, dtype=np.float32)
        if block.rate_hz == WIRE_RATE_HZ:
            return mono
        frame = av.AudioFrame.from_ndarray(mono[None], format="fltp", layout="mono")
        frame.sample_rate = block.rate_hz
        return self._voice.convert(frame)[1]

    def _say(self, state: str, words: str) -> None:
        if state != self.state:
            self.state = state
            logger.log(logging.INFO if state == "open" else logging.WARNING, "%s", words)
            self._say_out(state, words)


def now_s() -> float:
    """Wall seconds, as `Block.arrived_s` counts them."""
    return time.monotonic()
