"""Mic echo: what this machine's microphone hears, or a WAV file in real time, spoken by the avatar.

    python examples/echo.py --server http://127.0.0.1:8000
    python examples/echo.py --wav speech.wav

One open segment for as long as it lasts, so that the avatar follows with the least delay. `--list` shows microphones.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from avatar_client import AvatarError, Event, at_a_rate, end_session, new_session, open_avatar, watch_url
from websockets.exceptions import WebSocketException

MIC_HZ = 48_000
BLOCK_S = 0.02
WAITING_BLOCKS = 25
"""Half a second: what a stalled network may hold up; beyond it the oldest sound is forgotten."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--token", help="what the server printed when it started, if it wants one")
    parser.add_argument("--session", help="speak in this session instead of a new one")
    parser.add_argument("--wav", type=Path, help="PCM16 file instead of a microphone")
    parser.add_argument("--device", help="microphone, by number or a part of its name")
    parser.add_argument("--list", action="store_true", help="show the microphones and end")
    return parser.parse_args()


def show(event: Event) -> None:
    if event["type"] != "welcome":
        print(" ".join(f"{key}={value}" for key, value in event.items() if key != "v"), flush=True)


async def from_file(sound: bytes, rate_hz: int) -> AsyncIterator[bytes]:
    """A recording, a block every 20 ms."""
    size = 2 * round(rate_hz * BLOCK_S)
    start_s = time.monotonic()
    for number, at in enumerate(range(0, len(sound), size), start=1):
        yield sound[at : at + size]
        await asyncio.sleep(max(0.0, start_s + number * BLOCK_S - time.monotonic()))


async def from_microphone(device: str | None) -> AsyncIterator[bytes]:
    """Blocks of 20 ms as they are heard, until Ctrl-C."""
    import sounddevice

    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes] = asyncio.Queue()

    def keep(block: bytes) -> None:
        if blocks.qsize() >= WAITING_BLOCKS:
            blocks.get_nowait()
        blocks.put_nowait(block)

    def hear(data: object, frames: int, at: object, status: object) -> None:
        loop.call_soon_threadsafe(keep, bytes(data))  # type: ignore[call-overload]

    chosen = int(device) if device is not None and device.isdigit() else device
    with sounddevice.RawInputStream(
        samplerate=MIC_HZ, blocksize=round(MIC_HZ * BLOCK_S), device=chosen, channels=1, dtype="int16", callback=hear
    ):
        while True:
            yield await blocks.get()


def recording(path: Path) -> tuple[bytes, int]:
    """PCM16 mono and its rate; raises AvatarError for what is no such file."""
    try:
        with wave.open(str(path)) as file:
            if file.getsampwidth() != 2:
                raise AvatarError(f"{path} has {8 * file.getsampwidth()} bits a sample; 16 are wanted")
            sound = np.frombuffer(file.readframes(file.getnframes()), "<i2")[:: file.getnchannels()]
            samples, rate_hz = at_a_rate(sound, file.getframerate())
    except (wave.Error, EOFError) as error:
        raise AvatarError(f"{path} is no WAV file: {error}") from None
    return samples.astype("<i2").tobytes(), rate_hz


async def echo(chosen: argparse.Namespace, session: str, sound: bytes | None, rate_hz: int) -> None:
    blocks = from_file(sound, rate_hz) if sound is not None else from_microphone(chosen.device)
    async with open_avatar(chosen.server, session, chosen.token, show) as avatar:
        finished = await avatar.begin(rate_hz, "echo")
        async for block in blocks:
            if finished.done():
                return
            await avatar.send_sound(block)
        await avatar.end()
        await finished


def main() -> int:
    chosen = arguments()
    if chosen.list:
        import sounddevice

        print(sounddevice.query_devices())
        return 0
    try:
        sound, rate_hz = recording(chosen.wav) if chosen.wav is not None else (None, MIC_HZ)
        session = chosen.session or new_session(chosen.server, chosen.token)
        print(f"watch {watch_url(chosen.server, session, chosen.token)}", flush=True)
        try:
            asyncio.run(echo(chosen, session, sound, rate_hz))
        finally:
            if chosen.session is None:
                end_session(chosen.server, session, chosen.token)
    except (AvatarError, OSError, WebSocketException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
