"""What every file of the project looks like: a card, its size, its name, no print, nothing left to do."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house.source import ROOT, Source, code_lines, comments, functions, sources

MOST_LINES = 400
MOST_FUNCTION_LINES = 60
"""The habit is under 40; above this it is no longer a matter of taste."""
WISHED_FUNCTION_LINES = 40
MOST_LONG_SHARE = 0.03
"""Share of the functions that may be longer than wished."""

FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common)$|^base(_|$)")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
WORDS_OF_HISTORY = re.compile(r"\b(no longer|used to be|previously|was changed|has been renamed)\b", re.IGNORECASE)

ALL = sources()
OURS = sources("svp_stream", "server")


def _id(source: Source) -> str:
    return str(source.path)


@pytest.mark.parametrize("source", OURS, ids=_id)
def test_file_card(source: Source) -> None:
    card = ast.get_docstring(source.tree)
    if source.path.name == "__init__.py" and not source.tree.body:
        return
    assert card, f"{source.path}: opens with no card"
    assert len(card.split()) >= 5, f"{source.path}: its card says too little: {card!r}"


def test_test_files_say_what_they_test() -> None:
    bare = [str(s.path) for s in sources("tests") if s.tree.body and not ast.get_docstring(s.tree)]
    assert not bare, f"without a docstring: {bare}"


def test_length() -> None:
    long = {str(s.path): len(s.lines) for s in ALL if len(s.lines) > MOST_LINES}
    assert not long, f"over {MOST_LINES} lines: {long}"


def test_function_length() -> None:
    sizes = [(code_lines(f), f"{s.path}:{f.lineno} {f.name}") for s in OURS for f in functions(s)]
    monsters = sorted(where for size, where in sizes if size > MOST_FUNCTION_LINES)
    assert not monsters, f"over {MOST_FUNCTION_LINES} lines: {monsters}"
    long = sorted((size, where) for size, where in sizes if size > WISHED_FUNCTION_LINES)
    assert len(long) <= MOST_LONG_SHARE * len(sizes), f"too many over {WISHED_FUNCTION_LINES} lines: {long}"


def test_names() -> None:
    bad = [str(s.path) for s in ALL for part in s.path.with_suffix("").parts if FORBIDDEN_NAMES.search(part)]
    assert not bad, f"named for nothing: {bad}"


def test_no_print() -> None:
    found = [
        f"{s.path}:{node.lineno}"
        for s in OURS
        for node in ast.walk(s.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "breakpoint")
    ]
    assert not found, f"use logging, or typer.echo in a command: {found}"


def test_nothing_left_to_do() -> None:
    here = ROOT / "tests" / "house"
    found = [
        f"{s.path}:{line} {text}"
        for s in ALL
        if (ROOT / s.path).parent != here
        for line, text in comments(s)
        if UNFINISHED.search(text) or WORDS_OF_HISTORY.search(text)
    ]
    assert not found, "\n".join(found)


def test_no_swallowed_errors() -> None:
    """A bare `except:` hides everything; an `except Exception` says why on its line or the next."""
    found = []
    for s in OURS:
        said = {line for line, _ in comments(s)}
        for node in ast.walk(s.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            if node.type is None or (broad and not said & {node.lineno, node.lineno + 1, node.lineno - 1}):
                found.append(f"{s.path}:{node.lineno}")
    assert not found, f"broad except without a reason: {found}"


def test_public_doors_are_documented() -> None:
    """Functions and classes that other modules may use say what they do."""
    bare = []
    for s in OURS:
        for node in s.tree.body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{s.path}:{node.lineno} {node.name}")
    assert not bare, f"without a docstring: {bare}"
