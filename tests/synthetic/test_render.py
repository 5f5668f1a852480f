"""The renderer: framing, matte, shift, and that what the rig does can be seen in the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from svp_stream.errors import MediaError
from svp_stream.packets import Bytes, Pose
from svp_stream.synthetic.camera import Framing
from svp_stream.synthetic.headfile import heads
from svp_stream.synthetic.render import HEADS_KEPT, LANDMARKS, Picture, Renderer
from svp_stream.synthetic.rig import Rig
from tests.fakes.procedural_head import write_procedural_head
from tests.synthetic.test_rig import AVATARS, REAL, REST, expression

SIZE = 128


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    try:
        made = Renderer(SIZE, 2)
    except MediaError as error:
        pytest.skip(f"no OpenGL here: {error}")
    with made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("heads")
    write_procedural_head(made)
    return made


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Rig:
    return Rig.load(folder, "tiny")


def patch(picture: Picture, name: str, half: int = 2) -> Bytes:
    """The pixels around a landmark."""
    x, y = picture.landmarks[LANDMARKS.index(name)].astype(int)
    return picture.rgb[max(0, y - half):y + half + 1, max(0, x - half):x + half + 1]


def test_a_picture_has_the_promised_arrays(renderer: Renderer, tiny: Rig) -> None:
    picture = renderer.draw(tiny, expression(), REST)
    assert picture.rgb.shape == (SIZE, SIZE, 3) and picture.rgb.dtype == np.uint8
    assert picture.alpha.shape == (SIZE, SIZE) and picture.alpha.dtype == np.uint8
    assert picture.landmarks.shape == (len(LANDMARKS), 2) and picture.landmarks.dtype == np.float32
    assert picture.kps.shape == (3, 2) and picture.kps.dtype == np.float32
    assert np.all((picture.landmarks > 0) & (picture.landmarks < SIZE))


@pytest.mark.parametrize("framing", [Framing(), Framing(inter_ocular=0.15, eye_line=0.5, centre=0.45)])
def test_the_resting_eyes_sit_where_the_framing_says(renderer: Renderer, tiny: Rig, framing: Framing) -> None:
    left, right, _ = renderer.draw(tiny, expression(), REST, framing).kps / SIZE
    assert right[0] - left[0] == pytest.approx(framing.inter_ocular, rel=1e-3)
    assert (left + right) / 2.0 == pytest.approx([framing.centre, framing.eye_line], abs=1e-3)


def test_a_framing_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="inter_ocular"):
        Framing(inter_ocular=0.0)


@pytest.mark.parametrize(("size", "supersample"), [(8, 2), (64, 0)])
def test_a_renderer_without_pixels_is_refused(size: int, supersample: int) -> None:
    with pytest.raises(ValueError, match="size"):
        Renderer(size, supersample)


def test_the_matte_covers_the_person_and_its_edges_are_soft(renderer: Renderer, tiny: Rig) -> None:
    picture = renderer.draw(tiny, expression(), REST, Framing(inter_ocular=0.15))
    for name in ("nose_tip", "chin", "inner_lip_top", "left_iris"):
        x, y = picture.landmarks[LANDMARKS.index(name)].astype(int)
        assert picture.alpha[y, x] == 255, name
    assert picture.alpha[:4].max() == 0, "nothing above the hair"
    soft = (picture.alpha > 8) & (picture.alpha < 247)
    assert 40 < soft.sum() < 0.1 * SIZE * SIZE


def test_the_background_is_a_grey_gradient_that_does_not_move(renderer: Renderer, tiny: Rig) -> None:
    far, near = (renderer.draw(tiny, expression(), p, Framing(inter_ocular=0.15)) for p in (REST, Pose(0, yaw=20)))
    behind = (far.alpha == 0) & (near.alpha == 0)
    assert behind.sum() > 0.2 * SIZE * SIZE
    np.testing.assert_array_equal(far.rgb[behind], near.rgb[behind])
    colours = far.rgb[behind].astype(int)
    assert colours.std(0).max() > 1.0, "a gradient"
    assert (colours.max(1) - colours.min(1)).max() < 40, "nearly grey"


def test_dx_and_dy_shift_the_person_right_and_down(renderer: Renderer, tiny: Rig) -> None:
    rest = renderer.draw(tiny, expression(), REST)
    moved = renderer.draw(tiny, expression(), Pose(0, dx=8 / SIZE, dy=4 / SIZE))
    np.testing.assert_allclose(moved.landmarks - rest.landmarks, [[8.0, 4.0]] * len(LANDMARKS), atol=1e-2)
    window = np.s_[40:100, 40:88]
    was = rest.rgb[36:96, 32:80].astype(int)
    assert np.abs(moved.rgb[window].astype(int) - was).mean() < 0.5


def test_the_same_call_draws_the_same_picture(renderer: Renderer, tiny: Rig) -> None:
    e, pose = expression(jawOpen=0.5, mouthSmileLeft=0.4), Pose(0, yaw=9.0, pitch=-4.0)
    first = renderer.draw(tiny, e, pose)
    renderer.draw(tiny, expression(), REST)
    again = renderer.draw(tiny, e, pose)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    np.testing.assert_array_equal(first.alpha, again.alpha)


def test_more_heads_than_the_context_keeps_still_draw_right(renderer: Renderer, tiny: Rig, folder: Path) -> None:
    first = renderer.draw(tiny, expression(), REST)
    for _ in range(HEADS_KEPT + 1):
        renderer.draw(Rig.load(folder, "tiny"), expression(jawOpen=1.0), REST)
    np.testing.assert_array_equal(first.rgb, renderer.draw(tiny, expression(), REST).rgb)


def test_an_open_jaw_shows_the_dark_of_the_mouth_and_teeth(renderer: Renderer, tiny: Rig) -> None:
    def inside(jaw: float) -> tuple[int, int]:
        p = renderer.draw(tiny, expression(jawOpen=jaw), REST)
        top, bottom = (p.landmarks[LANDMARKS.index(f"inner_lip_{e}")] for e in ("top", "bottom"))
        x, y = int(top[0]), int((top[1] + bottom[1]) / 2.0)
        grey = p.rgb[y - 8:y + 9, x - 6:x + 7].mean(2)
        return int((grey < 45).sum()), int((grey > 190).sum())

    assert inside(0.0)[0] == 0
    dark, bright = inside(0.8)
    assert dark > 20 and bright > 5


def test_a_blink_hides_the_iris_of_that_eye_only(renderer: Renderer, tiny: Rig) -> None:
    rest = renderer.draw(tiny, expression(), REST)
    wink = renderer.draw(tiny, expression(), Pose(0, blink_left=1.0))
    left, right = (np.abs(patch(rest, f"{s}_iris").astype(int) - patch(wink, f"{s}_iris").astype(int)).mean()
                   for s in ("left", "right"))
    assert left > 40.0 and right < 1.0
    assert rest.kps[0, 0] < rest.landmarks[LANDMARKS.index("nose_tip"), 0] < rest.kps[1, 0]
    assert rest.landmarks[LANDMARKS.index("left_iris"), 0] > SIZE / 2, "the person's left is picture right"


def test_a_yaw_to_the_persons_left_moves_the_nose_to_picture_right(renderer: Renderer, tiny: Rig) -> None:
    rest, turned = (renderer.draw(tiny, expression(), p) for p in (REST, Pose(0, yaw=15.0)))
    assert turned.kps[2, 0] > rest.kps[2, 0] + 4.0
    assert np.abs(rest.rgb.astype(int) - turned.rgb.astype(int)).mean() > 2.0


def test_landmarks_lie_on_what_they_name(renderer: Renderer, tiny: Rig) -> None:
    picture = renderer.draw(tiny, expression(), Pose(0, yaw=8.0, roll=6.0, dx=0.03))
    lip, cheek = patch(picture, "outer_lip_bottom", 1).mean((0, 1)), patch(picture, "nose_tip", 1).mean((0, 1))
    assert lip[0] / lip[1] > 1.15 * cheek[0] / cheek[1], "lips are redder than the nose"
    assert patch(picture, "right_iris", 0).mean() < 90.0 < cheek.mean()


def test_supersampling_refines_the_same_picture(renderer: Renderer, tiny: Rig) -> None:
    fine = renderer.draw(tiny, expression(), REST)
    with Renderer(SIZE, 1) as single:
        coarse = single.draw(tiny, expression(), REST)
    np.testing.assert_allclose(fine.landmarks, coarse.landmarks, atol=1e-3)
    difference = np.abs(fine.rgb.astype(int) - coarse.rgb.astype(int))
    assert 0.0 < difference.mean() < 4.0


@pytest.mark.skipif(not REAL, reason="no baked heads: set SVP_AVATARS to their folder")
@pytest.mark.parametrize("name", REAL)
def test_real_heads_fill_the_portrait_alike(renderer: Renderer, name: str) -> None:
    assert name in heads(AVATARS)
    picture = renderer.draw(Rig.load(AVATARS, name), expression(), REST)
    left, right, nose = picture.kps / SIZE
    assert right[0] - left[0] == pytest.approx(Framing().inter_ocular, rel=1e-3)
    assert abs(nose[0] - 0.5) < 0.02 and 0.5 < nose[1] < 0.66
    chin = picture.landmarks[LANDMARKS.index("chin")] / SIZE
    assert 0.72 < chin[1] < 0.97, "the chin is in the picture"
    assert 0.25 < (picture.alpha == 255).mean() < 0.9
    assert picture.alpha[-1].max() == 255 and picture.alpha[: SIZE // 2, :3].mean() < 230
    face = picture.rgb[picture.alpha == 255]
    assert 20.0 < face.mean() < 215.0, "neither black nor burnt out"
