"""The variants that `svp ablate` compares: steps of the sampler, mechanisms of the latent cache, look-ahead.

In: the setting that a profile asks for. Out: `Variant`s; the first is that setting. Remembers: nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from svp_stream.evaluation.ablation import Variant

MANY_STEPS: Final = 25
ALWAYS: Final = 10.0
"""Deviations that a reference never moves by: deep features stand in on every other frame."""
SWITCHES: Final[tuple[tuple[str, str, Any, Any], ...]] = (
    ("the session's noise", "noise_mix", 0.9, 0.0),
    ("warm start", "warm_start", True, False),
    ("the previous latent as a condition", "previous_latent", True, False),
    ("reuse of deep features where little moves", "deep_reuse", 0.05, 0.0),
    ("output smoothing", "smoothing", 3, 0),
)
"""A mechanism: what it is called, its key, its value when on and when off."""
BESIDES: Final[tuple[tuple[str, str, Any], ...]] = (
    ("frozen noise", "noise_mix", 1.0),
    ("reuse of deep features on every other frame", "deep_reuse", ALWAYS),
)


def steps(base: Variant) -> list[Variant]:
    """One warm step, as served, against frames that know of no past: two steps, and 25 of DDIM."""
    cold = replace(base.rule, warm_start=False, previous_latent=False)
    return [
        replace(base, name="1 step, warm (as served)"),
        replace(base, name="2 steps, cold", rule=replace(cold, cold_steps=2)),
        replace(base, name=f"{MANY_STEPS} steps, cold (DDIM)", rule=replace(cold, cold_steps=MANY_STEPS)),
    ]


def cache(base: Variant) -> list[Variant]:
    """Every mechanism of the cache off where it is on, on where it is off; and the convolutions in fp32."""
    flips = [(name, key, on) if getattr(base.rule, key) == off else (name, key, off)
             for name, key, on, off in SWITCHES]
    told = ["with" if getattr(base.rule, key) == off else "without" for _, key, _, off in SWITCHES]
    changes = [(f"{word} {name}", key, value) for word, (name, key, value) in zip(told, flips, strict=True)]
    changes += [(f"with {name}", key, value) for name, key, value in BESIDES if getattr(base.rule, key) != value]
    return [
        replace(base, name="as served"),
        *(replace(base, name=name, rule=replace(base.rule, **{key: value})) for name, key, value in changes),
        replace(base, name="convolutions in fp32", precision="fp32"),
    ]


def look_ahead(base: Variant, most: int) -> list[Variant]:
    """0 to `most` frames of 40 ms heard beyond a frame's own."""
    return [replace(base, name=f"{40 * n} ms{' (as served)' if n == base.look_ahead else ''}", look_ahead=n)
            for n in range(most + 1)]
