"""House rule: whatever has push, flush and reset stands trial in `test_laws`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import svp_stream
from tests.laws.stages import CASES

PACKAGE = Path(svp_stream.__file__).parent
ELSEWHERE: dict[str, str] = {}
"""Stages that a test outside this folder puts through the laws, and which."""


def _stages() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef) or any("Protocol" in ast.unparse(b) for b in node.bases):
                continue
            methods = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
            if {"push", "flush", "reset"} <= methods:
                module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
                yield f"{module}.{node.name}"


def test_every_stage_is_registered() -> None:
    found = set(_stages())
    assert len(found) > 4
    tried = {f"{c.covers.__module__}.{c.covers.__qualname__}" for c in CASES} | set(ELSEWHERE)
    assert found - tried == set(), "add these to tests/laws/stages.py"
    assert tried - found == set(), "these are no stages of the package"
