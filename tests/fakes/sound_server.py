"""A sound server without a sound card, so that PortAudio finds a real microphone on any machine.

In: nothing. Out: environment variables under which a process records a steady tone from the device `pulse`.
Remembers: its process. It can be pulled out and plugged in again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

BRIDGE = Path("/usr/share/alsa/alsa.conf.d/50-pulseaudio.conf")


def missing() -> str | None:
    """Why there can be none here; None when there can."""
    if shutil.which("pulseaudio") is None or not BRIDGE.exists():
        return "needs pulseaudio and libasound2-plugins (this machine has no sound card)"
    return None


class SoundServer:
    """PulseAudio without a sound card: a sink that goes nowhere, whose monitor is the microphone."""

    def __init__(self, folder: Path) -> None:
        home = folder / "home"
        home.mkdir()
        self.env = {
            **os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(folder), "PULSE_SOURCE": "stage.monitor",
            "PULSE_SERVER": f"unix:{folder}/native",
        }  # fmt: skip
        self._modules = (
            f"module-native-protocol-unix socket={folder}/native auth-anonymous=1",
            "module-null-sink sink_name=stage rate=48000", "module-sine sink=stage frequency=440",
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Up, or up again."""
        loads = [part for module in self._modules for part in ("-L", module)]
        self._process = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", *loads], env=self.env,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self) -> None:
        """Gone, as if the device were pulled out; harmless when it is."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=20)
            self._process = None
