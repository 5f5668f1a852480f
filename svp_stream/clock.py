"""Media time.

What it is: one integer clock for everything that is heard or seen. A tick is 1/48000 s: the RTP clock of Opus
(RFC 7587 section 4.1). A frame at 25 fps lasts 1920 ticks, a sample at 16 kHz lasts 3. Wall time never enters here.
"""

from __future__ import annotations

from typing import NewType

Ticks = NewType("Ticks", int)

TICKS_PER_SECOND = 48_000
FRAME_RATE_HZ = 25
FRAME_TICKS = TICKS_PER_SECOND // FRAME_RATE_HZ
MODEL_RATE_HZ = 16_000
WIRE_RATE_HZ = 48_000


def ticks_per_sample(rate_hz: int) -> int:
    """How many ticks one sample lasts; raises ValueError when the rate does not divide 48 kHz."""
    if rate_hz <= 0 or TICKS_PER_SECOND % rate_hz:
        raise ValueError(f"{rate_hz} Hz does not divide {TICKS_PER_SECOND} Hz; use 48000, 24000, 16000 or 8000")
    return TICKS_PER_SECOND // rate_hz


def ms_to_ticks(ms: float) -> int:
    """Milliseconds to the nearest tick."""
    return round(ms * TICKS_PER_SECOND / 1000)


def ticks_to_ms(ticks: int) -> float:
    """Ticks to milliseconds."""
    return ticks * 1000 / TICKS_PER_SECOND
