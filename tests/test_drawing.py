"""Pictures checked by hand."""

import numpy as np
import pytest

from ram_envs import Frame, Look, Retina, draw, glimpses
from ram_envs.drawing import PATCH_COLOURS, PATH_COLOUR, Place, draw_glimpse, draw_scene

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


def test_each_patch_has_its_square_and_the_glimpse_is_shown_as_the_eye_sees_it():
    scene = np.zeros((20, 20), np.float32)
    scene[8, 8] = scene[6:8, 12:14] = 1
    picture = draw(frame_of(scene, look_at(scene, glimpse_size=4, num_scales=2)))  # 8..11 and, halved, 6..13.
    assert picture[250, 30 + 21 * 8 - 1].tolist() == rgb(PATCH_COLOURS[0])
    assert picture[250, 30 + 21 * 6 - 1].tolist() == rgb(PATCH_COLOURS[1])
    # 8 x 8 pixels of the narrow patch's size, 30 times each, in the middle of 260 before the captions: the wide patch's pixels
    # are twice as large, and the four around (8, 8) are hidden by the narrow patch.
    glimpse = picture[120:360, 490:730, 0]
    seen = np.zeros((8, 8))
    seen[2, 2] = seen[:2, 6:] = 255
    np.testing.assert_array_equal(glimpse[15::30, 15::30], seen)
    assert picture[119, 600].tolist() == picture[250, 489].tolist() == rgb(PATCH_COLOURS[1])  # The border,
    assert picture[120 + 59, 610].tolist() == picture[240, 490 + 59].tolist() == rgb(PATCH_COLOURS[0])  # and the line inside.


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


def green_numbers(picture):
    """Where the light green of the numbers is: rows and columns (m, 2)."""
    return np.argwhere((picture == rgb("#7ee787")).all(axis=2))


def test_the_path_is_numbered_and_the_numbers_keep_apart():
    path = np.array([(-0.5, -0.5), (0.5, 0.5)], np.float32)
    black = np.zeros((20, 20), np.float32)
    at = green_numbers(draw(frame_of(black, look_at(black)), path))
    near = [np.abs(at - centre).max(axis=1) < 30 for centre in ((135, 135), (345, 345))]
    assert (near[0] | near[1]).all() and near[0].any() and near[1].any()  # Each number is beside its point.
    pairs = {}
    for name, locations in (("one", path[:1]), ("twice", path[[0, 0]]), ("many", np.repeat(path[:1], 12, axis=0))):
        pairs[name] = len(green_numbers(draw(frame_of(black, look_at(black)), locations)))
    # 1; 1 and 2 at the same point hide nothing of each other; nor do twelve.
    assert pairs["one"] < pairs["twice"] < pairs["many"] / 5


@pytest.mark.parametrize(
    ("length", "numbered"), [(12, range(1, 13)), (13, range(2, 13, 2)), (24, range(2, 25, 2)), (30, range(5, 31, 5))]
)
def test_long_paths_have_a_number_at_every_second_or_fifth_glimpse(length, numbered):
    black, corners = np.zeros((20, 20), np.float32), np.array([(-0.9, -0.9), (0.9, 0.9)], np.float32)
    # All numbered glimpses are at the top left, all others at the bottom right: there is no number.
    path = np.array([corners[0 if turn in numbered else 1] for turn in range(1, length + 1)])
    at = green_numbers(draw(frame_of(black, look_at(black)), path))
    assert len(at)
    assert at.max() < 240


def test_bars_tell_whether_the_choice_is_right():
    for choice, colour in ((2, "#e5534b"), (1, "#3fb950")):
        picture = draw(frame_of(WHITE, look_at(WHITE), (0, 0.75, 1) if choice == 2 else (0, 1, 0.75), choice, truth=1))
        bars = [picture[194 + 28 * row, 760].tolist() for row in range(3)]
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


def test_a_whole_scene_with_its_path():
    picture = draw_scene(frame_of(WHITE), np.array([(-0.5, 0.5), (0.5, -0.5)], np.float32), 480)
    assert picture[at_pixel(1, 1)].tolist() == [255, 255, 255]  # Nothing is dimmed,
    assert not any((picture == rgb(colour)).all(axis=2).any() for colour in PATCH_COLOURS)  # and there are no squares.
    assert picture[135, 345].tolist() == picture[240, 240].tolist() == rgb(PATH_COLOUR)  # The dot at the last, the line.
    assert picture[345, 135 - 7].tolist() == rgb(PATH_COLOUR) != picture[345, 135 - 4].tolist()  # The ring around the first.
    assert len(green_numbers(picture))
    assert draw_scene(frame_of(WHITE), [np.zeros(2)], 120).shape == (120, 120, 3)


@pytest.mark.parametrize("num_channels", [None, 1, 3])
def test_a_glimpse_alone(num_channels):
    scene = np.zeros((20, 20), np.float32)
    scene[9, 10] = scene[6:8, 6:8] = 1
    if num_channels:
        scene = np.repeat(scene[None], num_channels, axis=0)
    frame = frame_of(scene, look_at(scene, glimpse_size=4, num_scales=2))
    picture = draw_glimpse(frame, 100)  # 8 pixels 11 times, and a border of 3.
    assert picture.shape == (94, 94, 3)
    np.testing.assert_array_equal(np.argwhere(picture[8:90:11, 8:90:11, 0]), [(0, 0), (0, 1), (1, 0), (1, 1), (3, 4)])
    assert picture[2, 20].tolist() == picture[20, -1].tolist() == rgb(PATCH_COLOURS[1])
    assert draw_glimpse(frame, 12).shape == (12, 12, 3)  # Too small for 8 pixels: shrunk.


def test_zoomed_glimpses_look_like_others():
    """At zoom 1 of 2x2 pixels: twice as wide, drawn as large."""
    scene = np.zeros((20, 20), np.float32)
    scene[8:10, 8:10] = 1
    where = np.zeros((1, 2), np.float32)
    retina = Retina(scene.shape, 2, 2, 2, np.float32)
    scenes = retina.blank_scenes(1)
    retina.inner(scenes)[...] = scene
    look = Look(
        where[0], *(part[0] for part in retina.corners(where, np.array([1]))), retina.look(scenes, where, np.array([1]))[0], 1
    )
    assert look.widths.tolist() == [4, 8]
    picture = draw_glimpse(frame_of(scene, look), 46)  # 4 pixels 10 times, and a border of 3.
    assert picture.shape == (46, 46, 3)
    # The wide patch averages 4x4 pixels, a quarter of which are lit.
    assert picture[8:43:10, 8:43:10, 0].tolist() == [[64, 64, 0, 0], [64, 255, 0, 0], [0] * 4, [0] * 4]


def test_faint_patches_are_drawn_brighter():
    scene = np.full((20, 20), 1 / 64, np.float32)
    frame = Frame(scene, look_at(scene), (), ("0",), np.zeros(1, np.float32), gamma=0.5)
    assert draw_glimpse(frame, 86)[43, 43].tolist() == [32] * 3  # 255 / 8; not the scene: 255 / 64.
    assert draw(frame)[at_pixel(7, 7)].tolist() == [4] * 3
