import copy

import numpy as np
import pytest
from gymnasium import spaces

from ram_envs.retina import Gaze, GlimpseSpace, Retina, glimpses

RAMP = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)  # 0..15, row by row.


def look(images, location, size, scales=1):
    return glimpses(images, np.array([location], np.float32), glimpse_size=size, num_scales=scales)[0]


def test_centre_of_even_image_even_glimpse():
    np.testing.assert_allclose(255 * look(RAMP, (0, 0), 2)[0], [[5, 6], [9, 10]], rtol=1e-6)


def test_odd_glimpse_starts_at_the_nearest_pixel():
    # The centre is at pixel 2.0; 3 pixels around it start at 0.5, and halves go up to 1.
    np.testing.assert_allclose(255 * look(RAMP, (0, 0), 3)[0], [[5, 6, 7], [9, 10, 11], [13, 14, 15]], rtol=1e-6)
    # x = -0.3 puts the centre at 1.4, the patch at -0.1: column 0.
    np.testing.assert_allclose(255 * look(RAMP, (-0.3, -0.3), 3)[0], [[0, 1, 2], [4, 5, 6], [8, 9, 10]], rtol=1e-6)


def test_odd_image_odd_glimpse_is_centred():
    image = np.arange(25, dtype=np.uint8).reshape(1, 5, 5)
    np.testing.assert_allclose(255 * look(image, (0, 0), 3)[0], [[6, 7, 8], [11, 12, 13], [16, 17, 18]], rtol=1e-6)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ((-1, -1), [[0, 0], [0, 0 + 0]]),  # Top-left corner: one pixel inside, its value is 0.
        ((1, -1), [[0, 0], [3, 0]]),
        ((-1, 1), [[0, 12], [0, 0]]),
        ((1, 1), [[15, 0], [0, 0]]),
        ((0, -1), [[0, 0], [1, 2]]),
        ((1, 0), [[7, 0], [11, 0]]),
    ],
)
def test_zeros_outside_every_border(location, expected):
    np.testing.assert_allclose(255 * look(RAMP, location, 2)[0], expected, rtol=1e-6)


def test_x_runs_along_columns():
    image = np.zeros((1, 4, 8), np.uint8)
    image[0, 1, 6] = 255  # Row 1, column 6: centre of the pixel at x = (6.5 / 8) * 2 - 1, y = (1.5 / 4) * 2 - 1.
    assert look(image, (0.625, -0.25), 1)[0, 0, 0] == 1.0


def test_locations_out_of_range_are_clipped():
    np.testing.assert_array_equal(look(RAMP, (7, -3), 2), look(RAMP, (1, -1), 2))


def test_scales_are_means_of_concentric_patches():
    patches = 255 * look(RAMP, (0, 0), 2, scales=3)
    np.testing.assert_allclose(patches[0], [[5, 6], [9, 10]], rtol=1e-6)
    np.testing.assert_allclose(patches[1], [[2.5, 4.5], [10.5, 12.5]], rtol=1e-6)  # Quarters of the image.
    # 8x8 around 4x4: each cell covers 4x4 pixels of which a quarter lies inside.
    np.testing.assert_allclose(patches[2], [[2.5 / 4, 4.5 / 4], [10.5 / 4, 12.5 / 4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "scales", "dtype"),
    [
        *((*sizes, dtype) for sizes in ((1, 3), (5, 2), (8, 1)) for dtype in (np.uint8, np.float32)),
        (1, 5, np.uint8),
        (2, 6, np.uint8),
    ],
)
def test_equals_a_plain_implementation(size, scales, dtype):
    rng = np.random.default_rng(size * 10 + scales)
    images = rng.integers(0, 256, (40, 13, 17), dtype=np.uint8)
    images = images if dtype == np.uint8 else images / np.float32(255)
    locations = rng.uniform(-1.2, 1.2, (40, 2)).astype(np.float32)
    seen = glimpses(images, locations, glimpse_size=size, num_scales=scales)
    corners, widths = Retina((13, 17), size, scales).corners(locations)
    assert widths.tolist() == [[size * 2**scale for scale in range(scales)]] * 40
    margin = size * 2**scales
    for n in range(40):
        padded = np.pad(images[n] / (255.0 if dtype == np.uint8 else 1.0), margin)
        for scale in range(scales):
            factor = 2**scale
            left, top = corners[n, scale] + margin
            patch = padded[top : top + size * factor, left : left + size * factor]
            expected = patch.reshape(size, factor, size, factor).mean(axis=(1, 3))
            np.testing.assert_allclose(seen[n, scale], expected, atol=1e-6)
            centre = (np.clip(locations[n].astype(float), -1, 1) + 1) / 2 * (17, 13)
            assert np.abs(corners[n, scale] + size * factor / 2 - centre).max() <= 0.5


def test_float_images_pass_through():
    image = RAMP.astype(np.float32) / 16
    np.testing.assert_array_equal(look(image, (0, 0), 2)[0], image[0, 1:3, 1:3])


def test_floats_are_added_in_one_order():
    # Each of the small numbers is lost when it is added to 1, and would not be if both were added to each other first.
    image = np.zeros((1, 4, 4), np.float32)
    image[0, 0] = [1, 0, 2**-24, 2**-24]
    assert look(image, (0, 0), 1, scales=3).ravel().tolist() == [0, 0, 1 / 16]


def test_result_stays_in_range():
    white = np.full((1, 30, 30), 255, np.uint8)
    seen = look(white, (0, 0), 3, scales=4)
    assert seen.max() <= 1.0
    assert seen.dtype == np.float32


def test_channels_that_seem_to_come_last_are_doubted():
    with pytest.warns(UserWarning, match=r"taken as \(N, C, H, W\), got shape \(1, 28, 28, 3\)"):
        seen = glimpses(np.zeros((1, 28, 28, 3), np.uint8), np.zeros((1, 2), np.float32), glimpse_size=1)
    assert seen.shape == (1, 1, 28, 1, 1)


@pytest.mark.parametrize(("shape", "doubtful"), [((5, 9, 4), True), ((4, 9, 4), False), ((5, 9, 5), False), ((5, 4, 9), False)])
def test_only_few_channels_behind_many_rows_are_doubtful(shape, doubtful):
    images, place = np.zeros((2, *shape), np.uint8), np.zeros((2, 2), np.float32)
    if doubtful:
        with pytest.warns(UserWarning, match="if channels come last") as told:
            glimpses(images, place, glimpse_size=1)
        assert told[0].filename == __file__  # Where the caller can mend it.
    else:
        glimpses(images, place, glimpse_size=1)


def test_bad_input_is_named():
    place = np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match="finite"):
        look(RAMP, (np.nan, 0), 2)
    with pytest.raises(ValueError, match="images must be"):
        glimpses(RAMP[0], place)
    with pytest.raises(ValueError, match="images must be"):
        glimpses(RAMP.astype(np.int64), place)
    for empty in (RAMP[:0], RAMP[:, :0], RAMP[:, :, :0]):
        with pytest.raises(ValueError, match="images must be"):
            glimpses(empty, place[: len(empty)])
    with pytest.raises(ValueError, match=r"images must be .*, got shape \(1, 1, 1, 4, 4\)"):
        glimpses(RAMP[None, None], place)
    for images, places, message in ((RAMP.tolist(), place, "images must be an array"), (RAMP, [[0, 0]], "locations must be an")):
        with pytest.raises(TypeError, match=f"{message}.*, got list"):
            glimpses(images, places)
    for bad in ((0, np.nan), (np.inf, 0), (0, -np.inf)):
        with pytest.raises(ValueError, match="finite"):
            look(RAMP, bad, 2)
    with pytest.raises(ValueError, match=r"locations must be \(1, 2\) numbers, got \(2, 2\) of float32"):
        glimpses(RAMP, np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="at least 1"):
        glimpses(RAMP, place, glimpse_size=0)


@pytest.mark.parametrize("shape", [(9, 7), (5, 30)])
def test_channels_are_looked_at_each_on_its_own(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 3, *shape), dtype=np.uint8)
    locations = rng.uniform(-1, 1, (6, 2)).astype(np.float32)
    locations[-1] = 1
    seen = glimpses(images, locations, glimpse_size=3, num_scales=2)
    assert seen.shape == (6, 2, 3, 3, 3)
    for channel in range(3):
        alone = glimpses(np.ascontiguousarray(images[:, channel]), locations, glimpse_size=3, num_scales=2)
        np.testing.assert_array_equal(seen[:, :, channel], alone)


def test_zoom_is_a_wider_retina():
    rng = np.random.default_rng(1)
    retina = Retina((20, 20), 3, num_scales=2, num_zooms=3)
    scenes = retina.blank_scenes(9)
    retina.inner(scenes)[...] = images = rng.integers(0, 256, (9, 20, 20), dtype=np.uint8)
    locations, zooms = rng.uniform(-1, 1, (9, 2)).astype(np.float32), np.arange(9) % 3
    seen = retina.look(scenes, locations, zooms)
    by_scale = glimpses(images, locations, glimpse_size=3, num_scales=4)  # Zoom z, scale s is scale s + z without zoom.
    for n in range(9):
        np.testing.assert_array_equal(seen[n], by_scale[n, zooms[n] : zooms[n] + 2])
    assert retina.corners(locations, zooms)[1].tolist() == [[3 * 2**z, 6 * 2**z] for z in zooms]


def test_the_widest_patches_of_bright_images_do_not_overflow():
    white = np.full((1, 64, 64), 255, np.uint8)  # 32 x 32 bytes to a cell: more than 16 bits can hold.
    np.testing.assert_allclose(look(white, (0, 0), 2, scales=6)[-1], 1.0)


def test_scenes_keep_a_margin_of_zeros():
    retina = Retina((4, 6), 4, 2)  # The widest patch, 8 pixels, reaches out by 4.
    scenes = retina.blank_scenes(2)
    assert scenes.shape == (2, 8, 10)
    assert retina.inner(scenes).shape == (2, 4, 6)
    retina.inner(scenes)[...] = 255
    assert scenes.sum() == 2 * 24 * 255
    assert Retina((4, 6), 3, 1).blank_scenes(1).shape == (1, 6, 8)  # A half of 3 pixels takes 2.
    for corner in ((-1, -1), (1, -1), (-1, 1), (1, 1)):  # Nothing of a neighbour is seen, wherever the patches reach out.
        seen = retina.look(scenes, np.array([corner] * 2, np.float32))
        assert seen[0, 0].sum() == 4  # A quarter of the narrow patch is inside.
        assert seen[0, 1].sum() == 4
        np.testing.assert_array_equal(seen[0], seen[1])


def test_scenes_from_elsewhere_are_refused():
    retina = Retina((4, 6), 4, 2)
    for scenes in (
        retina.blank_scenes(2).copy(),
        np.zeros((2, 2, 4, 6), np.uint8)[0],
        retina.blank_scenes(2).astype(np.float32)[:],
        np.zeros((2, 8, 10), np.uint8)[:],  # Nothing behind them.
        retina.blank_scenes(4)[::2],
        Retina((4, 6), 4, 3).blank_scenes(2),
        retina.blank_scenes(2).view(np.int8),
        np.zeros(1000, np.float32).view(np.uint8)[:160].reshape(2, 8, 10),
        np.lib.stride_tricks.as_strided(np.zeros(400, np.uint8), (2, 8, 10), (200, 10, 1))[:1],  # In pieces.
    ):
        with pytest.raises(ValueError, match="scenes must be made by this retina's blank_scenes"):
            retina.look(scenes, np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_parts_of_scenes_can_be_looked_at(dtype):
    retina = Retina((4, 6), 4, 2, dtype=dtype)
    scenes, places = retina.blank_scenes(3), np.zeros((3, 2), np.float32)
    retina.inner(scenes)[...] = np.arange(72).reshape(3, 4, 6)
    np.testing.assert_array_equal(retina.look(scenes[1:], places[1:]), retina.look(scenes, places)[1:])


@pytest.mark.parametrize(
    ("locations", "zooms", "message"),
    [
        (np.zeros((1, 2)), None, r"locations must be \(3, 2\) numbers, got \(1, 2\) of float64"),
        (np.zeros(3), None, r"locations must be \(3, 2\) numbers, got \(3,\) of float64"),
        (np.zeros((3, 2), complex), None, r"locations must be \(3, 2\) numbers, got \(3, 2\) of complex128"),
        (np.full((3, 2), "0"), None, r"locations must be \(3, 2\) numbers, got \(3, 2\) of <U1"),
        (np.zeros((3, 2)), np.full(3, 2), "zooms must be 3 whole numbers in 0..1"),
        (np.zeros((3, 2)), np.array([0, -1, 1]), "zooms must be 3 whole numbers in 0..1, got array"),
        (np.zeros((3, 2)), np.array([1, 0, 2]), "zooms must be 3 whole numbers in 0..1"),
        (np.zeros((3, 2)), np.full(3, -70), "zooms must be 3 whole numbers in 0..1"),
        (np.zeros((3, 2)), np.zeros(2, int), "zooms must be 3 whole numbers in 0..1"),
        (np.zeros((3, 2)), np.zeros(3), "zooms must be 3 whole numbers in 0..1"),
    ],
)
def test_bad_looks_are_named(locations, zooms, message):
    retina = Retina((20, 20), 3, num_zooms=2)
    with pytest.raises(ValueError, match=message):
        retina.look(retina.blank_scenes(3), locations, zooms)


def test_locations_of_any_numbers_and_layout():
    places = np.array([[0, 1], [-1, 0.5], [1, -1], [0.25, -0.5]], np.float32)
    images = np.random.default_rng(2).integers(0, 256, (4, 9, 7), dtype=np.uint8)
    strided = np.repeat(places, 2, axis=0)[::2]
    for given in (places.astype(float), places.astype(np.float16), places.astype(">f4"), np.asfortranarray(places), strided):
        np.testing.assert_array_equal(glimpses(images, given, glimpse_size=3), glimpses(images, places, glimpse_size=3))
    whole = np.array([[0, 1], [-1, 0], [1, -1], [0, 0]])
    np.testing.assert_array_equal(glimpses(images, whole), glimpses(images, whole.astype(np.float32)))
    row = np.arange(7, dtype=np.uint8).reshape(1, 1, 7)
    for x, column in ((1 / 7 - 1e-9, 3), (1 / 7 + 1e-9, 4)):  # What is given as float64 is not rounded.
        assert 255 * glimpses(row, np.array([[x, 0]]), glimpse_size=1).item() == pytest.approx(column)


def test_a_copy_of_a_retina_looks_alike():
    retina = copy.deepcopy(Retina((3, 9, 7), 4, 1, 2, np.float32))
    assert (retina.image_shape, retina.glimpse_shape, retina.num_zooms) == ((3, 9, 7), (1, 3, 4, 4), 2)
    assert retina.look(retina.blank_scenes(1), np.zeros((1, 2), np.float32)).shape == (1, 1, 3, 4, 4)


def test_a_retina_without_options():
    retina = Retina((28, 28))
    assert (retina.glimpse_shape, retina.num_zooms, retina.dtype) == ((1, 8, 8), 1, np.uint8)
    assert glimpses(np.zeros((2, 28, 28), np.float32), np.zeros((2, 2))).shape == (2, 1, 8, 8)


def test_a_glimpse_as_wide_as_the_scene():
    assert Retina((3, 20, 30), "scene").glimpse_shape == (1, 3, 30, 30)
    assert Retina((40, 20, 30), "scene").glimpse_shape == (1, 40, 30, 30)  # Channels are no side.
    assert Retina((3, 30, 20), "scene").glimpse_shape == (1, 3, 30, 30)
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    np.testing.assert_allclose(255 * look(image, (0, 0), "scene")[0], image[0], rtol=1e-6)


def test_the_space_knows_the_scene():
    parts = {"glimpse": spaces.Box(0, 1, (1, 8, 8)), "location": spaces.Box(-1, 1, (2,))}
    space = copy.deepcopy(GlimpseSpace(parts, (3, 60, 40)))
    assert space == spaces.Dict(parts)
    assert space.scene_shape == (3, 60, 40)


def test_statistics_of_glimpses():
    retina = Retina((20, 20), 2, 2)

    filled, first = [], np.random.default_rng(0).integers(2, size=(10, 1, 1)).ravel().tolist()

    def fill(scenes, rng):  # Half of the scenes are white: a pixel in sight is 0 or 1, but for the edges.
        filled.append(scenes.shape)
        retina.inner(scenes)[...] = 255 * (draws := rng.integers(2, size=(len(scenes), 1, 1)))
        assert len(filled) > 1 or draws.ravel().tolist() == first  # The same scenes, and so figures, at any time.

    mean, deviations = retina.statistics(fill)
    assert 0.4 < mean < 0.52
    assert deviations == pytest.approx([0.49, 0.49], abs=0.02)
    assert filled == [(10, 22, 22)] * 100
    assert retina.statistics(fill) == (mean, deviations)
    assert Retina((20, 20), 2, 2, dtype=np.float32).statistics(lambda scenes, rng: None) == (0, [0, 0])


def test_statistics_are_of_glimpses_anywhere():
    retina = Retina((20, 20), 2)

    def quarter(x, y):
        def fill(scenes, rng):
            retina.inner(scenes)[..., 10 * y : 10 * y + 10, 10 * x : 10 * x + 10] = 255

        return fill

    for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
        assert retina.statistics(quarter(*corner))[0] == pytest.approx(0.24, abs=0.05)


def test_statistics_tell_the_scales_apart():
    retina = Retina((20, 20), 2, 2)

    def stripes(scenes, rng):  # Each 2x2 cell of the wide patch holds as much white as black.
        scenes[..., retina.margin :, retina.margin :: 2] = 255

    mean, deviations = retina.statistics(stripes)
    assert mean == pytest.approx(0.48, abs=0.02)
    assert deviations[0] == pytest.approx(0.5, abs=0.01) and deviations[1] < 0.2


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "8"])
def test_bad_sizes_are_named(bad):
    with pytest.raises(ValueError, match="glimpse_size must be"):
        Retina((28, 28), bad, 1)
    with pytest.raises(ValueError, match="num_scales must be"):
        Retina((28, 28), 8, bad)
    with pytest.raises(ValueError, match="num_zooms must be"):
        Retina((28, 28), 8, 1, bad)


def test_patches_far_larger_than_the_image_are_refused():
    for shape in ((28, 28), (28, 14), (14, 28), (3, 14, 28)):
        Retina(shape, 7, 5)  # 112 = 4 x 28, the longer side.
    Retina((28, 28), 7, 3, 3)
    with pytest.raises(ValueError, match="makes a widest patch of 128 pixels; images of 28x14 allow at most 112"):
        Retina((28, 14), 8, 5)
    with pytest.raises(ValueError, match="128 pixels; images of 28x14 allow at most 112"):
        Retina((200, 28, 14), 8, 5)
    for num_scales, widest in ((61, str(2**60)), (62, r"1 \* 2\*\*61")):
        with pytest.raises(ValueError, match=f"makes a widest patch of {widest} pixels"):
            Retina((28, 28), 1, num_scales)
    with pytest.raises(ValueError, match=r"num_scales=1 and num_zooms=100 makes a widest patch of 8 \* 2\*\*99 pixels"):
        Retina((28, 28), 8, 1, 100)
    with pytest.raises(ValueError, match="128 pixels"):
        Retina((28, 28), 8, 5)
    for huge in (20_000, 10**10, 10**30):  # At once.
        with pytest.raises(ValueError, match=f"num_scales={huge} makes a widest patch"):
            Retina((28, 28), 8, huge)
    np.testing.assert_array_equal(Retina((28, 28), np.uint8(64), np.uint8(1)).glimpse_shape, (1, 64, 64))
    with pytest.raises(ValueError, match="num_scales=4 and num_zooms=2 makes a widest patch of 128 pixels"):
        Retina((28, 28), 8, 4, 2)


WIDTHS = {"glimpse": spaces.Box(0, 1, (1, 2, 2)), "location": spaces.Box(-1, 1, (2,)), "zoom": spaces.Box(0, 1, (2,))}


def test_a_gaze_by_hand():
    gaze = Gaze(3, "random", (4, 6), 2, 1, 2)
    assert gaze.state_names == ("gaze.locations", "gaze.zooms")  # All that changes but the scenes.
    assert not gaze.locations.any() and not gaze.zooms.any() and not gaze.scenes.any()
    assert gaze.space == spaces.Dict(WIDTHS) and gaze.space.scene_shape == (4, 6)
    gaze.begin(np.array([True, False, True]), np.array([[0, 0.75], [0.5, 0.25]]))
    assert gaze.locations.tolist() == [[-1, 0.5], [0, 0], [0, -0.5]]
    gaze.look(np.full((3, 2), 0.25), np.array([1, 1, 1]), np.array([True, True, False]))
    assert gaze.locations.tolist() == [[0.25, 0.25], [0.25, 0.25], [0, -0.5]] and gaze.zooms.tolist() == [1, 1, 0]
    gaze.begin(np.array([True, False, False]), np.array([[0.5, 0.5]]))
    assert gaze.locations[0].tolist() == [0, 0] and gaze.zooms.tolist() == [0, 1, 0]
    gaze.look(np.full((3, 2), -0.5), None, None)
    assert (gaze.locations == -0.5).all() and gaze.zooms.tolist() == [0, 1, 0]
    gaze.look(np.zeros((3, 2)), np.array([1, 0, 0]), None)
    gaze.retina.inner(gaze.scenes)[...] = scene = np.arange(24, dtype=np.uint8).reshape(4, 6)
    seen = gaze.observe()
    assert seen["zoom"].tolist() == [[0, 1], [1, 0], [1, 0]] and seen["zoom"].dtype == np.float32
    by_scale = look(scene[None], (0, 0), 2, scales=2)
    np.testing.assert_array_equal(seen["glimpse"][:, 0], by_scale[[1, 0, 0]])
    seen["location"][...] = 9  # Theirs.
    assert not gaze.locations.any()


def test_a_gaze_without_zooms():
    gaze = Gaze(2, (0.5, -1), (4, 6), 2)
    assert gaze.space == spaces.Dict({name: WIDTHS[name] for name in ("glimpse", "location")})
    gaze.begin(np.array([False, True]), np.zeros((1, 2)))
    seen = gaze.observe()
    assert seen.keys() == gaze.space.keys() and seen["location"].tolist() == [[0, 0], [0.5, -1]]
    seen["location"][...] = 9
    assert gaze.locations.tolist() == [[0, 0], [0.5, -1]]
    for first, expected in (("center", 0), ((1, -1), (1, -1)), (np.array([0, 0.5]), (0, 0.5))):
        gaze = Gaze(1, first, (4, 6), 2)
        gaze.begin(np.array([True]), np.full((1, 2), 0.75))
        assert (gaze.locations[0] == expected).all()


@pytest.mark.parametrize(
    "bad",
    [
        "left",
        (0,),
        (0, 1.5),
        (-1.5, 0),
        (np.nan, 0),
        [[0, 0]],
        None,
        ("a", "b"),
        [0, [1]],
        {},
        (10**400, 0),
        (0.5, 1j),
        ("0", "0.5"),
    ],
)
def test_bad_initial_locations_are_named(bad):
    with pytest.raises(ValueError, match=r'initial_location must be "random", "center" or a pair'):
        Gaze(1, bad, (4, 6), 2)
