"""An avatar speaks a text.

    python examples/speak.py "Good evening. I am an avatar." --server http://127.0.0.1:8000

The text goes through espeak-ng or flite, sentence by sentence, as an agent's text-to-speech would; each sentence is a
segment. Open the printed address to watch. `--interrupt-after 2.5` cuts it off as a user who barges in would.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
from avatar_client import Avatar, AvatarError, Event, Int16, at_a_rate, end_session, new_session, open_avatar, watch_url
from websockets.exceptions import WebSocketException

SYNTHESISERS = ("flite", "espeak-ng")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", help="what to say; from standard input when left out")
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--token", help="what the server printed when it started, if it wants one")
    parser.add_argument("--session", help="speak in this session instead of a new one")
    parser.add_argument("--avatar")
    parser.add_argument("--style")
    parser.add_argument("--synthesiser", choices=SYNTHESISERS, help="the first that is installed")
    parser.add_argument("--voice", help="of the synthesiser, e.g. slt (flite) or en-us+f2 (espeak-ng)")
    parser.add_argument("--wait", type=float, default=5.0, help="seconds to open the address before it speaks")
    parser.add_argument("--interrupt-after", type=float, help="seconds after the first word")
    parser.add_argument("--keep", action="store_true", help="leave the session open")
    return parser.parse_args()


def sentences(text: str) -> list[str]:
    """Pieces that are spoken in one breath."""
    pieces = re.split(r"(?<=[.!?;:])\s+", " ".join(text.split()))
    return [piece for piece in pieces if any(c.isalnum() for c in piece)]


def synthesise(text: str, synthesiser: str, voice: str | None) -> tuple[Int16, int]:
    """Samples and their rate; raises AvatarError with the synthesiser's words."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        if synthesiser == "flite":
            command = ["flite", "-voice", voice or "slt", "-t", text, "-o", str(path)]
        else:
            command = ["espeak-ng", "-v", voice or "en-us", "-w", str(path), "--", text]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode or not path.exists():
            raise AvatarError(f"{synthesiser}: {done.stderr.strip() or 'no sound'}")
        with wave.open(str(path)) as recording:
            sound = np.frombuffer(recording.readframes(recording.getnframes()), "<i2")
            return at_a_rate(sound[:: recording.getnchannels()], recording.getframerate())


class Show:
    """Prints events, and remembers when the first word was heard."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._start_s = time.monotonic()

    def __call__(self, event: Event) -> None:
        fields = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("type", "v", "session"))
        print(f"{time.monotonic() - self._start_s:7.2f} s  {event['type']:18s} {fields}", flush=True)
        if event["type"] == "playback_started":
            self.begun.set()


async def interrupt_after(avatar: Avatar, show: Show, seconds: float) -> None:
    await show.begun.wait()
    await asyncio.sleep(seconds)
    print("          interrupt", flush=True)
    await avatar.interrupt()


async def speak(chosen: argparse.Namespace, session: str, text: list[str], synthesiser: str) -> int:
    """Says all of it; how many sentences were cut off."""
    show = Show()
    async with open_avatar(chosen.server, session, chosen.token, show) as avatar:
        barge_in = None
        if chosen.interrupt_after is not None:
            barge_in = asyncio.create_task(interrupt_after(avatar, show, chosen.interrupt_after))
        endings: list[asyncio.Future[Event]] = []
        for sentence in text:
            if barge_in is not None and barge_in.done():
                break
            sound, rate_hz = await asyncio.to_thread(synthesise, sentence, synthesiser, chosen.voice)
            endings.append(await avatar.say(sound, rate_hz, f"{len(endings) + 1}: {sentence[:40]}"))
        finished = await asyncio.gather(*endings)
        if barge_in is not None:
            barge_in.cancel()
        return sum(bool(event["interrupted"]) for event in finished)


def main() -> int:
    chosen = arguments()
    text = sentences(chosen.text if chosen.text is not None else sys.stdin.read())
    synthesiser = chosen.synthesiser or next((s for s in SYNTHESISERS if shutil.which(s)), None)
    if not text or synthesiser is None:
        print("nothing to say" if not text else "install flite or espeak-ng", file=sys.stderr)
        return 2
    try:
        session = chosen.session or new_session(
            chosen.server, chosen.token, avatar=chosen.avatar, style=chosen.style
        )
        print(f"watch {watch_url(chosen.server, session, chosen.token)}", flush=True)
        try:
            time.sleep(chosen.wait)
            cut = asyncio.run(speak(chosen, session, text, synthesiser))
        finally:
            if not chosen.keep and chosen.session is None:
                end_session(chosen.server, session, chosen.token)
    except (AvatarError, OSError, WebSocketException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"done, {cut} of {len(text)} sentences cut off" if cut else "done")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
