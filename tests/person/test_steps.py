"""Steps are done once, again when anything before them changes, and a failure keeps what was done."""

from __future__ import annotations

from pathlib import Path

import pytest

from svp_stream.errors import ConfigError
from svp_stream.person.steps import Step, follow, read_book


def steps(folder: Path, log: list[str], inputs: str = "x", broken: str = "") -> list[Step]:
    def work(name: str) -> None:
        if name == broken:
            raise KeyboardInterrupt
        log.append(name)
        (folder / name).write_text(name)

    return [Step(n, inputs if n == "b" else "", (folder / n,), lambda n=n: work(n)) for n in "abc"]  # type: ignore[misc]


def test_a_step_is_done_once(tmp_path: Path) -> None:
    log: list[str] = []
    assert follow(steps(tmp_path, log), tmp_path / "book") == ["a", "b", "c"] == log
    assert follow(steps(tmp_path, log), tmp_path / "book") == [] and log == ["a", "b", "c"]
    assert all(row["seconds"] >= 0 for row in read_book(tmp_path / "book").values())


def test_what_follows_a_change_is_done_again(tmp_path: Path) -> None:
    log: list[str] = []
    follow(steps(tmp_path, log), tmp_path / "book")
    assert follow(steps(tmp_path, log, inputs="y"), tmp_path / "book") == ["b", "c"]


def test_what_was_lost_is_made_again(tmp_path: Path) -> None:
    log: list[str] = []
    follow(steps(tmp_path, log), tmp_path / "book")
    (tmp_path / "a").unlink()
    assert follow(steps(tmp_path, log), tmp_path / "book") == ["a"]


def test_a_failure_keeps_what_was_done(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        follow(steps(tmp_path, log, broken="b"), tmp_path / "book")
    assert list(read_book(tmp_path / "book")) == ["a"]
    assert follow(steps(tmp_path, log), tmp_path / "book") == ["b", "c"]


def test_a_damaged_book_is_told(tmp_path: Path) -> None:
    (tmp_path / "book").write_text("{")
    with pytest.raises(ConfigError, match="book: is damaged .*delete it"):
        read_book(tmp_path / "book")
    assert read_book(tmp_path / "gone") == {}
