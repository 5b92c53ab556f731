import numpy as np
import pytest

from ram_envs.ordering import PassOrder


@pytest.mark.parametrize(("images", "envs"), [(10, 1), (10, 4), (10, 5), (10, 10), (11, 3)])
@pytest.mark.parametrize("key", [None, 7])
def test_each_pass_shows_each_image_once(images, envs, key):
    order = PassOrder(images, envs, key)
    for number in range(3):
        shown = []
        for env in range(envs):
            quota = (images + env) // envs
            episodes = np.arange(number * quota, (number + 1) * quota)
            shown += order.index(np.full(quota, env), episodes).tolist()
        assert sorted(shown) == list(range(images))


def test_in_order():
    order = PassOrder(7, 3)
    envs = np.arange(3)
    assert order.index(envs, np.array([0, 0, 0])).tolist() == [0, 1, 2]
    assert order.index(envs, np.array([1, 1, 1])).tolist() == [3, 4, 5]
    # One image is left, for the last environment; the others begin the next pass.
    assert order.index(envs, np.array([2, 2, 2])).tolist() == [0, 1, 6]


def test_shuffles_differ_from_pass_to_pass_and_come_again():
    order = PassOrder(100, 1, key=3)
    env = np.zeros(100, np.int64)
    first, second = order.index(env, np.arange(100)), order.index(env, np.arange(100, 200))
    assert (first != second).any()
    order.index(env[:1], np.array([500]))  # Far ahead: forgets the first pass.
    np.testing.assert_array_equal(order.index(env, np.arange(100)), first)
    assert (PassOrder(100, 1, key=4).index(env, np.arange(100)) != first).any()


def test_more_environments_than_images():
    with pytest.raises(ValueError, match="num_envs=11"):
        PassOrder(10, 11)
