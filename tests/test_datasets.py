import multiprocessing
import pickle
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

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
        assert np.shares_memory(loaded.images, images) and np.shares_memory(loaded.labels, labels)
        assert not loaded.images.flags.writeable and not loaded.labels.flags.writeable
    assert images.flags.writeable and labels.flags.writeable
    for floats in ((images / 59).astype(np.float32), np.zeros((3, 4, 5), np.float32), np.ones((3, 4, 5), np.float32)):
        assert np.shares_memory(load_images((floats, labels)).images, floats)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY[0], r"\(images\) must be \(M, H, W\) or \(M, H, W, C\), got shape \(4, 5\)"),
        (RGB[None], r"must be \(M, H, W\) or \(M, H, W, C\), got shape \(1, 3, 4, 5, 3\)"),
        (GREY[:0], r"no axis of length 0, got shape \(0, 4, 5\)"),
        (GREY[:, :0], r"no axis of length 0, got shape \(3, 0, 5\)"),
        (GREY[:, :, :0], r"no axis of length 0, got shape \(3, 4, 0\)"),
        (RGB[..., :0], r"no axis of length 0, got shape \(3, 4, 5, 0\)"),
        (
            GREY.astype(np.int64),
            r"must be uint8 in 0..255 or floats in \[0, 1\], got .*int64 in 0..59: images.astype\(np.uint8\)",
        ),
        (GREY.astype(np.uint16) * 5, r"got dtype uint16 in 0..295: shift and scale them to floats"),
        (GREY.astype(np.int16) - 1, r"got dtype int16 in -1..58: shift and scale them to floats"),
        (GREY > 3, r"must be uint8 .*got .*bool in False..True: images.astype\(np.float32\)"),
        (GREY.astype(object), r"must be uint8 .*got .*object"),
        (GREY.astype(complex), r"must be uint8 .*got .*complex"),
        (np.where(GREY == 7, np.inf, 0.5), "must be finite"),
        (np.where(GREY == 7, np.nan, 0.5), "must be finite"),
        (GREY.astype(np.float32), r"must lie in \[0, 1\] .*got 0.0..59.0: divide by the value of white, mostly 255"),
        (GREY / 59 - 0.5, r"must lie in \[0, 1\] .*got -0.5..0.5: \(images \+ 1\) / 2"),
        (GREY / 29.5 - 1, r"got -1.0..1.0: \(images \+ 1\) / 2 if they are in \[-1, 1\]$"),
        (GREY / 10 - 2.1, r"got -2.1..3.8.*: undo what standardised them"),
        (GREY / 59 * 1.1 - 0.05, r"got -0.05..1.05: np.clip\(images, 0, 1\) if a resize overshot"),
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
        ([0, 1], r"must be of shape \(3,\), one for each image, got shape \(2,\)$"),
        (np.eye(3), r"must be of shape \(3,\), .*got shape \(3, 3\): of one-hot rows give labels.argmax\(axis=1\)"),
        (1, r"must be of shape \(3,\), .*got shape \(\)"),
        ([0.0, 1.5, 2.0], "must be whole numbers, got 1.5"),
        ([0.0, np.nan, 2.0], "must be whole numbers, got nan"),
        ([0.0, 1.5, 2.5], "must be whole numbers, got 1.5"),
        ([0, 1j, 2], "must be whole numbers or strings, got dtype complex128"),
        (np.array([0, "a", None]), "must be whole numbers or strings, got dtype object"),
        (["a", "a", "a"], r"must be of at least two classes where they are strings, got \['a'\]"),
        ([1, -1, 1], r"must be whole numbers from 0 to 65535, got -1: number .* np.unique\(labels, return_inverse=True\)\[1\]"),
        ([1e300, 0, 1], "must be whole numbers from 0 to 65535, got 1e"),
        ([0, 2**16, 1], "must be whole numbers from 0 to 65535, got 65536: number the classes of all splits"),
        (np.full(3, 2**63, np.uint64), "must be whole numbers from 0"),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(ValueError, match=r"dataset\[1\] \(labels\) " + message):
        load_images((GREY, labels))


@pytest.mark.parametrize("labels", [[[2], [0], [1]], [2.0, 0.0, 1.0], np.array([[2.0], [0], [1]], np.float16)])
def test_labels_of_a_plain_meaning(labels):
    loaded = load_images((GREY, labels))
    assert loaded.labels.tolist() == [2, 0, 1] and loaded.labels.dtype == np.int64
    assert load_images((GREY, [True, False, True])).labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("dtype", [str, "S3", object])
def test_strings_are_names_of_classes(dtype):
    loaded = load_images((GREY, np.array(["owl", "cat", "owl"], dtype)))
    assert (loaded.labels.tolist(), loaded.num_classes, loaded.class_names) == ([1, 0, 1], 2, ("cat", "owl"))
    env = gym.make("GlimpseClassification-v0", dataset=(GREY, np.array(["owl", "cat", "owl"], dtype)), glimpse_size=2).unwrapped
    assert env.choice_names == ("cat", "owl") and env.action_space["class"].n == 2
    assert env.reset(options={"index": 2})[1]["label"] == 1
    frame = env.frame()
    assert frame.names[frame.truth] == "owl"


@pytest.mark.parametrize(("labels", "offered"), [([1, 2, 3], 4), ([97, 99, 98], 100), ([0, 40, 0], 41), ([0, 4, 0], 5)])
def test_labels_that_leave_out_classes_are_told(labels, offered):
    with pytest.warns(UserWarning, match=rf"dataset\[1\] \(labels\) are of . classes, but .* {offered} are offered: number the"):
        assert load_images((GREY, labels)).num_classes == offered
    stated = ImageSet("mine", GREY, np.array(labels), offered)
    assert load_images(stated).num_classes == offered  # Who says so is taken at his word.


@pytest.mark.parametrize("shape", [(4, 3, 28, 28), (4, 1, 28, 28), (4, 4, 9, 5), (4, 3, 8, 6)])
def test_channels_first_is_refused_of_a_pair(shape):
    """As torchvision gives them."""
    message = rf"got shape {re.escape(str(shape))}, .* {shape[3]} channels: if it is {shape[1]}, give np.moveaxis\(images, 1, 3\)"
    images = np.full(shape, 200, np.uint8)
    with pytest.raises(ValueError, match=message):
        load_images((images, [0, 1, 0, 1]))
    loaded = load_images((np.moveaxis(images, 1, 3), [0, 1, 0, 1]))  # What is advised.
    assert loaded.images.shape == (4, *shape[1 if shape[1] > 1 else 2 :])
    stated = ImageSet("mine", np.moveaxis(images, 3, 1), np.array([0, 1, 0, 1]), 2)  # What is advised if they were last.
    assert load_images(stated).images.shape == (4, shape[3], *shape[1:3])


def test_channels_last_is_told_of_an_image_set():
    given = ImageSet("mine", np.full((4, 28, 28, 3), 200, np.uint8), np.array([0, 1, 0, 1]), 2)
    with pytest.warns(
        UserWarning, match=r"got shape \(4, 28, 28, 3\), .* 28 channels: if it is 3, give np.moveaxis\(images, 3, 1\)"
    ):
        load_images(given)


def test_many_channels():
    """Bands of light beyond colours are taken; more of them than rows could be another order of axes."""
    images = np.full((4, 9, 9, 5), 0.7)
    assert load_images((images, [0, 1, 0, 1])).images.shape == (4, 5, 9, 9)
    images = np.full((4, 9, 9, 12), 0.7)
    with pytest.warns(UserWarning, match=r"12 channels: .* if it is 12, an ImageSet"):
        assert load_images((images, [0, 1, 0, 1])).images.shape == (4, 12, 9, 9)
    load_images(ImageSet("bands", np.moveaxis(images, 3, 1), np.array([0, 1, 0, 1]), 2))


@pytest.mark.parametrize("beyond", [1e-8, 1e-3])
def test_rounding_is_clipped(beyond):
    images = np.where(GREY == 7, 1 + beyond, np.where(GREY == 8, -beyond, 0.5))
    loaded = load_images((images, [0, 1, 2])).images
    np.testing.assert_array_equal(loaded, np.where(GREY == 7, 1, np.where(GREY == 8, 0, 0.5)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((GREY > 9).astype(np.uint8), r"brightest pixel is 1 of 255: images.astype\(np.float32\) if 1 is white"),
        (GREY // 4, r"brightest pixel is 14 of 255: multiply them"),  # Such as scikit-learn's digits, which end at 16.
        (GREY / 59 / 255, r"brightest pixel is 0.0039.* of 1: multiply them"),  # Divided by 255 twice.
    ],
)
def test_images_that_are_all_but_black_are_told(images, message):
    with pytest.warns(UserWarning, match=message):
        load_images((images, [0, 1, 2]))


def test_images_that_are_not_all_but_black():
    load_images((np.full((3, 4, 5), 26, np.uint8), [0, 1, 2]))
    load_images((np.full((3, 4, 5), 0.1), [0, 1, 2]))
    load_images((np.zeros((3, 4, 5)), [0, 1, 2]))


def test_one_bright_image_among_many():
    images = np.zeros((2500, 2, 2), np.uint8)
    images[1:] = 1
    images[1233, 1, 1] = 200
    load_images((images, np.arange(2500) % 2))  # No warning.


@pytest.mark.parametrize("given", [RGB, GREY / 59, GREY.tolist(), np.asfortranarray(GREY)], ids=["RGB", "float64", "list", "F"])
def test_equal_images_share_one_copy(given):
    """Environments made of the same arrays do not hold one copy each."""
    given = np.asarray(given, np.uint8) if isinstance(given, np.ndarray) and given.dtype.kind == "u" else given
    given = [np.array(one, np.uint8) for one in given] if isinstance(given, list) else given
    first, second = load_images((given, [0, 1, 2])), load_images((given, [2, 1, 0]))
    assert np.shares_memory(first.images, second.images)
    assert np.shares_memory(pickle.loads(pickle.dumps(first)).images, first.images) is False
    if isinstance(given, np.ndarray):
        changed = given.copy(order="K")
        changed[0, 0, 0] = 0.25 if changed.dtype.kind == "f" else 77
        third = load_images((changed, [0, 1, 2]))
        assert third.images.max() == changed.max() and not np.shares_memory(first.images, third.images)


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
        ({"num_classes": 2}, r"dataset.num_classes must be a whole number of at least 3, at most 65536, got 2"),
        ({"num_classes": 2**16 + 1}, "dataset.num_classes must be .* at most 65536, got 65537"),
        ({"num_classes": True}, "dataset.num_classes must be a whole number"),
        ({"labels": np.array(["a", "b", "a"])}, r"labels must be whole numbers, got strings: class_names, labels = np.unique"),
        ({"class_names": ("a", "b")}, "dataset.class_names must be 3 strings, got 2"),
        ({"labels": np.zeros(3, int), "num_classes": 1}, "dataset.num_classes must be a whole number of at least 2"),
        ({"num_classes": 3.0}, "dataset.num_classes must be a whole number"),
    ],
)
def test_wrong_image_set(changes, message):
    with pytest.raises(ValueError, match=message):
        load_images(replace(ImageSet("mine", GREY, np.array([0, 1, 2]), 3), **changes))


def load_somewhere(split):
    return GREY, [0, 1, 2]


def test_workers_know_what_was_registered(monkeypatch):
    """Those that do not inherit this process' memory."""
    monkeypatch.setenv(datasets._FOR_WORKERS, "{}")
    register_dataset("mine", load_somewhere)
    register_dataset("local", load_somewhere)
    register_dataset("local", lambda split: (GREY, [0, 1, 2]), overwrite=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(datasets.load_images, ("mine",)).labels.tolist() == [0, 1, 2]
        with pytest.raises(ValueError, match="got 'local'"):
            pool.apply(datasets.load_images, ("local",))


def test_workers_find_what_the_main_script_registered(monkeypatch):
    """It has another name there; in the main process itself, and in other modules, names stay."""
    known = '{"mine": ["__main__", "mine"], "theirs": ["numpy", "theirs"]}'
    monkeypatch.setenv(datasets._FOR_WORKERS, known)
    monkeypatch.setattr(np, "theirs", lambda split: (GREY, [0, 1, 0]), raising=False)
    monkeypatch.delitem(sys.modules, "__mp_main__", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "mine", lambda split: (GREY, [0, 2, 1]), raising=False)
    assert load_images("mine").labels.tolist() == [0, 2, 1]
    del datasets._loaders["mine"]
    monkeypatch.setenv(datasets._FOR_WORKERS, known)
    monkeypatch.setitem(sys.modules, "__mp_main__", SimpleNamespace(mine=load_somewhere))
    assert load_images("mine").labels.tolist() == [0, 1, 2]
    assert load_images("theirs").labels.tolist() == [0, 1, 0]


def test_built_in_datasets_state_their_classes(monkeypatch):
    assert load_images("mnist-5k", "test").num_classes == 10
    monkeypatch.setattr(datasets, "load_split", lambda name, split: (GREY, np.array([0, 1, 2])))
    for name in ("mnist", "fashion-mnist"):
        loaded = datasets._loaders[name]("test", "elsewhere")
        assert (loaded.name, loaded.num_classes) == (name, 10)


def test_registered_datasets():
    calls = []

    def load(split):
        calls.append(split)
        return ImageSet("my own", RGB.transpose(0, 3, 1, 2) if split == "train" else GREY, np.array([0, 0, 0]), 3)

    register_dataset("mine", load)
    assert datasets.dataset_names() == ("mnist", "mnist-5k", "fashion-mnist", "mine")
    train = load_images("mine")
    assert (train.name, train.images.shape, train.num_classes) == ("my own", (3, 3, 4, 5), 3)
    assert load_images("mine") is train
    assert load_images("mine", "test").images.shape == (3, 4, 5)
    assert calls == ["train", "test"]
    with pytest.raises(ValueError, match=r"name must be a new one, got 'mine', which exists: .* overwrite=True"):
        register_dataset("mine", load)
    register_dataset("mine", lambda split: (GREY, [0, 1, 2]), overwrite=True)
    assert load_images("mine").images.shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        ({"train": [0, 1, 4], "validation": [0, 3, 2], "test": [3, 2, 0]}, [[0, 1, 4], [0, 3, 2], [3, 2, 0]], None),
        ({"train": [0, 1, 0], "validation": [0, 1, 0], "test": [3, 2, 4]}, [[0, 1, 0], [0, 1, 0], [3, 2, 4]], None),
        (
            {"train": list("abe"), "validation": list("dca"), "test": list("eda")},
            [[0, 1, 4], [3, 2, 0], [4, 3, 0]],
            ("a", "b", "c", "d", "e"),
        ),
    ],
)
def test_classes_are_counted_over_all_splits(labels, expected, names):
    """A split that lacks a class has the same actions as the others, and each class the same place in them."""
    calls = []
    register_dataset("mine", lambda split: (calls.append(split), (GREY, labels[split]))[1])
    for split, numbers in zip(datasets.SPLITS, expected, strict=True):
        loaded = load_images("mine", split)
        assert (loaded.name, loaded.labels.tolist(), loaded.num_classes, loaded.class_names) == ("mine", numbers, 5, names)
    assert sorted(calls) == sorted(datasets.SPLITS)  # Once each.


def test_splits_that_do_not_exist_have_no_classes():
    register_dataset("mine", lambda split: {"train": (GREY, [0, 1, 2]), "test": (GREY, [3, 1, 2])}[split])
    assert load_images("mine").num_classes == 4
    with pytest.raises(KeyError, match="validation"):
        load_images("mine", "validation")


def test_splits_of_different_kinds():
    sets = {"train": (GREY, [0, 1, 2]), "validation": (GREY, [0, 1, 2]), "test": ImageSet("", GREY, np.array([0, 0, 0]), 6)}
    register_dataset("mine", sets.__getitem__)
    assert load_images("mine").num_classes == load_images("mine", "validation").num_classes == 6
    register_dataset("some", {**sets, "train": (GREY, [1, 5, 1]), "validation": (GREY, [1, 5, 5])}.__getitem__)
    assert load_images("some").num_classes == 6  # No doubt: the test split states them.
    strings = (GREY, ["a", "b", "a"])
    for name, train in (("mixed", sets["train"]), ("unnamed", sets["test"])):
        register_dataset(name, {"train": train, "validation": strings}.__getitem__)
        with pytest.raises(ValueError, match=f"data set '{name}': labels must be strings in all splits or in none"):
            load_images(name, "validation")
    named = ImageSet("", GREY, np.array([0, 0, 2]), 3, ("a", "m", "z"))
    register_dataset("half", {"train": named, "validation": strings, "test": sets["test"]}.__getitem__)
    with pytest.raises(ValueError, match="labels must be strings in all splits or in none"):
        load_images("half", "validation")
    register_dataset("named", {"train": named, "validation": (GREY, list("aza")), "test": named}.__getitem__)
    assert load_images("named", "validation").labels.tolist() == [0, 2, 0]


def test_splits_of_other_classes_are_not_evaluated():
    stated = {"train": 4, "validation": 4, "test": 3}
    register_dataset("mine", lambda split: ImageSet("mine", GREY, np.array([0, 1, 2]), stated[split]))
    env = gym.make("GlimpseClassification-v0", dataset="mine", glimpse_size=2).unwrapped
    assert env.evaluation("validation").num_episodes == 3
    with pytest.raises(ValueError, match="split must have the classes of 'train', 4, got 'test' with 3: every ImageSet"):
        env.evaluation("test")


def test_a_pickled_environment_loads_its_data_again():
    """It holds no copy of images that have a name; those without travel with it."""
    images, labels = np.full((100, 30, 30), 200, np.uint8), np.arange(100) % 3
    register_dataset("mine", lambda split: (images, labels))
    for dataset, size in (("mine", 10_000), ((images, labels), 110_000)):
        env = gym.make("GlimpseClassification-v0", dataset=dataset).unwrapped
        env.reset(seed=0)
        stored = pickle.dumps(env)
        assert size - 20_000 < len(stored) < size
        np.testing.assert_array_equal(pickle.loads(stored).task.images.images, images)


def test_wrong_registrations():
    with pytest.raises(ValueError, match="'mnist', which exists"):
        register_dataset("mnist", lambda split: (GREY, [0, 1, 2]))
    for bad in ("", 3):
        with pytest.raises(ValueError, match="name must be a string"):
            register_dataset(bad, lambda split: (GREY, [0, 1, 2]))
    with pytest.raises(ValueError, match="load must be a function"):
        register_dataset("mine", (GREY, [0, 1, 2]))
    register_dataset("mine", lambda split: (GREY, [0, 1] if split == "test" else [0, 1, 2]))
    for split in datasets.SPLITS:
        with pytest.raises(ValueError, match=r"data set 'mine': load\('test'\)\[1\] \(labels\) must be of shape \(3,\)"):
            load_images("mine", split)


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


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.where(GREY == 7, -np.inf, 0.5), "must be finite"),
        (np.where(GREY == 7, 1.002, 0.5), r"must lie in \[0, 1\] .*: np.clip\(images, 0, 1\)"),
        (np.where(GREY == 7, -0.002, 0.5), r"must lie in \[0, 1\] .*: np.clip\(images, 0, 1\)"),
        (np.where(GREY == 7, -0.3, 0.9), r": \(images \+ 1\) / 2 if they are in \[-1, 1\]$"),
        (np.where(GREY == 7, -0.2, 0.5), r": \(images \+ 1\) / 2 if they are in"),
        (np.where(GREY == 7, 1.2, 0.5), ": divide by the value of white"),
        (np.where(GREY == 7, -1.001, 1.001), r": \(images \+ 1\) / 2 if they are in"),
        (np.where(GREY == 7, -0.1, 1.5), ": undo what standardised them"),
        (np.where(GREY == 7, -1.5, 0.5), ": undo what standardised them"),
        (np.where(GREY == 7, 1.5, 0.5), ": divide by the value of white"),
        (GREY.astype(np.int32) // 59, r"int32 in 0..1: images.astype\(np.float32\)"),
        (GREY.astype(np.int32) // 29, r"int32 in 0..2: images.astype\(np.uint8\)"),
        (np.where(GREY == 7, 255, 9), r"in 9..255: images.astype\(np.uint8\)"),
        (np.where(GREY == 7, 256, 9), r"in 9..256: shift and scale"),
        (np.zeros((3, 4, 6, 5), np.uint8)[:, :, :0], r"no axis of length 0, got shape \(3, 4, 0, 5\)"),
    ],
)
def test_the_advice_fits_the_range(images, message):
    with pytest.raises(ValueError, match=message):
        load_images((images, [0, 1, 2]))


def test_rounding_at_one_end_is_clipped():
    for value, expected in ((1.001, 1), (-0.001, 0)):
        loaded = load_images((np.where(GREY == 7, value, 0.5), [0, 1, 2])).images
        np.testing.assert_array_equal(loaded, np.where(GREY == 7, expected, np.float32(0.5)))


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: load_images((np.full((3, 4, 5), 25, np.uint8), [0, 1, 2])), "brightest pixel is 25 of 255"),
        (lambda: load_images((np.full((3, 4, 5), 0.09), [0, 1, 2])), "brightest pixel is 0.09 of 1"),
        (lambda: load_images((np.full((3, 5, 9, 6), 200, np.uint8), [0, 1, 2])), "would be 6 channels: if it is 5"),
        (lambda: load_images(ImageSet("", np.full((3, 5, 9, 4), 200, np.uint8), np.arange(3), 3)), "if it is 4"),
        (lambda: load_images((GREY, [0, 4, 0])), "are of 2 classes, but go from 0 to 4"),
        (lambda: load_images((GREY, [1, 1, 1])), "are of 1 classes, but go from 1 to 1"),
    ],
)
def test_doubts_are_told_where_the_data_is_given(load, message):
    with pytest.warns(UserWarning, match=message) as told:
        load()
    assert [(one.filename, one.lineno) for one in told] == [(__file__, load.__code__.co_firstlineno)]


def test_what_is_not_doubtful():
    load_images((np.full((3, 5, 9, 5), 200, np.uint8), [0, 1, 2]))  # As many rows as channels,
    load_images((np.full((3, 2, 9, 4), 200, np.uint8), [0, 1, 2]))  # or no more channels than colours have.
    load_images(ImageSet("", np.full((3, 6, 9, 5), 200, np.uint8), np.arange(3), 3))
    load_images((np.full((3, 2, 2), 26, np.uint8), [0, 3, 0]))  # Half of the classes occur.
    assert load_images(ImageSet("", GREY, np.array([0, 2**16 - 1, 1]), 2**16)).num_classes == 2**16


def test_advice_about_one_hot_rows_is_for_as_many_rows():
    for labels in (np.eye(3)[:2], np.zeros((3, 3, 1)), np.zeros((1, 3))):
        with pytest.raises(ValueError, match=rf"must be of shape \(3,\), .*, got shape {re.escape(str(labels.shape))}$"):
            load_images((GREY, labels))


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError])
def test_what_can_not_become_an_array_is_told(error):
    """Such as tensors on a GPU, or with gradients."""

    class Tensor:
        def __array__(self, dtype=None, copy=None):
            raise error("move it to the CPU first")

    with pytest.raises(ValueError, match=r"dataset\[0\] \(images\) must be an array: move it to the CPU first"):
        load_images((Tensor(), [0, 1, 2]))


def test_images_of_one_column_are_no_channel():
    thin = ImageSet("mine", np.full((3, 2, 5, 1), 200, np.uint8), np.array([0, 1, 2]), 3)
    assert load_images(thin).images.shape == (3, 2, 5, 1)


def test_an_image_set_keeps_its_names():
    given = ImageSet("mine", GREY, np.array([0, 1, 2]), np.int64(3), ["a", 1, "c"])
    loaded = load_images(given)
    assert (loaded.num_classes, loaded.class_names) == (3, ("a", "1", "c")) and type(loaded.num_classes) is int
    with pytest.raises(ValueError, match="an ImageSet, got list of 3"):
        load_images([GREY, GREY, GREY])
    with pytest.raises(ValueError, match=r"an ImageSet, got dict$"):
        load_images({})


def test_a_folder_is_a_data_set(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for index in range(20):
        (tmp_path / "ab"[index % 2]).mkdir(exist_ok=True)
        image.fromarray(np.full((4, 6), 10 * index, np.uint8)).save(tmp_path / "ab"[index % 2] / f"{index}.png")
    loaded = load_images(f"folder:{tmp_path}")
    assert loaded.class_names == ("a", "b") and loaded.images.shape[1:] == (4, 6)
    assert load_images(f"folder:{tmp_path}") is loaded


def test_another_data_folder_is_another_data_set(monkeypatch):
    calls = []
    register_dataset("mine", lambda split: calls.append(split) or ImageSet("mine", GREY, np.array([0, 1, 2]), 3))
    for folder, count in (("one", 1), ("one", 1), ("two", 2), ("one", 2)):
        monkeypatch.setenv(datasets.DATA_FOLDER_VARIABLE, folder)
        load_images("mine")
        assert len(calls) == count
    datasets._loaders["mine"].cache_clear()
    load_images("mine")
    assert len(calls) == 3


def test_what_is_kept_under_a_name_is_loaded_once():
    calls = []
    datasets.keep_dataset(
        "folder:mine", lambda split: calls.append(split) or ImageSet(split, GREY, np.array([0, 1, 2]), 3), ("train", "test")
    )
    assert calls == ["train", "test"]
    assert load_images("folder:mine", "test") is load_images("folder:mine", "test")
    assert load_images("folder:mine", "validation").name == "validation"
    assert calls == ["train", "test", "validation"]
