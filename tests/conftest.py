"""Shared by all tests: one thread for torch, no inherited settings."""

from __future__ import annotations

import os

import pytest

# Before torch is imported anywhere: the tests share two cores, and threads that wait for each other cost most.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person may have set for their own server must not leak into the tests."""
    for name in ("SVP_TOKEN", "SVP_BACKEND"):
        monkeypatch.delenv(name, raising=False)
