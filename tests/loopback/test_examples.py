"""The examples as a user runs them: processes of their own against a house of fakes at a real port."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.agents import open_port, speech
from tests.fakes.engines import FakeStages
from tests.house.source import ROOT
from tests.loopback.conftest import open_house

EXAMPLES = ROOT / "examples"
TEXT = "One two three four five six seven. Eight nine."
SYNTHESISER = pytest.mark.skipif(not shutil.which("flite"), reason="needs flite; make test installs it")


async def run(script: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / script), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


@SYNTHESISER
async def test_speak_says_every_sentence_and_leaves_nothing_behind() -> None:
    stages = FakeStages()
    async with open_house(stages) as house, open_port(house) as port:
        code, out, err = await run("speak.py", TEXT, "--server", f"http://127.0.0.1:{port}", "--wait", "0")
        assert (code, err) == (0, ""), err
        assert re.search(rf"^watch http://127.0.0.1:{port}/obs\?session=\S+$", out, re.MULTILINE)
        kinds = re.findall(r"^ *[\d.]+ s  (playback_\w+)", out, re.MULTILINE)
        assert kinds == ["playback_started", "playback_finished"] * 2 and out.endswith("done\n")
        assert "interrupted=True" not in out
        loud = np.concatenate([chunk.samples for chunk in stages.made[0].pushed])
        assert float(np.abs(loud).max()) > 0.05, "it was heard"
        assert len(house.signaling.registry) == 0, "the session it made has ended"


@SYNTHESISER
async def test_speak_is_interrupted() -> None:
    async with open_house() as house, open_port(house) as port:
        server = f"http://127.0.0.1:{port}"
        code, out, err = await run("speak.py", TEXT, "--server", server, "--wait", "0", "--interrupt-after", "0.4")
        assert (code, err) == (0, ""), err
        finished = re.findall(r"playback_finished +segment=\d.* position_ms=([\d.]+) interrupted=(\w+)", out)
        assert finished[0][1] == "True" and float(finished[0][0]) < 2000 and "cut off" in out
        assert len(re.findall(r"  interrupted  ", out)) == 1


@pytest.mark.parametrize("rate_hz", [16_000, 22_050])
async def test_echo_plays_a_recording_in_real_time(tmp_path: Path, rate_hz: int) -> None:
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(speech(1.0, rate_hz))
    stages = FakeStages()
    async with open_house(stages) as house, open_port(house) as port:
        code, out, err = await run("echo.py", "--wav", str(tmp_path / "tone.wav"), "--server", f"http://127.0.0.1:{port}")
        assert (code, err) == (0, ""), err
        assert "type=playback_finished segment=echo position_ms=1000.0 interrupted=False" in out
        sound = np.concatenate([chunk.samples for chunk in stages.made[0].pushed])
        spectrum = np.abs(np.fft.rfft(sound))
        assert np.argmax(spectrum) * 48_000 / len(sound) == pytest.approx(220, abs=5)


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("speak.py", ("hello", "--session", "nobody", "--wait", "0"), "4404|no such session"),
        ("speak.py", ("...", "--wait", "0"), "nothing to say"),
        ("speak.py", ("hello", "--style", "nope", "--wait", "0"), "422, unknown style"),
        ("echo.py", ("--wav", str(EXAMPLES / "echo.py")), "is no WAV file"),
    ],
)
async def test_what_goes_wrong_is_said(script: str, arguments: tuple[str, ...], words: str) -> None:
    async with open_house() as house, open_port(house) as port:
        code, out, err = await run(script, *arguments, "--server", f"http://127.0.0.1:{port}")
        assert code in (1, 2) and re.search(words, out + err) and "Traceback" not in err, out + err


async def test_no_server_is_said() -> None:
    code, _, err = await run("speak.py", "hello", "--server", "http://127.0.0.1:9", "--wait", "0")
    assert code == 1 and "no server at http://127.0.0.1:9" in err
