import numpy as np

from ram_envs.warping import DRAWS, NODES, warp

IMAGES = np.random.default_rng(0).integers(1, 256, (3, 2, 9, 7), dtype=np.uint8)
STILL = 0.5  # The draw at which a node stays where it is.


def nodes_then_map(nodes, linear=STILL):
    """Draws (1, DRAWS) of the nodes' moves (2, n, n) and of the linear map (4,)."""
    return np.concatenate([np.ravel(nodes), np.broadcast_to(linear, 4)])[None]


def moves(x, y, reach):
    """Draws that move every node by (x, y) pixels."""
    return nodes_then_map([np.full((NODES, NODES), (way / reach + 1) / 2) for way in (x, y)])


def test_nodes_that_stay_leave_the_image_as_it_is():
    index = np.array([2, 0])
    for images in (IMAGES, (IMAGES / 255).astype(np.float32)):
        bent = warp(images, index, np.full((2, DRAWS), STILL), 3.0)
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
    for x, y in ((64, 0), (-64, 0), (0, 64), (0, -64), (16, -16)):
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


def test_the_reach_is_the_farthest():
    column = np.broadcast_to(np.arange(30, dtype=np.float32), (1, 1, 30, 30)) / 30
    rng = np.random.default_rng(1)
    bent = warp(column, np.zeros(200, int), rng.random((200, DRAWS)), 3.0)
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
    draws = np.random.default_rng(2).random((3, DRAWS))
    other = np.concatenate([draws[:, :-4], 1 - draws[:, -4:]], axis=1)
    np.testing.assert_array_equal(warp(IMAGES, np.arange(3), draws, 2.0), warp(IMAGES, np.arange(3), other, 2.0))
