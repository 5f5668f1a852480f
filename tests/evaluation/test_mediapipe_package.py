"""MediaPipe's own package against what our reader takes it to be; only where the extra `video` is installed.

The model file is nobody's to ship, so what the landmarker sees is made up, in the package's own types.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.errors import ConfigError
from svp_stream.evaluation.face_reader import MARK
from svp_stream.evaluation.mediapipe_reader import POINTS, MediaPipeReader
from svp_stream.synthetic.camera import turn

mp: Any = pytest.importorskip("mediapipe", reason="the extra `video` is not installed")
faces: Any = pytest.importorskip("mediapipe.tasks.python.vision.face_landmarker")


def test_a_file_that_is_no_model_is_refused_by_the_package_itself(tmp_path: Path) -> None:
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"no model")
    with pytest.raises(ConfigError, match="MediaPipe does not take it as a face landmarker"):
        MediaPipeReader(path)


def test_a_result_in_the_packages_own_types_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    containers = "mediapipe.tasks.python.components.containers"
    category: Any = importlib.import_module(f"{containers}.category").Category
    landmark: Any = importlib.import_module(f"{containers}.landmark").NormalizedLandmark
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = turn(1, -9.0)
    points = [landmark(x=i / 478, y=0.25, z=0.0) for i in range(478)]
    shapes = [category(index=25, score=0.6, display_name="", category_name="jawOpen")]
    told = faces.FaceLandmarkerResult([points], [shapes], [matrix])
    given: list[Any] = []

    class Landmarker:
        def detect(self, image: Any) -> Any:
            given.append(image)
            return told

    def create(options: Any) -> Landmarker:
        assert isinstance(options, faces.FaceLandmarkerOptions)
        return Landmarker()

    monkeypatch.setattr(faces.FaceLandmarker, "create_from_options", staticmethod(create))
    (tmp_path / "m.task").write_bytes(b"")
    reading = MediaPipeReader(tmp_path / "m.task").read(np.full((20, 40, 3), 7, np.uint8))
    assert given[0].width == 40 and given[0].height == 20 and (given[0].numpy_view() == 7).all()
    assert reading is not None and reading.angles[0] == pytest.approx(-9, abs=1e-3)
    assert reading.expression[INDEX["jawOpen"]] == np.float32(0.6)
    assert reading.landmarks[MARK["nose_tip"]].tolist() == pytest.approx([40 / 478, 5])
    assert list(inspect.signature(faces.FaceLandmarker.detect).parameters)[:2] == ["self", "image"]


def test_its_blendshapes_are_the_arkit_ones_without_the_tongue() -> None:
    def plain(name: str) -> str:
        return name.replace("_", "").lower()

    theirs = {plain(b.name) for b in faces.Blendshapes} - {"neutral"}
    assert theirs == {plain(name) for name in ARKIT} - {"tongueout"}


@pytest.mark.parametrize(("part", "names"), [
    ("LIPS", [n for n in POINTS if "_lip_" in n]), ("NOSE", ["nose_tip"]),
    ("FACE_OVAL", ["chin", "jaw_left", "jaw_right"]),
    *((f"{side}_EYE", [n for n in POINTS if n.startswith(f"{side.lower()}_eye_")]) for side in ("LEFT", "RIGHT")),
    *((f"{side}_EYEBROW", [n for n in POINTS if n.startswith(f"{side.lower()}_brow_")]) for side in ("LEFT", "RIGHT")),
])  # fmt: skip
def test_our_vertices_lie_in_the_parts_of_the_face_that_they_are_named_for(part: str, names: list[str]) -> None:
    edges = getattr(faces.FaceLandmarksConnections, f"FACE_LANDMARKS_{part}")
    vertices = {e.start for e in edges} | {e.end for e in edges}
    assert names and {POINTS[n] for n in names} <= vertices
