import numpy as np
import pytest

from ram_envs.sampling import draw_uniform, start_streams
from ram_envs.scenes import NODES, WARP_DRAWS, SceneMaker, warp

DIGITS = np.random.default_rng(0).integers(1, 200, (5, 4, 6), dtype=np.uint8)  # No zero: the blank is told apart.
IMAGES = np.random.default_rng(0).integers(1, 256, (3, 2, 9, 7), dtype=np.uint8)
STILL = 0.5  # The draw at which a node stays where it is.


def scenes_of(images, num_scenes, margin=0, seed=0, **options):
    maker = SceneMaker(images, **options)
    height, width = (margin + side for side in maker.shape[-2:])
    scenes = np.zeros((num_scenes, *maker.shape[:-2], height, width), images.dtype)
    index = np.arange(num_scenes) % len(images)
    maker.make(index, start_streams(np.arange(seed, seed + num_scenes).astype(np.uint64)), scenes, np.arange(num_scenes), margin)
    return scenes, index


def compose_slowly(images, index, draws, canvas_size, num_clutter, clutter_size):
    """What `SceneMaker` does with these draws, one scene (C, H, W) after the other."""
    num_images, channels, height, width = images.shape
    for i, draw in zip(index, draws, strict=True):
        scene = np.zeros((channels, canvas_size or height, canvas_size or width))
        left, top = (
            int(u * (room + 1)) for u, room in zip(draw, (scene.shape[2] - width, scene.shape[1] - height), strict=False)
        )
        scene[:, top : top + height, left : left + width] = images[i]
        for which, x, y, column, row in draw[2:].reshape(num_clutter, 5):
            other = [j for j in range(num_images) if j != i][int(which * (num_images - 1))]
            x, y = int(x * (width - clutter_size + 1)), int(y * (height - clutter_size + 1))
            piece = images[other, :, y : y + clutter_size, x : x + clutter_size]
            column, row = (int(u * (side - clutter_size + 1)) for u, side in ((column, scene.shape[2]), (row, scene.shape[1])))
            scene[:, row : row + clutter_size, column : column + clutter_size] += piece
            scene = scene.clip(max=255 if images.dtype == np.uint8 else 1)
        yield scene.astype(images.dtype)


@pytest.mark.parametrize(
    "options", [{"canvas_size": 13, "num_clutter": 6, "clutter_size": 4}, {"num_clutter": 2, "clutter_size": 7}]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_scenes_pixel_by_pixel(options, dtype):
    """Whatever the shapes: each draw, each channel and each margin in its place."""
    images = IMAGES if dtype == np.uint8 else (IMAGES / 255).astype(dtype)
    maker, margin, size = SceneMaker(images, **options), 3, 20
    assert maker.shape == (2, *((9, 7) if "canvas_size" not in options else (13, 13)))
    index, streams = np.arange(size) * 7 % 3, start_streams(np.arange(size, dtype=np.uint64))
    scenes = np.zeros((size + 2, 2, *(margin + side for side in maker.shape[1:])), dtype)
    scenes[-1], envs = 9, np.arange(size)[::-1].copy()
    maker.make(index, streams, scenes, envs, margin)
    draws, _ = draw_uniform(streams, 2 + 5 * options["num_clutter"])
    expected = list(
        compose_slowly(images, index, draws, options.get("canvas_size"), options["num_clutter"], options["clutter_size"])
    )
    np.testing.assert_allclose(scenes[envs][:, :, margin:, margin:], expected, rtol=0, atol=1e-6)
    assert not scenes[:-1, :, :margin].any() and not scenes[:-1, :, :, :margin].any() and not scenes[-2].any()
    assert (scenes[-1] == 9).all()


def test_without_a_canvas_the_image_is_the_scene():
    scenes, index = scenes_of(DIGITS, 12, margin=3)
    np.testing.assert_array_equal(scenes[:, 3:, 3:], DIGITS[index])
    assert scenes.sum() == DIGITS[index].sum()


def test_translated_images_lie_anywhere_whole():
    scenes, index = scenes_of(DIGITS, 4000, canvas_size=8)
    assert scenes.shape == (4000, 8, 8)
    rows, columns = (scenes > 0).any(axis=2).argmax(axis=1), (scenes > 0).any(axis=1).argmax(axis=1)
    for n in range(50):
        part = scenes[n, rows[n] : rows[n] + 4, columns[n] : columns[n] + 6]
        np.testing.assert_array_equal(part, DIGITS[index[n]])
    assert ((scenes > 0).sum(axis=(1, 2)) == 24).all()  # Nothing else, nothing cut off.
    assert np.bincount(rows, minlength=5).min() > 700  # 5 rows and 3 columns, all alike.
    assert np.bincount(columns, minlength=3).min() > 1200
    assert len(np.bincount(rows)) == 5


@pytest.mark.parametrize("canvas_size", [None, 9])
def test_the_places_of_images(canvas_size):
    maker, streams = SceneMaker(DIGITS, canvas_size), start_streams(np.arange(20, dtype=np.uint64))
    scenes = np.zeros((20, *maker.shape), np.uint8)
    maker.make(np.arange(20) % 5, streams, scenes, np.arange(20), 0)
    for scene, place in zip(scenes, maker.places(streams), strict=True):
        top, left = np.argwhere(scene)[0]  # Of 4x6 pixels, the middle is 2 pixels below and 3 to the right.
        np.testing.assert_allclose(place, [2 * (left + 3) / scene.shape[1] - 1, 2 * (top + 2) / scene.shape[0] - 1], atol=1e-12)


def test_old_scenes_leave_no_trace():
    maker = SceneMaker(DIGITS, canvas_size=12, num_clutter=2, clutter_size=2)
    streams, fresh = start_streams(np.arange(6, dtype=np.uint64)), np.zeros((6, 12, 12), np.uint8)
    maker.make(np.arange(6) % 5, streams, fresh, np.arange(6), 0)
    used = np.full((6, 12, 12), 77, np.uint8)
    maker.make(np.arange(6) % 5, streams, used, np.arange(6), 0)
    np.testing.assert_array_equal(used, fresh)


def test_scenes_go_where_they_are_asked_to():
    maker = SceneMaker(DIGITS, canvas_size=12)
    scenes = np.zeros((6, 12, 12), np.uint8)
    maker.make(np.array([2, 0]), start_streams(np.arange(2, dtype=np.uint64)), scenes, np.array([4, 1]), 0)
    assert scenes.sum(axis=(1, 2)).tolist() == [0, DIGITS[0].sum(), 0, 0, DIGITS[2].sum(), 0]


def test_clutter_is_cut_out_of_other_images():
    # Image i has the grey 10 * (i + 1) everywhere: each piece shows where it comes from.
    images = np.repeat(10 * np.arange(1, 6, dtype=np.uint8), 9).reshape(5, 3, 3)
    scenes, index = scenes_of(images, 3000, canvas_size=30, num_clutter=1, clutter_size=2)
    clutter = scenes.sum(axis=(1, 2), dtype=np.int64) - 9 * 10 * (index + 1)
    assert set(np.unique(clutter)) == {4 * 10 * i for i in range(1, 6)}  # Always four whole pixels of one image.
    sources = clutter // 40 - 1
    assert (sources != index).all()
    for i in range(5):
        others = np.bincount(sources[index == i], minlength=5)
        assert others[i] == 0
        assert np.delete(others, i).min() > 100


def test_clutter_is_added_and_clipped_to_white():
    images = np.full((2, 4, 4), 200, np.uint8)
    scenes, _ = scenes_of(images, 200, canvas_size=4, num_clutter=3, clutter_size=4)  # Always on top of one another.
    assert (scenes == 255).all()
    floats, _ = scenes_of(np.full((2, 4, 4), 0.75, np.float32), 5, canvas_size=4, num_clutter=1, clutter_size=4)
    assert (floats == 1).all()
    faint, _ = scenes_of(np.full((2, 4, 4), 30, np.uint8), 5, canvas_size=4, num_clutter=3, clutter_size=4)
    assert (faint == 120).all()


def test_clutter_lies_anywhere_whole():
    images = np.zeros((2, 3, 3), np.uint8)
    images[:, 0, 0] = 1  # A piece of one pixel is lit if it was cut at the corner: 1 in 9.
    scenes, _ = scenes_of(images, 20_000, canvas_size=7, num_clutter=1, clutter_size=1)
    lit = (scenes.sum(axis=(1, 2)) == 2).mean()  # Else on top of the image's own, or dark.
    assert lit == pytest.approx(48 / 49 / 9, abs=0.01)


def test_channels_stay_together():
    images = np.random.default_rng(1).integers(1, 100, (3, 3, 4, 4), dtype=np.uint8)
    scenes, index = scenes_of(images, 30, margin=2, canvas_size=9, num_clutter=2, clutter_size=2)
    assert scenes.shape == (30, 3, 11, 11)
    maker_sum = scenes.sum(axis=(2, 3), dtype=np.int64) - images[index].sum(axis=(2, 3), dtype=np.int64)
    assert (maker_sum > 0).all()  # Clutter in each channel.
    outside = scenes.copy()
    outside[:, :, 2:, 2:] = 0
    assert outside.sum() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"canvas_size": 5}, "canvas_size must be from 6 to 16384 pixels, got 5"),
        ({"canvas_size": 10**30}, "canvas_size must be from 6 to 16384 pixels"),
        ({"num_clutter": -1}, "num_clutter must be from 0 to 4096, got -1"),
        ({"num_clutter": 4097}, "num_clutter must be from 0 to 4096, got 4097"),
        ({"clutter_size": 0}, "clutter_size must be"),
        ({"num_clutter": 1, "clutter_size": 5}, "clutter_size must be from 1 to 4"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SceneMaker(DIGITS, **options)


def test_scenes_without_options():
    maker = SceneMaker(DIGITS)
    assert (maker.shape, maker.num_clutter, maker.clutter_size, maker.reach, maker.slope) == ((4, 6), 0, 8, 0, 0)


def test_limits_are_allowed():
    assert SceneMaker(DIGITS, canvas_size=6, num_clutter=4096, clutter_size=4).shape == (6, 6)
    assert SceneMaker(DIGITS[:1], canvas_size=2**14, clutter_size=1).shape == (2**14, 2**14)
    assert SceneMaker(DIGITS[:2], num_clutter=1, clutter_size=1).shape == (4, 6)
    assert SceneMaker(DIGITS, clutter_size=60).shape == (4, 6)  # The default of 8 is no fault where there is no clutter.


def test_clutter_needs_other_images():
    with pytest.raises(ValueError, match="num_clutter=1 needs other images"):
        SceneMaker(DIGITS[:1], num_clutter=1, clutter_size=2)


def test_bent_images_stand_where_the_unbent_would_among_the_same_clutter():
    images = np.repeat(10 * np.arange(1, 6, dtype=np.uint8), 100).reshape(
        5, 10, 10
    )  # Each of one grey, so that bending shows at edges.
    options = {"canvas_size": 40, "num_clutter": 3, "clutter_size": 3}
    plain, index = scenes_of(images, 50, margin=2, **options)
    bent, _ = scenes_of(images, 50, margin=2, reach=2.0, **options)
    assert (bent != plain).any(axis=(1, 2)).all()
    greys = 10 * (index + 1)
    rows = (bent != plain).any(axis=2)
    for n in range(50):
        changed = np.flatnonzero(rows[n])
        assert changed.max() - changed.min() < 10  # Within the image's own place.
        differences = np.abs(bent[n].astype(int) - plain[n])
        assert differences.max() <= greys[n]


@pytest.mark.parametrize(("reach", "slope"), [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_images_are_bent_by_the_last_draws(reach, slope):
    maker = SceneMaker(IMAGES, num_clutter=1, clutter_size=1, reach=reach, slope=slope)
    index, streams, scenes = np.array([2, 0, 1]), start_streams(np.arange(3, dtype=np.uint64)), np.zeros((3, 2, 9, 7), np.uint8)
    maker.make(index, streams, scenes, np.arange(3), 0)
    bent = warp(IMAGES, index, draw_uniform(streams, 2 + 5 + WARP_DRAWS)[0][:, 7:], reach, slope)
    assert (bent != IMAGES[index]).any(axis=(1, 2, 3)).all()
    assert ((scenes != bent).sum(axis=(2, 3)) <= 1).all()  # But for the piece of one pixel.


def nodes_then_map(nodes, linear=STILL):
    """Draws (1, WARP_DRAWS) of the nodes' moves (2, n, n) and of the linear map (4,)."""
    return np.concatenate([np.ravel(nodes), np.broadcast_to(linear, 4)])[None]


def moves(x, y, reach):
    """Draws that move every node by (x, y) pixels."""
    return nodes_then_map([np.full((NODES, NODES), (way / reach + 1) / 2) for way in (x, y)])


def test_nodes_that_stay_leave_the_image_as_it_is():
    index = np.array([2, 0])
    for images in (IMAGES, (IMAGES / 255).astype(np.float32)):
        bent = warp(images, index, np.full((2, WARP_DRAWS), STILL), 3.0)
        assert bent.dtype == images.dtype
        np.testing.assert_array_equal(bent, images[index])


def test_nodes_moved_together_shift_the_image():
    # What is seen at a pixel comes from two pixels farther right and one farther down; nothing lies beyond the edge.
    bent = warp(IMAGES, np.array([1]), moves(2, 1, 4.0), 4.0)[0]
    np.testing.assert_array_equal(bent[:, :-1, :-2], IMAGES[1, :, 1:, 2:])
    assert not bent[:, -1].any() and not bent[:, :, -2:].any()


def test_what_lies_beyond_the_edges_is_nothing():
    bent = warp(IMAGES, np.array([1]), moves(-3, -2, 4.0), 4.0)[0]
    np.testing.assert_array_equal(bent[:, 2:, 3:], IMAGES[1, :, :-2, :-3])
    assert not bent[:, :2].any() and not bent[:, :, :3].any()
    for x, y in ((64, 0), (-64, 0), (0, 64), (0, -64), (16, -16), (63.5, 0), (-63.5, 0), (0, 63.5), (0, -63.5)):
        assert not warp(IMAGES, np.array([1]), moves(x, y, 64.0), 64.0).any()


def test_half_a_pixel_is_cubic():
    # Halfway between two pixels the four around weigh -1/16, 9/16, 9/16, -1/16: a sharp edge stays sharp where a mean would not.
    row = np.array([0, 0, 16, 160, 160, 160, 0, 0], np.uint8)
    image = np.tile(row, (8, 1))[None, None]
    bent = warp(image, np.array([0]), moves(0.5, 0, 1.0), 1.0)[0, 0]
    # 16 times as much: 9 * 16 - 160 < 0, 9 * 176 - 160 = 1424, 9 * 320 - 176 = 2704, 9 * 320 - 160 = 2720, 9 * 160 - 160 = 1280.
    np.testing.assert_array_equal(bent, np.tile([0, 0, 89, 169, 170, 80, 0, 0], (8, 1)))


def test_no_pixel_is_brighter_than_white():
    for white in (np.uint8(255), np.float32(1)):
        image = np.zeros((1, 1, 8, 8), white.dtype)
        image[..., 2:6] = white
        bent = warp(image, np.array([0]), moves(0.5, 0, 1.0), 1.0)
        assert bent.max() == white and bent.min() == 0


def test_a_node_moves_its_neighbourhood_alone():
    # 5x5 pixels, nodes at 0, 2 and 4: the middle one moves the inner 3x3 pixels, by halves around it.
    image = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5) / 25
    nodes = np.full((2, NODES, NODES), STILL)
    nodes[0, 1, 1] = 1.0  # By a whole pixel to the right.
    bent = warp(image, np.array([0]), nodes_then_map(nodes), 1.0)[0, 0]
    # A cubic through equal steps is the straight line between them, where all four pixels lie in the image.
    moved = 25 * (bent - image[0, 0])
    np.testing.assert_allclose(moved[1:4, 1:3], [[0.25, 0.5], [0.5, 1], [0.25, 0.5]], atol=1e-5)
    assert not moved[[0, 4]].any() and not moved[:, [0, 4]].any()


def bend_slowly(image, moves):
    """One image (C, H, W) bent by moves (2, n, n) of the nodes: for each pixel the place it comes from, and the cubic there."""
    _, height, width = image.shape
    bent, around = np.zeros(image.shape), np.pad(image.astype(float), ((0, 0), (60, 60), (60, 60)))
    for row, column in np.ndindex(height, width):
        down, across = row * (NODES - 1) / max(height - 1, 1), column * (NODES - 1) / max(width - 1, 1)
        r, c = min(int(down), NODES - 2), min(int(across), NODES - 2)
        v, u = down - r, across - c
        weights = np.outer([1 - v, v], [1 - u, u])
        x, y = (float((move[r : r + 2, c : c + 2] * weights).sum()) for move in moves)
        left, top = int(np.floor(column + x)), int(np.floor(row + y))
        t, s = column + x - left, row + y - top
        corner = around[:, 60 + top - 1 : 60 + top + 3, 60 + left - 1 : 60 + left + 3]
        bent[:, row, column] = np.einsum("cij,i,j->c", corner, *([catmull_rom(d) for d in (s, t)]))
    return bent.clip(0, 255 if image.dtype == np.uint8 else 1)


def catmull_rom(t):
    """The weights of four pixels, from the matrix of the spline."""
    spline = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    return t ** np.arange(4) @ spline


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_bent_images_pixel_by_pixel(slope, dtype):
    images = IMAGES if dtype == np.uint8 else (IMAGES / 255).astype(dtype)
    draws, index = np.random.default_rng(3).random((4, WARP_DRAWS)), np.array([2, 0, 1, 2])
    bent = warp(images, index, draws, 2.5, slope)
    for i, draw, one in zip(index, 2 * draws - 1, bent, strict=True):
        moves = 2.5 * draw[: 2 * NODES**2].reshape(2, NODES, NODES)
        places = np.stack(np.meshgrid(np.linspace(-3, 3, NODES), np.linspace(-4, 4, NODES)))  # x, then y, from the middle.
        moves = moves + slope * np.einsum("ij,jrc->irc", draw[2 * NODES**2 :].reshape(2, 2), places)
        expected = bend_slowly(images[i], moves)
        np.testing.assert_allclose(one, expected, rtol=0, atol=0.502 if dtype == np.uint8 else 1e-5)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (1, 4), (4, 1), (1, 1)])
def test_images_of_one_or_two_rows_or_columns_are_bent_too(shape):
    images, draws = np.random.default_rng(0).random((2, 1, *shape), np.float32), np.random.default_rng(3).random((2, WARP_DRAWS))
    bent = warp(images, np.arange(2), draws, 0.75)
    for image, draw, one in zip(images, 2 * draws - 1, bent, strict=True):
        expected = bend_slowly(image, 0.75 * draw[: 2 * NODES**2].reshape(2, NODES, NODES))
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5)


def test_the_reach_is_the_farthest():
    column = np.broadcast_to(np.arange(30, dtype=np.float32), (1, 1, 30, 30)) / 30
    rng = np.random.default_rng(1)
    bent = warp(column, np.zeros(200, int), rng.random((200, WARP_DRAWS)), 3.0)
    moved = 30 * (bent - column)[..., 4:-4, 4:-4]
    assert 2 < np.abs(moved).max() <= 3 + 1e-4
    assert abs(moved.mean()) < 0.2


def test_a_linear_map_turns_stretches_and_slants_the_whole_image():
    # The image is x + 10 y from its middle, so each pixel says where it was looked up.
    x, y = np.meshgrid(np.arange(-10.0, 11), np.arange(-10.0, 11))
    image = ((x + 10 * y + 120) / 240).astype(np.float32)[None, None]
    linear = (np.array([1.0, 0.0, 0.5, 1.0]) + 1) / 2  # The entries in 0.1: x by x, x by y, y by x, y by y.
    bent = warp(image, np.array([0]), nodes_then_map(np.full((2, NODES, NODES), STILL), linear), 3.0, 0.1)[0, 0]
    seen_x, seen_y = 1.1 * x, 0.05 * x + 1.1 * y
    inner = slice(3, -3)  # Farther out the four pixels around do not all lie in the image.
    np.testing.assert_allclose(240 * bent[inner, inner] - 120, (seen_x + 10 * seen_y)[inner, inner], atol=1e-3)


def test_without_a_slope_the_linear_map_counts_for_nothing():
    draws = np.random.default_rng(2).random((3, WARP_DRAWS))
    other = np.concatenate([draws[:, :-4], 1 - draws[:, -4:]], axis=1)
    np.testing.assert_array_equal(warp(IMAGES, np.arange(3), draws, 2.0), warp(IMAGES, np.arange(3), other, 2.0))
