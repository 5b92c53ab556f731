from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from ram_envs import datasets
from ram_envs.datasets import ImageSet, load_images, register_dataset

pytestmark = pytest.mark.usefixtures("fresh_datasets")
GREY = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)  # (M, H, W)
RGB = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)  # (M, H, W, C)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"dataset must be one of .*'mnist', 'mnist-5k', 'fashion-mnist'.*register_dataset"):
        load_images("mnits")
    with pytest.raises(ValueError, match="split must be one of"):
        load_images("mnist-5k", "valid")
    with pytest.raises(ValueError, match="split must be one of"):
        load_images((GREY, [0, 1, 2]), "valid")


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.dtype(">f4")])
@pytest.mark.parametrize("images", [GREY, RGB])
def test_arrays(images, dtype):
    kept = np.uint8 if dtype == np.uint8 else np.float32
    images = images if dtype == np.uint8 else (images / 255).astype(dtype)
    loaded = load_images((images, [0, 2, 1]), "test")
    expected = images if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(loaded.images, expected.astype(kept))
    assert loaded.images.dtype == kept
    assert loaded.images.flags.c_contiguous
    assert loaded.labels.tolist() == [0, 2, 1] and loaded.labels.dtype == np.int64
    assert (loaded.name, loaded.num_classes) == ("arrays", 3)


def test_one_channel_is_none():
    np.testing.assert_array_equal(load_images((GREY[..., None], [0, 1, 2])).images, GREY)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_labels_of_any_integer_dtype(dtype):
    loaded = load_images([GREY, np.array([0, 0, 0], dtype)])
    assert loaded.labels.dtype == np.int64
    assert loaded.num_classes == 2  # One class is none to choose from.


def test_the_callers_arrays_stay_writeable():
    images, labels = GREY.copy(), np.array([0, 1, 2])
    for loaded in (load_images((images, labels)), load_images(ImageSet("mine", images, labels, 3))):
        assert np.shares_memory(loaded.images, images)
        assert not loaded.images.flags.writeable and not loaded.labels.flags.writeable
    assert images.flags.writeable and labels.flags.writeable


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY[0], r"\(images\) must be \(M, H, W\) or \(M, H, W, C\), got shape \(4, 5\)"),
        (RGB[None], r"must be \(M, H, W\) or \(M, H, W, C\), got shape \(1, 3, 4, 5, 3\)"),
        (GREY[:0], r"no axis of length 0, got shape \(0, 4, 5\)"),
        (GREY[:, :0], r"no axis of length 0, got shape \(3, 0, 5\)"),
        (GREY[:, :, :0], r"no axis of length 0, got shape \(3, 4, 0\)"),
        (RGB[..., :0], r"no axis of length 0, got shape \(3, 4, 5, 0\)"),
        (GREY.astype(np.int64), r"must be uint8 in 0..255 or floats in \[0, 1\], got .*int64"),
        (GREY > 3, r"must be uint8 .*got .*bool"),
        (GREY.astype(object), r"must be uint8 .*got .*object"),
        (GREY.astype(complex), r"must be uint8 .*got .*complex"),
        (np.where(GREY == 7, np.inf, 0.5), "must be finite"),
        (np.where(GREY == 7, np.nan, 0.5), "must be finite"),
        (GREY.astype(np.float32), r"must lie in \[0, 1\] .*got 0.0..59.0: divide by 255"),
        (GREY / 59 - 0.5, r"must lie in \[0, 1\] .*got -0.5..0.5"),
        ([[[0, 1]], [[0, 1], [2, 3]]], r"\(images\) must be an array"),
        ("mnist", r"\(images\) must be \(M, H, W\)"),
    ],
)
def test_wrong_images(images, message):
    with pytest.raises(ValueError, match=r"dataset\[0\] .*" + message):
        load_images((images, [0, 1, 2]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"must be of shape \(3,\), one for each image, got shape \(2,\)"),
        ([[0], [1], [2]], r"must be of shape \(3,\), .*got shape \(3, 1\)"),
        (1, r"must be of shape \(3,\), .*got shape \(\)"),
        ([0.0, 1.0, 2.0], "must be whole numbers of an integer dtype, got dtype float64"),
        ([True, False, True], "must be whole numbers .*got dtype bool"),
        (["a", "b", "c"], "must be whole numbers"),
        ([0, -1, 2], "must be whole numbers from 0, got -1"),
        (np.full(3, 2**63, np.uint64), "must be whole numbers from 0"),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(ValueError, match=r"dataset\[1\] \(labels\) " + message):
        load_images((GREY, labels))


@pytest.mark.parametrize("dataset", [None, 3, GREY, (GREY,), (GREY, [0, 1, 2], 3), {"images": GREY}])
def test_neither_name_nor_arrays(dataset):
    with pytest.raises(ValueError, match=r"dataset must be a name, a pair of arrays \(images, labels\) or an ImageSet, got"):
        load_images(dataset)


def test_image_set_is_channels_first_already():
    given = ImageSet("mine", RGB.transpose(0, 3, 1, 2), np.array([0, 1, 0]), num_classes=7)
    loaded = load_images(given, "validation")
    np.testing.assert_array_equal(loaded.images, given.images)
    assert loaded.images.shape == (3, 3, 4, 5) and loaded.images.flags.c_contiguous
    assert (loaded.name, loaded.num_classes) == ("mine", 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": GREY[0]}, r"dataset.images must be \(M, H, W\) or \(M, C, H, W\), got"),
        ({"images": GREY / 1.0}, r"dataset.images must lie in \[0, 1\]"),
        ({"labels": np.array([0, 1])}, r"dataset.labels must be of shape \(3,\)"),
        ({"num_classes": 2}, r"dataset.num_classes must be a whole number of at least 3, got 2"),
        ({"labels": np.zeros(3, int), "num_classes": 1}, "dataset.num_classes must be a whole number of at least 2"),
        ({"num_classes": 3.0}, "dataset.num_classes must be a whole number"),
    ],
)
def test_wrong_image_set(changes, message):
    with pytest.raises(ValueError, match=message):
        load_images(replace(ImageSet("mine", GREY, np.array([0, 1, 2]), 3), **changes))


def test_registered_datasets():
    calls = []

    def load(split):
        calls.append(split)
        return (RGB, [0, 1, 2]) if split == "train" else ImageSet("my own", GREY, np.array([0, 0, 0]), 3)

    register_dataset("mine", load)
    assert datasets.dataset_names() == ("mnist", "mnist-5k", "fashion-mnist", "mine")
    train = load_images("mine")
    assert (train.name, train.images.shape, train.num_classes) == ("mine", (3, 3, 4, 5), 3)
    assert load_images("mine") is train
    assert (load_images("mine", "test").name, load_images("mine", "test").num_classes) == ("my own", 3)
    assert calls == ["train", "test"]
    with pytest.raises(ValueError, match=r"name must be a new one, got 'mine', which exists: .* overwrite=True"):
        register_dataset("mine", load)
    register_dataset("mine", lambda split: (GREY, [0, 1, 2]), overwrite=True)
    assert load_images("mine").images.shape == (3, 4, 5)


def test_wrong_registrations():
    with pytest.raises(ValueError, match="'mnist', which exists"):
        register_dataset("mnist", lambda split: (GREY, [0, 1, 2]))
    with pytest.raises(ValueError, match="name must be a string"):
        register_dataset("", lambda split: (GREY, [0, 1, 2]))
    with pytest.raises(ValueError, match="load must be a function"):
        register_dataset("mine", (GREY, [0, 1, 2]))
    register_dataset("mine", lambda split: (GREY, [0, 1]))
    with pytest.raises(ValueError, match=r"data set 'mine': load\('test'\)\[1\] \(labels\) must be of shape \(3,\)"):
        load_images("mine", "test")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_episode_on_ones_own_images(dtype):
    images = np.random.default_rng(0).integers(0, 256, (12, 10, 14, 3), np.uint8)
    images = images if dtype == np.uint8 else (images / 255).astype(dtype)
    labels = np.arange(12) % 3
    env = gym.make("GlimpseClassification-v0", dataset=(images, labels), glimpse_size=4, num_scales=2, num_glimpses=3)
    observation, info = env.reset(seed=0)
    assert env.observation_space["glimpse"].shape == (2, 3, 4, 4)
    assert env.action_space["class"].n == 3
    terminated, steps = False, 0
    while not terminated:
        assert observation in env.observation_space
        action = {**env.action_space.sample(), "class": info["label"]}
        observation, reward, terminated, _, info = env.step(action)
        steps += 1
    assert observation in env.observation_space
    assert (steps, reward, info["label"]) == (3, 1.0, info["index"] % 3)
    env.close()


def test_colours_stay_apart():
    """An image of one colour is seen as that colour."""
    images = np.tile(np.array([255, 51, 0], np.uint8), (2, 8, 8, 1))  # (M, H, W, C)
    env = gym.make("GlimpseClassification-v0", dataset=(images, [0, 1]), glimpse_size=4, initial_location="center")
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(observation["glimpse"][0, :, 2, 2], [1, 0.2, 0], rtol=1e-6)
