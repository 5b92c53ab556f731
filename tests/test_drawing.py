"""Pictures checked by hand."""

import numpy as np
import pytest

from ram_envs import Frame, Look, Retina, draw, glimpses
from ram_envs.drawing import PATCH_COLOURS, PATH_COLOUR, Place, draw_patches, draw_scene

pygame = pytest.importorskip("pygame")

WHITE = np.ones((20, 20), np.float32)  # Is enlarged 21 times and begins at pixel 30.


def look_at(scene, location=(0, 0), glimpse_size=8, num_scales=1):
    where = np.array([location], np.float32)
    corners, widths = Retina(scene.shape, glimpse_size, num_scales).corners(where)
    seen = glimpses(scene[None], where, glimpse_size=glimpse_size, num_scales=num_scales)
    return Look(where[0], corners[0], widths[0], seen[0], None)


def frame_of(scene, look=None, scores=(0, 0, 0), choice=None, truth=None):
    return Frame(scene, look, ("a line",), tuple(map(str, range(len(scores)))), np.array(scores, np.float32), choice, truth)


def rgb(colour):
    return list(pygame.Color(colour)[:3])


def at_pixel(row, column):
    """The middle of a pixel of a scene of 20x20 in the picture."""
    return 30 + 21 * row + 10, 30 + 21 * column + 10


def test_scene_is_bright_inside_the_retina_and_dimmed_outside():
    picture = draw(frame_of(WHITE, look_at(WHITE)))  # Sees the pixels 6..13.
    assert picture[at_pixel(7, 7)].tolist() == [255, 255, 255]
    assert picture[at_pixel(13, 13)].tolist() == [255, 255, 255]
    # 0.35 of white and 0.65 of the fog's (45, 51, 60).
    np.testing.assert_allclose(picture[at_pixel(2, 2)], [118, 122, 128], atol=1)
    np.testing.assert_array_equal(picture[at_pixel(14, 13)], picture[at_pixel(2, 2)])


def test_each_patch_has_its_square_and_its_picture_beside_the_scene():
    scene = np.zeros((20, 20), np.float32)
    scene[8, 8] = 1
    picture = draw(frame_of(scene, look_at(scene, glimpse_size=4, num_scales=2)))  # 8..11 and, halved, 6..13.
    assert picture[250, 30 + 21 * 8 - 1].tolist() == rgb(PATCH_COLOURS[0])
    assert picture[250, 30 + 21 * 6 - 1].tolist() == rgb(PATCH_COLOURS[1])
    # Two patches of 144 pixels with 14 between them, in the middle of a column of 168 pixels.
    fine, coarse = picture[89:233, 492:636], picture[247:391, 492:636]
    assert fine[18::36, 18::36, 0].tolist() == [[255, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert coarse[18::36, 18::36, 0].tolist() == [[0] * 4, [0, 64, 0, 0], [0] * 4, [0] * 4]
    assert picture[100, 490].tolist() == rgb(PATCH_COLOURS[0])
    assert picture[250, 490].tolist() == rgb(PATCH_COLOURS[1])


def test_path_leads_from_a_ring_to_a_dot():
    path = np.array([(-0.5, 0.5), (0.5, -0.5)], np.float32)
    first, second = (345, 135), (135, 345)  # Rows and columns of the two.
    picture = draw(frame_of(WHITE, look_at(WHITE, path[0])), path[:1])
    assert picture[first].tolist() == rgb(PATH_COLOUR)  # The dot.
    assert picture[first[0], first[1] + 7].tolist() == rgb(PATH_COLOUR)  # The ring.
    assert picture[second].tolist() != rgb(PATH_COLOUR)
    picture = draw(frame_of(WHITE, look_at(WHITE, path[1])), path)
    assert picture[first[0], first[1] + 7].tolist() == rgb(PATH_COLOUR)
    assert picture[second].tolist() == picture[240, 240].tolist() == rgb(PATH_COLOUR)  # The new dot, the line to it.
    without = draw(frame_of(WHITE, look_at(WHITE, path[1])))
    assert without[240, 240].tolist() != rgb(PATH_COLOUR)


def test_bars_tell_whether_the_choice_is_right():
    for choice, colour in ((2, "#e5534b"), (1, "#3fb950")):
        picture = draw(frame_of(WHITE, look_at(WHITE), (0, 0.75, 1) if choice == 2 else (0, 1, 0.75), choice, truth=1))
        bars = [picture[194 + 28 * row, 680].tolist() for row in range(3)]
        assert bars[0] == rgb("#444a54")  # Empty.
        assert bars[choice] == rgb(colour)
        assert bars[3 - choice] == rgb("#b8c0cc")


def test_many_classes_have_the_best_bars():
    picture = draw(frame_of(np.zeros((4, 4), np.float32), None, np.arange(100) / 100, choice=7, truth=3))
    bars = [picture[154 + 26 + 13 * row + 6, 525].tolist() for row in range(20)]
    assert bars[:3] == [rgb("#e5534b"), rgb("#444a54"), rgb("#b8c0cc")]  # Said 7, which was 3; then 99.
    assert bars[3:] == [rgb("#b8c0cc")] * 17


def test_a_note_stands_below_the_scene():
    plain, noted = draw(frame_of(WHITE)), draw(frame_of(WHITE), note="caught 1 of 2")
    assert np.argwhere((plain != noted).any(axis=(1, 2)))[[0, -1]].ravel().tolist() > [450, 450]


def test_places_of_scenes_and_locations():
    place = Place.of((20, 20))
    assert (place.left, place.top, place.scale) == (30, 30, 21)
    assert place.point(np.array([-1, 1])) == (30, 450)
    assert place.location(240, 345).tolist() == [0, 0.5]
    assert place.location(-100, 5000).tolist() == [-1, 1]
    assert Place.of((3, 40, 80)) == Place(40, 140, 400, 200, 5)
    assert Place.of((864, 1728)) == Place(24, 132, 432, 216, 0.25)


def test_a_whole_scene_with_several_looks():
    looks = [look_at(WHITE, location, 4, 2) for location in ((-0.5, 0.5), (0.5, -0.5))]
    picture = draw_scene(frame_of(WHITE), looks, 480)
    assert picture[at_pixel(1, 1)].tolist() == [255, 255, 255]  # Nothing is dimmed.
    for look in looks:
        for scale, colour in enumerate(PATCH_COLOURS[:2]):
            column, row = look.corners[scale]
            assert picture[30 + 21 * row + 5, 30 + 21 * column - 1].tolist() == rgb(colour)
    assert picture[135, 345].tolist() == picture[240, 240].tolist() == rgb(PATH_COLOUR)  # The dot at the last, the line.
    assert picture[345, 135 - 14].tolist() == rgb(PATH_COLOUR) != picture[345, 135 - 8].tolist()  # The ring around the first.
    assert draw_scene(frame_of(WHITE), looks, 120).shape == (120, 120, 3)


@pytest.mark.parametrize("num_channels", [None, 1, 3])
def test_patches_alone(num_channels):
    glimpse = np.zeros((2, 4, 4), np.float32)
    glimpse[0, 1, 2] = glimpse[1, 0, 0] = 1
    if num_channels:
        glimpse = np.repeat(glimpse[:, None], num_channels, axis=1)
    pictures = draw_patches(glimpse, 50)  # 4 pixels 11 times, and a border of 3.
    for picture, pixel, colour in zip(pictures, [(1, 2), (0, 0)], PATCH_COLOURS, strict=False):
        assert picture.shape == (50, 50, 3)
        np.testing.assert_array_equal(np.argwhere(picture[8:47:11, 8:47:11, 0]), [pixel])
        assert picture[2, 20].tolist() == picture[20, -1].tolist() == rgb(colour)
    assert draw_patches(glimpse, 8)[0].shape == (8, 8, 3)  # Too small for 4 pixels: shrunk.
