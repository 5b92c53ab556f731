import functools
import gzip
import http.server
import os
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from ram_envs import datasets
from ram_envs.datasets import DATA_FOLDER_VARIABLE, DataError, load_images, read_idx

REAL = os.environ.get(DATA_FOLDER_VARIABLE)
needs_mnist = pytest.mark.skipif(not REAL, reason=f"{DATA_FOLDER_VARIABLE} does not name MNIST's folder")
LABELS = "t10k-labels-idx1-ubyte"


def forget():
    datasets._load.cache_clear()
    datasets._fetch_mnist.cache_clear()


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Nothing loaded before, a cache of the test's own, no mirror."""
    forget()
    monkeypatch.setattr(datasets, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(datasets, "MIRRORS", ("http://127.0.0.1:9/",))
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
    monkeypatch.setattr(datasets, "MIRRORS", (f"http://127.0.0.1:{server.server_port}/",))
    yield served
    server.shutdown()
    server.server_close()


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
    assert len(list((tmp_path / "cache").iterdir())) == 4
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
    assert not any((tmp_path / "cache").iterdir())


@needs_mnist
def test_second_mirror_helps(mirror, monkeypatch):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE)
    monkeypatch.setattr(datasets, "MIRRORS", ("http://127.0.0.1:9/", *datasets.MIRRORS))
    for file in Path(REAL).glob("*.gz"):
        shutil.copy(file, mirror)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_images("mnist", "test").name == "mnist"


def test_damaged_cache_that_cannot_be_mended(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE, raising=False)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "train-images-idx3-ubyte.gz").write_bytes(b"half a file")
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
    with pytest.raises(ValueError, match="dataset must be one of"):
        load_images("mnits")
    with pytest.raises(ValueError, match="split must be one of"):
        load_images("mnist-5k", "valid")
