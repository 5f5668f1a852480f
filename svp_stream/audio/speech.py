"""From probabilities to turns: who speaks, without flutter.

In: VadWindow. Out: SpeechState, once at the start and then on change only. Remembers: `SpeechMemory`, a few ticks.
Latency: the shortest speech that counts, in whole windows (64 ms as set): a turn is stamped with its first window and
told when it has lasted that long. A turn ends `hangover` after its last sound; that stamp lies ahead of the evidence.

Two thresholds as in silero's own iterator: a turn opens at `on` and is kept alive by anything above `off`.
"""

from __future__ import annotations

from dataclasses import dataclass

from svp_stream.audio.vad import WINDOW_TICKS
from svp_stream.clock import ms_to_ticks
from svp_stream.errors import StreamError
from svp_stream.packets import SpeechState, VadWindow


@dataclass(frozen=True, slots=True)
class SpeechRule:
    """Thresholds in [0, 1] with `off` < `on`; times in milliseconds."""

    on: float = 0.5
    off: float = 0.35
    min_speech_ms: float = 64.0
    hangover_ms: float = 320.0

    def __post_init__(self) -> None:
        if not 0.0 < self.off < self.on < 1.0:
            raise ValueError(f"thresholds are off={self.off}, on={self.on}; they must satisfy 0 < off < on < 1")
        if self.min_speech_ms < 0 or self.hangover_ms < 0:
            raise ValueError(f"min_speech_ms={self.min_speech_ms}, hangover_ms={self.hangover_ms}; use 0 or more")


@dataclass(slots=True)
class SpeechMemory:
    """`due`: tick after the last window. `voiced`: tick after its last voiced one. `onset`: where a turn may begin."""

    due: int | None = None
    speaking: bool = False
    onset: int | None = None
    voiced: int = 0
    ended: bool = False


class SpeechDetector:
    """A `Stage[VadWindow, SpeechState]`: pure hysteresis."""

    def __init__(self, rule: SpeechRule | None = None) -> None:
        self._rule = rule or SpeechRule()
        windows = -(-ms_to_ticks(self._rule.min_speech_ms) // WINDOW_TICKS)
        self._confirm = max(windows, 1) * WINDOW_TICKS
        self._hangover = ms_to_ticks(self._rule.hangover_ms)
        self._memory = SpeechMemory()

    @property
    def latency(self) -> int:
        """The shortest speech that counts, rounded up to windows."""
        return self._confirm

    def push(self, x: VadWindow) -> list[SpeechState]:
        """Feed one window; holes between windows count as silence. Raises StreamError when `pts` falls."""
        m = self._memory
        if m.ended:
            raise StreamError(f"a window at tick {x.pts} comes after the end of the stream; call reset first")
        out: list[SpeechState] = []
        if m.due is None:
            out.append(SpeechState(x.pts, False))
        elif x.pts < m.due:
            raise StreamError(f"a window at tick {x.pts} overlaps the one that ends at {m.due}; pts must rise")
        elif x.pts > m.due:
            m.onset = None
            out += self._lapse(x.pts)
        m.due = x.pts + WINDOW_TICKS
        return out + (self._keep(x) if m.speaking else self._open(x))

    def flush(self) -> list[SpeechState]:
        """The input has ended, so nobody speaks any more: a turn still open ends after its hangover."""
        m = self._memory
        m.ended, m.onset = True, None
        return [self._close()] if m.speaking else []

    def reset(self) -> None:
        """Forget who spoke."""
        self._memory = SpeechMemory()

    def _open(self, x: VadWindow) -> list[SpeechState]:
        m = self._memory
        if x.probability >= self._rule.on and m.onset is None:
            m.onset = x.pts
        if x.probability < self._rule.off:
            m.onset = None
        if m.onset is None or x.pts + WINDOW_TICKS - m.onset < self._confirm:
            return []
        m.speaking, m.voiced = True, x.pts + WINDOW_TICKS
        out, m.onset = [SpeechState(m.onset, True)], None
        return out

    def _keep(self, x: VadWindow) -> list[SpeechState]:
        if x.probability >= self._rule.off:
            self._memory.voiced = x.pts + WINDOW_TICKS
            return []
        return self._lapse(x.pts + WINDOW_TICKS)

    def _lapse(self, until: int) -> list[SpeechState]:
        """Close an open turn whose hangover has passed by tick `until`."""
        m = self._memory
        return [self._close()] if m.speaking and until >= m.voiced + self._hangover else []

    def _close(self) -> SpeechState:
        m = self._memory
        m.speaking = False
        return SpeechState(m.voiced + self._hangover, False)
