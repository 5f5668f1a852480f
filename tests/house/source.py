"""The project's own Python files, for the house tests."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("svp_stream", "server")


@dataclass(frozen=True)
class Source:
    """One file: its path from the root of the repository, its dotted module name and text."""

    path: Path
    module: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """Parsed each time: trees that stay make every `gc.collect` of a server in this process take seconds."""
        return ast.parse(self.text, str(self.path))

    @property
    def lines(self) -> list[str]:
        """The text by lines."""
        return self.text.splitlines()


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """All Python files under these folders of the repository."""
    found = []
    for folder in folders or (*PACKAGES, "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            relative = path.relative_to(ROOT)
            parts = relative.with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Source(relative, module, text))
    return tuple(found)


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, wherever in the file; `from a import b` gives `a.b`."""
    package = source.module if source.path.name == "__init__.py" else source.module.rpartition(".")[0]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{name}.{alias.name}") for alias in node.names)


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method."""
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def comments(source: Source) -> Iterator[tuple[int, str]]:
    """(line, text) of every comment."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
