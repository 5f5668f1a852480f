"""What reads a face off a picture: the protocol that MediaPipe, a 3DMM or a network of one's own stands behind.

In: one picture uint8 [H, W, 3] of any size. Out: a `FaceReading` in that picture's pixels, or None without a face.
Remembers: nothing here; a reader may follow a face from picture to picture, and is told of each new shot by `reset`.

A 3DMM (Deep3DFaceRecon, FLAME) plugs in as `--reader package.module:function`: a function without arguments that
returns a `FaceReader`. It maps its coefficients to the 52 ARKit names (a fixed matrix does: regress ARKit coefficients
on 3DMM ones over faces rendered with both) and projects its mesh's vertices to the 38 landmark names. What it cannot
tell stays 0; what it says is stored as it is.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.errors import ConfigError, MediaError
from svp_stream.packets import Bytes, Float32
from svp_stream.synthetic.landmarks import LANDMARKS

MARK: Final = {name: i for i, name in enumerate(LANDMARKS)}
LOOK_DEGREES: Final = (30.0, 25.0)
"""Turn of an eyeball for eyeLook* = 1, sideways and up or down, as the synthetic rig has it."""


@dataclass(frozen=True, slots=True)
class FaceReading:
    """One face. `expression` float32 [52] in ARKit order, in [0, 1]; `angles` float32 [3]: yaw, pitch, roll in degrees
    with the signs of `packets.Pose`; `landmarks` float32 [38, 2] in pixels, in the order of `LANDMARKS`, "left" being
    the person's."""

    expression: Float32
    angles: Float32
    landmarks: Float32

    def __post_init__(self) -> None:
        wanted = {"expression": (len(ARKIT),), "angles": (3,), "landmarks": (len(LANDMARKS), 2)}
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise MediaError(f"a face reading's {name} is finite float32 {list(shape)}, got {array.dtype} "
                                 f"{list(array.shape)}")


@runtime_checkable
class FaceReader(Protocol):
    """See the card."""

    def read(self, rgb: Bytes) -> FaceReading | None:
        """The face in uint8 [H, W, 3]; the largest when there are several; None when there is none."""
        ...

    def reset(self) -> None:
        """The next picture belongs to another shot."""
        ...


def load_reader(spec: str) -> FaceReader:
    """The reader that `module:function` makes. Raises ConfigError that says what is wrong with `spec`."""
    module, _, name = spec.partition(":")
    if not module or not name:
        raise ConfigError(f"reader '{spec}': expected module:function, for example mylab.flame:reader")
    try:
        make: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as e:
        raise ConfigError(f"reader '{spec}': cannot be imported ({e}); is the module on PYTHONPATH?") from e
    reader = make()
    if not isinstance(reader, FaceReader):
        raise ConfigError(f"reader '{spec}': {type(reader).__name__} has no methods read(rgb) and reset()")
    return reader


def key_points(landmarks: Float32) -> Float32:
    """HEAD-Kps float32 [..., 3, 2] (right eye, left eye, nose tip) of landmarks [..., 38, 2]: an eye is the middle of
    its corners, which do not move with gaze or lids."""

    def middle(side: str) -> Float32:
        pair = landmarks[..., [MARK[f"{side}_eye_inner"], MARK[f"{side}_eye_outer"]], :]
        return np.asarray(pair.mean(-2), np.float32)
    nose = np.asarray(landmarks[..., MARK["nose_tip"], :], np.float32)
    points: list[Float32] = [middle("right"), middle("left"), nose]
    return np.stack(points, -2)


def lip_opening(landmarks: Float32) -> Float32:
    """Gap between the inner lips over the distance between the eyes, float32 [T], of landmarks [T, 38, 2]."""
    gap = landmarks[:, MARK["inner_lip_top"]] - landmarks[:, MARK["inner_lip_bottom"]]
    kps = key_points(landmarks)
    unit = np.maximum(np.linalg.norm(kps[:, 0] - kps[:, 1], axis=1), 1e-3)
    return np.asarray(np.linalg.norm(gap, axis=1) / unit, np.float32)


def lids_and_gaze(expression: Float32) -> Float32:
    """float32 [T, 4]: blink_left, blink_right, gaze_x, gaze_y in degrees, of expressions [T, 52]; the inverse of how
    the rig reads a pose."""
    e = {name: expression[:, i] for name, i in INDEX.items() if name.startswith("eye")}
    across = (e["eyeLookOutLeft"] - e["eyeLookInLeft"] + e["eyeLookInRight"] - e["eyeLookOutRight"]) / 2
    down = (e["eyeLookDownLeft"] - e["eyeLookUpLeft"] + e["eyeLookDownRight"] - e["eyeLookUpRight"]) / 2
    out = np.empty((len(expression), 4), np.float32)
    out[:, 0], out[:, 1] = e["eyeBlinkLeft"], e["eyeBlinkRight"]
    out[:, 2], out[:, 3] = across * LOOK_DEGREES[0], down * LOOK_DEGREES[1]
    return out
