import importlib
import sys

import numba
import numpy as np
import pytest

from ram_envs.sampling import EpochOrder, compiled, draw_keys, draw_uniform, start_streams


def test_known_values():
    # SplitMix64 with state 0: the first outputs of the published generator.
    draws, after = draw_uniform(np.zeros(1, np.uint64), 2)
    assert [int(d * 2**53) for d in draws[0]] == [0xE220A8397B1DCDAF >> 11, 0x6E789E6AA1B965F4 >> 11]
    assert int(after[0]) == 2 * 0x9E3779B97F4A7C15 % 2**64


def test_batch_equals_single_streams_and_goes_on():
    keys = draw_keys(np.random.default_rng(0), 5)
    together, after = draw_uniform(start_streams(keys), 3)
    for i in range(5):
        alone, after_alone = draw_uniform(start_streams(keys[i : i + 1]), 3)
        np.testing.assert_array_equal(together[i], alone[0])
        assert after[i] == after_alone[0]
    in_two, _ = draw_uniform(draw_uniform(start_streams(keys), 1)[1], 2)
    np.testing.assert_array_equal(together[:, 1:], in_two)


def test_near_keys_are_uniform_and_unlike():
    draws, _ = draw_uniform(start_streams(np.arange(20_000, dtype=np.uint64)), 4)
    assert 0 <= draws.min() < draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert np.abs(counts / 4000 - 1).max() < 0.08
    correlation = np.corrcoef(np.concatenate([draws[:-1], draws[1:]], axis=1).T)
    assert np.abs(correlation - np.eye(8)).max() < 0.03


@pytest.mark.parametrize(("images", "envs"), [(10, 1), (10, 4), (10, 5), (10, 10), (11, 3)])
@pytest.mark.parametrize("key", [None, 7])
def test_each_epoch_shows_each_image_once(images, envs, key):
    order = EpochOrder(images, envs, key)
    for number in range(3):
        shown = []
        for env in range(envs):
            quota = (images + env) // envs
            episodes = np.arange(number * quota, (number + 1) * quota)
            shown += order.index(np.full(quota, env), episodes).tolist()
        assert sorted(shown) == list(range(images))


def test_epochs_in_order():
    order = EpochOrder(7, 3)
    envs = np.arange(3)
    assert order.index(envs, np.array([0, 0, 0])).tolist() == [0, 1, 2]
    assert order.index(envs, np.array([1, 1, 1])).tolist() == [3, 4, 5]
    # One image is left, for the last environment; the others begin the next epoch.
    assert order.index(envs, np.array([2, 2, 2])).tolist() == [0, 1, 6]


def test_shuffles_differ_from_epoch_to_epoch_and_come_again():
    order = EpochOrder(100, 1, key=3)
    env = np.zeros(100, np.int64)
    first, second = order.index(env, np.arange(100)), order.index(env, np.arange(100, 200))
    assert (first != second).any()
    order.index(env[:1], np.array([500]))  # Far ahead: forgets the first epoch.
    np.testing.assert_array_equal(order.index(env, np.arange(100)), first)
    assert (EpochOrder(100, 1, key=4).index(env, np.arange(100)) != first).any()


def test_more_environments_than_images():
    with pytest.raises(ValueError, match="num_envs=11"):
        EpochOrder(10, 11)


def test_loops_are_compiled_where_nothing_can_be_stored(monkeypatch, tmp_path):
    """As in a read-only installation without a home that can be written."""
    (tmp_path / "loops.py").write_text("def double(x):\n    return 2 * x\n", encoding="utf-8")
    (tmp_path / "__pycache__").write_text("no folder", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "__pycache__"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "__pycache__"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")  # NUMBA_CACHE_DIR
    loops = importlib.import_module("loops")
    with pytest.warns(UserWarning, match="set NUMBA_CACHE_DIR"):
        assert compiled(loops.double)(21) == 42
