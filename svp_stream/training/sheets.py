"""Sample sheets: rows of pictures to one PNG, so that a person can see how training goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from svp_stream.packets import Bytes


def to_bytes(pictures: Tensor) -> Bytes:
    """[B, 3, H, W] in [-1, 1] to uint8 [B, H, W, 3]."""
    scaled = ((pictures.detach().float().clamp(-1, 1) + 1) * 127.5).round()
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8))


def tile(rows: Sequence[Tensor]) -> Bytes:
    """Rows of [B, 3, H, W] in [-1, 1] to one picture uint8 [R*H, B*W, 3]."""
    return np.concatenate([np.concatenate(list(to_bytes(row)), axis=1) for row in rows], axis=0)


def write_png(path: Path, picture: Bytes) -> None:
    """Write uint8 [H, W, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
