"""Microphone to server on loopback: milliseconds from a packet's leaving of a real sender to its hearing, our jitter
buffer against aiortc's own, calm and in bad weather; and from Chromium's microphone track. The figures are printed as
JSON lines. `SVP_SOAK_MINUTES` changes the length (of all runs together; at least one minute)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from playwright.async_api import async_playwright

from server.house import House
from server.live import Source
from server.mailbox import Packet
from server.security import Guard
from svp_stream.packets import Float32, Floats
from tests.fakes.browser import FLAGS, chromium, write_wav
from tests.fakes.clicks import ClickEar
from tests.fakes.engines import fake_studio
from tests.fakes.pairs import mic_latencies
from tests.fakes.relay import Weather

WEATHERS = {
    "calm": None,
    "loss 5 %": Weather(loss=0.05),
    "jitter 20 ms": Weather(jitter_s=0.02),
    "jitter 50 ms": Weather(jitter_s=0.05),
}


def figures(late_s: Floats) -> dict[str, float]:
    """Median, 95th percentile and number."""
    p50, p95 = np.percentile(late_s, [50, 95]) * 1000
    return {"p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1), "clicks": len(late_s)}


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_microphone_to_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    seconds = max(60.0, 60 * float(os.environ.get("SVP_SOAK_MINUTES", "2"))) / (2 * len(WEATHERS))
    found = {}
    for name, weather in WEATHERS.items():
        for ours in (True, False):
            late = await mic_latencies(seconds, ours=ours, weather=weather)
            found[name, ours] = figures(late)
            line = {"weather": name, "buffer": "ours" if ours else "aiortc", **found[name, ours]}
            sys.stdout.write("\n" + json.dumps(line))
    sys.stdout.write("\n")
    assert found["calm", True]["p50_ms"] < found["calm", False]["p50_ms"] - 60


SEND = """async () => {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const [track] = stream.getAudioTracks();
  window.clicks = [];
  const reader = new MediaStreamTrackProcessor({ track: track.clone() }).readable.getReader();
  (async () => {
    for (let last = 0; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      const sound = new Float32Array(value.numberOfFrames);
      value.copyTo(sound, { planeIndex: 0, format: 'f32-planar' });
      value.close();
      const now = performance.timeOrigin + performance.now();
      if (sound.some((x) => Math.abs(x) > 0.2) && now - last > 200) window.clicks.push((last = now));
    }
  })();
  const pc = (window.pc = new RTCPeerConnection());
  pc.addTrack(track, stream);
  pc.addTransceiver('video', { direction: 'recvonly' });
  pc.createDataChannel('control').onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === 'stats') window.told = event;
  };
  await pc.setLocalDescription(await pc.createOffer());
  await new Promise((done) => {
    const look = () => pc.iceGatheringState === 'complete' && done();
    pc.onicegatheringstatechange = look;
    look();
  });
  const headers = { 'Content-Type': 'application/sdp' };
  const answer = await fetch('/v1/call', { method: 'POST', headers, body: pc.localDescription.sdp });
  await pc.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
}"""
"""Reads its own microphone track beside sending it: the wall time at which the page has each click."""


def clicks() -> Float32:
    """10 ms of tone each half second, 4 s, 48 kHz."""
    sound = np.zeros(48_000 * 4, np.float32)
    for at in range(0, len(sound), 24_000):
        sound[at : at + 480] = 0.9 * np.sin(np.arange(480) * 2 * np.pi * 1000 / 48_000)
    return sound


@pytest.mark.soak
@pytest.mark.browser
@pytest.mark.timeout(0)
async def test_chromium_to_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    ear, deliver = ClickEar(), Source.deliver

    def hear(source: Source, packet: Packet) -> None:
        ear.hear(packet.samples, time.time())
        deliver(source, packet)

    monkeypatch.setattr(Source, "deliver", hear)
    house = House(fake_studio(), Guard(None, local=True), capacity=1)
    server = uvicorn.Server(uvicorn.Config(house.app, port=0, log_level="warning"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    microphone = write_wav(tmp_path / "mic.wav", clicks())
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium(), headless=True,
            args=[*FLAGS, f"--use-file-for-fake-audio-capture={microphone}"],
        )  # fmt: skip
        page = await context.new_page()
        await page.goto(f"http://127.0.0.1:{port}/healthz")
        await page.evaluate(SEND)
        await asyncio.sleep(max(20.0, 30 * float(os.environ.get("SVP_SOAK_MINUTES", "2"))))
        left, told = np.array(await page.evaluate("window.clicks")) / 1000, await page.evaluate("window.told")
        await context.close()
    server.should_exit = True
    await serving
    late = np.array([h - left[left <= h][-1] for h in ear.heard_s if (left <= h).any()])
    line = {"sender": "chromium", **figures(late[late < 0.3][3:]), "jitter": told["jitter"]}
    sys.stdout.write("\n" + json.dumps(line) + "\n")
    assert line["p50_ms"] < 60
