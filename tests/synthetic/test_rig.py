"""The rig: reading heads, what expressions and poses do to vertices and landmarks, on a head made of formulas and,
where they are there, on the real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svp_stream.arkit import ARKIT, INDEX
from svp_stream.errors import MediaError
from svp_stream.packets import Float32, Pose
from svp_stream.synthetic.headfile import Kind, heads
from svp_stream.synthetic.rig import LANDMARKS, LOOK_DEGREES, Rig, Shape, Surface
from tests.fakes.procedural_head import write_procedural_head

AVATARS = Path(os.environ.get("SVP_AVATARS", Path(__file__).parents[2].parent / "shared" / "avatars"))
REAL = heads(AVATARS) if AVATARS.is_dir() else []
REST = Pose(0)


def expression(**weights: float) -> Float32:
    """ARKit coefficients, 0 where not named."""
    e = np.zeros(len(ARKIT), np.float32)
    for name, weight in weights.items():
        e[INDEX[name]] = weight
    return e


def mark(shape: Shape, name: str) -> Float32:
    point: Float32 = shape.landmarks[LANDMARKS.index(name)]
    return point


def opening(rig: Rig, above: str, below: str, e: Float32, pose: Pose = REST) -> float:
    """Distance between two landmarks as the camera sees it, over the distance between the eyes."""
    shape = rig.shape(e, pose)
    eyes = float(np.linalg.norm(shape.keypoints[0] - shape.keypoints[1]))
    return float(np.linalg.norm((mark(shape, above) - mark(shape, below))[:2])) / eyes


def lips(rig: Rig, **weights: float) -> float:
    return opening(rig, "inner_lip_top", "inner_lip_bottom", expression(**weights))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("heads")
    write_procedural_head(made)
    return made


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Rig:
    return Rig.load(folder, "tiny")


def test_heads_of_a_folder_are_listed_and_an_unknown_name_lists_them(folder: Path) -> None:
    assert heads(folder) == ["tiny"]
    with pytest.raises(MediaError, match=r"no head 'giant'.*tiny"):
        Rig.load(folder, "giant")


def damaged(tmp_path: Path, change: Any) -> Path:
    """The head with `change(arrays, meta)` made to it."""
    write_procedural_head(tmp_path)
    with np.load(tmp_path / "tiny.npz") as archive:
        arrays = {k: archive[k] for k in archive.files}
    meta = json.loads(str(arrays["meta"]))
    change(arrays, meta)
    if "meta" in arrays:
        arrays["meta"] = np.array(json.dumps(meta))
    np.savez(tmp_path / "tiny.npz", **arrays)
    return tmp_path


@pytest.mark.parametrize(("change", "names"), [
    (lambda a, m: a.pop("p0_pos"), "p0_pos"),
    (lambda a, m: a.pop("meta"), "meta"),
    (lambda a, m: m["joints"].pop("LeftEye"), "meta.joints.LeftEye"),
    (lambda a, m: m["parts"][0].update(kind=9), r"meta.parts\[0\].kind"),
    (lambda a, m: m["parts"][1].update(tex="gone.webp"), "gone.webp"),
    (lambda a, m: m["parts"][1].update(tex="../skin.webp"), r"meta.parts\[1\].tex"),
    (lambda a, m: a.update(p0_idx=a["p0_idx"] + 5000), "p0_idx"),
    (lambda a, m: a.update(p1_uv=a["p1_uv"][:-1]), "p1_uv"),
    (lambda a, m: a.update(p0_mo=a["p0_mo"][:-1]), "p0_mo"),
    (lambda a, m: m.update(targets=[t if t != "jawOpen" else "other" for t in m["targets"]]), "jawOpen"),
])
def test_a_damaged_head_names_the_file_and_what_is_wrong(tmp_path: Path, change: Any, names: str) -> None:
    with pytest.raises(MediaError, match=names) as raised:
        Rig.load(damaged(tmp_path, change), "tiny")
    assert "tiny" in str(raised.value)


def test_a_file_that_is_no_archive_is_a_media_error(tmp_path: Path) -> None:
    (tmp_path / "noise.npz").write_bytes(b"not an archive at all")
    with pytest.raises(MediaError, match=r"noise\.npz"):
        Rig.load(tmp_path, "noise")


def test_a_wrong_expression_is_refused(tiny: Rig) -> None:
    with pytest.raises(ValueError, match="52"):
        tiny.shape(np.zeros(51, np.float32), REST)


def test_at_rest_nothing_moves(tiny: Rig) -> None:
    shape = tiny.shape(expression(), REST)
    for part, live in zip(tiny.parts, shape.parts, strict=True):
        if live is not None:
            np.testing.assert_allclose(live[:, :3], part.file.positions, atol=1e-6)
    np.testing.assert_allclose(shape.bones, np.stack([np.eye(4)] * 2), atol=1e-6)


def test_normals_summed_in_part_equal_those_of_the_whole_mesh(tiny: Rig) -> None:
    skin = tiny.parts[0]
    live = tiny.shape(expression(jawOpen=0.6, browInnerUp=1.0, eyeBlinkLeft=0.5), REST).parts[0]
    assert live is not None
    whole = Surface(skin.file, np.ones(len(skin.file.positions), bool)).normals(live[:, :3])
    np.testing.assert_allclose(live[:, 3:], whole, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(live[:, 3:], axis=1), 1.0, atol=1e-4)


def test_lips_open_with_the_jaw_and_close_again(tiny: Rig) -> None:
    steps = [lips(tiny, jawOpen=w) for w in np.linspace(0.0, 1.0, 9)]
    assert steps[0] < 0.02
    assert np.all(np.diff(steps) > 0.02)
    assert lips(tiny, jawOpen=0.6, mouthClose=0.6) < 0.02


def test_blink_of_the_pose_adds_to_the_expression(tiny: Rig) -> None:
    def gap(side: str, e: Float32, pose: Pose) -> float:
        return opening(tiny, f"{side}_eye_top", f"{side}_eye_bottom", e, pose)

    rest = gap("left", expression(), REST)
    assert gap("left", expression(), Pose(0, blink_left=1.0)) < 0.15 * rest
    assert gap("left", expression(eyeBlinkLeft=0.5), Pose(0, blink_left=0.5)) < 0.15 * rest
    assert gap("left", expression(eyeBlinkLeft=1.0), Pose(0, blink_left=1.0)) < 0.15 * rest
    assert gap("right", expression(), Pose(0, blink_left=1.0)) == pytest.approx(rest, rel=0.02)


def test_gaze_turns_both_eyeballs_to_picture_right_and_down(tiny: Rig) -> None:
    rest, looking = (tiny.shape(expression(), p) for p in (REST, Pose(0, gaze_x=15.0, gaze_y=10.0)))
    for side in ("left", "right"):
        moved = mark(looking, f"{side}_iris") - mark(rest, f"{side}_iris")
        assert moved[0] > 0.002 and moved[1] < -0.001


def test_eye_look_shapes_agree_with_the_gaze_of_the_pose(tiny: Rig) -> None:
    by_pose = tiny.shape(expression(), Pose(0, gaze_x=-LOOK_DEGREES[0], gaze_y=-LOOK_DEGREES[1]))
    by_shape = tiny.shape(expression(eyeLookInLeft=1, eyeLookOutRight=1, eyeLookUpLeft=1, eyeLookUpRight=1), REST)
    np.testing.assert_allclose(by_pose.landmarks, by_shape.landmarks, atol=1e-6)


@pytest.mark.parametrize(("pose", "axis", "sign"), [
    (Pose(0, yaw=15.0), 0, 1.0), (Pose(0, yaw=-15.0), 0, -1.0), (Pose(0, pitch=12.0), 1, -1.0)])
def test_a_turn_moves_the_nose_as_the_packet_says(tiny: Rig, pose: Pose, axis: int, sign: float) -> None:
    moved = mark(tiny.shape(expression(), pose), "nose_tip") - mark(tiny.shape(expression(), REST), "nose_tip")
    assert sign * moved[axis] > 0.01


def test_positive_roll_is_clockwise_in_the_picture(tiny: Rig) -> None:
    eyes = tiny.shape(expression(), Pose(0, roll=10.0)).keypoints
    assert eyes[0, 0] < eyes[1, 0]
    assert eyes[0, 1] > eyes[1, 1] + 0.008


def test_every_shape_moves_the_face_or_is_known_to_be_missing(tiny: Rig) -> None:
    still = tiny.shape(expression(), REST)
    moved = set()
    for name in ARKIT:
        shape = tiny.shape(expression(**{name: 1.0}), REST)
        if any(a is not None and b is not None and np.abs(a - b).max() > 1e-3
               for a, b in zip(shape.parts, still.parts, strict=True)):
            moved.add(name)
    assert moved >= (set(ARKIT) - tiny.lacks) | {"mouthLeft", "mouthRight", "mouthShrugUpper", "eyeLookInLeft"}


def test_mouth_left_goes_to_the_persons_left_on_a_head_without_it(tiny: Rig) -> None:
    assert "mouthLeft" in tiny.lacks
    rest, shifted = (tiny.shape(e, REST) for e in (expression(), expression(mouthLeft=1.0)))
    for name in ("inner_lip_top", "inner_lip_left", "inner_lip_right"):
        assert (mark(shifted, name) - mark(rest, name))[0] > 0.004
    assert abs((mark(shifted, "nose_tip") - mark(rest, "nose_tip"))[0]) < 0.002


@pytest.mark.skipif(not REAL, reason="no baked heads: set SVP_AVATARS to their folder")
@pytest.mark.parametrize("name", REAL)
def test_real_heads_open_close_and_blink_alike(name: str) -> None:
    rig = Rig.load(AVATARS, name)
    steps = [lips(rig, jawOpen=w) for w in np.linspace(0.0, 1.0, 6)]
    assert steps[0] < 0.045, "lips are closed at rest"
    assert np.all(np.diff(steps[1:]) > 0.03) and 0.3 < steps[-1] < 0.5
    assert lips(rig, jawOpen=0.5, mouthClose=0.5) < 0.045
    assert lips(rig, jawOpen=0.5, mouthClose=0.5) < 0.35 * lips(rig, jawOpen=0.5)
    rest = rig.shape(expression(), REST)
    for side in ("left", "right"):
        top, bottom, iris = (mark(rest, f"{side}_{m}") for m in ("eye_top", "eye_bottom", "iris"))
        assert bottom[1] < iris[1] < top[1]
        closed = opening(rig, f"{side}_eye_top", f"{side}_eye_bottom", expression(),
                         Pose(0, blink_left=1.0, blink_right=1.0))
        assert closed < 0.3 * opening(rig, f"{side}_eye_top", f"{side}_eye_bottom", expression())


@pytest.mark.skipif(not REAL, reason="no baked heads: set SVP_AVATARS to their folder")
@pytest.mark.parametrize("name", REAL)
def test_landmarks_of_real_heads_are_arranged_like_a_face(name: str) -> None:
    rig = Rig.load(AVATARS, name)
    assert rig.parts[rig.landmarks[0].part].file.kind is Kind.SKIN
    shape = rig.shape(expression(), REST)
    unit = float(np.linalg.norm(shape.keypoints[0] - shape.keypoints[1]))
    middle = (shape.keypoints[0] + shape.keypoints[1]) / 2.0
    at = {n: (mark(shape, n) - middle) / unit for n in LANDMARKS}
    column = [at[n][1] for n in ("left_brow_mid", "left_eye_top", "left_eye_bottom", "nose_tip", "outer_lip_top",
                                 "inner_lip_bottom", "outer_lip_bottom", "chin")]
    assert np.all(np.diff(column) < 0.0), column
    for inner in ("left_eye_inner", "nose_wing_left"):
        row = [at[n][0] for n in ("jaw_right", "right_eye_outer", inner.replace("left", "right"), "nose_tip", inner,
                                  "left_eye_outer", "jaw_left")]
        assert np.all(np.diff(row) > 0.0), row
    mouth = [at[n][0] for n in ("outer_lip_right", "inner_lip_right", "inner_lip_top_right", "inner_lip_top",
                                "inner_lip_top_left", "inner_lip_left", "outer_lip_left")]
    assert np.all(np.diff(mouth) > 0.0), mouth
    assert 0.5 < mouth[-2] - mouth[1] < 1.1, "the mouth is about as wide as the eyes are apart"
    for a, b in (("left_eye_inner", "right_eye_inner"), ("inner_lip_left", "inner_lip_right"),
                 ("jaw_left", "jaw_right")):
        assert abs(at[a][0] + at[b][0]) < 0.12, "left and right mirror each other"
