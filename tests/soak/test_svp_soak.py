"""Ten minutes of `svp soak`: two callers, two viewers, the engine without weights. `SVP_SOAK_MINUTES` changes the
length; the figures are printed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from svp_stream.config import ROOT


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_nothing_creeps() -> None:
    minutes = os.environ.get("SVP_SOAK_MINUTES", "10")
    arguments = ["soak", "--minutes", minutes, "--sessions", "2", "--viewers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "svp_stream.cli", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    sys.stdout.write(f"\n{done.stdout}")
    assert done.returncode == 0, done.stdout + done.stderr
