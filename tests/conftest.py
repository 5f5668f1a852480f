"""Shared by all tests: one thread for torch, no inherited settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is imported anywhere: the tests share two cores, and threads that wait for each other cost most.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person may have set for their own server must not leak into the tests."""
    for name in ("SVP_TOKEN", "SVP_BACKEND"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole weights folder of tiny random models, read-only by agreement; see `tests.fakes.tiny_weights`."""
    from tests.fakes.tiny_weights import write_tiny_weights

    folder = tmp_path_factory.mktemp("weights") / "tiny"
    write_tiny_weights(folder)
    return folder
