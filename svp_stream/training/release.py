"""From run folders to the weights that ship: `svp release`.

In: the runs of all stages. Out: `<folder>/*.safetensors`, `hashes.json`, `card.json` (what each part was trained on and
for how long, hashes, licences; figures are added by `svp evaluate --write-card`) and `README.md`, the card for people.
Refuses to ship more than 40 MB.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any, Final

from svp_stream.errors import WeightsError
from svp_stream.weights_file import HASHES, sha256

logger = logging.getLogger(__name__)
LIMIT_BYTES: Final = 40_000_000
PARTS: Final = {
    "audio": "audio_encoder.safetensors",
    "style-prior": "style_prior.safetensors",
    "expression": "conditioner.safetensors",
    "autoencoder": "autoencoder.safetensors",
    "evaluator": "evaluator.safetensors",
}
OPTIONAL: Final = {"motion": "motion.safetensors", "landmarks": "landmarks.safetensors"}
"""What ships when it was trained; without learned motion people move by rule."""
DENOISER: Final = "denoiser.safetensors"
MIT: Final = " ".join(
    """
    Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
    documentation files (the "Software"), to deal in the Software without restriction, including without
    limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of
    the Software, and to permit persons to whom the Software is furnished to do so, subject to the following
    conditions: The above copyright notice and this permission notice shall be included in all copies or
    substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND,
    EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR
    PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
    DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
    CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
    """.split()
)
LICENCES: Final = {
    "weights": "Apache-2.0",
    "valid_* heads": "VALID avatars (UCF / Google), MIT, Copyright (c) 2022 Tiffany Do; Do et al. 2023, "
    "doi 10.3389/frvir.2023.1248915; glTF conversion c-frame/valid-avatars-glb. " + MIT,
    "cc0_* heads": "MakeHuman assets, CC0 1.0; ARKit and viseme targets: met4citizen/TalkingHead, MIT, "
    "Copyright (c) 2023-2024 Mika Suominen. " + MIT,
    "voices": "speech synthesised with flite, Festival and espeak-ng from sentences written for this project; no "
    "recording ships",
}


def release(runs: Path, folder: Path, denoiser_of: str | None = None) -> Path:
    """Copy what the stages exported, write hashes and card; returns the card. The denoiser is that of the stage
    `denoiser_of`, or of the last stage that has one.

    Raises WeightsError when a part is missing or all parts together exceed 40 MB.
    """
    chosen = [runs / stage / name for stage, name in PARTS.items()]
    stages = [denoiser_of] if denoiser_of else ["finish", "consistency", "video", "image"]
    finished = [runs / stage / DENOISER for stage in stages]
    denoiser = next((p for p in finished if p.is_file()), finished[-1])
    chosen += [path for stage, name in OPTIONAL.items() if (path := runs / stage / name).is_file()]
    chosen += [denoiser, *sorted((runs / "avatars").glob("avatar_*.safetensors"))]
    missing = [str(p) for p in chosen if not p.is_file()]
    if missing:
        raise WeightsError(f"cannot release: {', '.join(missing)} missing; train those stages first")
    total = sum(p.stat().st_size for p in chosen)
    if total > LIMIT_BYTES:
        raise WeightsError(f"cannot release {total / 1e6:.1f} MB of weights; the limit is {LIMIT_BYTES / 1e6:.0f} MB")
    folder.mkdir(parents=True, exist_ok=True)
    for path in chosen:
        shutil.copyfile(path, folder / path.name)
        os.chmod(folder / path.name, 0o644)
    hashes = {p.name: sha256(folder / p.name) for p in sorted(chosen, key=lambda p: p.name)}
    (folder / HASHES).write_text(json.dumps(hashes, indent=1) + "\n")
    return _write_card(runs, folder, hashes, denoiser.parent.name)


def _write_card(runs: Path, folder: Path, hashes: dict[str, str], last: str) -> Path:
    path = folder / "card.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    # A stage that was copied in without its log keeps the row that the card has of it.
    told = known.get("training", {}) | {p.parent.name: last_rows(p) for p in runs.glob("*/log.jsonl")}
    card = {
        "name": "mini", "denoiser_from": last, "files": hashes, "training": dict(sorted(told.items())),
        "licences": LICENCES, "figures": known.get("figures", {}),
        "ablations": known.get("ablations", {}),
    }
    path.write_text(json.dumps(card, indent=1) + "\n")
    write_readme(folder)
    return path


def list_files(folder: Path) -> None:
    """Let the card, where there is one, name every file that `hashes.json` does: also what was made after release."""
    path = folder / "card.json"
    if not path.is_file():
        return
    card = json.loads(path.read_text())
    card["files"] = json.loads((folder / HASHES).read_text())
    path.write_text(json.dumps(card, indent=1) + "\n")
    write_readme(folder)


def last_rows(log: Path) -> dict[str, Any]:
    """Steps, seconds and the last validation figures of a run."""
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
    training = [r for r in rows if not r.get("validation")]
    checks = [r for r in rows if r.get("validation")]
    last = {"steps": rows[-1]["step"], "seconds": training[-1]["s"]} if training else {}
    return last | {k: v for k, v in (checks[-1] if checks else {}).items() if k not in ("step", "validation")}


def _origin(files: dict[str, str]) -> str:
    """What the weights were made of, as far as the names of the heads tell."""
    heads = [name.removeprefix("avatar_") for name in files if name.startswith("avatar_")]
    if all(head.startswith(("valid_", "cc0_")) for head in heads):
        return (
            "Trained by the project's own commands (`svp corpus`, `svp train ...`) on synthetic talking heads only: "
            "rigged heads rendered by `svp_stream.synthetic`, speech from flite, Festival and espeak-ng. No real "
            "person was recorded. Made on a CPU; expect a synthetic look, and voices unlike the synthetic ones to be "
            "followed less exactly."
        )
    return (
        "Trained by the project's own commands (`svp corpus`, `svp prepare`, `svp train ...`). Its maker must say here "
        "who is shown, on which recordings it was trained and that those people have agreed."
    )


def write_readme(folder: Path) -> None:
    """`README.md` of the weights folder, from `card.json`."""
    card = json.loads((folder / "card.json").read_text())
    lines = [
        "# mini: the embedded weights", "", _origin(card["files"]), "",
        "| stage | steps | minutes | last held-out figures |", "|---|---|---|---|",
    ]
    for stage, row in card["training"].items():
        rest = ", ".join(f"{k} {v:.3g}" for k, v in row.items() if k not in ("steps", "seconds"))
        lines.append(f"| {stage} | {row.get('steps', '')} | {row.get('seconds', 0) / 60:.0f} | {rest} |")
    if card["figures"]:
        lines += ["", "## `svp evaluate`", "", str(card["figures"].get("markdown", "")).strip()]
    for title, table in card.get("ablations", {}).items():
        lines += ["", f"## {title}", "", str(table).strip()]
    lines += ["", "## Files", "", *(f"- `{name}` sha256 `{digest}`" for name, digest in card["files"].items())]
    lines += ["", "## Licences and attribution", "", *(f"- **{k}**: {v}" for k, v in card["licences"].items()), ""]
    (folder / "README.md").write_text("\n".join(lines))
