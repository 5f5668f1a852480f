"""What a fresh clone must hold: package data, pins, the licence, a repository that names no other place."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest

from tests.house.source import ROOT

PINNED = re.compile(r"^[A-Za-z0-9_.-]+(\[[a-z,]+\])?==[^*]+$")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".js", ".html", ".css", ".txt", ".json", ""}


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_dependency_is_pinned() -> None:
    project = _project()["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    loose = [d for group in groups for d in group if not PINNED.match(d)]
    assert not loose, f"without an exact version: {loose}"


def test_console_script_leads_somewhere() -> None:
    from svp_stream import cli

    assert _project()["project"]["scripts"] == {"svp": "svp_stream.cli:main"}
    assert callable(cli.main)


def test_package_data_is_there() -> None:
    patterns = _project()["tool"]["setuptools"]["package-data"]["svp_stream"]
    missing = [p for p in patterns if not list((ROOT / "svp_stream").glob(p))]
    assert not missing, f"pyproject ships {missing}, but nothing is there"


def test_licence_and_readme() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (ROOT / "README.md").is_file()


def test_no_foreign_absolute_paths() -> None:
    """Nothing committed points into one machine's folders."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    homes = re.compile(r"(?<![\w.])/(home|Users|work|root)/[\w.]")
    found = []
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix not in TEXT or not path.is_file() or path.stat().st_size > 1_000_000:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {m.group()}" for m in homes.finditer(text) if path.name != "test_package.py"]
    assert not found, found
