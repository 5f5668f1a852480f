"""MediaPipe's Face Landmarker as a `FaceReader`: 478 points, 52 blendshapes, a head transform.

In: pictures, one by one. Out: `FaceReading`s. Remembers: the landmarker (it looks at every picture afresh).
The package is the optional extra `video`; the model file `face_landmarker.task` is the user's to give.

The names and meanings of its outputs are MediaPipe's documented ones: blendshape categories by ARKit name (it has a
`_neutral` and no `tongueOut`), the facial transformation matrix from the canonical face to a camera with x to the
right, y up, z to the viewer. The tests hold its names, types and mesh against the package itself where that is
installed, and against a stand-in elsewhere; no copy of the model file could be had, so no real face was ever read.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import numpy as np

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.errors import ConfigError
from svp_stream.evaluation.face_reader import FaceReading
from svp_stream.packets import Bytes, Float32
from svp_stream.synthetic.landmarks import LANDMARKS

POINTS: Final = {
    "inner_lip_top": 13, "inner_lip_bottom": 14, "inner_lip_left": 308, "inner_lip_right": 78,
    "inner_lip_top_left": 312, "inner_lip_top_right": 82, "inner_lip_bottom_left": 317, "inner_lip_bottom_right": 87,
    "outer_lip_top": 0, "outer_lip_bottom": 17, "outer_lip_left": 291, "outer_lip_right": 61,
    "outer_lip_top_left": 269, "outer_lip_top_right": 39, "outer_lip_bottom_left": 405, "outer_lip_bottom_right": 181,
    "left_eye_inner": 362, "left_eye_outer": 263, "left_eye_top": 386, "left_eye_bottom": 374, "left_iris": 473,
    "right_eye_inner": 133, "right_eye_outer": 33, "right_eye_top": 159, "right_eye_bottom": 145, "right_iris": 468,
    "nose_tip": 1, "nose_wing_left": 358, "nose_wing_right": 129,
    "left_brow_inner": 285, "left_brow_mid": 334, "left_brow_outer": 300,
    "right_brow_inner": 55, "right_brow_mid": 105, "right_brow_outer": 70,
    "chin": 152, "jaw_left": 397, "jaw_right": 172,
}  # fmt: skip
"""Our landmark names to vertices of MediaPipe's face mesh; "left" is the person's."""
_ROWS: Final = [POINTS[name] for name in LANDMARKS]


class MediaPipeReader:
    """See the card. Raises ConfigError when the extra or the model file is missing, or the file is refused."""

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise ConfigError(f"{model}: there is no such file; download MediaPipe's face_landmarker.task and give its "
                              "path with --landmarker")
        try:
            self._mp: Any = importlib.import_module("mediapipe")
            vision: Any = importlib.import_module("mediapipe.tasks.python.vision")
            base: Any = importlib.import_module("mediapipe.tasks.python")
        except ImportError as e:
            raise ConfigError(f"reading real faces needs the extra `video`: pip install 'svp-stream[video]' ({e})"
                              ) from e
        options = vision.FaceLandmarkerOptions(
            base_options=base.BaseOptions(model_asset_path=str(model)), num_faces=1,
            output_face_blendshapes=True, output_facial_transformation_matrixes=True)
        try:
            self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
        except (OSError, RuntimeError, ValueError) as e:
            raise ConfigError(f"{model}: MediaPipe does not take it as a face landmarker: {e}") from e

    def read(self, rgb: Bytes) -> FaceReading | None:
        """See FaceReader."""
        image = self._mp.Image(image_format=self._mp.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))
        seen = self._landmarker.detect(image)
        if not seen.face_landmarks:
            return None
        height, width = rgb.shape[:2]
        points = np.array([[p.x * width, p.y * height] for p in seen.face_landmarks[0]], np.float32)
        expression = np.zeros(len(ARKIT), np.float32)
        for shape in seen.face_blendshapes[0]:
            if shape.category_name in INDEX:
                expression[INDEX[shape.category_name]] = shape.score
        turned = np.asarray(seen.facial_transformation_matrixes[0], np.float64)[:3, :3]
        return FaceReading(np.clip(expression, 0, 1), angles(turned), points[_ROWS])

    def reset(self) -> None:
        """Nothing is carried from picture to picture."""


def angles(matrix: Any) -> Float32:
    """Yaw, pitch, roll in degrees of a head's rotation [3, 3] (scaled or not), x to picture right, y up, z to the
    viewer: matrix = Ry(yaw) Rx(pitch) Rz(-roll), with the signs of `packets.Pose`."""
    r = np.asarray(matrix, np.float64)
    r = r / np.linalg.norm(r, axis=0)
    pitch = np.arcsin(np.clip(-r[1, 2], -1, 1))
    yaw, roll = np.arctan2(r[0, 2], r[2, 2]), -np.arctan2(r[1, 0], r[1, 1])
    return np.asarray(np.degrees([yaw, pitch, roll]), np.float32)
