"""The expression vector: the 52 ARKit blend-shape names in one fixed order, and the groups that the street needs.

`SPEECH` are the coefficients that speech and style determine (predicted from audio); eyelids and eyeballs belong to the
motion generator. Order is alphabetical inside Apple's groups and frozen: weights and sidecars depend on it.
"""

from __future__ import annotations

from typing import Final

EYES: Final = (
    "eyeBlinkLeft", "eyeBlinkRight",
    "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
)
SPEECH: Final = (
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthUpperUpLeft", "mouthUpperUpRight",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)
ARKIT: Final = EYES + SPEECH
INDEX: Final = {name: i for i, name in enumerate(ARKIT)}
SPEECH_INDEX: Final = {name: i for i, name in enumerate(SPEECH)}
SPEECH_SLICE: Final = slice(len(EYES), len(ARKIT))
MOUTH: Final = tuple(n for n in SPEECH if n.startswith(("jaw", "mouth", "tongue", "cheekPuff")))
UPPER: Final = tuple(n for n in SPEECH if n not in MOUTH)

assert len(ARKIT) == 52 and len(SPEECH) == 42
