"""The trial itself on trial: each law convicts a stage that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from svp_stream.packets import AudioChunk, Float32
from tests.laws import test_laws as laws
from tests.laws.stages import Case, sound


class Gain:
    """Lawful but for what a subclass spoils: multiplies by the loudest of the last samples it remembers."""

    latency = 3
    memory: Float32

    def __init__(self) -> None:
        self.reset()

    def push(self, x: AudioChunk) -> list[AudioChunk]:
        y = np.concatenate([self.memory, x.samples])
        self.memory = y[-4:]
        out = [s * abs(y[max(len(y) - len(x.samples) + i - 4, 0) : len(y) - len(x.samples) + i + 1]).max()
               for i, s in enumerate(x.samples)]
        return [AudioChunk(x.pts, np.asarray(out, np.float32), x.rate_hz)]

    def flush(self) -> list[AudioChunk]:
        return []

    def reset(self) -> None:
        self.memory = np.zeros(0, np.float32)


class PerChunk(Gain):
    """Normalises each chunk by itself."""

    def push(self, x: AudioChunk) -> list[AudioChunk]:
        return [AudioChunk(x.pts, x.samples / max(abs(x.samples).max(), 1e-3), x.rate_hz)]


class Peeking(Gain):
    """Holds nothing back and stamps 10 ms early."""

    def push(self, x: AudioChunk) -> list[AudioChunk]:
        return [AudioChunk(c.pts - 480, c.samples, c.rate_hz) for c in super().push(x)]


class Late(Gain):
    """Returns everything at the end."""

    def push(self, x: AudioChunk) -> list[AudioChunk]:
        self.held += super().push(x)
        return []

    def flush(self) -> list[AudioChunk]:
        return self.held

    def reset(self) -> None:
        super().reset()
        self.held: list[AudioChunk] = []


class Forgetful(Gain):
    """Its reset does nothing."""

    def reset(self) -> None:
        if not hasattr(self, "memory"):
            super().reset()


_SHARED: dict[str, Float32] = {}


class Shared(Gain):
    """Keeps its state where every stream sees it."""

    def push(self, x: AudioChunk) -> list[AudioChunk]:
        self.memory = _SHARED.get("memory", self.memory)
        out = super().push(x)
        _SHARED["memory"] = self.memory
        return out

    def flush(self) -> list[AudioChunk]:
        _SHARED.clear()
        return []


def _case(stage: type[Gain]) -> Case:
    return Case(stage.__name__, stage, stage, sound(16_000, 0.1), 6)


def test_a_lawful_stage_is_let_go() -> None:
    case = _case(Gain)
    laws.test_any_chunking_gives_the_same_output(case)
    laws.test_no_output_depends_on_input_after_its_latency(case)
    laws.test_output_is_not_later_than_declared(case)
    laws.test_reset_equals_fresh(case, False)
    laws.test_two_streams_do_not_touch_each_other(case)


@pytest.mark.parametrize(("stage", "law"), [
    (PerChunk, laws.test_any_chunking_gives_the_same_output),
    (Peeking, laws.test_no_output_depends_on_input_after_its_latency),
    (Late, laws.test_output_is_not_later_than_declared),
    (Forgetful, lambda case: laws.test_reset_equals_fresh(case, False)),
    (Shared, laws.test_two_streams_do_not_touch_each_other),
], ids=lambda x: getattr(x, "__name__", ""))
def test_each_law_convicts(stage: type[Gain], law: Callable[[Case], None]) -> None:
    with pytest.raises(AssertionError):
        law(_case(stage))
