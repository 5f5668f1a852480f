"""Checkpoints: whole or not at all, and never code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from svp_stream.errors import WeightsError
from svp_stream.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint


def checkpoint(step: int = 7) -> Checkpoint:
    model = torch.nn.Linear(2, 3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    average = {k: v.clone() for k, v in model.state_dict().items()}
    return Checkpoint(step, 12.5, model.state_dict(), average, optimiser.state_dict())


def test_round_trip(tmp_path: Path) -> None:
    path, a = tmp_path / "deep" / "checkpoint.pt", checkpoint()
    write_checkpoint(path, a)
    b = read_checkpoint(path)
    assert (b.step, b.seconds) == (7, 12.5)
    for before, after in ((a.model, b.model), (a.average, b.average)):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(b.optimiser["state"][0]["exp_avg"], a.optimiser["state"][0]["exp_avg"])
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"], "nothing is left beside"


def test_a_failed_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, checkpoint(7))

    def torn(state: object, f: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(path, checkpoint(8))
    assert read_checkpoint(path).step == 7


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.98])
def test_a_torn_file(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, checkpoint())
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data) if keep < 1 else keep)])
    with pytest.raises(WeightsError, match="checkpoint.pt cannot be read.*delete it"):
        read_checkpoint(path)


def test_another_kind_of_file(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_checkpoint(tmp_path / "c.pt")


class Bomb:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.path, "code ran")


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    bait, path = tmp_path / "bait", tmp_path / "c.pt"
    torch.save({"step": Bomb(bait)}, path)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb(bait)))
    for p in (path, tmp_path / "raw.pt"):
        with pytest.raises(WeightsError):
            read_checkpoint(p)
    assert not bait.exists()
