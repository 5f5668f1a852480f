"""Weights as safetensors, configuration inside and hash beside: nothing that users exchange can run code.

A file `NAME.safetensors` carries its `kind` and its `config` (JSON) as metadata. `hashes.json` in the same folder maps
file names to SHA-256; a file listed there must match it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from svp_stream.errors import WeightsError

HASHES = "hashes.json"


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_weights(path: Path, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, half: bool) -> str:
    """Write atomically (float tensors as fp16 when `half`), record the hash beside, return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cast = {}
    for name, value in tensors.items():
        chosen = value.half() if half and value.is_floating_point() else value
        cast[name] = chosen.detach().cpu().contiguous()
    beside = path.with_suffix(".tmp")
    data = save(cast, metadata={"kind": kind, "config": json.dumps(dict(config), sort_keys=True)})
    beside.write_bytes(_ordered(data))
    beside.replace(path)
    return record_hash(path)


def record_hash(path: Path) -> str:
    """Enter a file's hash into the list beside it; returns it."""
    listing = path.parent / HASHES
    hashes: dict[str, str] = json.loads(listing.read_text()) if listing.exists() else {}
    hashes[path.name] = sha256(path)
    listing.write_text(json.dumps(dict(sorted(hashes.items())), indent=1) + "\n")
    return hashes[path.name]


def _ordered(data: bytes) -> bytes:
    """The same file with the keys of its header in order: safetensors writes metadata in no fixed order, and presets
    and caches know a file by its hash, so equal weights must give equal bytes."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    text = header.encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def read_weights(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors as float32). Raises WeightsError: missing, of another kind, or not what `hashes.json` says."""
    if not path.is_file():
        raise WeightsError(f"weights {path} are missing; `svp train` makes them, or name a folder that has them")
    check_hash(path)
    try:
        with safe_open(str(path), framework="pt") as f:
            meta = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}
    except SafetensorError as e:
        raise WeightsError(f"weights {path} are not a safetensors file: {e}") from e
    if meta.get("kind") != kind:
        raise WeightsError(f"weights {path} hold '{meta.get('kind')}', expected '{kind}'")
    floats = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    return json.loads(meta["config"]), floats


def check_hash(path: Path) -> None:
    """Raises WeightsError for a file that is not what `hashes.json` beside it says; one that is not listed may be
    anything."""
    listing = path.parent / HASHES
    expected = json.loads(listing.read_text()).get(path.name) if listing.exists() else None
    if expected is not None and sha256(path) != expected:
        raise WeightsError(f"weights {path} are damaged: SHA-256 differs from {listing}; fetch the file again")


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Strict load in eval mode. Raises WeightsError that names the first key that does not fit."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as e:
        reason = str(e).splitlines()[-1].strip()
        raise WeightsError(f"weights {path} do not fit this version of the model: {reason}") from e
    module.eval().requires_grad_(False)


def save_module(path: Path, kind: str, config: Mapping[str, Any], module: nn.Module, *, half: bool = True) -> str:
    """`save_weights` of a module's state."""
    return save_weights(path, kind, config, module.state_dict(), half=half)


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


