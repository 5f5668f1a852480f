"""The knobs of a person's run: the file equals the code, and what was left out of a part keeps the person's value."""

from __future__ import annotations

from pathlib import Path

import pytest

from svp_stream.config import CONFIGS
from svp_stream.errors import ConfigError
from svp_stream.person.order import PersonConfig


def test_the_default_file_equals_the_code() -> None:
    assert PersonConfig.load(CONFIGS / "person.yaml") == PersonConfig() == PersonConfig.load(None)


def test_a_part_keeps_what_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("prepare: {least_eyes_px: 40}\n")
    found = PersonConfig.load(path).prepare
    assert (found.least_eyes_px, found.heldout_share) == (40, 0.2), "a fifth is held out, not prepare's tenth"


@pytest.mark.parametrize(("text", "told"), [
    ("least: 3", "least: unknown key; did you mean least_s"),
    ("prepare: {siz: 3}", "siz: unknown key; did you mean size"),
    ("autoencoder_share: 1", "autoencoder_share: input should be less than 1"),
])  # fmt: skip
def test_a_wrong_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        PersonConfig.load(path)
