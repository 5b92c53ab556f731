import functools
import gzip
import hashlib
import http.server
import os
import shutil
import struct
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from ram_envs import datasets, mnist
from ram_envs.datasets import DATA_FOLDER_VARIABLE, DataError, ImageSet, load_images, read_idx, register_dataset

REAL = os.environ.get(DATA_FOLDER_VARIABLE)
needs_mnist = pytest.mark.skipif(not REAL, reason=f"{DATA_FOLDER_VARIABLE} does not name MNIST's folder")
LABELS = "t10k-labels-idx1-ubyte"


GREY = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)  # (M, H, W)
RGB = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)  # (M, H, W, C)


def forget():
    for load in datasets._loaders.values():
        load.cache_clear()
    mnist.fetch.cache_clear()


def use_mirrors(monkeypatch, *mirrors):
    for name, source in mnist.SOURCES.items():
        monkeypatch.setitem(mnist.SOURCES, name, replace(source, mirrors=mirrors))


def compress(content):
    return gzip.compress(content, compresslevel=1, mtime=0)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Nothing loaded or registered before, a cache of the test's own, no mirror."""
    monkeypatch.setattr(datasets, "_loaders", dict(datasets._loaders))
    forget()
    monkeypatch.setattr(mnist, "cache_folder", lambda dataset: tmp_path / "cache" / dataset)
    use_mirrors(monkeypatch, "http://127.0.0.1:9/")
    yield
    forget()


@pytest.fixture
def folder(tmp_path):
    """A copy of MNIST's smallest file in a folder."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    shutil.copy(Path(REAL) / f"{LABELS}.gz", folder)
    return folder


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server of a folder on this machine, named as the only mirror."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=served)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_mirrors(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def fashion_files():
    """File: content, of a Fashion-MNIST in which image i is of the one grey i % 251 and of the class i % 10."""
    files = {}
    for prefix, size in (("train", 60_000), ("t10k", 10_000)):
        numbers = np.arange(size)
        images = np.repeat((numbers % 251).astype(np.uint8), 28 * 28)
        files[f"{prefix}-images-idx3-ubyte"] = struct.pack(">4I", 0x803, size, 28, 28) + images.tobytes()
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">2I", 0x801, size) + (numbers % 10).astype(np.uint8).tobytes()
    return files


@pytest.fixture(scope="session")
def published_fashion(fashion_files):
    """File: content of the .gz."""
    return {name: compress(content) for name, content in fashion_files.items()}


@pytest.fixture
def fashion(published_fashion, monkeypatch):
    """These files pass for the published ones."""
    digests = {name: (hashlib.sha256(content).hexdigest(), None) for name, content in published_fashion.items()}
    monkeypatch.setitem(mnist.SOURCES, "fashion-mnist", replace(mnist.SOURCES["fashion-mnist"], digests=digests))
    return published_fashion


def write(folder, files, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}{suffix}").write_bytes(content)


@needs_mnist
def test_mnist_splits():
    sets = {split: load_images("mnist", split) for split in datasets.SPLITS}
    assert [len(sets[split].labels) for split in datasets.SPLITS] == [50_000, 10_000, 10_000]
    assert sets["train"].labels[:5].tolist() == [5, 0, 4, 1, 9]  # As in the first figure of every tutorial.
    assert sets["test"].labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert sets["validation"].images.shape == (10_000, 28, 28)
    assert sets["train"].name == "mnist"
    assert not sets["train"].images.flags.writeable
    assert load_images("mnist", "test") is sets["test"]


def test_the_small_stand_in():
    sets = [load_images("mnist-5k", split) for split in datasets.SPLITS]
    assert [len(one.labels) for one in sets] == [4000, 500, 500]
    together = np.concatenate([one.images.reshape(-1, 784) for one in sets])
    assert len(np.unique(together, axis=0)) == 5000  # No image in two splits.
    assert np.bincount(np.concatenate([one.labels for one in sets])).tolist() == [500] * 10
    assert all(one.images.max() == 255 for one in sets)


def test_unreachable_mirrors_fall_back_with_a_warning(monkeypatch):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE, raising=False)
    with pytest.warns(UserWarning, match=r"MNIST can't be downloaded .*127.0.0.1:9.* 5,000 real MNIST digits"):
        images = load_images("mnist", "test")
    assert images.name == "mnist-5k"


@needs_mnist
def test_download_fills_the_cache(tmp_path, mirror, monkeypatch, capfd):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE)
    for file in Path(REAL).glob("*.gz"):
        shutil.copy(file, mirror)
    assert load_images("mnist", "test").name == "mnist"
    assert "100%" in capfd.readouterr().err  # The progress bar.
    assert len(list((tmp_path / "cache" / "mnist").iterdir())) == 4
    shutil.rmtree(mirror)  # From the cache now.
    forget()
    assert load_images("mnist", "train").name == "mnist"


@needs_mnist
def test_broken_download_is_an_error_and_leaves_nothing(tmp_path, mirror, monkeypatch):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE)
    for file in Path(REAL).glob("*.gz"):
        (mirror / file.name).write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz has the wrong checksum at every mirror"):
        load_images("mnist", "test")
    assert not any((tmp_path / "cache" / "mnist").iterdir())


@needs_mnist
def test_second_mirror_helps(mirror, monkeypatch):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE)
    use_mirrors(monkeypatch, "http://127.0.0.1:9/", *mnist.SOURCES["mnist"].mirrors)
    for file in Path(REAL).glob("*.gz"):
        shutil.copy(file, mirror)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_images("mnist", "test").name == "mnist"


def test_damaged_cache_that_cannot_be_mended(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE, raising=False)
    write(tmp_path / "cache" / "mnist", {"train-images-idx3-ubyte.gz": b"half a file"})
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz is damaged .* delete it"):
        load_images("mnist", "test")


def test_folder_without_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\[.gz\] is missing: put MNIST's four IDX files into"):
        load_images("mnist", "train")


@needs_mnist
def test_plain_and_compressed_files_are_read(folder):
    compressed = read_idx(folder, LABELS)
    (folder / LABELS).write_bytes(gzip.decompress((folder / f"{LABELS}.gz").read_bytes()))
    (folder / f"{LABELS}.gz").unlink()
    np.testing.assert_array_equal(read_idx(folder, LABELS), compressed)


@needs_mnist
def test_truncated_file(folder):
    path = folder / f"{LABELS}.gz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=rf"{LABELS}.gz can't be read .* delete it"):
        read_idx(folder, LABELS)


@needs_mnist
def test_altered_file(folder):
    path = folder / f"{LABELS}.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[100] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match=rf"{LABELS}.gz is not the published MNIST file"):
        read_idx(folder, LABELS)


def test_not_compressed_at_all(tmp_path):
    (tmp_path / f"{LABELS}.gz").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match="can't be read"):
        read_idx(tmp_path, LABELS)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"dataset must be one of .*'mnist', 'mnist-5k', 'fashion-mnist'.*register_dataset"):
        load_images("mnits")
    with pytest.raises(ValueError, match="split must be one of"):
        load_images("mnist-5k", "valid")
    with pytest.raises(ValueError, match="split must be one of"):
        load_images((GREY, [0, 1, 2]), "valid")


def check_fashion_splits():
    sets = {split: load_images("fashion-mnist", split) for split in datasets.SPLITS}
    assert [len(sets[split].labels) for split in datasets.SPLITS] == [50_000, 10_000, 10_000]
    assert sets["train"].images[:3, 5, 5].tolist() == [0, 1, 2]
    assert sets["validation"].images[0, 5, 5] == 50_000 % 251
    assert sets["test"].labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert (sets["test"].name, sets["test"].num_classes) == ("fashion-mnist", 10)


@pytest.mark.parametrize("given", [True, False])
def test_fashion_is_downloaded_without_its_subfolder(tmp_path, mirror, fashion, given, monkeypatch, capfd):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE, raising=False)
    if given:
        monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    write(mirror, fashion, ".gz")
    check_fashion_splits()
    assert "100%" in capfd.readouterr().err  # The progress bar.
    assert len(list((tmp_path / "cache" / "fashion-mnist").iterdir())) == 4
    shutil.rmtree(mirror)  # From the cache now.
    forget()
    load_images("fashion-mnist", "test")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fashion_lies_in_its_subfolder(tmp_path, fashion, fashion_files, suffix, monkeypatch):
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    write(tmp_path / "fashion-mnist", fashion if suffix else fashion_files, suffix)
    check_fashion_splits()


def test_fashion_has_no_stand_in(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE, raising=False)
    message = r"Fashion-MNIST can't be downloaded .*127.0.0.1:9.* put the four IDX files into the sub-folder fashion-mnist of"
    with pytest.raises(DataError, match=message) as caught:
        load_images("fashion-mnist")
    assert str(tmp_path / "cache" / "fashion-mnist") in str(caught.value)


def test_fashion_folder_without_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "fashion-mnist").mkdir()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\[.gz\] is missing: put Fashion-MNIST's four IDX files into"):
        load_images("fashion-mnist")


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        (f"{LABELS}.gz", compress(struct.pack(">2I", 0x801, 10_000) + bytes(10_000)), "wrong SHA-256"),
        (LABELS, b"", "wrong header or length"),
        (LABELS, struct.pack(">2I", 0x801, 10_000) + bytes(9_999), "wrong header or length"),
        (LABELS, struct.pack(">2I", 0x801, 9_999) + bytes(10_000), "wrong header or length"),
        (LABELS, struct.pack(">2I", 0x801, 10_000) + bytes(9_999) + b"\x0a", "wrong labels"),
    ],
)
def test_altered_fashion_file(tmp_path, name, content, wrong):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} is not the published Fashion-MNIST file.*{wrong}"):
        read_idx(tmp_path, LABELS, "fashion-mnist")


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
        ({"num_classes": 2}, r"dataset.num_classes must be a whole number of at least 3 \(the highest label is 2\), got 2"),
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
