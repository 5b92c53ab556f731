import functools
import gzip
import hashlib
import http.server
import os
import shutil
import struct
import threading
import time
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import forget_datasets

from ram_envs import datasets, load_idx, mnist
from ram_envs.datasets import load_images
from ram_envs.mnist import DATA_FOLDER_VARIABLE, DataError, read_idx

pytestmark = pytest.mark.usefixtures("fresh_datasets")
REAL = os.environ.get(DATA_FOLDER_VARIABLE)
needs_mnist = pytest.mark.skipif(not REAL, reason=f"{DATA_FOLDER_VARIABLE} does not name MNIST's folder")
LABELS = "t10k-labels-idx1-ubyte"
PUBLISHED = dict(mnist.SOURCES)


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
def fashion(fashion_files, published_fashion, monkeypatch):
    """These files pass for the published ones."""
    digests = {
        name: tuple(hashlib.sha256(one[name]).hexdigest() for one in (published_fashion, fashion_files)) for name in fashion_files
    }
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
    (tmp_path / "digits.csv").touch()
    message = r"train-images-idx3-ubyte\[.gz\] is missing, there is digits.csv: put MNIST's four IDX files into"
    with pytest.raises(DataError, match=message):
        load_images("mnist", "train")
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"is missing, there is no such folder: put MNIST's four IDX files into"):
        load_images("mnist", "train")


@needs_mnist
def test_plain_and_compressed_files_are_read(folder):
    compressed = read_idx(folder, LABELS)
    (folder / LABELS).write_bytes(gzip.decompress((folder / f"{LABELS}.gz").read_bytes()))
    (folder / f"{LABELS}.gz").unlink()
    np.testing.assert_array_equal(read_idx(folder, LABELS), compressed)


@needs_mnist
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["t10k-{}-idx{}-ubyte", "MNIST/raw/t10k-{}-idx{}-ubyte", "raw/t10k-{}.idx{}-ubyte"])
def test_names_and_folders_of_other_unpackers(tmp_path, name, packed, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, "~/digits")  # No shell has expanded it.
    for kind in (("images", 3), ("labels", 1)):
        content = gzip.decompress((Path(REAL) / "t10k-{}-idx{}-ubyte.gz".format(*kind)).read_bytes())
        path = tmp_path / "digits" / (name.format(*kind) + ".gz" * packed)
        write(path.parent, {path.name: compress(content) if packed else content})  # Packed by another gzip than the published.
    assert load_images("mnist", "test").labels[:5].tolist() == [7, 2, 1, 0, 4]


@needs_mnist
def test_truncated_file(folder):
    path = folder / f"{LABELS}.gz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=rf"{LABELS}.gz can't be read .*put a whole file in its place"):
        read_idx(folder, LABELS)


@needs_mnist
def test_altered_file(folder):
    path = folder / f"{LABELS}.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[100] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match=rf"{LABELS} is not MNIST's, it is an IDX file of uint8 \(10000,\), .*altered"):
        read_idx(folder, LABELS)
    (folder / LABELS).write_bytes(content)  # A plain file is preferred, and checked as well.
    with pytest.raises(DataError, match=rf"{LABELS} is not MNIST's"):
        read_idx(folder, LABELS)


def test_no_idx_file_at_all(tmp_path):
    (tmp_path / f"{LABELS}.gz").write_bytes(b"<html>404</html>")
    with pytest.raises(
        DataError, match=rf"{LABELS} is not MNIST's, it is no IDX file.* put the published file, http.*{LABELS}.gz"
    ):
        read_idx(tmp_path, LABELS)


@pytest.mark.parametrize("size", [10_000, 14_800])
def test_another_data_sets_file(tmp_path, size):
    """KMNIST's files have the names and the sizes of MNIST's, EMNIST's are often given those names."""
    write(tmp_path, {LABELS: struct.pack(">2I", 0x801, size) + bytes(size)})
    with pytest.raises(DataError, match=rf"IDX file of uint8 \({size},\).* another data set's is loaded by .*load_idx") as caught:
        read_idx(tmp_path, LABELS)
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("header", [struct.pack(">2I", 0x801, 10_000), struct.pack(">2I", 0x801, 2**32 - 1), b"\0" * 8])
def test_a_gzip_bomb_is_not_unpacked(tmp_path, header):
    write(tmp_path, {f"{LABELS}.gz": compress(header + bytes(2**25))})
    tracemalloc.start()
    with pytest.raises(DataError, match="is not MNIST's"):
        read_idx(tmp_path, LABELS)
    if header[4:] == b"\0\0\x27\x10":
        with pytest.raises(DataError, match="truncated or too long"):
            load_idx(tmp_path / f"{LABELS}.gz", tmp_path / f"{LABELS}.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21


def test_any_pair_of_idx_files(tmp_path):
    images, labels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4), np.array([5, 700], ">i2")
    content = {"i": struct.pack(">4I", 0x803, 2, 3, 4) + images.tobytes(), "l": struct.pack(">2I", 0xB01, 2) + labels.tobytes()}
    write(tmp_path, content)
    write(tmp_path, {name: compress(one) for name, one in content.items()}, ".gz")
    for ending in ("", ".gz"):
        loaded = load_idx(str(tmp_path / f"i{ending}"), tmp_path / f"l{ending}")
        np.testing.assert_array_equal(loaded[0], images)
        assert loaded[0].dtype == np.uint8 and loaded[1].tolist() == [5, 700]
    with pytest.raises(DataError, match=r"must hold \(M, H, W\) and \(M,\), got \(2,\) and \(2, 3, 4\)"):
        load_idx(tmp_path / "l", tmp_path / "i")
    with pytest.raises(DataError, match=r"none can't be read"):
        load_idx(tmp_path / "none", tmp_path / "l")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX file"),
        (b"\0\0\x08", "no IDX file"),
        (struct.pack(">I", 0x800), "no IDX file"),  # Of no axes.
        (struct.pack(">6I", 0x805, 1, 1, 1, 1, 1) + b"\0", "no IDX file"),  # Of five.
        (struct.pack(">2I", 0xA01, 1) + b"\0", "no IDX file"),  # There is no such type.
        (struct.pack(">2I", 0x803, 1), "no IDX file"),
        (struct.pack(">2I", 0x801, 3) + bytes(2), r"uint8 \(3,\), but truncated or too long"),
        (struct.pack(">2I", 0x801, 3) + bytes(4), r"uint8 \(3,\), but truncated or too long"),
        (struct.pack(">2I", 0xD01, 3) + bytes(3), r"float32 \(3,\), but truncated or too long"),
        (struct.pack(">4I", 0x803, *[2**32 - 1] * 3), "truncated or too long"),
    ],
)
def test_wrong_idx_files(tmp_path, content, message):
    write(tmp_path, {"one": content})
    with pytest.raises(DataError, match=f"one is .*{message}"):
        load_idx(tmp_path / "one", tmp_path / "one")


def test_mirrors_are_encrypted():
    for source in PUBLISHED.values():
        assert all(mirror.startswith("https://") for mirror in source.mirrors)


def test_a_mirror_that_drips_is_left(tmp_path, monkeypatch):
    """A byte now and then never is the timeout of a read: the next mirror is tried."""

    class Drip(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200), self.send_header("Content-Length", "1000"), self.end_headers()
            for _ in range(50):
                self.wfile.write(b"x"), time.sleep(0.02)

        def log_message(self, *args):
            pass

    monkeypatch.delenv(DATA_FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(mnist, "_PATIENCE", 0.2)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drip)
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_mirrors(monkeypatch, f"http://127.0.0.1:{server.server_port}/", "http://127.0.0.1:9/")
    with pytest.raises(DataError, match=r"slower than 20000 bytes a second; .*:9/: ConnectionError"):
        load_images("fashion-mnist")
    server.shutdown()
    server.server_close()
    assert not any((tmp_path / "cache" / "fashion-mnist").iterdir())


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE, raising=False)
    (tmp_path / "cache").touch()  # A file, where a folder should be made.
    with pytest.raises(
        DataError, match=rf"MNIST can't be downloaded to .* put MNIST's four .* that {DATA_FOLDER_VARIABLE} names"
    ):
        load_images("mnist")


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


@pytest.mark.parametrize("place", ["fashion-mnist", "FashionMNIST/raw"])
def test_fashion_lies_in_its_subfolder(tmp_path, fashion, fashion_files, place, monkeypatch):
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    write(tmp_path / place, fashion_files)
    check_fashion_splits()


def test_fashion_has_no_stand_in(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA_FOLDER_VARIABLE, raising=False)
    message = (
        r"Fashion-MNIST can't be downloaded .*127.0.0.1:9.* put Fashion-MNIST's four .* into the sub-folder fashion-mnist of"
    )
    with pytest.raises(DataError, match=message) as caught:
        load_images("fashion-mnist")
    assert str(tmp_path / "cache" / "fashion-mnist") in str(caught.value)


def test_fashion_folder_without_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "fashion-mnist").mkdir()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\[.gz\] is missing, there is nothing: put Fashion-MNIST's"):
        load_images("fashion-mnist")


@pytest.mark.parametrize("packed", [True, False])
def test_altered_fashion_file(tmp_path, packed):
    """Of the right length, with labels in range."""
    content = struct.pack(">2I", 0x801, 10_000) + bytes(10_000)
    write(tmp_path, {LABELS: compress(content) if packed else content}, ".gz" * packed)
    with pytest.raises(DataError, match=rf"{LABELS} is not Fashion-MNIST's"):
        read_idx(tmp_path, LABELS, "fashion-mnist")
