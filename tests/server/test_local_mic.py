"""The machine's own microphone: choosing, sound in order, a device that dies and comes back, a real sound server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from server.local_mic import Block, LocalMic, MicDevice, MicError, choose, listed
from server.mailbox import Packet
from svp_stream.config import ROOT
from tests.fakes.microphones import HZ, FakeMicrophones
from tests.fakes.sound_server import SoundServer, missing

USB = MicDevice(3, "USB Podcast Mic: Audio (hw:1,0)", 1, 48_000)
HEAD = MicDevice(5, "USB Headset: Audio (hw:2,0)", 2, 44_100)
PREFERRED = MicDevice(9, "default", 2, 44_100, preferred=True)
ALL = [USB, HEAD, PREFERRED]


@pytest.mark.parametrize(
    ("wish", "found"),
    [("default", PREFERRED), ("Default", PREFERRED), ("3", USB), ("5", HEAD), ("podcast", USB), ("hw:2,0", HEAD),
     ("USB Headset: Audio (hw:2,0)", HEAD)],
)  # fmt: skip
def test_a_device_is_chosen(wish: str, found: MicDevice) -> None:
    assert choose(ALL, wish) is found


@pytest.mark.parametrize("wish", ["4", "USB", "webcam", "", "-1", "٣"])
def test_a_wish_that_fits_none_or_several_lists_those_there_are(wish: str) -> None:
    with pytest.raises(MicError, match="Podcast") as caught:
        choose(ALL, wish)
    assert "Headset" in str(caught.value) and "48000 Hz" in str(caught.value)


def test_without_devices_there_are_words() -> None:
    with pytest.raises(MicError, match="no microphone"):
        choose([], "default")
    assert "(none)" in listed([]) and listed(ALL).count("\n") == 2 and "*" in listed([PREFERRED])


class Heard:
    """What a `LocalMic` delivered and said."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.said: list[tuple[str, str]] = []

    @property
    def states(self) -> list[str]:
        return [state for state, _ in self.said]


@asynccontextmanager
async def running(microphones: FakeMicrophones, wish: str = "default") -> AsyncIterator[Heard]:
    heard = Heard()
    mic = LocalMic(
        microphones, wish, heard.packets.append, lambda *said: heard.said.append(said), look_s=0.02, retry_s=0.05
    )
    task = asyncio.create_task(mic.run())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for stream in microphones.streams:
            await asyncio.to_thread(stream.close)


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not so():  # noqa: ASYNC110 - what is waited for happens in threads and lists
            await asyncio.sleep(0.01)


def pitch(packets: list[Packet]) -> float:
    """Hz of a sine, from its turns."""
    whole = np.concatenate([p.samples for p in packets])
    turns = np.flatnonzero((whole[:-1] < 0) & (whole[1:] >= 0))
    return float(48_000 * (len(turns) - 1) / (turns[-1] - turns[0]))


@pytest.mark.parametrize("device", [USB, HEAD])
async def test_sound_comes_mono_at_48_khz_without_gaps(device: MicDevice) -> None:
    microphones = FakeMicrophones([device])
    async with running(microphones, device.name) as heard:
        await until(lambda: len(heard.packets) > 60)
    packets = heard.packets[4:50]
    assert all(p.samples.dtype == np.float32 and p.samples.ndim == 1 for p in packets)
    assert all(b.mic_pts == a.mic_pts + len(a.samples) for a, b in zip(packets, packets[1:], strict=False))
    assert all(b.arrived_s >= a.arrived_s for a, b in zip(packets, packets[1:], strict=False))
    assert pitch(packets) == pytest.approx(HZ, rel=0.02)
    loud = np.concatenate([p.samples for p in packets])
    assert np.sqrt(np.mean(np.square(loud))) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert heard.states == ["open"]


@pytest.mark.parametrize("fault", ["stops", "falls silent"])
async def test_a_lost_device_is_told_and_found_again_under_another_number(fault: str) -> None:
    microphones = FakeMicrophones([USB, HEAD])
    async with running(microphones, "3") as heard:
        await until(lambda: len(heard.packets) > 5)
        microphones.plugged = [HEAD]
        if fault == "stops":
            microphones.streams[0].active = False
        else:
            microphones.streams[0].stuck = True
        await until(lambda: "missing" in heard.states)
        before = len(heard.packets)
        await asyncio.sleep(0.2)
        assert len(heard.packets) == before, "no other device is taken in its place"
        microphones.plugged = [HEAD, MicDevice(7, USB.name, 1, 16_000)]
        await until(lambda: len(heard.packets) > before + 5 and heard.states[-1] == "open")
    assert heard.states == ["open", "lost", "missing", "open"]
    assert "USB Podcast" in heard.said[1][1] and microphones.streams[0].closed
    stamps = [p.mic_pts for p in heard.packets]
    assert stamps == sorted(stamps) and len(set(stamps)) == len(stamps)


async def test_a_busy_device_is_tried_until_it_opens_and_said_once() -> None:
    microphones = FakeMicrophones([USB], busy={USB.name})
    async with running(microphones) as heard:
        await until(lambda: "missing" in heard.states)
        await asyncio.sleep(0.2)
        assert heard.states == ["missing"], "said once, not at every try"
        microphones.busy.clear()
        await until(lambda: len(heard.packets) > 0 and "open" in heard.states)
    assert heard.states == ["missing", "open"]


async def test_a_loop_that_stands_still_loses_the_oldest_and_keeps_the_time() -> None:
    heard = Heard()
    mic = LocalMic(FakeMicrophones(), "default", heard.packets.append, lambda *_: None)
    for n in range(80):
        mic._hear(Block(float(n), np.full((480, 1), n / 100, np.float32), 48_000))
    await asyncio.sleep(0)
    await until(lambda: len(heard.packets) == 50)
    assert mic.dropped == 30 and heard.packets[0].mic_pts == 30 * 480, "what was dropped leaves its room"
    assert heard.packets[0].samples[0] == pytest.approx(0.30) and heard.packets[-1].arrived_s == 79


RECORD = """
import sys, time, threading
import numpy as np
from server.local_mic import choose
from server.port_audio import PortAudio
port, blocks = PortAudio(), []
stream = port.open(choose(port.devices(), "pulse"), blocks.append)
def wait(so, what):
    end = time.monotonic() + 20
    while not so():
        if time.monotonic() > end:
            sys.exit(f"never: {what}")
        time.sleep(0.05)
wait(lambda: sum(np.abs(b.samples).max() > 0.2 for b in blocks) > 20, "the tone")
loud = np.concatenate([b.samples[:, 0] for b in blocks if np.abs(b.samples).max() > 0.2])
turns = np.flatnonzero((loud[:-1] < 0) & (loud[1:] >= 0))
print("pitch", blocks[-1].rate_hz * len(turns) / len(loud), flush=True)
wait(lambda: not stream.active, "the end")
stream.close()
print("lost", flush=True)
wait(lambda: port.devices(), "devices again")
stream, n = port.open(choose(port.devices(), "pulse"), blocks.append), len(blocks)
wait(lambda: len(blocks) > n, "sound again")
print("back", flush=True)
stream.close()
"""


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_real_sound_server_is_heard_lost_and_found_again(tmp_path: Path) -> None:
    sound_server = SoundServer(tmp_path)
    sound_server.start()
    with subprocess.Popen(
        [sys.executable, "-c", RECORD], env=sound_server.env, cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as recorder:
        assert recorder.stdout is not None
        what, hz = recorder.stdout.readline().split()
        assert what == "pitch" and float(hz) == pytest.approx(440, rel=0.03)
        sound_server.stop()
        assert recorder.stdout.readline().strip() == "lost"
        sound_server.start()
        assert recorder.stdout.readline().strip() == "back"
        assert recorder.wait(20) == 0
    sound_server.stop()
