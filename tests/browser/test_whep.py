"""A real Chromium publishes its microphone by WHIP and watches by WHEP: codecs, layouts, no bursts of key frames."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from tests.fakes.browser import browser, server, write_wav

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CONNECT = """async ([path, kinds, codec]) => {
  const connection = new RTCPeerConnection({ iceServers: [], bundlePolicy: 'max-bundle' });
  (window.lines ??= []).push(connection);
  const video = document.createElement('video');
  Object.assign(video, { muted: true, autoplay: true });
  document.body.append(video);
  connection.addEventListener('track', ({ track }) => {
    const element = track.kind === 'video' ? video : document.createElement('audio');
    element.srcObject = new MediaStream([track]);
    void element.play();
  });
  if (kinds === 'publish') {
    const media = await navigator.mediaDevices.getUserMedia({ audio: true });
    connection.addTransceiver(media.getAudioTracks()[0], { direction: 'sendonly' });
    connection.addTransceiver('video', { direction: 'sendonly' });
  } else {
    const transceiver = connection.addTransceiver('video', { direction: 'recvonly' });
    const { codecs } = RTCRtpReceiver.getCapabilities('video');
    transceiver.setCodecPreferences(codecs.filter((c) => c.mimeType === codec || c.mimeType === 'video/rtx'));
    connection.addTransceiver('audio', { direction: 'recvonly' });
  }
  await connection.setLocalDescription();
  while (connection.iceGatheringState !== 'complete') await new Promise((done) => setTimeout(done, 20));
  const response = await fetch(path, {
    method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: connection.localDescription.sdp,
  });
  const sdp = await response.text();
  if (response.status !== 201) throw new Error(`${response.status} ${sdp}`);
  await connection.setRemoteDescription({ type: 'answer', sdp });
  while (connection.connectionState !== 'connected') await new Promise((done) => setTimeout(done, 20));
  return response.headers.get('X-Session');
}"""
FIGURES = """async () => Promise.all(window.lines.map(async (connection) => {
  const found = { decoded: 0, audio: 0 };
  for (const s of (await connection.getStats()).values()) {
    if (s.type !== 'inbound-rtp') continue;
    if (s.kind === 'audio') found.audio = s.totalAudioEnergy;
    else Object.assign(found, {
      decoded: s.framesDecoded, keys: s.keyFramesDecoded, height: s.frameHeight, dropped: s.framesDropped,
      pli: s.pliCount, freezes: s.freezeCount,
    });
  }
  return found;
}))"""


def test_chromium_watches_what_chromium_says(tmp_path: Path) -> None:
    t = np.arange(48_000 * 2) / 48_000
    voice = (0.4 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)
    profile = tmp_path / "noop.yaml"
    profile.write_text("model: {engine: noop}\nladder: {worst: 0}\n")
    with server("--config", str(profile)) as url, sync_playwright() as player:
        with browser(player, tmp_path / "profile", write_wav(tmp_path / "mic.wav", voice)) as context:
            context.set_default_timeout(60_000)
            page = context.new_page()
            page.goto(url)
            session = page.evaluate(CONNECT, ["/v1/whip", "publish", ""])
            for layout, codec in (("plain", "video/VP8"), ("plain", "video/H264"), ("packed", "video/VP8")):
                page.evaluate(CONNECT, [f"/v1/whep/{session}?layout={layout}", "watch", codec])
            figures: list[dict[str, Any]] = []
            for _ in range(100):
                page.wait_for_timeout(200)
                figures = page.evaluate(FIGURES)
                if all(f["decoded"] > 100 for f in figures[1:]):
                    break
            with urllib.request.urlopen(f"{url}/v1/sessions") as response:
                (mark,) = json.load(response)["sessions"]
    assert all(f["decoded"] > 100 and f["audio"] > 0 for f in figures[1:]), figures
    assert [f.get("height") for f in figures] == [None, 256, 256, 512]
    assert mark["source"] == "whip" and mark["connections"] == 4
    made = {(e["codec"], e["layout"]): e for e in mark["stats"]["encodings"]}
    assert set(made) == {("vp8", "plain"), ("h264", "plain"), ("vp8", "packed")}
    assert max(e["keys"] for e in made.values()) <= 4, f"key frames come in no bursts: {figures} {made}"
