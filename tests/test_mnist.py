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

import numpy as np
import pytest
from conftest import forget_datasets

from ram_envs import datasets, mnist
from ram_envs.datasets import load_images
from ram_envs.mnist import DATA_FOLDER_VARIABLE, DataError, read_idx

pytestmark = pytest.mark.usefixtures("fresh_datasets")
REAL = os.environ.get(DATA_FOLDER_VARIABLE)
needs_mnist = pytest.mark.skipif(not REAL, reason=f"{DATA_FOLDER_VARIABLE} does not name MNIST's folder")
LABELS = "t10k-labels-idx1-ubyte"


def use_mirrors(monkeypatch, *mirrors):
    for name, source in mnist.SOURCES.items():
        monkeypatch.setitem(mnist.SOURCES, name, replace(source, mirrors=mirrors))


def compress(content):
    return gzip.compress(content, compresslevel=1, mtime=0)


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
    forget_datasets()
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
    forget_datasets()
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
