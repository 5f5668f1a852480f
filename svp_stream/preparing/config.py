"""What `svp prepare` looks for: one section, `configs/prepare.yaml`, every threshold with its unit.

In: YAML. Out: a frozen `PrepareConfig`. Errors name the file, the key and what would be right.
The thresholds are ours, set on our own rendered video spoilt on purpose (see `tests/preparing`); they are no published
values. Real cameras differ: read the report of a first run and move them.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from svp_stream.config import Section, load_yaml

AVATAR: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"
"""Names that a file may bear anywhere."""


class PrepareConfig(Section):
    """Frames are those of 25 a second; shares are of a clip's frames; pixels are those of the source."""

    size: int = Field(default=256, ge=32, le=1024, multiple_of=2)
    crf: int = Field(default=8, ge=0, le=51)
    matte_crf: int = Field(default=12, ge=0, le=51)
    framing: Literal["constant", "follow"] = "constant"
    follow_s: float = Field(default=1.0, gt=0)
    inter_ocular: float = Field(default=56 / 256, gt=0.02, lt=1)
    eye_line: float = Field(default=0.43, gt=0, lt=1)
    cut_least: float = Field(default=0.35, gt=0, le=1)
    cut_ratio: float = Field(default=4.0, ge=1)
    clip_s: tuple[float, float] = (2.0, 12.0)
    most_lost: float = Field(default=0.05, ge=0, le=1)
    least_eyes_px: float = Field(default=24.0, ge=1)
    least_sharpness: float = Field(default=20.0, ge=0)
    most_turned_deg: float = Field(default=45.0, gt=0, le=90)
    most_outside: float = Field(default=0.15, ge=0, le=1)
    most_leap: float = Field(default=0.6, gt=0)
    least_dbfs: float = Field(default=-50.0, ge=-100, le=0)
    sync_least_s: float = Field(default=10.0, ge=3)
    sync_least_r: float = Field(default=0.25, ge=0, le=1)
    syncnet_least: float = Field(default=0.2, ge=0, le=2)
    most_offset_ms: float = Field(default=100.0, ge=0)
    heldout_share: float = Field(default=0.1, ge=0, lt=1)
    naming: str | None = None
    avatar: Annotated[str, Field(pattern=AVATAR)] | None = None
    seed: int = Field(default=0, ge=0)

    @field_validator("clip_s")
    @classmethod
    def _ordered(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not 1.0 <= pair[0] <= pair[1] / 2:
            raise ValueError("expected 1 <= shortest <= longest / 2, in seconds")
        return pair

    @model_validator(mode="after")
    def _named(self) -> PrepareConfig:
        if self.naming is not None:
            try:
                groups = set(re.compile(self.naming).groupindex)
            except re.error as e:
                raise ValueError(f"naming is no regular expression ({e})") from e
            if not groups or groups - {"avatar", "style", "voice"}:
                raise ValueError(f"naming must have groups of (?P<avatar>), (?P<style>), (?P<voice>), has {groups}")
        return self

    @classmethod
    def load(cls, path: Path | None) -> PrepareConfig:
        """Read YAML; the defaults for None. Raises ConfigError."""
        return cls() if path is None else load_yaml(path, cls)

    def digest(self) -> str:
        """Eight letters that change with any key."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]
