"""Face readers: what a reading must be, how readers are found, MediaPipe's behind a stand-in of its package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.errors import ConfigError, MediaError
from svp_stream.evaluation.face_reader import (
    MARK,
    FaceReading,
    key_points,
    lids_and_gaze,
    lip_opening,
    load_reader,
)
from svp_stream.evaluation.mediapipe_reader import POINTS, MediaPipeReader, angles
from svp_stream.packets import Bytes, Pose
from svp_stream.synthetic.camera import turn
from svp_stream.synthetic.clip import with_eyes
from svp_stream.synthetic.landmarks import LANDMARKS


class Blind:
    """A reader that never finds a face."""

    def read(self, rgb: Bytes) -> FaceReading | None:
        return None

    def reset(self) -> None:
        return None


def test_a_reader_is_found_by_name() -> None:
    assert load_reader("tests.evaluation.test_face_reader:Blind").read(np.zeros((4, 4, 3), np.uint8)) is None


@pytest.mark.parametrize(("spec", "told"), [
    ("nothing", "expected module:function"), ("no.such.module:f", "cannot be imported"),
    ("svp_stream.arkit:nothing", "cannot be imported"), ("builtins:dict", "dict has no methods read"),
])  # fmt: skip
def test_a_wrong_reader_is_told(spec: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_reader(spec)


def test_a_reading_has_its_shapes() -> None:
    with pytest.raises(MediaError, match="landmarks is finite float32"):
        FaceReading(np.zeros(52, np.float32), np.zeros(3, np.float32), np.zeros((68, 2), np.float32))
    with pytest.raises(MediaError, match="angles"):
        FaceReading(np.zeros(52, np.float32), np.full(3, np.nan, np.float32), np.zeros((38, 2), np.float32))


def test_lids_and_gaze_are_the_inverse_of_the_corpus() -> None:
    rng = np.random.default_rng(0)
    poses = [Pose(0, blink_left=float(b), blink_right=float(b) / 2, gaze_x=float(x), gaze_y=float(y))
             for b, x, y in zip(rng.uniform(0, 1, 20), rng.uniform(-10, 10, 20), rng.uniform(-8, 8, 20), strict=True)]
    face = with_eyes(np.zeros((20, 42), np.float32), poses)
    back = lids_and_gaze(face)
    # The rig turns each eye by Out - In, so a mean over both eyes and both shapes sees half: the other half is clipped.
    assert np.allclose(back[:, 0], [p.blink_left for p in poses], atol=1e-6)
    assert np.corrcoef(back[:, 2], [p.gaze_x for p in poses])[0, 1] > 0.999
    assert np.allclose(back[:, 2], [p.gaze_x for p in poses], atol=1e-4)
    assert np.allclose(back[:, 3], [p.gaze_y for p in poses], atol=1e-4)


def test_points_off_landmarks() -> None:
    marks = np.zeros((2, 38, 2), np.float32)
    for name, x in (("right_eye_outer", 0), ("right_eye_inner", 4), ("left_eye_inner", 10), ("left_eye_outer", 14)):
        marks[:, MARK[name], 0] = x
    marks[1, MARK["inner_lip_bottom"], 1] = 5
    assert key_points(marks)[0, :2, 0].tolist() == [2, 12]
    assert lip_opening(marks).tolist() == [0, 0.5]


@pytest.mark.parametrize("pose", [(0, 0, 0), (20, 0, 0), (0, 15, 0), (0, 0, 10), (25, -12, 8), (-40, 20, -15)])
def test_angles_have_the_renderers_signs(pose: tuple[float, float, float]) -> None:
    matrix = turn(1, pose[0]) @ turn(0, pose[1]) @ turn(2, -pose[2])
    assert np.allclose(angles(2.5 * matrix), pose, atol=1e-3)


def test_all_landmarks_have_a_vertex() -> None:
    assert set(POINTS) == set(LANDMARKS) and len(set(POINTS.values())) == len(POINTS) and max(POINTS.values()) < 478


def _stand_in(seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the names that we use of MediaPipe 1.2.2."""
    landmarker = SimpleNamespace(detect=lambda image: seen)

    class Landmarker:
        @staticmethod
        def create_from_options(options: Any) -> Any:
            if Path(options.base_options.model_asset_path).read_bytes() != b"model":
                raise RuntimeError("Unable to open zip archive.")
            return landmarker

    root: Any = ModuleType("mediapipe")
    root.Image, root.ImageFormat = SimpleNamespace, SimpleNamespace(SRGB=1)
    base: Any = ModuleType("mediapipe.tasks.python")
    base.BaseOptions = SimpleNamespace
    vision: Any = ModuleType("mediapipe.tasks.python.vision")
    vision.FaceLandmarkerOptions, vision.FaceLandmarker = SimpleNamespace, Landmarker
    for module in (root, ModuleType("mediapipe.tasks"), base, vision):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_mediapipe_speaks_our_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [SimpleNamespace(x=i / 478, y=0.5) for i in range(478)]
    shapes = [SimpleNamespace(category_name="_neutral", score=0.9), SimpleNamespace(category_name="jawOpen", score=0.7)]
    matrix = np.eye(4)
    matrix[:3, :3] = 1.1 * turn(1, 12.0)
    seen = SimpleNamespace(face_landmarks=[points], face_blendshapes=[shapes], facial_transformation_matrixes=[matrix])
    _stand_in(seen, monkeypatch)
    model = tmp_path / "face_landmarker.task"
    model.write_bytes(b"model")
    reading = MediaPipeReader(model).read(np.zeros((100, 200, 3), np.uint8))
    assert reading is not None
    assert reading.expression[INDEX["jawOpen"]] == np.float32(0.7) and reading.expression.sum() == np.float32(0.7)
    assert len(ARKIT) == 52 and reading.angles[0] == pytest.approx(12, abs=1e-3)
    assert reading.landmarks[MARK["chin"]].tolist() == pytest.approx([200 * 152 / 478, 50])
    seen.face_landmarks = []
    assert MediaPipeReader(model).read(np.zeros((100, 200, 3), np.uint8)) is None
    model.write_bytes(b"other")
    with pytest.raises(ConfigError, match="does not take it as a face landmarker"):
        MediaPipeReader(model)


def test_missing_pieces_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="download MediaPipe's face_landmarker.task .* --landmarker"):
        MediaPipeReader(tmp_path / "gone.task")
    (tmp_path / "here.task").write_bytes(b"model")
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ConfigError, match=r"pip install 'svp-stream\[video\]'"):
        MediaPipeReader(tmp_path / "here.task")
